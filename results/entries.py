"""Results: folders with the config and log of a run, and the figures computed from them.

No figure is written by hand: `figures` computes all of them from config.toml and log.jsonl, and
`read` refuses a folder whose metrics.json differs.
"""

import json
import shlex
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from resnets.errors import ContentError
from resnets.evaluation.history import History
from resnets.run_files import CONFIG, LOG
from resnets.runs.job import Job

HERE = Path(__file__).parent
METRICS = "metrics.json"
# fields of a job that the command gives otherwise, or that do not change the result
ELSEWHERE = {"data", "start", "recipe", "budget"}
ELSEWHERE |= {"device", "checkpoint_every", "keep", "log_every", "log_to", "report"}


@dataclass(frozen=True)
class Entry:
    """A result.

    Attributes:
        folder: has the name of the result.
        job: the configuration, with a name of the data that does not depend on a machine.
        history: the log of the run.
        metrics: the figures, and the notes made when the result was added.
    """

    folder: Path
    job: Job
    history: History
    metrics: dict[str, Any]

    @property
    def name(self) -> str:
        """The name of the result."""
        return self.folder.name

    @property
    def without_seed(self) -> Job:
        """The job without its seed: equal for runs that differ only in that."""
        return replace(self.job, recipe=replace(self.job.recipe, seed=0, threads=0, workers=None))


def figures(name: str, job: Job, history: History) -> dict[str, Any]:
    """Every figure of a result, from the configuration and the log of its run.

    Args:
        name: of the result.
        job: with the name of the data for the command.
        history: of a finished run.

    Raises:
        ContentError: the run has not finished, or has no test images.
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
    """The command that repeats the run, from the root of the repository."""
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
        ContentError: a file is missing or damaged, or a figure differs from the log.
    """
    for name in (CONFIG, LOG, METRICS):
        if not (folder / name).is_file():
            raise ContentError(f"{folder}: has no {name}, which every result needs")
    job = Job.from_toml((folder / CONFIG).read_text(encoding="utf-8"))
    history = History.read(folder / LOG)
    try:
        metrics = json.loads((folder / METRICS).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ContentError(f"{folder / METRICS}: not JSON ({error})") from None
    for name, value in figures(folder.name, job, history).items():
        if metrics.get(name) != value:
            raise ContentError(
                f"{folder / METRICS}: {name} is {metrics.get(name)!r}, but according to {LOG} and "
                f"{CONFIG} it is {value!r}"
            )
    return Entry(folder, job, history, metrics)


def read_all(root: Path = HERE) -> list[Entry]:
    """Every result below a folder, by name."""
    folders = [path for path in root.iterdir() if path.is_dir() and path.name[0] not in "._"]
    return [read(folder) for folder in sorted(folders)]
