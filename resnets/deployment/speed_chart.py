"""A picture of what `bench` measured: images per second against the batch size."""

from collections.abc import Iterable
from pathlib import Path

from resnets.deployment.bench import Bench
from resnets.errors import UsageError
from resnets.files import replacing, writable

ENDINGS = (".png", ".svg", ".pdf")


def check_ending(path: Path, inputs: Iterable[str | Path] = ()) -> None:
    """Refuse a file that no picture can be written to, before anything is measured.

    Args:
        path: of the picture.
        inputs: the files that the command reads.

    Raises:
        UsageError: its ending is of no known format, or it cannot be written: see `writable`.
    """
    if path.suffix.lower() not in ENDINGS:
        raise UsageError(f"{path}: the ending of a plot is {', '.join(ENDINGS)}")
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
