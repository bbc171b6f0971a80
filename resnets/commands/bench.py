"""``resnets bench``: latency and throughput of a network on this machine, by engine."""

import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from resnets.commands import run
from resnets.commands.tables import print_table
from resnets.deployment.engines import EngineChoice
from resnets.errors import ContentError, UsageError
from resnets.escaping import escaped, say, say_text
from resnets.format import (
    NONE,
    billions,
    duration_of_flag,
    millions,
    percent,
    plural,
    significant,
)
from resnets.json_text import to_json

if TYPE_CHECKING:
    from resnets.deployment.bench import Bench, Row
    from resnets.deployment.bench.processes import Note

_EXPORTING = 0.5  # of the time, that exports may take: the files are worth nothing unmeasured

_Runtime = Literal["eager", "compiled", EngineChoice]


def main(argv: list[str]) -> int:
    """Run ``resnets bench`` with ``argv``."""
    return run(bench, argv, config=(tyro.conf.FlagCreatePairsOff,))


def bench(
    models: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="MODEL ...")],
    /,
    engines: Annotated[tuple[_Runtime, ...], tyro.conf.arg(metavar="ENGINE ...")] = (),
    batch_sizes: tuple[int, ...] = (1, 16, 128),
    threads: tuple[int, ...] = (),
    rounds: int = 5,
    seconds: float = 0.5,
    limit: Annotated[str, tyro.conf.arg(metavar="TIME")] = "5m",
    against: Literal["torchvision", "timm"] | None = None,
    training: bool = False,
    size: int | None = None,
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
    plot: Path | None = None,
) -> int:
    """Measure latency and throughput. Engines take turns, each in its own process.

    Ratios are relative to the first row with the same number of threads: plain PyTorch (eager) on
    preprocessed images, unless --engines says otherwise.

    Args:
        models: model files or exported files (.onnx, .xml); several are compared, such as
            float32 and int8.
        engines: eager and compiled are the network in plain PyTorch and through torch.compile;
            torch, onnxruntime and openvino are this project's engines, on the CPU; those with a
            device behind their name run there (onnxruntime-cuda, openvino-gpu ...). By default
            eager and the engines of the CPU that are installed.
        batch_sizes: images per call.
        threads: one or more numbers of threads; by default 1 and all cores.
        rounds: how many times each engine is measured.
        seconds: duration of each measurement.
        limit: time for all of it, such as 5m or 2h: engines whose export or start, the largest
            batches and then rounds for which there is no time are left out. The smallest batches
            are measured once in any case, with the first engine at least.
        against: another project's network of the same name, eager and compiled.
        training: measure steps of training instead, in one process; MODEL is the name of a network
            such as resnet50, and the images are random. `resnets plan --rate` takes the result.
        size: height and width of the images for --training, in pixels; by default the network's
            own, such as 224.
        as_json: print JSON.
        plot: write a plot of images per second (.png, .svg, .pdf).
    """
    end = time.monotonic() + duration_of_flag("--limit", limit)
    if training:
        _refuse_with_training(engines, threads, against, plot)
        return _bench_training(models, batch_sizes, size, seconds, end, as_json)
    if size is not None:
        raise UsageError(f"--size {size}: give it with --training; other images have MODEL's size")
    from resnets.deployment.bench import candidates, figures
    from resnets.deployment.bench.figures import check_ending, draw
    from resnets.model_path import files_of

    figures.check(threads, batch_sizes, rounds, seconds)
    if plot is not None:
        check_ending(plot, [file for model in models for file in files_of(model)])
    with tempfile.TemporaryDirectory() as folder, _progress() as note:
        note("preparing the files of each engine")
        measured, multiply_adds = candidates(
            models,
            engines,
            threads,
            against,
            Path(folder),
            limit=_EXPORTING * (end - time.monotonic()),
        )
        measurements = figures.bench(
            measured,
            multiply_adds,
            batch_sizes=batch_sizes,
            rounds=rounds,
            seconds=seconds,
            limit=max(end - time.monotonic(), 0),
            note=note,
        )
    if plot is not None and measurements.rows:
        draw(measurements, plot)
    if as_json:
        print(to_json(measurements.to_dict(), indent=2))
    else:
        _show(measurements, rounds)
    _tell_left_out(measurements.left_out)
    return 0 if measurements.rows else 1


@contextmanager
def _progress() -> "Iterator[Note]":
    """A function that shows what is done on standard error, at a terminal.

    A line is rewritten only when it is called: a bar that moves by itself would take time from
    what is measured.
    """
    if not sys.stderr.isatty():
        yield lambda _: None
        return

    width = 0

    def note(text: str) -> None:
        nonlocal width
        safe = escaped(text)
        sys.stderr.write(f"\r{safe:<{width}}")  # over all of the text before
        sys.stderr.flush()
        width = len(safe)

    try:
        yield note
    finally:
        note("")
        sys.stderr.write("\r")


def _bench_training(
    models: tuple[Path, ...],
    batch_sizes: tuple[int, ...],
    size: int | None,
    seconds: float,
    end: float,
    as_json: bool,
) -> int:
    """Measure how fast networks are trained until the time `end`, and print it; the exit code."""
    from resnets.deployment.bench.training import TrainingSpeed, measure_training

    if not models:
        raise UsageError("--training: name a network, such as resnet50")
    rows: list[TrainingSpeed] = []
    full: dict[str, ContentError] = {}
    with _progress() as note:
        for name in map(str, models):
            note(f"training {name}")
            left = end - time.monotonic()
            speeds = measure_training(
                name, size=size, batch_sizes=batch_sizes, seconds=seconds, limit=left
            )
            try:
                rows.extend(speeds)
            except ContentError as error:  # rows has the speeds at smaller batch sizes
                full[name] = error
    if not rows:
        raise next(iter(full.values()))
    for name in dict.fromkeys(map(str, models)):
        if name in full:
            say(full[name], file=sys.stderr)
            continue
        measured = {row.batch_size for row in rows if row.network == name}
        _tell_left_out(sorted(set(batch_sizes) - measured), name)
    if as_json:
        print(to_json([asdict(row) for row in rows], indent=2))
        return 1 if full else 0
    cells = [
        (
            *(row.network, row.device, row.size, row.precision, row.batch_size),
            *(significant(row.images_per_second), row.steps),
        )
        for row in rows
    ]
    print_table(("network", "device", "pixels", "precision", "batch", "images/s", "steps"), cells)
    if any(row.steps == 1 for row in rows):
        say("one step alone says little; --seconds measures more of them", file=sys.stderr)
    return 1 if full else 0


def _refuse_with_training(
    engines: Sequence[str], threads: Sequence[int], against: str | None, plot: Path | None
) -> None:
    """Refuse flags that --training has no use for.

    Raises:
        UsageError: one of them is there.
    """
    flags = {"engines": engines, "threads": threads, "against": against, "plot": plot}
    for flag, value in flags.items():
        if value:
            raise UsageError(f"--{flag}: leave it out with --training, which measures torch alone")


def _tell_left_out(sizes: Sequence[int], network: str = "") -> None:
    """Tell on standard error for which batch sizes there was no time, if there are any."""
    if sizes:
        of = f" of {network}" if network else ""
        batches = ", ".join(map(str, sizes))
        say(
            f"not measured{of}: batches of {batches}, as one round would take longer than --limit",
            file=sys.stderr,
        )


def _show(result: "Bench", rounds: int) -> None:
    """Print the measurements as tables.

    Args:
        result: the measurements.
        rounds: how many were asked for.
    """
    height, width, channels = result.shape
    machine = result.machine
    peaks = ", ".join(
        f"{billions(rate)}/s on {plural(threads, 'thread')}"
        for threads, rate in result.peaks.items()
    )
    say(f"{machine['processor']}, {plural(machine['cores'], 'core')}; Python {machine['python']}")
    say_text(
        f"{width} x {height} pixels, {channels} channels, "
        f"{millions(result.multiply_adds)} multiply-adds an image; at most {peaks}"
    )
    if result.rounds:
        fewer = f" of {rounds}, for which --limit had time" if result.rounds < rounds else ""
        say(f"{plural(result.rounds, 'round')}{fewer}")
    print()
    columns = ("", "threads", "batch", "images/s", "ratio", "p50 ms", "p95", "p99")
    more = ("G mult-adds/s", "of peak", "MiB", "cold s")
    if result.rows:
        print_table(columns + more, [_cells(row) for row in result.rows])
    for name, why in result.failed.items():
        say(f"not measured: {name}: {why}")


def _cells(row: "Row") -> list[str | int]:
    """A row of the table."""
    return [
        row.name,
        row.threads,
        row.batch_size,
        significant(row.images_per_second),
        f"{row.ratio:.2f}",
        *(significant(row.latency[part]) for part in (50, 95, 99)),
        significant(row.multiply_adds_per_second / 1e9),
        percent(row.share_of_peak, 0),
        NONE if row.peak_memory is None else round(row.peak_memory / 2**20),
        f"{row.cold_start:.1f}",
    ]
