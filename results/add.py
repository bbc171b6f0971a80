"""Make a result of a finished run.

    python results/add.py runs/resnet20-2026-01-31-1 quick-resnet20-seed0 --remark "recipe quick"

writes results/quick-resnet20-seed0 with the run's config.toml, log.jsonl and metrics.json, and the
table in results/README.md anew.
"""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import table
import tyro
from entries import HERE, METRICS, figures, read

from resnets.errors import ContentError, UsageError
from resnets.evaluation.history import LOG, History
from resnets.machine import machine
from resnets.model_file import CONFIG
from resnets.runs.folder import read_config
from resnets.runs.job import Job

LARGEST = 64_000  # bytes of a log; of a longer one, intervals are left out evenly
HEADER = "# What this run was asked to do. To do the same again:\n# {command}\n\n"


def main(
    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")],
    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")],
    /,
    data: str | None = None,
    remark: str = "",
    root: Path = HERE,
) -> None:
    """Make a result of a finished run, and write the table anew.

    Args:
        run: folder of the run.
        name: of the result: small letters, digits and dashes.
        data: what the command shall call the data; by default the last part of its path.
        remark: what a reader should know.
        root: where results lie.
    """
    folder = root / name
    if not re.fullmatch(r"[a-z0-9-]+", name):
        raise UsageError(f"{name}: a result's name has small letters, digits and dashes")
    if folder.exists():
        raise UsageError(f"{folder}: there already; choose another name, or delete it")
    job = portable(Job.from_toml(read_config(run)), data)
    history = History.read(run / LOG)
    found = figures(name, job, shortened(history))
    folder.mkdir(parents=True)
    header = HEADER.format(command=found["command"])
    (folder / CONFIG).write_text(header + job.to_toml(), encoding="utf-8")
    lines = [json.dumps(record) + "\n" for record in shortened(history).records]
    (folder / LOG).write_text("".join(lines), encoding="utf-8")
    noted = found | noted_machine(history) | {"remark": remark}
    (folder / METRICS).write_text(json.dumps(noted, indent=2) + "\n", encoding="utf-8")
    read(folder)
    print(f"{folder}: test accuracy {history.test}")
    table.write(root)


def portable(job: Job, data: str | None) -> Job:
    """The same job without anything that only one machine knows."""
    elsewhere = job.data == "digits" or job.data.startswith("hub:")
    start = Path(job.start).name if job.start else None
    return replace(
        job, data=data or (job.data if elsewhere else Path(job.data).name), start=start, budget=None
    )


def shortened(history: History) -> History:
    """The log, if it is long with only so many of its intervals, evenly spread, as fit.

    What is left is as it was written.
    """
    records = history.records
    sizes = [len(json.dumps(record)) + 1 for record in records]
    intervals = [i for i, record in enumerate(records) if record["kind"] == "interval"]
    excess = sum(sizes) - LARGEST
    if excess <= 0 or not intervals:
        return history
    each = sum(sizes[i] for i in intervals) / len(intervals)
    left = max(0, len(intervals) - int(excess / each) - 1)
    step = len(intervals) / left if left else 0
    kept = {intervals[int(number * step)] for number in range(left)}
    chosen = [r for i, r in enumerate(records) if r["kind"] != "interval" or i in kept]
    return History(history.path, tuple(chosen))


def noted_machine(history: History) -> dict[str, Any]:
    """The machine, as the log says, or else this one."""
    for record in history.records:
        if "machine" in record:
            return {"machine": record["machine"], "machine_known_from": "the log"}
    if history.start["device"] != "cpu":
        raise ContentError(f"{history.path}: does not say on which machine it was")
    return {"machine": machine(), "machine_known_from": "where the result was added"}


if __name__ == "__main__":
    try:
        tyro.cli(main)
    except (ContentError, UsageError) as error:
        sys.exit(str(error))
