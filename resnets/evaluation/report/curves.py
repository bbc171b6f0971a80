"""Curves of error by step, drawn as in the papers: dashed for training, solid for test images."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from resnets.evaluation.history import History
from resnets.evaluation.report.charts import INK, STYLE, svg
from resnets.files.writing import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = ("#3987e5", "#d95926", "#2a9d73", "#9b59b6", "#b8860b")  # blue and orange first
_START = 0.05  # share of a run to ignore when the axis range is chosen: it begins at chance


@dataclass(frozen=True)
class Curve:
    """The errors of one run after each epoch.

    Attributes:
        label: in the legend; runs with the same label share a colour.
        steps: (E,) steps done.
        training: (E,) percent, of the augmented images, over the epoch.
        test: (E,) percent, after the epoch; empty if the log does not say.
    """

    label: str
    steps: list[int]
    training: list[float]
    test: list[float]

    @classmethod
    def of(cls, label: str, history: History) -> "Curve":
        """The curve of a run, from its log."""
        epochs = history.epochs
        test = [100 * (1 - epoch["test"]["accuracy"]) for epoch in epochs if "test" in epoch]
        return cls(
            label,
            [epoch["step"] for epoch in epochs],
            [100 * (1 - epoch["training"]["accuracy"]) for epoch in epochs],
            test if len(test) == len(epochs) else [],
        )


def _draw_panels(panels: Mapping[str, Sequence[Curve]]) -> "Figure":
    """A panel for each group of curves, side by side, over the same errors."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6 * len(panels), 4.2), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for panel, (title, curves) in zip(axes, panels.items(), strict=True):
        _draw_panel(panel, curves)
        panel.set(title=title, xlabel="steps", xlim=(0, None))
    axes[0].set(ylabel="error in percent", ylim=(0, _error_limit(panels)))
    return figure


def _draw_panel(panel: "Axes", curves: Sequence[Curve]) -> None:
    """Draw curves and the legend."""
    labels = list(dict.fromkeys(curve.label for curve in curves))
    for curve in curves:
        colour = _COLOURS[labels.index(curve.label) % len(_COLOURS)]
        alone = len(curve.steps) == 1  # a line needs two points
        marker = "o" if alone else ""
        panel.plot(curve.steps, curve.training, color=colour, linestyle="--", marker=marker, lw=0.9)
        if curve.test:
            panel.plot(curve.steps, curve.test, color=colour, linewidth=1.8, marker=marker)
    for number, label in enumerate(labels):
        panel.plot([], [], color=_COLOURS[number % len(_COLOURS)], linewidth=1.8, label=label)
    panel.plot([], [], color=INK, linewidth=0.9, linestyle="--", label="in training")
    panel.plot([], [], color=INK, linewidth=1.8, label="test")
    panel.legend(loc="upper right")


def _error_limit(panels: Mapping[str, Sequence[Curve]]) -> float:
    """The upper end of the error axis: above every error except those at the start of a run."""
    errors = [
        error
        for curves in panels.values()
        for curve in curves
        for values in (curve.training, curve.test)
        for step, error in zip(curve.steps, values, strict=False)
        if step >= _START * curve.steps[-1]
    ]
    return float(min(100, 1.05 * max(errors))) if errors else 100.0


def save(panels: Mapping[str, Sequence[Curve]], path: Path, description: str) -> list[Path]:
    """Draw curves into an SVG and a PNG.

    Args:
        panels: curves by the title of their panel.
        path: of the files, without suffix.
        description: of the picture, for screen readers.

    Returns:
        The files.
    """
    import matplotlib

    with matplotlib.rc_context(STYLE):
        figure = _draw_panels(panels)
        image = io.BytesIO()
        figure.savefig(image, format="png", dpi=150, facecolor="white")
        text = svg(figure, path.name, description)
    files = [path.with_name(f"{path.name}.{ending}") for ending in ("svg", "png")]
    for file, content in zip(files, (text.encode() + b"\n", image.getvalue()), strict=True):
        write_atomically(file, content)
    return files
