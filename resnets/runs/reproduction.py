"""Compares published figures with the results of runs here."""

import shlex
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from resnets import model_file
from resnets.data.sources.hub import without_commit
from resnets.errors import UsageError
from resnets.evaluation.history import History
from resnets.evaluation.proportion import Proportion
from resnets.run_files import CONFIG, LOG, MODEL
from resnets.runs.callbacks import Callback
from resnets.runs.characters import without_flips
from resnets.runs.experiments import Choices, Experiment, Row, experiment, rows
from resnets.runs.job import Job
from resnets.runs.train import train_as_command
from resnets.training.devices import choose_device, computes_bf16
from resnets.training.named_recipes import named_recipe
from resnets.training.recipe import Recipe

# what a recipe may decide by the data or the machine
_DECIDED = {"image_size", "training_size", "resize", "augmentation"}
_DECIDED |= {"precision", "channels_last", "compile", "threads", "workers"}


@dataclass(frozen=True)
class PlannedRun:
    """One training of one row.

    Attributes:
        row: of the experiment.
        seed: of weights, order and augmentation.
        job: what is asked for.
        folder: of the run, which may not exist yet.
    """

    row: Row
    seed: int
    job: Job
    folder: Path

    @property
    def history(self) -> History | None:
        """What its log tells, if it has begun."""
        path = self.folder / LOG
        return History.read(path) if path.is_file() and path.stat().st_size else None

    @property
    def finished(self) -> bool:
        """Whether it went to its end."""
        history = self.history
        return history is not None and history.finished

    def state(self) -> str:
        """In words: finished, stopped at a step, or not run."""
        history = self.history
        if history is None:
            return "not run"
        if history.finished:
            return "finished"
        return f"stopped at step {history.step:,} of {history.start['steps']:,}"

    def train(self, callbacks: Sequence[Callback]) -> None:
        """Train, or go on where it stopped.

        Raises:
            Interrupted: a signal has stopped it; its state is saved.
        """
        self.check()
        begun = (self.folder / CONFIG).is_file()
        job = Job.of_run(self.folder) if begun else self.job
        train_as_command(job, self.folder, resume=begun, callbacks=callbacks)

    def check(self) -> None:
        """Check that a run in the folder is the one that is asked for.

        Raises:
            UsageError: it is another one.
        """
        if not (self.folder / CONFIG).is_file():
            return
        earlier = Job.of_run(self.folder)
        if not _same_source(earlier.data, self.job.data):
            raise UsageError(
                f"{self.folder}: was trained on {earlier.data}, not {self.job.data}; "
                "choose another --output"
            )
        for name in different(earlier.recipe, self.job.recipe):
            raise UsageError(
                f"{self.folder}: was trained with {name} {getattr(earlier.recipe, name)!r}, not "
                f"{getattr(self.job.recipe, name)!r}; choose another --output"
            )


def _same_source(one: str, other: str) -> bool:
    """Whether two words name the same data; of the hub's at the same commit, or at any.

    >>> _same_source("runs/../data", "data/"), _same_source("digits", "data")
    (True, False)
    """
    if one in (other, without_commit(other)) or other == without_commit(one):
        return True
    return Path(one).resolve() == Path(other).resolve()


def different(earlier: Recipe, asked: Recipe) -> list[str]:
    """The fields by which a run's recipe is another than the one asked for."""
    names = [item.name for item in fields(Recipe) if item.name not in _DECIDED]
    differences = [name for name in names if getattr(earlier, name) != getattr(asked, name)]
    decided = asked.resolved(earlier.image_size) if earlier.image_size else asked
    if earlier.augmentation not in (decided.augmentation, without_flips(decided).augmentation):
        differences.append("augmentation")
    return differences


def _deviations(run: PlannedRun, experiment: Experiment) -> list[str]:
    """How the data of a finished run differs from the paper's, a sentence each."""
    model = run.folder / MODEL
    if not model.is_file():
        return [f"{model} is gone, so its data cannot be checked"]
    description = model_file.read_description(model)
    deviations = []
    if tuple(sorted(description.class_names)) != experiment.class_names:
        deviations.append(f"{run.job.data} has other classes than the paper's data")
    counts = description.data["counts"]
    for name, published in zip(("train", "test"), experiment.images, strict=True):
        images = sum(counts.get(name, {}).values())
        if images != published:
            deviations.append(f"{images:,} {name} images instead of {published:,}")
    return deviations


@dataclass(frozen=True)
class Comparison:
    """A row of an experiment and its runs.

    Attributes:
        row: what was published.
        finished: the finished runs, by seed.
    """

    row: Row
    finished: dict[int, History]

    @property
    def tests(self) -> dict[int, Proportion]:
        """What each run got right of the test images, by seed."""
        return {seed: history.test for seed, history in self.finished.items()}

    @property
    def errors(self) -> list[float]:
        """Test errors in percent, in the order of the seeds."""
        return [100 * (1 - test.value) for _, test in sorted(self.tests.items())]

    @property
    def mean(self) -> float | None:
        """Of the test errors, in percent; None if no run has finished."""
        return statistics.mean(self.errors) if self.finished else None

    @property
    def deviation(self) -> float | None:
        """Standard deviation of the test errors (n - 1), in percent; None for fewer than two."""
        return statistics.stdev(self.errors) if len(self.finished) > 1 else None

    @property
    def training(self) -> float | None:
        """Mean error on the training images in the last epoch, as augmented, in percent."""
        last = [history.epochs[-1]["training"]["accuracy"] for history in self.finished.values()]
        return 100 * (1 - statistics.mean(last)) if last else None

    def in_words(self) -> str:
        """Mean and deviation of the test errors."""
        if self.mean is None:
            return "not run"
        spread = "" if self.deviation is None else f" ± {self.deviation:.2f}"
        return f"{self.mean:.2f}{spread}"

    def to_dict(self) -> dict[str, Any]:
        """For JSON; errors in percent."""
        return {
            "network": self.row.network,
            "published": self.row.error,
            "remark": self.row.remark,
            "n": len(self.finished),
            "mean": self.mean,
            "deviation": self.deviation,
            "training": self.training,
            "tests": {str(seed): test.to_dict() for seed, test in sorted(self.tests.items())},
        }


class Plan:
    """The runs of an experiment.

    Attributes:
        runs: of all rows, the first seed of each first.
        wanted: those that were asked for.
        folder: where they lie.
        suffix: of the names of trials.

    Raises:
        UsageError: if an experiment or row does not exist, or a number is not allowed.
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
            device = choose_device(choices.device)
            is_gpu = device.type != "cpu"
            precision = "bf16" if is_gpu and computes_bf16(device) else "float32"
        length = {"epochs": 0, "steps": 0, **choices.changes} if choices.changes else {}
        return {"precision": precision, "compile": choices.compile} | length

    def run(self, row: Row, seed: int) -> PlannedRun:
        """One training."""
        recipe = named_recipe(self.experiment.recipe, row.network)
        job = Job(
            data=self.choices.data,
            device=self.choices.device,
            follow_test=self.experiment.curves,
            report=False,
            recipe=replace(recipe, seed=seed, **self.changes),
        )
        return PlannedRun(row, seed, job, self.folder / f"{row.network}-seed{seed}{self.suffix}")

    def of(self, row: Row) -> list[PlannedRun]:
        """The runs of a row, by seed."""
        return [run for run in self.runs if run.row == row]

    @property
    def comparisons(self) -> list[Comparison]:
        """What was published and what the finished runs came to, row by row."""
        comparisons = []
        for row in self.experiment.rows:
            histories = {run.seed: run.history for run in self.of(row)}
            finished = {seed: h for seed, h in histories.items() if h is not None and h.finished}
            comparisons.append(Comparison(row, finished))
        return comparisons

    def remarks(self) -> list[str]:
        """What a reader must know to compare, a sentence each."""
        remarks = []
        if self.choices.changes:
            asked = " and ".join(f"{n} {what}" for what, n in self.choices.changes.items())
            whole = named_recipe(self.experiment.recipe).steps
            remarks.append(
                f"A TRIAL of {asked} where the paper has {whole:,} steps: its errors are "
                "not to be compared with the paper's."
            )
        if self.experiment.curves:
            remarks.append(
                "The test images are followed after every epoch, as in the paper's figure; nothing "
                "is chosen by them, and each run ends where the recipe says."
            )
        finished = [run for run in self.runs if run.finished]
        data = [text for run in finished for text in _deviations(run, self.experiment)]
        remarks += [f"NOT THE PAPER'S DATA: {text}." for text in dict.fromkeys(data)]
        noted = [row for row in self.experiment.rows if row.remark]
        return [*remarks, *(f"Paper's {row.network}: {row.remark}." for row in noted)]

    def repeat(self, row: Row) -> str:
        """The one command that trains a row."""
        words = ["resnets", "reproduce", self.name, "--rows", str(row.layers)]
        words += ["--seeds", str(self.choices.seeds or self.experiment.seeds)]
        words += ["--data", self.choices.data]
        for flag, number in self.choices.changes.items():
            words += [f"--{flag}", str(number)]
        return shlex.join(words)
