"""How fast a network answers: latency, throughput, and how much of the machine it uses.

Figures are medians over rounds in which the contenders take turns, and ratios are made within a
round, since a machine is faster at one time than at another.
"""

import os
import platform
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from resnets.deployment.bench.contenders import SIDE, Contender
from resnets.deployment.bench.processes import Record, Turn, take_turns
from resnets.errors import UsageError
from resnets.files import read_text, replacing, writable
from resnets.machine import INFO, processor

_FOR_8_BITS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8")
_ENOUGH = {50: 3, 95: 20, 99: 100}  # calls without which a percentile says nothing


@dataclass(frozen=True)
class Row:
    """A contender at one batch size.

    Attributes:
        name: of the contender.
        threads: that computed.
        batch_size: images a call.
        images_per_second: median over the rounds, each the batch size over its median latency.
        ratio: of that to the first contender with as many threads, median over the rounds.
        latency: milliseconds of a call, by percentile (50, 95, 99) over all rounds; None where
            there were too few calls to tell.
        multiply_adds_per_second: of convolutions and fully connected layers.
        share_of_peak: of what the machine does in a product of matrices in float32.
        peak_memory: most bytes that the process had held by then.
        cold_start: seconds from the start of the process to its first answer.
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
    """What was measured.

    Attributes:
        machine: what on.
        shape: (H, W, C) of the images.
        multiply_adds: of one image.
        peaks: multiply-adds per second of a product of matrices in float32, by threads.
        rows: one per contender and batch size.
        failed: by contender, why it could not run.
    """

    machine: dict[str, Any]
    shape: tuple[int, int, int]
    multiply_adds: int
    peaks: dict[int, float]
    rows: tuple[Row, ...]
    failed: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """For JSON: plain values only."""
        return asdict(self)


def bench(
    contenders: Sequence[Contender],
    multiply_adds: int,
    *,
    batch_sizes: Sequence[int] = (1, 16, 128),
    rounds: int = 5,
    seconds: float = 0.5,
) -> Bench:
    """Let contenders take turns.

    Args:
        contenders: the first with each number of threads is what the others are compared with.
        multiply_adds: of one image.
        batch_sizes: images a call.
        rounds: turns of each contender.
        seconds: of each turn and batch size.

    Raises:
        UsageError: an argument is not allowed.
    """
    if not contenders:
        raise UsageError("nothing to measure: no engine is chosen")
    check([who.threads for who in contenders], batch_sizes, rounds, seconds)
    shape = contenders[0].shape
    threads = sorted({contender.threads for contender in contenders})
    yardsticks = [Contender("peak", "peak", "", number, shape) for number in threads]
    everyone = [*contenders, *yardsticks]
    found, failed = take_turns(everyone, sorted(set(batch_sizes)), rounds, seconds)
    peaks = {who.threads: _fastest(found[who]) for who in yardsticks if who in found}
    rows = [
        _row(who, size, found, _reference(who, contenders, found), (multiply_adds, peaks))
        for who in contenders
        if who in found
        for size in found[who].turns
    ]
    words = {f"{who.name}, threads {who.threads}": why for who, why in failed.items()}
    return Bench(machine(), shape, multiply_adds, peaks, tuple(rows), words)


def check(threads: Sequence[int], batch_sizes: Sequence[int], rounds: int, seconds: float) -> None:
    """Refuse what cannot be measured.

    Raises:
        UsageError: a number is not allowed.
    """
    if not batch_sizes or min(batch_sizes) < 1:
        raise UsageError(f"batch sizes {list(batch_sizes)}: each must be at least 1")
    if min(threads, default=1) < 1:
        raise UsageError(f"threads {list(threads)}: each must be at least 1")
    if rounds < 1:
        raise UsageError(f"rounds: {rounds}; at least 1")
    if not seconds > 0:
        raise UsageError(f"seconds: {seconds}; more than 0")


def _fastest(record: Record) -> float:
    """Multiply-adds per second of the fastest product of matrices in any round."""
    calls = [second for turns in record.turns.values() for turn in turns for second in turn.seconds]
    return SIDE**3 / min(calls)


def _reference(
    who: Contender, contenders: Sequence[Contender], found: Mapping[Contender, Record]
) -> Record:
    """What was measured of the first contender with as many threads, which may be itself."""
    return next(
        found[other] for other in contenders if other in found and other.threads == who.threads
    )


def _row(
    who: Contender,
    size: int,
    found: Mapping[Contender, Record],
    first: Record,
    work: tuple[int, Mapping[int, float]],
) -> Row:
    """The figures of a contender at one batch size, and what they are compared with."""
    record = found[who]
    turns = record.turns[size]
    speeds = [speed(turn, size) for turn in turns]
    others = [speed(turn, size) for turn in first.turns[size]]
    calls = [1e3 * second for turn in turns for second in turn.seconds]
    images_per_second = statistics.median(speeds)
    multiply_adds, peaks = work
    rate = multiply_adds * images_per_second
    held = [turn.peak_memory for turn in turns[:1] if turn.peak_memory is not None]
    return Row(
        who.name,
        who.threads,
        size,
        images_per_second,
        statistics.median(mine / other for mine, other in zip(speeds, others, strict=True)),
        {
            percent: float(np.percentile(calls, percent)) if len(calls) >= enough else None
            for percent, enough in _ENOUGH.items()
        },
        rate,
        rate / peaks[who.threads] if who.threads in peaks else float("nan"),
        held[0] if held else None,
        record.cold_start,
    )


def speed(turn: Turn, size: int) -> float:
    """Images per second at the median latency of a turn."""
    return size / statistics.median(turn.seconds)


def machine() -> dict[str, Any]:
    """What is measured on."""
    from resnets.machine import cores

    return {
        "processor": _with_instructions(),
        "cores": cores(),
        "load_before": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
    }


def _with_instructions(info: Path = INFO) -> str:
    """The processor's name, and which of the instructions for 8 bits it has."""
    flags = set(read_text(info).split()) if info.exists() else set()
    known = [flag for flag in _FOR_8_BITS if flag in flags]
    return processor(info) + (f" ({', '.join(known)})" if known else "")


_ENDINGS = (".png", ".svg", ".pdf")


def check_ending(path: Path, inputs: Iterable[str | Path] = ()) -> None:
    """Refuse a file that no picture can be written to, before anything is measured.

    Args:
        path: of the picture.
        inputs: the files that the command reads.

    Raises:
        UsageError: its ending is of no known format, or it cannot be written: see `writable`.
    """
    if path.suffix.lower() not in _ENDINGS:
        raise UsageError(f"{path}: the ending of a plot is {', '.join(_ENDINGS)}")
    writable(path, inputs, kind=path.suffix.lower())


def draw(found: Bench, path: Path) -> None:
    """Write a plot with a panel for each number of threads and a line for each contender."""
    from matplotlib.figure import Figure

    threads = sorted({row.threads for row in found.rows})
    figure = Figure(figsize=(1 + 4.5 * len(threads), 4.5), layout="constrained")
    panels = figure.subplots(1, len(threads), sharey=True, squeeze=False)[0]
    for panel, number in zip(panels, threads, strict=True):
        rows = [row for row in found.rows if row.threads == number]
        for name in dict.fromkeys(row.name for row in rows):
            own = [row for row in rows if row.name == name]
            sizes, speeds = [r.batch_size for r in own], [r.images_per_second for r in own]
            panel.plot(sizes, speeds, marker="o", label=name)
        sizes = sorted({row.batch_size for row in rows})
        panel.set_xscale("log", base=2)
        panel.set_xticks(sizes, [str(size) for size in sizes])
        panel.set_yscale("log")
        panel.grid(visible=True, which="both", alpha=0.3)
        panel.set_title(f"{number} thread{'s' if number > 1 else ''}")
        panel.set_xlabel("batch size")
    panels[0].set_ylabel("images per second")
    panels[0].legend()
    height, width, _ = found.shape
    figure.suptitle(f"{width} x {height} pixels, {found.machine['processor']}", fontsize="small")
    with replacing(path) as file:
        figure.savefig(file, format=path.suffix.lower().lstrip("."))
