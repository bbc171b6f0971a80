"""How fast a network predicts: latency, throughput, and share of the machine's peak.

Figures are medians over rounds in which the candidates take turns. Ratios are computed within a
round, since the speed of a machine changes over time.
"""

import math
import os
import platform
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from resnets.deployment.bench.processes import Note, Record, Turn, measure_in_turns
from resnets.deployment.bench.runtimes import PEAK, SIDE, Candidate
from resnets.errors import UsageError
from resnets.files.outputs import writable
from resnets.files.reading import read_text
from resnets.files.writing import replacing
from resnets.format import plural
from resnets.machine import INFO, check_threads, processor

_MOST_IMAGES = 1_000_000  # of a call; more fill any memory
_FOR_8_BITS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8")
_CALLS_NEEDED = {50: 3, 95: 20, 99: 100}  # for a percentile to mean something


@dataclass(frozen=True)
class Row:
    """Figures of a candidate at one batch size.

    Attributes:
        name: of the candidate.
        threads: number of threads that computed.
        batch_size: images per call.
        images_per_second: median over the rounds, each the batch size over its median latency.
        ratio: of that to the first candidate with the same number of threads, median over the
            rounds.
        latency: milliseconds of a call, by percentile (50, 95, 99) over all rounds; None where
            there were too few calls.
        multiply_adds_per_second: of convolutions and fully connected layers.
        share_of_peak: that rate as a share of the machine's in a product of matrices in float32.
        peak_memory: of the process by then, in bytes.
        cold_start: seconds from the start of the process to its first prediction.
    """

    name: str
    threads: int
    batch_size: int
    images_per_second: float
    ratio: float
    latency: dict[int, float | None]
    multiply_adds_per_second: float
    share_of_peak: float
    peak_memory: int | None
    cold_start: float


@dataclass(frozen=True)
class Bench:
    """The figures of all candidates.

    Attributes:
        machine: on which they were measured.
        shape: (H, W, C) of the images.
        multiply_adds: of one image.
        peaks: multiply-adds per second of a product of matrices in float32, by threads.
        rounds: how many were made; fewer than asked for where the time was up.
        left_out: batch sizes for which there was no time.
        rows: one per candidate and batch size.
        failed: by candidate, why it could not run.
    """

    machine: dict[str, Any]
    shape: tuple[int, int, int]
    multiply_adds: int
    peaks: dict[int, float]
    rounds: int
    left_out: tuple[int, ...]
    rows: tuple[Row, ...]
    failed: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """For JSON: plain values only."""
        return asdict(self)


def bench(
    candidates: Sequence[Candidate],
    multiply_adds: int,
    *,
    batch_sizes: Sequence[int] = (1, 16, 128),
    rounds: int = 5,
    seconds: float = 0.5,
    limit: float = math.inf,
    note: Note = lambda _: None,
) -> Bench:
    """Measure candidates in turns.

    Args:
        candidates: the others are compared with the first one of the same number of threads.
        multiply_adds: of one image.
        batch_sizes: images per call.
        rounds: turns of each candidate.
        seconds: per turn and batch size.
        limit: seconds for everything; see `measure_in_turns`.
        note: takes what is done next, a few words.

    Raises:
        UsageError: an argument is not allowed.
    """
    if not candidates:
        raise UsageError("nothing to measure: no engine is chosen")
    check([candidate.threads for candidate in candidates], batch_sizes, rounds, seconds)
    shape = candidates[0].shape
    threads = sorted({candidate.threads for candidate in candidates})
    peak_candidates = [Candidate("peak", PEAK, "", number, shape) for number in threads]
    # the peak is measured first: a start for which there is no time would not leave any for it
    all_candidates = [*peak_candidates, *candidates]
    sizes = sorted(set(batch_sizes))
    records, failed = measure_in_turns(
        all_candidates, sizes, rounds, seconds, limit=limit, note=note
    )
    peaks = {
        candidate.threads: _peak_rate(records[candidate])
        for candidate in peak_candidates
        if candidate in records
    }
    rows = _rows(candidates, records, multiply_adds, peaks)
    failures = {
        f"{candidate.name}, threads {candidate.threads}": reason
        for candidate, reason in failed.items()
    }
    measured = {row.batch_size for row in rows}
    return Bench(
        machine(),
        shape,
        multiply_adds,
        peaks,
        rounds=_rounds(records),
        left_out=tuple(size for size in sizes if rows and size not in measured),
        rows=tuple(rows),
        failed=failures,
    )


def _rounds(records: Mapping[Candidate, Record]) -> int:
    """How many rounds were made; 0 where nothing could be measured."""
    turns = (turns for record in records.values() for turns in record.turns.values())
    return max(map(len, turns), default=0)


def _rows(
    candidates: Sequence[Candidate],
    records: Mapping[Candidate, Record],
    multiply_adds: int,
    peaks: Mapping[int, float],
) -> list[Row]:
    """The rows of all candidates that could be measured."""
    return [
        _row(
            candidate,
            size,
            records,
            _reference(candidate, candidates, records),
            (multiply_adds, peaks),
        )
        for candidate in candidates
        if candidate in records
        for size in records[candidate].turns
    ]


def check(threads: Sequence[int], batch_sizes: Sequence[int], rounds: int, seconds: float) -> None:
    """Check the numbers of a benchmark.

    Raises:
        UsageError: one of them is not allowed.
    """
    check_numbers(batch_sizes, seconds)
    if min(threads, default=1) < 1:
        raise UsageError(f"--threads {_words(threads)}: each must be at least 1")
    for number in threads:
        check_threads(number)
    if rounds < 1:
        raise UsageError(f"--rounds {rounds}: it must be at least 1")


def check_numbers(batch_sizes: Sequence[int], seconds: float) -> None:
    """Check what every benchmark takes.

    Raises:
        UsageError: a number is not allowed.
    """
    if not batch_sizes or not 1 <= min(batch_sizes) <= max(batch_sizes) <= _MOST_IMAGES:
        raise UsageError(
            f"--batch-sizes {_words(batch_sizes)}: each must be from 1 to {_MOST_IMAGES:,}"
        )
    if not 0 < seconds < math.inf:
        raise UsageError(f"--seconds {seconds:g}: it must be more than 0")


def _words(numbers: Sequence[int]) -> str:
    """Numbers as they are typed after a flag."""
    return " ".join(map(str, numbers))


def _peak_rate(record: Record) -> float:
    """Multiply-adds per second of the fastest product of matrices in any round."""
    calls = [second for turns in record.turns.values() for turn in turns for second in turn.seconds]
    return SIDE**3 / min(calls)


def _reference(
    candidate: Candidate, candidates: Sequence[Candidate], records: Mapping[Candidate, Record]
) -> Record:
    """The record of the first candidate with as many threads, which may be `candidate` itself."""
    return next(
        records[other]
        for other in candidates
        if other in records and other.threads == candidate.threads
    )


def _row(
    candidate: Candidate,
    size: int,
    records: Mapping[Candidate, Record],
    first: Record,
    work: tuple[int, Mapping[int, float]],
) -> Row:
    """The figures of a candidate at one batch size, compared with the record `first`."""
    record = records[candidate]
    turns = record.turns[size]
    speeds = [speed(turn, size) for turn in turns]
    reference_speeds = [speed(turn, size) for turn in first.turns[size]]
    calls = [1e3 * second for turn in turns for second in turn.seconds]
    images_per_second = statistics.median(speeds)
    multiply_adds, peaks = work
    rate = multiply_adds * images_per_second
    memory = [turn.peak_memory for turn in turns[:1] if turn.peak_memory is not None]
    return Row(
        candidate.name,
        candidate.threads,
        size,
        images_per_second,
        statistics.median(
            mine / other for mine, other in zip(speeds, reference_speeds, strict=True)
        ),
        {
            percentile: float(np.percentile(calls, percentile)) if len(calls) >= needed else None
            for percentile, needed in _CALLS_NEEDED.items()
        },
        rate,
        rate / peaks[candidate.threads] if candidate.threads in peaks else float("nan"),
        memory[0] if memory else None,
        record.cold_start,
    )


def speed(turn: Turn, size: int) -> float:
    """Images per second at the median latency of a turn."""
    return size / statistics.median(turn.seconds)


def machine() -> dict[str, Any]:
    """The machine on which the figures are measured."""
    from resnets.machine import cores

    return {
        "processor": _with_instructions(),
        "cores": cores(),
        "load_before": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
    }


def _with_instructions(info: Path = INFO) -> str:
    """The processor's name, and the instructions for 8 bits that it has."""
    flags = set(read_text(info).split()) if info.exists() else set()
    flags_here = [flag for flag in _FOR_8_BITS if flag in flags]
    return processor(info) + (f" ({', '.join(flags_here)})" if flags_here else "")


_ENDINGS = (".png", ".svg", ".pdf")


def check_ending(path: Path, inputs: Iterable[str | Path] = ()) -> None:
    """Check that a plot can be written to a file, before anything is measured.

    Args:
        path: of the plot.
        inputs: the files that the command reads.

    Raises:
        UsageError: its ending is of no known format, or it cannot be written: see `writable`.
    """
    if path.suffix.lower() not in _ENDINGS:
        raise UsageError(f"{path}: the ending of a plot is {', '.join(_ENDINGS)}")
    writable(path, inputs, kind=path.suffix.lower())


def draw(result: Bench, path: Path) -> None:
    """Write a plot with a panel for each number of threads and a line for each candidate."""
    from matplotlib.figure import Figure

    threads = sorted({row.threads for row in result.rows})
    figure = Figure(figsize=(1 + 4.5 * len(threads), 4.5), layout="constrained")
    panels = figure.subplots(1, len(threads), sharey=True, squeeze=False)[0]
    for panel, number in zip(panels, threads, strict=True):
        rows = [row for row in result.rows if row.threads == number]
        for name in dict.fromkeys(row.name for row in rows):
            series = [row for row in rows if row.name == name]
            sizes, speeds = [r.batch_size for r in series], [r.images_per_second for r in series]
            panel.plot(sizes, speeds, marker="o", label=name)
        sizes = sorted({row.batch_size for row in rows})
        panel.set_xscale("log", base=2)
        panel.set_xticks(sizes, [str(size) for size in sizes])
        panel.set_yscale("log")
        panel.grid(visible=True, which="both", alpha=0.3)
        panel.set_title(plural(number, "thread"))
        panel.set_xlabel("batch size")
    panels[0].set_ylabel("images per second")
    panels[0].legend()
    height, width, _ = result.shape
    figure.suptitle(f"{width} x {height} pixels, {result.machine['processor']}", fontsize="small")
    with replacing(path) as file:
        figure.savefig(file, format=path.suffix.lower().lstrip("."))
