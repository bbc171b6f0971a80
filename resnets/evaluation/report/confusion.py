"""The confusion matrix as an <svg> element for an HTML page."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from resnets.escaping import escaped
from resnets.evaluation.metrics import Metrics
from resnets.evaluation.report.charts import BLUE, INK, ORANGE, STYLE, svg
from resnets.format import plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST = 20  # classes that can be read in one picture
_CELL = 0.35  # inches, side of a square
_FONT = 9.75  # points
_FITS = 4  # letters of a class name that fit over a column; longer names are rotated
_LONGEST = 16  # letters of a class name
_FAINT, _STRONG = 0.12, 0.7  # opacity for the smallest and the largest share: text stays readable


def chosen_classes(metrics: Metrics, most: int = _MOST) -> list[int]:
    """The numbers of the classes to show: all, or those with the most mistakes, ascending."""
    counts = np.array(metrics.confusion)
    if len(counts) <= most:
        return list(range(len(counts)))
    wrong = counts - np.diag(np.diag(counts))
    worst = np.argsort(-(wrong.sum(axis=0) + wrong.sum(axis=1)), kind="stable")[:most]
    return sorted(map(int, worst))


def confusion_matrix(metrics: Metrics, classes: Sequence[int]) -> str:
    """Counts by true class (row) and predicted class (column), as an <svg> element.

    Args:
        metrics: of at least these classes.
        classes: numbers of the classes to show.
    """
    import matplotlib
    from matplotlib.figure import Figure

    side = _CELL * len(classes)
    with matplotlib.rc_context(STYLE | {"font.size": _FONT, "savefig.bbox": "tight"}):
        figure = Figure(figsize=(side, side))
        axes = figure.add_axes((0, 0, 1, 1))
        _draw_frame(axes, [_short_name(metrics.classes[number].name) for number in classes])
        titles: dict[str, str] = {}
        for row, true in enumerate(classes):
            for column, predicted in enumerate(classes):
                if metrics.confusion[true][predicted]:
                    titles |= _draw_cell(axes, metrics, (true, predicted), (column, row))
        return svg(figure, "confusion", _description(metrics), titles)


def _draw_frame(axes: "Axes", names: Sequence[str]) -> None:
    """Draw the grid, the axis labels, and the names of rows and columns."""
    lines, middles = np.arange(len(names) + 1), np.arange(len(names)) + 0.5
    axes.set(xlim=(0, len(names)), ylim=(len(names), 0))
    axes.set_xlabel("predicted class", labelpad=8)
    axes.set_ylabel("true class", labelpad=8)
    axes.xaxis.set_label_position("top")
    axes.xaxis.tick_top()
    axes.set_xticks(middles, names, rotation=90 if max(map(len, names)) > _FITS else 0)
    axes.set_yticks(middles, names)
    axes.set_xticks(lines, minor=True)
    axes.set_yticks(lines, minor=True)
    axes.tick_params(which="both", length=0)
    axes.grid(which="minor", color=INK, alpha=0.2, linewidth=0.75)
    axes.spines[:].set_visible(False)


def _draw_cell(
    axes: "Axes", metrics: Metrics, pair: tuple[int, int], corner: tuple[int, int]
) -> dict[str, str]:
    """Draw a square with its count: blue where the prediction is right, orange where it is wrong.

    Args:
        axes: where each square has a side of 1.
        metrics: with the counts.
        pair: numbers of the true and the predicted class.
        corner: column and row of the square.

    Returns:
        The tooltip of each of its parts, by `gid`.
    """
    from matplotlib.patches import Rectangle

    (true, predicted), (column, row) = pair, corner
    count, support = metrics.confusion[true][predicted], metrics.classes[true].support
    colour = BLUE if true == predicted else ORANGE
    opacity = _FAINT + (_STRONG - _FAINT) * count / support
    gids = f"cell-{row}-{column}", f"count-{row}-{column}"
    axes.add_artist(Rectangle(corner, 1, 1, facecolor=colour, alpha=opacity, lw=0, gid=gids[0]))
    place, size = (column + 0.5, row + 0.5), 0.77 * _FONT if count > 9999 else _FONT
    axes.text(*place, str(count), fontsize=size, ha="center", va="center_baseline", gid=gids[1])
    names = metrics.classes[true].name, metrics.classes[predicted].name
    return dict.fromkeys(gids, f"{names[0]}, predicted as {names[1]}: {count:,} of {support:,}")


def _description(metrics: Metrics) -> str:
    """A description of the matrix for screen readers."""
    pairs = [
        f"{pair.true} predicted as {pair.predicted} {pair.count} times"
        for pair in metrics.most_confused(3)
    ]
    mistakes = "; ".join(pairs) or "no mistake"
    return f"Confusion matrix of {plural(len(metrics.classes), 'class')}: {mistakes}"


def _short_name(name: str) -> str:
    """A class name that is not too long for a chart, on one line.

    >>> _short_name("African hunting dog, hyena dog")
    'African hunting…'
    """
    name = escaped(name)
    return name if len(name) <= _LONGEST else name[: _LONGEST - 1].rstrip() + "…"
