"""The confusion matrix as SVG text that stands in an HTML page.

Written out by hand: class names may be anything, which matplotlib would take for formulas, and
each square tells what it stands for when pointed at.
"""

from collections.abc import Sequence
from html import escape

import numpy as np

from resnets.evaluation.metrics import Metrics
from resnets.evaluation.report.charts import BLUE, ORANGE

MOST = 20  # classes that can be read in one picture
CELL = 34  # side of a square; what follows is in the same units
FONT = 13
LETTER = 7.6  # width of a letter, on the wide side
LONGEST = 16  # letters of a class name
FAINT, STRONG = 0.12, 0.7  # opacity of the rarest and of the most frequent: text stays readable


def chosen_classes(metrics: Metrics, most: int = MOST) -> list[int]:
    """The classes to show: all, or those with the most mistakes, in their order."""
    counts = np.array(metrics.confusion)
    if len(counts) <= most:
        return list(range(len(counts)))
    wrong = counts - np.diag(np.diag(counts))
    worst = np.argsort(-(wrong.sum(axis=0) + wrong.sum(axis=1)), kind="stable")[:most]
    return sorted(map(int, worst))


def confusion_matrix(metrics: Metrics, classes: Sequence[int]) -> str:
    """Counts by true class (row) and answer (column), as an <svg> element.

    Args:
        metrics: of at least these classes.
        classes: numbers of those to show.
    """
    names = [abridged(metrics.classes[number].name) for number in classes]
    longest = LETTER * max(map(len, names))
    upright = longest > CELL  # the names over the columns
    left, top = longest + 34, (longest if upright else FONT) + 34
    side = CELL * len(classes)
    width, height = left + side + 2, top + side + 2
    parts = [
        f'<svg role="img" aria-label="{escape(described(metrics))}" viewBox="0 0 {width:.0f} '
        f'{height:.0f}" width="{width:.0f}" height="{height:.0f}" font-size="{FONT}" '
        'fill="currentColor">',
        *frame(names, left, top, upright=upright),
    ]
    for row, true in enumerate(classes):
        for column, predicted in enumerate(classes):
            if metrics.confusion[true][predicted]:
                x, y = left + CELL * column, top + CELL * row
                parts.append(square(metrics, true, predicted, (x, y)))
    return "\n".join([*parts, "</svg>"])


def frame(names: Sequence[str], left: float, top: float, *, upright: bool) -> list[str]:
    """Names of rows and columns, what they mean, and a grid."""
    side = CELL * len(names)
    middle = side / 2
    parts = [
        f'<text x="{left + middle:.1f}" y="{FONT}" text-anchor="middle" opacity="0.8">'
        "taken for</text>",
        f'<text transform="translate({FONT} {top + middle:.1f}) rotate(-90)" '
        'text-anchor="middle" opacity="0.8">is</text>',
        f'<g stroke="currentColor" stroke-opacity="0.2"><rect x="{left:.1f}" y="{top:.1f}" '
        f'width="{side}" height="{side}" fill="none"/>',
    ]
    for number in range(1, len(names)):
        x, y = left + CELL * number, top + CELL * number
        parts.append(f'<path d="M{x:.1f} {top:.1f}v{side}M{left:.1f} {y:.1f}h{side}"/>')
    parts.append("</g>")
    for number, name in enumerate(names):
        x, y = left + CELL * (number + 0.5), top + CELL * (number + 0.5)
        text = escape(name)
        above = f'x="{x:.1f}" y="{top - 8:.1f}" text-anchor="middle"'
        if upright:
            above = f'transform="translate({x + 4:.1f} {top - 6:.1f}) rotate(-90)"'
        parts.append(f"<text {above}>{text}</text>")
        parts.append(f'<text x="{left - 7:.1f}" y="{y + 4.5:.1f}" text-anchor="end">{text}</text>')
    return parts


def square(metrics: Metrics, true: int, predicted: int, corner: tuple[float, float]) -> str:
    """One square with its count: blue where the answer is right, orange where it is wrong."""
    count = metrics.confusion[true][predicted]
    row = metrics.classes[true]
    share = count / row.support
    opacity = FAINT + (STRONG - FAINT) * share
    colour = BLUE if true == predicted else ORANGE
    x, y = corner
    small = ' font-size="10"' if count > 9999 else ""
    told = f"{row.name}, taken for {metrics.classes[predicted].name}: {count:,} of {row.support:,}"
    return (
        f"<g><title>{escape(told)}</title>"
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{CELL}" height="{CELL}" fill="{colour}" '
        f'fill-opacity="{opacity:.2f}"/>'
        f'<text x="{x + CELL / 2:.1f}" y="{y + CELL / 2 + 4.5:.1f}" text-anchor="middle"{small}>'
        f"{count}</text></g>"
    )


def described(metrics: Metrics) -> str:
    """The matrix for those who cannot see it."""
    pairs = [
        f"{pair.true} taken for {pair.predicted} {pair.count} times"
        for pair in metrics.most_confused(3)
    ]
    told = "; ".join(pairs) or "no mistake"
    return f"Confusion matrix of {len(metrics.classes)} classes: {told}"


def abridged(name: str) -> str:
    """A class name that is not too long for a chart.

    >>> abridged("African hunting dog, hyena dog")
    'African hunting…'
    """
    return name if len(name) <= LONGEST else name[: LONGEST - 1].rstrip() + "…"
