"""`--freeze all`: features are computed once, and the run is a run like any other."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import resnets
from resnets import model_file
from resnets.commands.train import main
from resnets.data.batches import EvaluationBatches
from resnets.data.labelled import LabelledImages
from resnets.errors import UsageError
from resnets.format import percent
from resnets.networks import ResNet
from resnets.runs import frozen_features
from resnets.runs.setup import Setup
from resnets.training.recipe import Recipe
from tests.processes import several
from tests.spread import spread


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RESNETS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "features"


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each call of the network's trunk got."""
    counts: list[int] = []
    embed = ResNet.embed

    def counted(self: ResNet, images: torch.Tensor) -> torch.Tensor:
        counts.append(len(images))
        return embed(self, images)

    monkeypatch.setattr(ResNet, "embed", counted)
    return counts


def fitted(photos: Path, **changes: Any) -> resnets.Run:
    options = {"start": "resnet14_cifar10", "freeze": "all", "report": False, "output": False}
    return resnets.train(photos, **(options | changes))


def test_only_the_classifier_changes_and_it_separates_the_classes(
    photos: Path, cache: Path
) -> None:
    run = fitted(photos)
    start = resnets.load("resnet14_cifar10").network.state_dict()
    for name, value in run.model.network.state_dict().items():
        if not name.startswith("fc."):
            assert torch.equal(value, start[name]), name
    assert run.metrics["validation_accuracy"] > 0.6
    seen = resnets.load("resnet14_cifar10").description.preprocessing
    assert run.model.description.preprocessing == seen


def test_features_are_computed_once(
    photos: Path, cache: Path, embedded: list[int], tmp_path: Path
) -> None:
    first = fitted(photos)
    files = {file: file.read_bytes() for file in cache.glob("*.npz")}
    assert len(files) == 2  # as they are, and mirrored
    images = sum(embedded)
    embedded.clear()
    second = fitted(photos)
    assert images == 2 * 60 + 6 + 9  # training images twice, validation and test images once
    assert sum(embedded) == 0
    for name, value in first.model.network.state_dict().items():
        assert torch.equal(value, second.model.network.state_dict()[name])
    fitted(photos, image_size=24)  # other pixels have other features
    assert sum(embedded) == images
    other = resnets.load("resnet14_cifar10")  # and so have other weights
    with torch.no_grad():
        next(iter(other.network.parameters())).mul_(2)
    model_file.save(tmp_path / "other.safetensors", other.network, other.description)
    fitted(photos, start=str(tmp_path / "other.safetensors"))
    assert sum(embedded) == 2 * images


def test_with_all_features_in_the_cache_no_image_is_read(
    photos: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither for a measurement by the network, which the features have already answered."""
    fitted(photos)
    read, in_order = [], Setup.in_order

    def noted(self: Setup, images: LabelledImages, size: int | None = None) -> EvaluationBatches:
        read.append(len(images))
        return in_order(self, images, size)

    monkeypatch.setattr(Setup, "in_order", noted)
    fitted(photos)
    assert read == []
    fitted(photos, follow_test=True)  # for a curve, by the network
    assert read == [9]


def test_a_pass_that_goes_on_computes_the_same_batches(
    photos: Path, cache: Path, embedded: list[int]
) -> None:
    """The last bits of a feature may depend on the images beside it."""
    first = fitted(photos, flip="none")
    batches = embedded[:]
    embedded.clear()
    for file in cache.glob("*.npz"):
        with np.load(file) as arrays:
            half = {name: arrays[name][::2] for name in arrays}
        np.savez(file, **half)
    second = fitted(photos, flip="none")
    assert embedded == batches
    assert torch.equal(first.model.network.fc.weight, second.model.network.fc.weight)


@pytest.mark.parametrize("content", spread([b"", b"PK\x03\x04 not really", b"\x93NUMPY"]))
def test_a_damaged_cache_costs_only_time(photos: Path, cache: Path, content: bytes) -> None:
    first = fitted(photos)
    for file in cache.glob("*.npz"):
        file.write_bytes(content)
    second = fitted(photos)
    assert torch.equal(first.model.network.fc.weight, second.model.network.fc.weight)


def test_a_finished_run_resumes_and_its_promise_counts_the_penalties(
    photos: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(photos), "--from", "resnet14_cifar10", "--freeze", "all", "--no-report"]
    assert main([*words, "--output", str(tmp_path / "run")]) == 0
    before = model_file.load(tmp_path / "run" / "model.safetensors")
    lines = capsys.readouterr().out
    assert "126 rows of features: 60 training images, each as it is and mirrored" in lines
    assert "accuracy 100.00 %" in lines
    assert "--freeze 2" not in lines  # there is nothing left to gain
    assert "batch_size" not in (tmp_path / "run" / "config.toml").read_text(encoding="utf-8")
    assert main(["--resume", str(tmp_path / "run")]) == 0
    assert "finished" in capsys.readouterr().out
    after = model_file.load(tmp_path / "run" / "model.safetensors")
    assert torch.equal(before.network.fc.weight, after.network.fc.weight)
    assert after.description.recipe["freeze"] == "all"
    assert (
        main(
            [
                *words,
                "--output",
                str(tmp_path / "again"),
                "--recipe",
                str(tmp_path / "run" / "config.toml"),
            ]
        )
        == 0
    )
    again = model_file.load(tmp_path / "again" / "model.safetensors")
    assert torch.equal(before.network.fc.weight, again.network.fc.weight)


def test_without_validation_images_the_training_images_choose_the_penalty(
    photos: Path, cache: Path
) -> None:
    run = fitted(photos, flip="none", validation=0.0)
    assert "validation_accuracy" not in run.metrics
    assert run.metrics["test_accuracy"] > 0.6
    assert len(list(cache.glob("*.npz"))) == 1  # without mirror images


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"start": None}, "--from|start"),
        ({"epochs": 3}, "epochs"),
        ({"patience": 2}, "patience"),
        ({"freeze": "some"}, "freeze"),
        ({"augmentation": lambda images: images}, "augmentation"),
        ({"learning_rate": 0.1, "batch_size": 8}, "batch_size.*learning_rate"),
        ({"mixup": 0.2}, "mixup"),
        ({"optimizer": "sgd"}, "optimizer.*would"),
    ],
)
def test_what_has_no_meaning_is_refused(
    photos: Path, cache: Path, changes: dict[str, Any], word: str
) -> None:
    with pytest.raises(UsageError, match=word):
        fitted(photos, **changes)


def test_a_flag_without_effect_is_refused_but_a_recipe_may_have_any(
    photos: Path, cache: Path, tmp_path: Path
) -> None:
    words = [str(photos), "--from", "resnet14_cifar10", "--freeze", "all"]
    with pytest.raises(UsageError, match="--label-smoothing"):
        main([*words, "--label-smoothing", "0.1", "--output", str(tmp_path / "run")])
    assert not (tmp_path / "run").exists()
    fitted(photos, recipe=Recipe(network="auto", learning_rate=0.5))


@pytest.mark.parametrize("network", [{"start": "resnet14_cifar10"}, {"network": "resnet20"}, {}])
def test_a_stage_that_is_missing_is_refused_before_the_data_is_read(
    network: dict[str, Any], photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resnets.runs.prepare.open_source", lambda *_, **__: pytest.fail("read"))
    with pytest.raises(UsageError, match=r"99.*from 0 \(the stem\) to [34]"):
        resnets.train(photos, freeze=99, output=False, **network)


def test_a_pass_that_is_stopped_goes_on_from_there(
    photos: Path, cache: Path, embedded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frozen_features, "_BATCH", 16)
    seen = []

    def stop(record: object) -> None:
        if isinstance(record, resnets.FeaturePass):
            seen.append(record)
            if len(seen) == 3:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fitted(photos, callbacks=[stop])
    assert [record.images for record in seen] == [16, 32, 48]
    assert {record.total for record in seen} == {126}  # 60 images in two views, and 6 in one
    assert all(record.mirrored for record in seen)
    assert all(record.images_per_second > 0 for record in seen)
    seen.clear()
    embedded.clear()
    fitted(photos, callbacks=[seen.append])
    passes = [record for record in seen if isinstance(record, resnets.FeaturePass)]
    assert (passes[0].images, passes[-1].images) == (48 + 16, 126)
    assert sum(embedded) == 126 - 48 + 9  # and the test images


@pytest.mark.slow
def test_several_processes_are_refused(photos: Path, cache: Path) -> None:
    """Each would see its own part of the features only."""
    words = [photos, "--from", "resnet14_cifar10", "--freeze", "all", "--output", cache / "run"]
    done = several("train", *words)
    assert done.returncode == 2
    assert "torchrun" in done.stderr
    assert not (cache / "run").exists()


def test_its_report_has_no_learning_curves_but_says_what_was_fitted(
    photos: Path, cache: Path, tmp_path: Path
) -> None:
    run = fitted(photos, output=tmp_path / "run", report=True)
    page = (tmp_path / "run/report.html").read_text(encoding="utf-8")
    curves = page.partition('<h2 id="curves">')[2].partition("</section>")[0]
    assert "<svg" not in curves
    assert "augmented images" not in curves
    assert "logistic regression" in curves
    (last,) = run.history.epochs
    assert percent(last["training"]["accuracy"]) in curves
    calibration = page.partition("<dt>Calibration error</dt>")[2].partition("</div>")[0]
    assert f"{run.description.metrics['test']['top1']['total']} images" in calibration
