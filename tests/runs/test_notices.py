"""Notices about the start network and the length of a run."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from resnets.data.batches import ProcessRank
from resnets.runs.job import Job, changed_job
from resnets.runs.notices import too_few_steps
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
    started = replace(setup, job=replace(setup.job, start="resnet20_cifar10"))
    assert not list(too_few_steps(started, steps))
