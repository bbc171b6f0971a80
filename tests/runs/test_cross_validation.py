"""`--folds`: each image is predicted by a network that was trained without it, all images train."""

from pathlib import Path
from typing import Any

import pytest
import torch

import resnets
from resnets.errors import UsageError
from resnets.networks import ResNet
from resnets.runs.run import Run


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESNETS_CACHE", str(tmp_path / "cache"))


FIT = {"start": "resnet14_cifar10", "freeze": "all", "report": False, "folds": 3}


def test_the_estimate_is_that_of_the_folds_together(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed, embedded = ResNet.embed, []

    def counted(self: ResNet, images: torch.Tensor) -> torch.Tensor:
        embedded.append(len(images))
        return embed(self, images)

    monkeypatch.setattr(ResNet, "embed", counted)
    run = resnets.train(photos, output=tmp_path / "run", **(FIT | {"report": True}))
    assert sum(embedded) == 2 * 75  # each image once, and once mirrored, whatever the folds
    folds = [Run.open(tmp_path / "run" / f"fold-{fold}") for fold in (1, 2, 3)]
    parts = [fold.description.metrics["test"]["top1"] for fold in folds]
    pooled = run.description.metrics["cross_validation"]
    assert pooled["top1"]["total"] == sum(part["total"] for part in parts) == 75
    assert pooled["top1"]["count"] == sum(part["count"] for part in parts)
    assert sum(row["images"] for row in pooled["classes"].values()) == 75
    assert set(run.description.metrics) == {"cross_validation"}  # nothing else was measured
    assert run.metrics["cross_validation_accuracy"] == pooled["top1"]["count"] / 75
    for fold in folds:
        assert {8, 9} >= set(fold.description.data["counts"]["test"].values())  # of 25 a class
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "cross-validation" in page


def test_the_file_says_how_it_was_measured_and_that_all_images_are_known(photos: Path) -> None:
    run = resnets.train(photos, output=False, **FIT)
    calibration = run.description.calibration
    assert (calibration["total"], calibration["promised"]) == (75, False)
    assert "cross-validation" in calibration["images"]
    with pytest.raises(UsageError, match="none of the 75 images is new"):
        resnets.evaluate(run, photos)


def test_a_run_goes_on_in_the_fold_in_which_it_was_stopped(photos: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"network": "resnet14", "image_size": 8, "report": False}
    options |= {"steps": 3, "batch_size": 16, "folds": 2, "checkpoint_every": "1"}
    options |= {"image_digests": False}
    whole = resnets.train(photos, output=tmp_path / "whole", **options)
    steps = []

    def stop(record: object) -> None:
        if isinstance(record, resnets.Step):
            steps.append(record.step)
            if len(steps) == 5:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        resnets.train(photos, output=tmp_path / "run", callbacks=[stop], **options)
    assert steps == [1, 2, 3, 1, 2]
    assert not (tmp_path / "run" / "model.safetensors").exists()
    steps.clear()
    again = resnets.resume(tmp_path / "run", callbacks=[stop])
    assert steps == [3, 1, 2, 3]
    assert again.metrics == whole.metrics
    with pytest.raises(UsageError, match="none of the 75 images is new"):
        resnets.evaluate(again, photos)  # known by drawing the folds again, without digests
    for name, weight in again.model.network.state_dict().items():
        assert torch.equal(weight, whole.model.network.state_dict()[name])
    resnets.train(photos, output=tmp_path / "run", overwrite=True, **(options | {"folds": None}))
    assert not list((tmp_path / "run").glob("fold-*"))


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"folds": 1}, "folds"),
        ({"folds": 76}, "75 folds"),
        ({"validation": 0.3}, "validation"),
        ({"freeze": None, "patience": 2}, "patience"),
        ({"other": "elsewhere"}, "other"),
    ],
)
def test_what_does_not_go_with_folds_is_refused(
    photos: Path, tmp_path: Path, changes: dict[str, Any], word: str
) -> None:
    with pytest.raises(UsageError, match=word):
        resnets.train(photos, output=tmp_path / "run", **(FIT | changes))
    assert not (tmp_path / "run").exists()


def test_what_the_start_network_has_seen_is_in_no_fold(photos: Path, tmp_path: Path) -> None:
    start = resnets.train(photos, output=tmp_path / "start", **(FIT | {"folds": None}))
    seen = start.description.data["counts"]
    run = resnets.train(photos, output=False, **(FIT | {"start": tmp_path / "start"}))
    top1 = run.description.metrics["cross_validation"]["top1"]
    assert top1["total"] == sum(seen["test"].values()) == 9
