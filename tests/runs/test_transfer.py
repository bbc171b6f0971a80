"""From a trained network: its classifier is fitted first, then all layers are trained."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import resnets
from resnets.commands.train import recipe_of
from resnets.errors import UsageError
from resnets.runs.job import Job, new_job
from resnets.shipped import shipped
from resnets.training import head
from resnets.training.head import HeadFirstTrainer
from resnets.training.named_recipes import RECIPES
from resnets.training.recipe import Recipe
from tests.in_process import call

START = "resnet14_cifar10"


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESNETS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of rows of each fit of a classifier."""
    counts: list[int] = []
    fit = head._fit_classifier

    def counted(features: Any, *rest: Any, **keywords: Any) -> Any:
        counts.append(len(features))
        return fit(features, *rest, **keywords)

    monkeypatch.setattr(head, "_fit_classifier", counted)
    return counts


def trained(photos: Path, **changes: Any) -> resnets.Run:
    options = {"start": START, "epochs": 1, "report": False, "output": False, "progress": False}
    return resnets.train(photos, **(options | changes))


def test_the_classifier_is_fitted_and_the_other_layers_are_the_start_networks(
    photos: Path, fits: list[int]
) -> None:
    """At a rate of 0 nothing else changes; a fresh classifier would be right for a third."""
    run = trained(photos, learning_rate=0.0, batch_norm_images=0)
    start = resnets.load(START).network
    assert fits == [60]  # training images, as they are
    for name, value in run.model.network.named_parameters():
        if not name.startswith("fc."):
            assert torch.equal(value, start.get_parameter(name)), name
    accuracy = resnets.evaluate(run.model, photos, split="all").metrics.top1
    assert accuracy.count / accuracy.total > 0.6


@pytest.mark.soak
def test_a_stopped_run_goes_on_with_the_classifier_it_has(
    photos: Path, fits: list[int], tmp_path: Path
) -> None:
    """It needs the network that it started from no more."""

    def stop(record: object) -> None:
        if isinstance(record, resnets.Step) and record.step == 2:
            raise resnets.StopTraining

    unbroken = trained(photos, freeze=1)
    fits.clear()
    start = tmp_path / "start.safetensors"
    shutil.copy(shipped(START), start)
    trained(photos, start=start, freeze=1, output=tmp_path / "run", callbacks=[stop])
    start.write_bytes(b"damaged")
    resumed = resnets.resume(tmp_path / "run", progress=False)
    assert len(fits) == 1
    for name, value in unbroken.model.network.state_dict().items():
        assert torch.equal(value, resumed.model.network.state_dict()[name]), name


def test_a_classifier_for_the_same_classes_is_kept(
    photos: Path, fits: list[int], tmp_path: Path
) -> None:
    trained(photos, output=tmp_path / "run")
    fits.clear()
    trained(photos, start=tmp_path / "run" / "model.safetensors")
    assert fits == []


def test_statistics_of_frozen_batch_norms_do_not_change(photos: Path) -> None:
    run = trained(photos, freeze=1, freeze_statistics=False)
    start = resnets.load(START).network.state_dict()
    for name, value in run.model.network.state_dict().items():
        if not name.startswith(("layer2.", "layer3.", "fc.")):
            assert torch.equal(value, start[name]), name
        elif name.endswith("running_mean"):
            assert not torch.equal(value, start[name]), name


def test_of_few_images_all_batch_norms_keep_their_statistics(photos: Path) -> None:
    run = trained(photos, epochs=1)
    start = resnets.load(START).network.state_dict()
    assert run.description.recipe["freeze_statistics"]
    for name, value in run.model.network.state_dict().items():
        unchanged = torch.equal(value, start[name])
        assert unchanged == name.endswith(("running_mean", "running_var", "tracked")), name


def test_without_a_network_to_start_from_it_is_refused(photos: Path) -> None:
    for changes in ({"recipe": "transfer"}, {"fit_head_first": True}):
        with pytest.raises(UsageError, match="start"):
            trained(photos, start=None, **changes)


def test_all_processes_get_what_the_first_has_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others read no features, and take what the first one sends."""

    class Second(HeadFirstTrainer):
        def __init__(self) -> None:
            self.batches = type("", (), {"process": type("", (), {"rank": 1})})  # type: ignore
            self.network = torch.nn.ModuleDict({"fc": torch.nn.Linear(2, 3)})

    sent = torch.arange(6.0).view(3, 2), torch.ones(3)
    monkeypatch.setattr(head, "from_first", lambda _: [each.numpy() for each in sent])
    trainer = Second()
    assert list(trainer.fit_head()) == []
    assert torch.equal(trainer.network.get_parameter("fc.weight"), sent[0])
    assert torch.equal(trainer.network.get_parameter("fc.bias"), sent[1])


def _recipes(words: list[str], **changes: Any) -> Iterator[Recipe]:
    """By the flags, and by the keywords that mean the same."""
    yield recipe_of(words)
    yield new_job("digits", "auto", changes.pop("recipe", None), changes).recipe


def test_transfer_is_the_recipe_of_whoever_names_a_start_network_and_no_recipe() -> None:
    assert all(r.fit_head_first for r in _recipes(["--from", "a.safetensors"], start="a"))
    assert all(r == RECIPES["quick"] for r in _recipes([]))
    words = ["--from", "a.safetensors", "--recipe", "quick"]
    assert not any(r.fit_head_first for r in _recipes(words, start="a", recipe="quick"))


def test_a_run_from_before_this_recipe_repeats_with_its_own(tmp_path: Path) -> None:
    config = Job(data="digits", start="a.safetensors").to_toml().splitlines()
    earlier = [line for line in config if not line.startswith("fit_head_first")]
    assert len(earlier) == len(config) - 1
    (tmp_path / "config.toml").write_text("\n".join(earlier), encoding="utf-8")
    assert Job.of_run(tmp_path) == Job(data="digits", start="a.safetensors")
    words = ["--from", "a.safetensors", "--recipe", str(tmp_path / "config.toml")]
    assert not recipe_of(words).fit_head_first


def test_one_step_does_not_end_a_run_in_nan(tmp_path: Path) -> None:
    """At a rate that does, without clipping; there is no command that would lead there again."""
    words = ["train", "digits", "--from", START, "--image-size", "16", "--learning-rate", "1"]
    words += ["--batch-size", "16", "--steps", "30", "--no-report"]
    clipped = call(*words, "--output", tmp_path / "clipped")
    assert clipped.returncode == 0, clipped.stderr
    words += ["--clip-norm", "0", "--checkpoint-every", "1"]
    ended = call(*words, "--output", tmp_path / "ended")
    assert ended.returncode == 1
    assert "the loss is nan" in ended.stderr
    assert "--resume" not in ended.stderr
