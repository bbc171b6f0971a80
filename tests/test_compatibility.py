"""Files and runs of earlier versions still load, predict, evaluate and resume."""

import shutil
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from resnets import evaluate, load, predict
from resnets.commands.arguments import renamed
from resnets.data.sources.opening import open_source
from resnets.errors import RenamedWarning
from resnets.evaluation.exposure import redraw_splits
from resnets.fields import from_table
from resnets.model_file import read_description
from resnets.runs.job import Job, changed_job
from resnets.training.recipe import EARLIER_NAMES, Recipe
from tests.fixtures.make import bitmaps
from tests.in_process import call

WRITTEN = Path(__file__).parent / "fixtures" / "before_trust"
DATA = {"digits": "digits", "patient": "bitmaps", "averaged": "digits"}


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data and a copy of all that the earlier version wrote."""
    folder = tmp_path_factory.mktemp("earlier")
    bitmaps(folder / "bitmaps")
    shutil.copytree(WRITTEN, folder, dirs_exist_ok=True)
    return folder


@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("ending", ["safetensors", "onnx", "xml"])
def test_files_measure_what_they_say_of_themselves(
    name: str, ending: str, beside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(beside)
    model = f"{name}.{ending}"
    expected = read_description(f"{name}.safetensors").metrics["test"]["top1"]
    top1 = evaluate(model, DATA[name]).metrics.top1
    assert (top1.count, top1.total) == (expected["count"], expected["total"])


@pytest.mark.parametrize("name", DATA)
def test_files_of_all_kinds_predict_alike(name: str, beside: Path) -> None:
    images = [beside / "bitmaps/left/0.bmp", beside / "bitmaps/right/1.bmp"]
    predictions = [
        predict(beside / f"{name}.{ending}", images) for ending in ("safetensors", "onnx", "xml")
    ]
    for others in predictions[1:]:
        for mine, theirs in zip(predictions[0], others, strict=True):
            assert mine.top[0][0] == theirs.top[0][0]
            assert mine.probability == pytest.approx(theirs.probability, abs=1e-4)


@pytest.mark.parametrize("name", DATA)
def test_files_load(name: str) -> None:
    assert load(WRITTEN / f"{name}.safetensors").network is not None


@pytest.mark.parametrize("name", DATA)
def test_the_images_and_splits_of_earlier_trainings_are_known_again(
    name: str, beside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(beside)
    description = read_description(f"{name}.safetensors")
    learnt, splits = redraw_splits(open_source(DATA[name], to_learn=False), description)
    assert learnt
    assert splits.split["counts"] == description.data["counts"]
    assert splits.fingerprint == description.data["fingerprint"]


@pytest.mark.parametrize("name", DATA)
def test_workers_of_earlier_runs_and_files_stay_one_per_core(name: str) -> None:
    run = WRITTEN / f"stopped-{name}"
    assert "\nworkers = 0\n" in (run / "config.toml").read_text(encoding="utf-8")
    job = Job.of_run(run)
    assert job.recipe.workers is None
    assert Job.from_toml(job.to_toml()) == job
    stored = read_description(WRITTEN / f"{name}.safetensors").recipe
    assert stored["workers"] == 0
    assert from_table(Recipe, stored).workers is None


def distance(
    state: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor], keys: Iterable[str]
) -> float:
    """How far two networks are from each other in some of their weights."""
    return sum((state[key].double() - other[key]).square().sum().item() for key in keys) ** 0.5


@pytest.mark.slow
@pytest.mark.parametrize("name", DATA)
def test_stopped_runs_end_with_the_weights_of_the_unbroken_run(name: str, beside: Path) -> None:
    run = f"stopped-{name}"
    state = max((beside / run / "checkpoints").glob("*.pt"))  # the newest: names have the step
    stopped = torch.load(state, weights_only=True)["trainer"]["network"]
    ended = call("train", "--resume", run, cwd=beside)
    assert ended.returncode == 0, ended.stderr
    resumed = load_file(beside / run / "model.safetensors")
    unbroken = load_file(WRITTEN / f"{name}.safetensors")
    assert resumed.keys() == unbroken.keys()
    weights = [key for key in unbroken if key.endswith(("weight", "bias"))]
    # equal to the bit on the same processor; another one rounds otherwise, which steps multiply
    way = distance(stopped, unbroken, weights)
    assert distance(resumed, unbroken, weights) < 0.25 * way


@pytest.mark.parametrize(("name", "now"), EARLIER_NAMES.items())
def test_settings_of_a_recipe_are_taken_by_their_earlier_names_with_a_warning(
    name: str, now: str
) -> None:
    expected = Recipe(**{now: 0.625})
    flag = f"--{name.replace('_', '-')}"
    with pytest.warns(RenamedWarning, match=name):
        assert Recipe.from_toml(f"format = {Recipe.FORMAT}\n{name} = 0.625") == expected
    with pytest.warns(RenamedWarning, match=name):
        assert changed_job(Job(), {name: 0.625}).recipe == expected
    with pytest.warns(RenamedWarning, match=flag):
        words = renamed("train", ["digits", flag, "0.625"])
    assert words == ["digits", f"--{now.replace('_', '-')}", "0.625"]
    with pytest.warns(RenamedWarning, match=flag):
        assert renamed("train", [f"{flag}=0.625"]) == [f"--{now.replace('_', '-')}=0.625"]


def test_recipes_in_runs_and_model_files_of_earlier_versions_keep_their_settings() -> None:
    recipe = Job.of_run(WRITTEN / "stopped-digits").recipe
    text = (WRITTEN / "stopped-digits" / "config.toml").read_text(encoding="utf-8")
    values = tomllib.loads(text)["recipe"]
    for name, now in EARLIER_NAMES.items():
        assert getattr(recipe, now) == values.get(name, getattr(Recipe(), now))
    stored = read_description(WRITTEN / "digits.safetensors").recipe
    assert {*EARLIER_NAMES} & {*stored}
    assert from_table(Recipe, stored).gamma == stored["drop"]
    assert from_table(Recipe, stored).batch_norm_images == recipe.batch_norm_images == 0
