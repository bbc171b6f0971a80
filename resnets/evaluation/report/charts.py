"""Charts as SVG elements for an HTML page: no external font, no script, for light and dark pages.

Text and axes have the colour of the text around them (`currentColor`), the background is
transparent, and the same figures always give the same bytes.
"""

import io
import re
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np

from resnets.escaping import escaped
from resnets.evaluation.calibration import BINS, Reliability
from resnets.format import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE = "#3987e5", "#d95926"  # distinct to colour-blind eyes, visible on white and on black
_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_REFERENCE = re.compile(r"(^#|url\(#)([^)]+)")  # in an attribute: to another element
INK = "#010203"  # stands for the colour of the text around while matplotlib draws

STYLE: Any = {
    "text.parse_math": False,  # a name with dollar signs is not a formula
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "resnets",  # ids do not change from run to run
    "font.family": "sans-serif",
    "font.sans-serif": ["system-ui", "DejaVu Sans", "sans-serif"],
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
} | dict.fromkeys(
    ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK
)


ElementTree.register_namespace("", _SVG)
ElementTree.register_namespace("xlink", _XLINK)


def svg(
    figure: "Figure", name: str, description: str, titles: Mapping[str, str] | None = None
) -> str:
    """The figure as an <svg> element.

    Args:
        figure: drawn under `STYLE`.
        name: a word that is unique among the charts of a page, so that their ids differ.
        description: what the chart shows, for those who cannot see it.
        titles: tooltips of parts of the figure, by their `gid`.
    """
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with warnings.catch_warnings():  # the browser's font has the letters that matplotlib's lacks
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    root = ElementTree.fromstring(buffer.getvalue())
    used = {part for node in root.iter() for value in node.attrib.values() for part in _ids(value)}
    for node in list(root.iter()):
        title = (titles or {}).get(node.attrib.get("id", ""))
        if title is not None:
            ElementTree.SubElement(node, f"{{{_SVG}}}title").text = escaped(title)
        if node.get("id") not in used:
            node.attrib.pop("id", None)
        for key, value in node.attrib.items():
            value = f"{name}-{value}" if key == "id" else _REFERENCE.sub(rf"\1{name}-\2", value)
            node.set(key, value.replace(INK, "currentColor"))
    root.attrib.update({"role": "img", "aria-label": escaped(description)})
    return ElementTree.tostring(root, encoding="unicode").rstrip()


def _ids(value: str) -> list[str]:
    """The ids of other elements that the value of an attribute refers to.

    >>> _ids("#glyph-1"), _ids("url(#clip)"), _ids("fill: #3987e5")
    (['glyph-1'], ['clip'], [])
    """
    return [match[2] for match in _REFERENCE.finditer(value)]


def reliability_diagram(before: Reliability, after: Reliability | None = None) -> str:
    """Accuracy against confidence, as SVG: a calibrated network lies on the diagonal.

    A histogram below it shows the share of the predictions with each confidence.

    Args:
        before: of the probabilities as trained.
        after: of the calibrated probabilities, if there are any.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.6, 4.8), layout="constrained")
        upper, lower = figure.subplots(2, sharex=True, height_ratios=(3, 1))
        upper.plot([0, 1], [0, 1], color=INK, linewidth=1, linestyle=":", alpha=0.6)
        _draw_reliability(upper, lower, before, "as trained", ORANGE, -1 if after else 0)
        if after:
            _draw_reliability(upper, lower, after, "calibrated", BLUE, 1)
        upper.set(ylabel="accuracy", xlim=(0, 1.02), ylim=(0, 1.02))
        lower.set(ylabel="share", xlabel="confidence")
        upper.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0)
        errors = " and ".join(percent(bins.error) for bins in (before, after) if bins)
        return svg(figure, "reliability", f"Accuracy by confidence; calibration error {errors}")


def _draw_reliability(
    upper: "Axes", lower: "Axes", bins: Reliability, label: str, colour: str, side: int
) -> None:
    """Draw one curve and its bars; `side` -1 or 1 halves the bars' width to either side, 0 not."""
    used = bins.counts > 0
    upper.plot(
        bins.confidence[used],
        bins.accuracy[used],
        color=colour,
        marker="o",
        markersize=4,
        label=f"{label}: calibration error {percent(bins.error)}",
    )
    width = 0.8 / BINS / (2 if side else 1)
    middles = (np.arange(BINS) + 0.5) / BINS + side * width / 2
    lower.bar(middles, bins.counts / bins.counts.sum(), width, color=colour)
