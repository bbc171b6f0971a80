"""Notices about the start network and the length of a run."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import resnets
from resnets.cli import main
from resnets.data.augmentation.augmentation import Augmentation
from resnets.data.batches import ProcessRank
from resnets.runs.job import Job, changed_job, new_job
from resnets.runs.notices import (
    _too_few_steps,
    crops_in_words,
    enlarged_in_words,
    rate_without_optimizer,
)
from resnets.runs.prepare import prepare
from resnets.training.named_recipes import RECIPES
from resnets.training.recipe import Recipe

Draw = Callable[..., None]


@pytest.mark.parametrize(
    ("side", "changes", "warned"),
    [
        (96, {"steps": 4}, True),
        (96, {"steps": 4, "smallest_crop": 0}, False),  # crops as for small images
        (16, {"steps": 4}, False),
        (96, {"epochs": 10_000}, False),
    ],
)
def test_too_few_steps_from_scratch_are_noticed_with_what_would_help(
    side: int, changes: dict[str, Any], warned: bool, tmp_path: Path, draw_noise: Draw
) -> None:
    for seed in range(12):
        draw_noise(tmp_path / f"{'ab'[seed % 2]}/{seed}.png", side, side, seed)
    job = changed_job(Job(data=str(tmp_path), recipe=RECIPES["quick"]), changes)
    setup = prepare(job, None, torch.device("cpu"), ProcessRank(), lambda _: None)
    steps = setup.job.recipe.total_steps(1)
    lines = " ".join(_too_few_steps(setup, steps))
    assert ("--from" in lines and "--epochs" in lines and "chance" in lines) == warned
    recipe = replace(setup.job.recipe, network="resnet50")
    larger = replace(setup, job=replace(setup.job, recipe=recipe))
    assert ("--from resnet50" in " ".join(_too_few_steps(larger, steps))) == warned
    started = replace(setup, job=replace(setup.job, start="resnet20_cifar10"))
    assert not list(_too_few_steps(started, steps))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--lr", "0.02"], ["0.02", "sgd", "0.08"]),
        (["--learning-rate=0.02", "--optimizer", "muon"], []),
        (["--learning-rate", "0.02", "--recipe", "transfer"], []),
        (["--epochs", "3"], []),
    ],
)
def test_a_rate_without_an_optimizer_is_told_which_one_transfer_brings(
    words: list[str], expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """0.08: the usual rate of sgd for trained weights, as --help says; 0.02 is for muon."""
    jobs: list[Job] = []
    monkeypatch.setattr(
        "resnets.commands.train._run_training", lambda job, *_, **__: jobs.append(job) or 0
    )
    assert main(["train", "digits", "--from", "resnet20_cifar10", *words]) == 0
    lines = " ".join(rate_without_optimizer(jobs[0].recipe, jobs[0].set_by_user or ()))
    assert all(word in lines for word in expected)
    assert bool(lines) == bool(expected)


def test_the_notice_of_a_rate_stands_before_the_run_from_python_too() -> None:
    notices: list[str] = []
    changes = {"start": "resnet20_cifar10", "learning_rate": 0.01}
    job = new_job("digits", "auto", None, changes)
    setup = prepare(job, None, torch.device("cpu"), ProcessRank(), notices.append)
    assert any("0.01" in line and "sgd" in line for line in notices)
    # so that neither a resumed nor a repeated run says it again
    assert setup.job.set_by_user is None


def test_images_that_are_enlarged_much_are_told_once(photos: Path) -> None:
    notices = []

    def note(record: object) -> None:
        if isinstance(record, resnets.Notice):
            notices.append(record.text)

    for size in (32, 128):
        options = {"start": "resnet14_cifar10", "freeze": "all", "report": False, "output": False}
        resnets.train(photos, image_size=size, callbacks=[note], **options)
    assert ["128" in text for text in notices if "enlarged" in text] == [True]


@pytest.mark.parametrize(("side", "size", "suggested"), [(8, 224, 32), (50, 224, 100)])
def test_a_smaller_size_is_suggested(side: int, size: int, suggested: int) -> None:
    (line,) = enlarged_in_words(side, size)
    assert f"--image-size {suggested} " in line
    assert list(enlarged_in_words(side, 2 * side)) == []


@pytest.mark.parametrize(
    ("recipe", "side", "is_told"),
    [
        (Recipe(epochs=3), 500, True),
        (Recipe(epochs=30), 500, False),
        (Recipe(epochs=3), 32, False),
        (Recipe(epochs=3, augmentation=Augmentation(smallest_crop=0.6)), 500, False),
        (Recipe(epochs=3, freeze="all"), 500, False),
    ],
)
def test_crops_that_were_chosen_for_a_short_run_are_told(
    recipe: Recipe, side: int, is_told: bool
) -> None:
    lines = list(crops_in_words(recipe, recipe.resolved(side)))
    assert ["60 %" in line and "--smallest-crop" in line for line in lines] == [True] * is_told


def test_an_accuracy_that_guessing_reaches_is_told_beside_what_guessing_gives(
    draw_noise: Draw, tmp_path: Path
) -> None:
    for seed in range(48):
        draw_noise(
            tmp_path / f"photos/{'rare' if seed % 6 == 0 else 'usual'}/{seed}.png", 8, 8, seed
        )
    lines: list[str] = []

    def listen(record: object) -> None:
        lines.extend([record.text] if isinstance(record, resnets.Notice) else [])

    few: dict[str, Any] = {"epochs": 1, "report": False, "progress": False, "output": False}
    resnets.train(tmp_path / "photos", "resnet14", callbacks=[listen], **few)
    measured = [line for line in lines if line.startswith(("validation acc", "test acc"))]
    assert measured
    assert all("most frequent class" in line for line in measured), measured


@pytest.mark.parametrize(("batch", "is_told"), [(19, True), (14, True), (12, False), (10, False)])
def test_batches_of_far_fewer_images_than_were_asked_for_are_told(
    batch: int, is_told: bool
) -> None:
    """The 20 images make two batches of 10 in each case."""
    seen: list[object] = []
    changes = {"network": "resnet14", "image_size": 8, "epochs": 1, "validation": 0}
    data = (np.zeros((20, 8, 8, 3), np.uint8), np.arange(20) % 2)
    resnets.train(
        data, output=False, report=False, batch_size=batch, callbacks=[seen.append], **changes
    )
    lines = [record.text for record in seen if isinstance(record, resnets.Notice)]
    assert any(f"--batch-size of {batch}" in line for line in lines) == is_told
