"""Learning curves of a run as charts for an HTML page."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from resnets.errors import ContentError
from resnets.evaluation.drawing import GROUPS, draw, draw_rates, label_axes
from resnets.evaluation.history import History
from resnets.evaluation.report.charts import STYLE, svg
from resnets.format import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_HEADROOM = 1.1  # upper end of the loss axis, as a multiple of the greatest loss shown


def learning_curves(history: History) -> list[str]:
    """Accuracy, loss and learning rate as <svg> elements; empty if no epoch was finished.

    Raises:
        ContentError: a record of the log lacks its figures.
    """
    if not history.epochs:
        return []
    try:
        return _charts(history)
    except (KeyError, TypeError, ValueError) as error:
        raise ContentError(f"{history.path}: a record is damaged ({error})") from None


def _charts(history: History) -> list[str]:
    """The same, for a log without damaged records."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        charts = [_accuracy_chart(history.epochs), _loss_chart(history.epochs)]
        if history.of("interval"):
            charts.append(_rate_chart(history.of("interval")))
    return charts


def _accuracy_chart(epochs: Sequence[dict[str, Any]]) -> str:
    """Accuracy after each epoch."""
    figure, axes = _chart("accuracy in percent")
    draw(axes, epochs, "accuracy", 100.0)
    axes.set_ylim(top=101)
    last = _in_words(epochs[-1], "accuracy", lambda value: percent(value))
    return svg(figure, "accuracy", f"Accuracy by epoch; after the last one {last}")


def _loss_chart(epochs: Sequence[dict[str, Any]]) -> str:
    """Mean loss after each epoch. What lies far above the training loss is cut off."""
    figure, axes = _chart("loss in nats")
    draw(axes, epochs, "loss", 1.0)
    highest = max(epoch["training"]["loss"] for epoch in epochs)
    ends = [epochs[-1][group]["loss"] for group in GROUPS if epochs[-1].get(group)]
    axes.set_ylim(0, _HEADROOM * max(highest, *ends) or 1)
    last = _in_words(epochs[-1], "loss", lambda value: f"{value:.3f}")
    return svg(figure, "loss", f"Loss by epoch; after the last one {last}")


def _rate_chart(intervals: Sequence[dict[str, Any]]) -> str:
    """The learning rate by step."""
    figure, axes = _chart("learning rate", "step")
    rates = draw_rates(axes, intervals)
    return svg(
        figure, "rate", f"Learning rate; at most {max(rates):.3g}, in the end {rates[-1]:.3g}"
    )


def _chart(ylabel: str, xlabel: str = "epoch") -> tuple[Any, "Axes"]:
    """An empty chart."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.4, 2.9), layout="constrained")
    axes = figure.subplots()
    label_axes(axes, ylabel, xlabel)
    return figure, axes


def _in_words(epoch: dict[str, Any], figure: str, write: Any) -> str:
    """The figures of one epoch in words."""
    return ", ".join(
        f"{group} {write(epoch[group][figure])}" for group in GROUPS if epoch.get(group)
    )
