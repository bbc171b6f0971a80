"""Which runs an experiment needs, and what they came to."""

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from resnets.commands.experiment_choices import Choices
from resnets.commands.experiment_runs import Run, deviations
from resnets.commands.job import Job
from resnets.errors import UsageError
from resnets.evaluation.reproduction import Comparison
from resnets.training.experiments import Row, experiment, rows
from resnets.training.parallel import choose_device
from resnets.training.recipes import named_recipe


class Plan:
    """The runs of an experiment.

    Attributes:
        runs: of all rows, the first seed of each first.
        wanted: those that were asked for.
        folder: where they lie.
        suffix: of the names of trials.

    Raises:
        UsageError: for an experiment, row or number that there is not.
    """

    def __init__(self, name: str, choices: Choices) -> None:
        self.name, self.choices, self.experiment = name, choices, experiment(name)
        for flag in ("seeds", "epochs", "steps"):
            number = getattr(choices, flag)
            if number is not None and number < 1:
                raise UsageError(f"--{flag} {number}: it must be at least 1")
        self.folder = choices.output or Path("runs") / name
        self.suffix = "".join(f"-{flag}{number}" for flag, number in choices.changes.items())
        wanted = rows(self.experiment, choices.rows)
        self.changes = self.recipe_changes()
        seeds = range(choices.seeds or self.experiment.seeds)
        self.runs = [self.run(row, seed) for seed in seeds for row in self.experiment.rows]
        self.wanted = [run for run in self.runs if run.row in wanted]

    def recipe_changes(self) -> dict[str, Any]:
        """What differs from the experiment's recipe."""
        choices = self.choices
        precision = choices.precision
        if precision == "auto":
            gpu = choose_device(choices.device).type == "cuda"
            precision = "bf16" if gpu and torch.cuda.is_bf16_supported() else "float32"
        length = {"epochs": 0, "steps": 0, **choices.changes} if choices.changes else {}
        return {"precision": precision, "compile": choices.compile} | length

    def run(self, row: Row, seed: int) -> Run:
        """One training."""
        recipe = named_recipe(self.experiment.recipe, row.network)
        job = Job(
            data=self.choices.data,
            device=self.choices.device,
            follow_test=self.experiment.curves,
            report=False,
            recipe=replace(recipe, seed=seed, **self.changes),
        )
        return Run(row, seed, job, self.folder / f"{row.network}-seed{seed}{self.suffix}")

    def of(self, row: Row) -> list[Run]:
        """The runs of a row, by seed."""
        return [run for run in self.runs if run.row == row]

    @property
    def comparisons(self) -> list[Comparison]:
        """What was published and what the finished runs came to, row by row."""
        found = []
        for row in self.experiment.rows:
            histories = {run.seed: run.history for run in self.of(row)}
            finished = {seed: h for seed, h in histories.items() if h is not None and h.finished}
            found.append(Comparison(row, finished))
        return found

    def remarks(self) -> list[str]:
        """What a reader must know to compare, a sentence each."""
        found = []
        if self.choices.changes:
            asked = " and ".join(f"{n} {what}" for what, n in self.choices.changes.items())
            whole = named_recipe(self.experiment.recipe).steps
            found.append(
                f"A TRIAL of {asked} where the paper has {whole:,} weight updates: its errors are "
                "not to be compared with the paper's."
            )
        if self.experiment.curves:
            found.append(
                "The test images are followed after every epoch, as in the paper's figure; nothing "
                "is chosen by them, and each run ends where the recipe says."
            )
        done = [run for run in self.runs if run.finished]
        data = [text for run in done for text in deviations(run, self.experiment)]
        found += [f"NOT THE PAPER'S DATA: {text}." for text in dict.fromkeys(data)]
        noted = [row for row in self.experiment.rows if row.remark]
        return [*found, *(f"Paper's {row.network}: {row.remark}." for row in noted)]

    def repeat(self, row: Row) -> str:
        """The one command that trains a row."""
        words = ["resnets", "reproduce", self.name, "--rows", str(row.layers)]
        words += ["--seeds", str(self.choices.seeds or self.experiment.seeds)]
        words += ["--data", self.choices.data]
        for flag, number in self.choices.changes.items():
            words += [f"--{flag}", str(number)]
        return shlex.join(words)
