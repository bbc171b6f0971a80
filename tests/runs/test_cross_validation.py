"""`--folds`: each image is predicted by a network that was trained without it, all images train."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import resnets
from resnets.data.sources.opening import open_data, open_source
from resnets.errors import ContentError, UsageError
from resnets.evaluation.exposure import redraw_splits
from resnets.evaluation.familiarity import class_directions, familiarity_of
from resnets.evaluation.fit_familiarity import features_by
from resnets.evaluation.outputs import choose_images
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
    # each image once, and once mirrored, whatever the folds; once more the mirrored batches that
    # lack images of the first fold, as batches are computed whole
    assert 2 * 75 <= sum(embedded) < 3 * 75
    folds = [Run.open(tmp_path / "run" / f"fold-{fold}") for fold in (1, 2, 3)]
    parts = [fold.description.metrics["test"]["top1"] for fold in folds]
    pooled = run.description.metrics["cross_validation"]
    assert pooled["top1"]["total"] == sum(part["total"] for part in parts) == 75
    assert pooled["top1"]["count"] == sum(part["count"] for part in parts)
    assert [total for _, total in pooled["classes"]] == [25, 25, 25]
    assert sum(right for right, _ in pooled["classes"]) == pooled["top1"]["count"]
    assert set(run.description.metrics) == {"cross_validation"}  # nothing else was measured
    assert run.metrics["cross_validation_accuracy"] == pooled["top1"]["count"] / 75
    for fold in folds:
        assert {8, 9} >= set(fold.description.data["counts"]["test"].values())  # of 25 a class
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "cross-validation" in page


@pytest.mark.soak
def test_the_file_says_how_it_was_measured_and_that_all_images_are_known(photos: Path) -> None:
    run = resnets.train(photos, output=False, **FIT)
    calibration = run.description.calibration
    assert (calibration["total"], calibration["promised"]) == (75, False)
    assert "cross-validation" in calibration["images"]
    with pytest.raises(UsageError, match="none of the 75 images is new") as caught:
        resnets.evaluate(run, photos)
    right = run.description.metrics["cross_validation"]["top1"]["count"]
    assert f"({right}/75, " in str(caught.value)  # what the file holds in its place
    for split in ("auto", "all"):
        with pytest.raises(UsageError, match="none of the 75 images is new") as caught:
            resnets.calibrate(run, photos, split=split)
        assert "split" not in str(caught.value)  # no split of this data has an image to calibrate
        assert "max-error" in str(caught.value)  # of what the folds measured
    new = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    for changes in ({}, {"fold": 1}, {"group_by": "column:patient"}):  # fewer images than folds
        description = replace(run.description, data=run.description.data | changes)
        model = replace(run.model, description=description)
        evaluation = resnets.evaluate(model, (new, ["level", "upright"]))
        assert evaluation.metrics.top1.total == 2
    for damage in (
        {"data": {"start_network": "x"}},
        {"recipe": {"validation": "x"}},
        {"recipe": {"seed": []}},
    ):
        model = replace(run.model, description=replace(run.description, **damage))
        with pytest.raises(ContentError, match="damaged"):
            resnets.evaluate(model, (new, ["level", "upright"]))


@pytest.mark.soak
@pytest.mark.parametrize("freeze", ["all", None])
def test_what_the_folds_held_out_chooses_what_is_unfamiliar(
    photos: Path, tmp_path: Path, freeze: str | None
) -> None:
    how = FIT | {"freeze": freeze} | ({} if freeze else {"epochs": 1})
    run = resnets.train(photos, output=tmp_path / "run", progress=False, **how)
    known = familiarity_of(run.description.familiarity)
    assert known is not None
    assert (known.folds, known.lost.total) == (3, 75)
    assert known.lost.count == 3  # 5 % of 75, rounded down
    # the scores of each fold's images, by its own network and its own training images
    scores: list[float] = []
    for fold in (1, 2, 3):
        model = Run.open(tmp_path / "run" / f"fold-{fold}").model
        same, splits = redraw_splits(open_source(str(photos), to_learn=False), model.description)
        assert same
        assert splits.test is not None
        look = features_by(model)
        means = class_directions(look(splits.train), splits.train.labels)
        features = look(splits.test)
        units = features / np.linalg.norm(features, axis=1, keepdims=True)
        scores += (units @ means.T).max(axis=1).tolist()
    assert sum(score < known.threshold for score in scores) == known.lost.count
    # other things are recognised, as by a network with validation images
    noise = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), np.uint8)
    assert {p.status for p in resnets.predict(run, noise)} >= {"unfamiliar"}
    # the centre, by which a server notices drift, is known where no feature has learned an image
    assert (known.center is None) == (freeze is None)


def test_classes_of_one_image_each_leave_nothing_to_judge_the_unfamiliar_by(
    tmp_path: Path, draw_noise: Callable[..., Path]
) -> None:
    for seed, name in enumerate("abcd"):
        draw_noise(tmp_path / "data" / name / "0.png", 16, 16, seed)
    run = resnets.train(tmp_path / "data", output=tmp_path / "run", **FIT)
    assert run.description.metrics["cross_validation"]["top1"]["total"] == 4
    assert not run.description.familiarity


def test_a_validation_split_that_is_divided_with_the_rest_is_told(tmp_path: Path) -> None:
    images, labels = few()
    for number, (pixels, label) in enumerate(zip(images, labels, strict=True)):
        for split in ("train", "val"):
            place = tmp_path / "data" / split / str(label)
            place.mkdir(parents=True, exist_ok=True)
            if split == "train" or number < 4:
                Image.fromarray(pixels ^ (split == "val")).save(place / f"{number}.png")
    lines: list[str] = []
    run = resnets.train(
        tmp_path / "data", Linear(), output=False, callbacks=[lines_into(lines)], **TINY
    )
    about_val = [line for line in lines if "validation split" in line]
    assert len(about_val) == 1
    assert "4 images" in about_val[0]
    for file in (tmp_path / "data").glob("*/*/*.png"):  # other images: they are in no fold
        Image.fromarray(np.asarray(Image.open(file)) // 2).save(file)
    assert not choose_images(tmp_path / "data", run.description, "auto").warnings


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


@pytest.mark.soak
def test_what_the_start_network_has_seen_is_in_no_fold(photos: Path, tmp_path: Path) -> None:
    start = resnets.train(photos, output=tmp_path / "start", **(FIT | {"folds": None}))
    seen = start.description.data["counts"]
    run = resnets.train(photos, output=False, **(FIT | {"start": tmp_path / "start"}))
    top1 = run.description.metrics["cross_validation"]["top1"]
    assert top1["total"] == sum(seen["test"].values()) == 9
    with pytest.raises(UsageError, match="none of the 60 images is new"):
        resnets.evaluate(run, open_data(photos).train)
    with pytest.raises(UsageError, match=r"9 images .*66 more were seen .*start.* 9 folds"):
        resnets.train(photos, output=False, **(FIT | {"start": tmp_path / "start", "folds": 10}))


class Linear(torch.nn.Module):
    """A network of the user's own."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = torch.nn.Linear(3 * 64, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.fc(images.flatten(1))
        return scores


TINY: dict[str, Any] = {"image_size": 8, "steps": 2, "batch_size": 4, "folds": 2}
TINY |= {"report": False, "progress": False}


def few() -> tuple[np.ndarray, np.ndarray]:
    """12 images of two classes."""
    images = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), np.uint8)
    return images, np.array([0, 1] * 6)


def lines_into(lines: list[str]) -> Callable[[object], None]:
    def note(record: object) -> None:
        if isinstance(record, resnets.Notice):
            lines.append(record.text)

    return note


def test_a_fold_that_a_callback_stops_is_not_measured_and_goes_on(tmp_path: Path) -> None:
    def stop(record: object) -> None:
        if isinstance(record, resnets.Step):
            raise resnets.StopTraining("it is late")

    torch.manual_seed(0)
    network = Linear()
    whole = resnets.train(few(), network, output=False, **TINY)
    torch.manual_seed(0)
    with pytest.raises(UsageError, match=r"stopped fold 1 .it is late.*nothing was written"):
        resnets.train(few(), Linear(), output=False, callbacks=[stop], **TINY)
    torch.manual_seed(0)
    network = Linear()
    with pytest.raises(UsageError, match=r"stopped fold 1 .*resume"):
        resnets.train(few(), network, output=tmp_path / "run", callbacks=[stop], **TINY)
    assert not (tmp_path / "run" / "fold-2").exists()
    lines: list[str] = []
    again = resnets.resume(
        tmp_path / "run",
        data=few(),
        network=network,
        progress=False,
        callbacks=[lines_into(lines)],
    )
    assert again.metrics == whole.metrics
    assert not any("from the beginning" in line for line in lines)
    assert any("not measured itself" in line for line in lines)


def test_a_lost_fold_is_not_trained_from_weights_that_know_its_images(tmp_path: Path) -> None:
    network = Linear()
    whole = resnets.train(few(), network, output=tmp_path / "run", **TINY)
    options: dict[str, Any] = {"data": few(), "network": network, "progress": False}
    assert resnets.resume(tmp_path / "run", **options).metrics == whole.metrics
    shutil.rmtree(tmp_path / "run" / "fold-2")
    with pytest.raises(UsageError, match="fold-2"):
        resnets.resume(tmp_path / "run", **options)


def test_a_test_split_of_the_data_measures_the_network_that_is_kept(photos: Path) -> None:
    lines: list[str] = []
    run = resnets.train(
        open_data(photos, validation=0),
        output=False,
        callbacks=[lines_into(lines)],
        **(FIT | {"folds": 2}),
    )
    assert run.description.metrics["test"]["top1"]["total"] == 9
    assert not any("not measured itself" in line for line in lines)


def test_what_guessing_reaches_stands_beside_an_accuracy_that_is_no_better() -> None:
    """Labels at random, of which most are of one class."""
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (40, 8, 8, 3), np.uint8)
    lines: list[str] = []
    data = (pixels, (random.random(40) < 0.2).astype(int))
    resnets.train(data, output=False, callbacks=[lines_into(lines)], **TINY)
    share = np.bincount(data[1]).max() / 40
    (line,) = (line for line in lines if "most frequent class" in line and "guessing" in line)
    assert f"{share:.1%}".rstrip("%") in line.replace(" ", "")
