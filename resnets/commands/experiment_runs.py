"""The runs of a published experiment: where they lie, whether they fit, and carrying them out."""

from dataclasses import dataclass, fields
from pathlib import Path

from resnets import model_file
from resnets.commands.carry_out import carry_out
from resnets.commands.job import Job
from resnets.errors import UsageError
from resnets.evaluation.history import LOG, History
from resnets.training.experiments import Experiment, Row
from resnets.training.preparation import without_flips
from resnets.training.recipe import Recipe
from resnets.training.run import CONFIG

# what a recipe may decide by the data or the machine
DECIDED = {"image_size", "training_size", "resize", "augmentation"}
DECIDED |= {"precision", "channels_last", "compile", "threads", "workers"}


@dataclass(frozen=True)
class Run:
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

    def carry_out(self) -> int:
        """Train, or go on where it stopped. Returns the exit code of `resnets train`."""
        self.check()
        begun = (self.folder / CONFIG).is_file()
        job = Job.of_run(self.folder) if begun else self.job
        return carry_out(job, self.folder, resume=begun)

    def check(self) -> None:
        """Compare what the folder holds with what is asked for.

        Raises:
            UsageError: if it is another training.
        """
        if not (self.folder / CONFIG).is_file():
            return
        there = Job.of_run(self.folder)
        if not same_source(there.data, self.job.data):
            raise UsageError(
                f"{self.folder}: was trained on {there.data}, not {self.job.data}; "
                "choose another --output"
            )
        for name in different(there.recipe, self.job.recipe):
            raise UsageError(
                f"{self.folder}: was trained with {name} {getattr(there.recipe, name)!r}, not "
                f"{getattr(self.job.recipe, name)!r}; choose another --output"
            )


def same_source(one: str, other: str) -> bool:
    """Whether two words name the same data.

    >>> same_source("runs/../data", "data/"), same_source("digits", "data")
    (True, False)
    """
    return one == other or Path(one).resolve() == Path(other).resolve()


def different(there: Recipe, asked: Recipe) -> list[str]:
    """The fields by which a run's recipe is another than the one asked for."""
    names = [item.name for item in fields(Recipe) if item.name not in DECIDED]
    found = [name for name in names if getattr(there, name) != getattr(asked, name)]
    decided = asked.settled(there.image_size) if there.image_size else asked
    if there.augmentation not in (decided.augmentation, without_flips(decided).augmentation):
        found.append("augmentation")
    return found


def deviations(run: Run, experiment: Experiment) -> list[str]:
    """In what a finished run's data is not the paper's."""
    model = run.folder / "model.safetensors"
    if not model.is_file():
        return [f"{model} is gone, so nobody can check which data it is of"]
    description = model_file.read_description(model)
    found = []
    if tuple(sorted(description.class_names)) != experiment.class_names:
        found.append(f"{run.job.data} has other classes than the paper's data")
    counts = description.data["counts"]
    for name, wanted in zip(("train", "test"), experiment.images, strict=True):
        images = sum(counts.get(name, {}).values())
        if images != wanted:
            found.append(f"{images:,} {name} images instead of {wanted:,}")
    return found
