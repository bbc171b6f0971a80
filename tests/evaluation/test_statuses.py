"""The status of a prediction: what it says where no threshold could be reached."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from resnets import evaluate, load
from resnets.evaluation.calibration import calibrate
from resnets.evaluation.eager import Eager
from resnets.evaluation.explain import explain
from resnets.evaluation.other_images import Others
from resnets.evaluation.predict import Prediction, is_accepted
from resnets.evaluation.source import Source
from resnets.model_file import read_description
from tests.in_process import call

Untrained = Callable[..., Path]
IMAGES = np.random.default_rng(0).integers(0, 255, (4, 16, 16, 3), np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four images in a folder for each of two classes."""
    folder = tmp_path_factory.mktemp("data")
    for number, pixels in enumerate(IMAGES):
        path = folder / ("ant", "ok")[number % 2] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path)
    return folder


@pytest.fixture(scope="module")
def never(untrained: Untrained) -> Path:
    """A network without calibration, as converted checkpoints are, with a class called ok."""
    return untrained(("ant", "ok"))


def test_what_was_never_calibrated_is_neither_ok_nor_unsure(
    never: Path, folder: Path, tmp_path: Path
) -> None:
    rows = json.loads(call("predict", never, folder, "--json").stdout)
    assert [row["status"] for row in rows] == ["not calibrated"] * 4
    shown = call("predict", never, folder)
    assert shown.stdout.count("not calibrated") == 4
    assert "resnets calibrate" in shown.stderr
    assert call("predict", never, folder, "--csv").stdout.count(",not calibrated,") == 4
    table = tmp_path / "table.parquet"
    assert call("predict", never, folder, "--parquet", table).returncode == 0
    assert pq.read_table(table)["status"].to_pylist() == ["not calibrated"] * 4


def test_figures_count_it_apart(never: Path, folder: Path) -> None:
    evaluation = evaluate(never, folder)
    assert (evaluation.statuses.ok.count, evaluation.statuses.not_calibrated.count) == (0, 4)
    assert evaluation.statuses.wrong is None
    assert evaluation.to_dict()["status"]["not_calibrated"]["count"] == 4
    assert "not calibrated" in call("evaluate", never, folder).stdout
    assert "not calibrated" in call("compare", never, never, folder, "--latency", 0).stdout


def test_explained_images_have_it_too(never: Path) -> None:
    sources = [Source(str(number), image) for number, image in enumerate(IMAGES)]
    assert {each.prediction.status for each in explain(load(never), sources, side=32)} == {
        "not calibrated"
    }


def test_images_of_other_things_would_be_accepted_by_it(never: Path) -> None:
    others = Others.of(Eager(load(never)), [Source("a", IMAGES[0])], "things")
    assert (others.not_calibrated.count, others.ok.count) == (1, 0)
    assert "accepted" in others.in_words()


@pytest.mark.filterwarnings("ignore:Prediction.answer:DeprecationWarning")
def test_it_is_accepted_since_no_threshold_speaks_against_it() -> None:
    """`answer` gave the class of uncalibrated networks before there was such a status."""
    accepted = {"ok": True, "not calibrated": True, "unsure": False, "unfamiliar": False}
    statuses: Any = accepted
    assert {each: is_accepted(each) for each in statuses} == accepted
    assert Prediction("a.png", "ant", 0.5, "not calibrated").answer == "ant"


def test_unsure_says_that_no_probability_was_high_enough(
    untrained: Untrained, folder: Path
) -> None:
    for count, words in (10, "35 confident ones"), (20, "at most 2 % are wrong"):
        fitted = calibrate(np.eye(2)[[0, 1] * count], [1, 0] * count).to_dict()
        assert fitted["threshold"] is None
        shown = call("predict", untrained(("ant", "ok"), calibration=fitted), folder)
        assert shown.stdout.count("unsure") == 4
        assert words in shown.stderr


@pytest.mark.parametrize(
    ("calibration", "rule"),
    [
        ({}, "the status is not calibrated"),
        (calibrate(np.eye(2)[[0, 1] * 10], [1, 0] * 10).to_dict(), "the status is unsure"),
        (calibrate(np.eye(2)[[0, 1] * 20], [0, 1] * 20).to_dict(), "the status is ok from"),
    ],
)
def test_instructions_inside_an_exported_file_tell_the_rule(
    untrained: Untrained, calibration: dict[str, Any], rule: str
) -> None:
    from resnets.deployment.export.files import _instructions

    about = read_description(untrained(("ant", "ok"), calibration=calibration))
    assert rule in _instructions(about)
    assert ("calibrated, each row" in _instructions(about)) == bool(calibration)
