"""Add a finished run to the results.

    python results/add.py runs/resnet20-2026-01-31-1 quick-resnet20-seed0 --remark "recipe quick"

writes results/quick-resnet20-seed0 with the run's config.toml, log.jsonl and metrics.json, and
updates the table in results/README.md.
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
from resnets.evaluation.history import History
from resnets.machine import machine
from resnets.run_files import CONFIG, LOG
from resnets.runs.folder import read_config
from resnets.runs.job import Job

LARGEST = 64_000  # bytes of a log; intervals of a longer one are thinned out evenly
HEADER = "# The configuration of this run. To repeat it:\n# {command}\n\n"


def main(
    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")],
    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")],
    /,
    data: str | None = None,
    remark: str = "",
    root: Path = HERE,
) -> None:
    """Add a finished run to the results, and update the table.

    Args:
        run: folder of the run.
        name: of the result: lower-case letters, digits and dashes.
        data: name of the data in the command; by default the last part of its path.
        remark: a note for readers.
        root: folder of the results.
    """
    folder = root / name
    if not re.fullmatch(r"[a-z0-9-]+", name):
        raise UsageError(f"{name}: the name of a result has lower-case letters, digits and dashes")
    if folder.exists():
        raise UsageError(f"{folder}: exists already; choose another name, or delete it")
    job = portable(Job.from_toml(read_config(run)), data)
    history = History.read(run / LOG)
    result_figures = figures(name, job, shortened(history))
    folder.mkdir(parents=True)
    header = HEADER.format(command=result_figures["command"])
    (folder / CONFIG).write_text(header + job.to_toml(), encoding="utf-8")
    lines = [json.dumps(record) + "\n" for record in shortened(history).records]
    (folder / LOG).write_text("".join(lines), encoding="utf-8")
    metrics = result_figures | noted_machine(history) | {"remark": remark}
    (folder / METRICS).write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    read(folder)
    print(f"{folder}: test accuracy {history.test}")
    table.write(root)


def portable(job: Job, data: str | None) -> Job:
    """The same job without paths of one machine."""
    elsewhere = job.data == "digits" or job.data.startswith("hub:")
    start = Path(job.start).name if job.start else None
    return replace(
        job, data=data or (job.data if elsewhere else Path(job.data).name), start=start, budget=None
    )


def shortened(history: History) -> History:
    """The log; if it is too long, with fewer intervals, evenly spread.

    The remaining records are unchanged.
    """
    records = history.records
    sizes = [len(json.dumps(record)) + 1 for record in records]
    intervals = [i for i, record in enumerate(records) if record["kind"] == "interval"]
    excess = sum(sizes) - LARGEST
    if excess <= 0 or not intervals:
        return history
    mean_size = sum(sizes[i] for i in intervals) / len(intervals)
    count = max(0, len(intervals) - int(excess / mean_size) - 1)
    step = len(intervals) / count if count else 0
    chosen_intervals = {intervals[int(number * step)] for number in range(count)}
    chosen = [r for i, r in enumerate(records) if r["kind"] != "interval" or i in chosen_intervals]
    return History(history.path, tuple(chosen))


def noted_machine(history: History) -> dict[str, Any]:
    """The machine according to the log, or else this one."""
    for record in history.records:
        if "machine" in record:
            return {"machine": record["machine"], "machine_known_from": "the log"}
    if history.start["device"] != "cpu":
        raise ContentError(f"{history.path}: does not say on which machine the run was")
    return {"machine": machine(), "machine_known_from": "where the result was added"}


if __name__ == "__main__":
    try:
        tyro.cli(main)
    except (ContentError, UsageError) as error:
        sys.exit(str(error))
