"""How a training went, epoch by epoch, as charts for an HTML page."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from resnets.errors import ContentError, UsageError
from resnets.evaluation.history import History
from resnets.evaluation.report.charts import BLUE, ORANGE, STYLE, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GREEN = "#2a9d73"  # test images, where they were followed
GROUPS = {"training": ORANGE, "validation": BLUE, "test": GREEN}
BEYOND = 1.1  # how far the axis of losses goes past the greatest training loss


def learning_curves(history: History) -> list[str]:
    """Accuracy, loss and learning rate as <svg> elements; empty if no epoch was finished.

    Raises:
        ContentError: a record of the log lacks its figures.
    """
    if not history.epochs:
        return []
    try:
        return charts(history)
    except (KeyError, TypeError, ValueError) as error:
        raise ContentError(f"{history.path}: a record is damaged ({error})") from None


def charts(history: History) -> list[str]:
    """The same, of a log that is whole."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        found = [accuracy_chart(history.epochs), loss_chart(history.epochs)]
        if history.of("interval"):
            found.append(rate_chart(history.of("interval")))
    return found


def plot_history(history: History) -> "list[Axes]":
    """Accuracy, loss and learning rate side by side in a figure of pyplot; see `History.plot`."""
    from matplotlib import pyplot

    epochs, intervals = history.epochs, history.of("interval")
    if not epochs:
        raise UsageError("there is nothing to draw before the end of the first epoch")
    number = 3 if intervals else 2
    _, axes = pyplot.subplots(1, number, figsize=(4.4 * number, 2.9), layout="constrained")
    dress(axes[0], "accuracy in percent")
    draw(axes[0], epochs, "accuracy", 100.0)
    dress(axes[1], "loss in nats")
    draw(axes[1], epochs, "loss", 1.0)
    if intervals:
        dress(axes[2], "learning rate", "steps")
        draw_rates(axes[2], intervals)
    return list(axes)


def accuracy_chart(epochs: Sequence[dict[str, Any]]) -> str:
    """Share of right answers after each epoch."""
    figure, axes = chart("accuracy in percent")
    draw(axes, epochs, "accuracy", 100.0)
    axes.set_ylim(top=101)
    last = told(epochs[-1], "accuracy", lambda value: f"{100 * value:.1f} %")
    return svg(figure, "accuracy", f"Accuracy by epoch; after the last one {last}")


def loss_chart(epochs: Sequence[dict[str, Any]]) -> str:
    """Mean loss after each epoch. What lies far above the training loss is cut off."""
    figure, axes = chart("loss in nats")
    draw(axes, epochs, "loss", 1.0)
    highest = max(epoch["training"]["loss"] for epoch in epochs)
    ends = [epochs[-1][group]["loss"] for group in GROUPS if epochs[-1].get(group)]
    axes.set_ylim(0, BEYOND * max(highest, *ends) or 1)
    last = told(epochs[-1], "loss", lambda value: f"{value:.3f}")
    return svg(figure, "loss", f"Loss by epoch; after the last one {last}")


def rate_chart(intervals: Sequence[dict[str, Any]]) -> str:
    """The learning rate by weight updates."""
    figure, axes = chart("learning rate", "weight updates")
    rates = draw_rates(axes, intervals)
    return svg(
        figure, "rate", f"Learning rate; at most {max(rates):.3g}, in the end {rates[-1]:.3g}"
    )


def chart(ylabel: str, xlabel: str = "epoch") -> tuple[Any, "Axes"]:
    """An empty chart."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.4, 2.9), layout="constrained")
    axes = figure.subplots()
    dress(axes, ylabel, xlabel)
    return figure, axes


def dress(axes: "Axes", ylabel: str, xlabel: str = "epoch") -> None:
    """Name the axes of a chart, and draw its grid."""
    from matplotlib.ticker import MaxNLocator

    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    axes.grid(alpha=0.15)


def draw_rates(axes: "Axes", intervals: Sequence[dict[str, Any]]) -> list[float]:
    """A line for the learning rate, which is returned."""
    steps = [record["step"] for record in intervals]
    rates = [record["learning_rate"] for record in intervals]
    axes.plot(steps, rates, color=BLUE, marker="o" if len(steps) < 3 else "", markersize=4)
    axes.set(xlim=(0, None), ylim=(0, None))
    return rates


def draw(axes: "Axes", epochs: Sequence[dict[str, Any]], figure: str, scale: float) -> None:
    """A line for each group of images."""
    for group, colour in GROUPS.items():
        known = [epoch for epoch in epochs if epoch.get(group)]
        if known:
            axes.plot(
                [epoch["epoch"] for epoch in known],
                [scale * epoch[group][figure] for epoch in known],
                color=colour,
                marker="o" if len(epochs) < 10 else "",
                markersize=4,
                label=group,
            )
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0, ncols=len(GROUPS))


def told(epoch: dict[str, Any], figure: str, write: Any) -> str:
    """The figures of one epoch in words."""
    return ", ".join(
        f"{group} {write(epoch[group][figure])}" for group in GROUPS if epoch.get(group)
    )
