"""Learning curves drawn with matplotlib, for `History.plot` and the report."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from resnets.errors import UsageError
from resnets.evaluation.report.charts import BLUE, ORANGE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Records: TypeAlias = Sequence[dict[str, Any]]

_GREEN = "#2a9d73"  # test images, if they were measured each epoch
GROUPS = {"training": ORANGE, "validation": BLUE, "test": _GREEN}


def plot_records(epochs: Records, intervals: Records) -> "list[Axes]":
    """Accuracy, loss and learning rate side by side in a figure of pyplot; see `History.plot`."""
    from matplotlib import pyplot

    if not epochs:
        raise UsageError("there is nothing to draw before the end of the first epoch")
    number = 3 if intervals else 2
    _, axes = pyplot.subplots(1, number, figsize=(4.4 * number, 2.9), layout="constrained")
    label_axes(axes[0], "accuracy in percent")
    draw(axes[0], epochs, "accuracy", 100.0)
    label_axes(axes[1], "loss in nats")
    draw(axes[1], epochs, "loss", 1.0)
    if intervals:
        label_axes(axes[2], "learning rate", "steps")
        draw_rates(axes[2], intervals)
    return list(axes)


def draw(axes: "Axes", epochs: Records, figure: str, scale: float) -> None:
    """A line for each group of images."""
    for group, colour in GROUPS.items():
        scored = [epoch for epoch in epochs if epoch.get(group)]
        if scored:
            axes.plot(
                [epoch["epoch"] for epoch in scored],
                [scale * epoch[group][figure] for epoch in scored],
                color=colour,
                marker="o" if len(epochs) < 10 else "",
                markersize=4,
                label=group,
            )
    numbers = {epoch["epoch"] for epoch in epochs}
    if len(numbers) == 1:  # else the axis would show thousandths of an epoch
        axes.set_xticks([*numbers])
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0, ncols=len(GROUPS))


def draw_rates(axes: "Axes", intervals: Records) -> list[float]:
    """A line for the learning rate, which is returned."""
    steps = [record["step"] for record in intervals]
    rates = [record["learning_rate"] for record in intervals]
    axes.plot(steps, rates, color=BLUE, marker="o" if len(steps) < 3 else "", markersize=4)
    axes.set(xlim=(0, None), ylim=(0, None))
    return rates


def label_axes(axes: "Axes", ylabel: str, xlabel: str = "epoch") -> None:
    """Label the axes of a chart, and draw its grid."""
    from matplotlib.ticker import MaxNLocator

    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    axes.grid(alpha=0.15)
