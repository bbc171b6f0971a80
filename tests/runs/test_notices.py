"""Notices about the start network and the length of a run."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from resnets.cli import main
from resnets.data.batches import ProcessRank
from resnets.runs.job import Job, changed_job, new_job
from resnets.runs.notices import rate_without_optimizer, too_few_steps
from resnets.runs.prepare import prepare
from resnets.training.recipe import RECIPES

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
    lines = " ".join(too_few_steps(setup, steps))
    assert ("--from" in lines and "--epochs" in lines and "chance" in lines) == warned
    recipe = replace(setup.job.recipe, network="resnet50")
    larger = replace(setup, job=replace(setup.job, recipe=recipe))
    assert ("--from resnet50" in " ".join(too_few_steps(larger, steps))) == warned
    started = replace(setup, job=replace(setup.job, start="resnet20_cifar10"))
    assert not list(too_few_steps(started, steps))


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
