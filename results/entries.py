"""Results: folders that hold a run's config and log, and the figures made from them.

A figure is never written by hand: `figures` makes all of them from config.toml and log.jsonl, and
`read` refuses a folder whose metrics.json says anything else.
"""

import json
import shlex
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from resnets.errors import ContentError
from resnets.evaluation.history import LOG, History
from resnets.model_file import CONFIG
from resnets.runs.job import Job

HERE = Path(__file__).parent
METRICS = "metrics.json"
# fields of a job that stand in the command otherwise, or that change nothing of what comes out
ELSEWHERE = {"data", "start", "recipe", "budget"}
ELSEWHERE |= {"device", "checkpoint_every", "keep", "log_every", "log_to", "report"}


@dataclass(frozen=True)
class Entry:
    """A result.

    Attributes:
        folder: its name is the result's.
        job: what was asked for, with the data under a name that says nothing of a machine.
        history: the run's log.
        metrics: the figures, and what was written down when the result was added.
    """

    folder: Path
    job: Job
    history: History
    metrics: dict[str, Any]

    @property
    def name(self) -> str:
        """Of the result."""
        return self.folder.name

    @property
    def without_seed(self) -> Job:
        """What it has in common with runs that differ in nothing but their seed."""
        return replace(self.job, recipe=replace(self.job.recipe, seed=0, threads=0, workers=None))


def figures(name: str, job: Job, history: History) -> dict[str, Any]:
    """Every figure of a result, from what its run was asked and what its log says.

    Args:
        name: of the result.
        job: with the data under the name that the command shall have.
        history: of a finished run.

    Raises:
        ContentError: if the run has not finished or has no test images.
    """
    recipe, start, end = job.recipe, history.start, history.records[-1]
    test = history.test
    return {
        "network": recipe.network,
        "data": job.data,
        "fingerprint": start["fingerprint"],
        "seed": recipe.seed,
        "command": command(name, job),
        "test": test.to_dict(),
        "validation": history.score("validation").to_dict() if "validation" in end else None,
        "epochs": len(history.epochs),
        "steps": history.step,
        "images_seen": history.images,
        "seconds": history.seconds,
        "images_per_second": history.images_per_second,
        "resumed": len(history.of("resume")),
        "device": start["device"],
        "threads": sorted({record["threads"] for record in (start, *history.of("resume"))}),
        "processes": start["processes"],
        "versions": start["versions"],
    }


def command(name: str, job: Job) -> str:
    """The one command that trains it again, from the top of the repository."""
    words = ["resnets", "train", job.data, "--recipe", f"results/{name}/{CONFIG}"]
    for item in fields(Job):
        value = getattr(job, item.name)
        if item.name in ELSEWHERE or value == item.default:
            continue
        flag = f"--{item.name.replace('_', '-')}"
        words += [flag] if value is True else [flag, str(value)]
    return shlex.join(words + (["--from", job.start] if job.start else []))


def read(folder: Path) -> Entry:
    """Read a result and check it against its log.

    Raises:
        ContentError: if a file is missing or broken, or a figure is not what the log says.
    """
    for name in (CONFIG, LOG, METRICS):
        if not (folder / name).is_file():
            raise ContentError(f"{folder}: has no {name}, and no number goes without it")
    job = Job.from_toml((folder / CONFIG).read_text(encoding="utf-8"))
    history = History.read(folder / LOG)
    try:
        metrics = json.loads((folder / METRICS).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ContentError(f"{folder / METRICS}: no JSON ({error})") from None
    for name, value in figures(folder.name, job, history).items():
        if metrics.get(name) != value:
            raise ContentError(
                f"{folder / METRICS}: {name} is {metrics.get(name)!r}, but by {LOG} and {CONFIG} "
                f"it is {value!r}"
            )
    return Entry(folder, job, history, metrics)


def read_all(root: Path = HERE) -> list[Entry]:
    """Every result below a folder, by name."""
    folders = [path for path in root.iterdir() if path.is_dir() and path.name[0] not in "._"]
    return [read(folder) for folder in sorted(folders)]
