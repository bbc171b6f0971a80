"""Charts read back from their SVG: what is drawn, in the numbers that stand at the axes."""

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import pytest


class Chart(NamedTuple):
    """What is drawn: lines in the uppermost axes, bars in the lowest, in the units of these.

    Attributes:
        lines: by colour, points (N, 2).
        bars: by colour, middle and height of each, (N, 2).
    """

    lines: dict[str, np.ndarray]
    bars: dict[str, np.ndarray]


def numbers(text: str) -> np.ndarray:
    return np.array(re.findall(r"-?[\d.]+", text), float).reshape(-1, 2)


def labels(root: ElementTree.Element, axis: str) -> Iterator[tuple[float, float]]:
    """Place and value of each number at the axis x (below) or y (on the left)."""
    uses = [(float(u.get("x")), float(u.get("y"))) for u in root.iter() if u.tag.endswith("}use")]
    left, bottom = min(x for x, _ in uses), max(y for _, y in uses)
    marks = (
        [x for x, y in uses if y == bottom] if axis == "x" else [y for x, y in uses if x == left]
    )
    anchor = "text-anchor: middle" if axis == "x" else "text-anchor: end"
    for node in root.iter():
        text = "".join(node.itertext()).replace("\N{MINUS SIGN}", "-")
        is_label = node.tag.endswith("}text") and anchor in (node.get("style") or "")
        if is_label and re.fullmatch(r"-?[\d.]+", text):
            place = float(node.get(axis))
            yield min(marks, key=lambda mark: abs(mark - place)), float(text)


def scales(places: list[tuple[float, float]]) -> list[np.ndarray]:
    """Slope and offset from places to values, of each of several axes, one after the other."""
    ends = [n for n in range(1, len(places)) if places[n][1] <= places[n - 1][1]]
    groups = zip([0, *ends], [*ends, len(places)], strict=True)
    return [np.polyfit(*np.array(places[start:end]).T, 1) for start, end in groups]


@pytest.fixture
def read_chart() -> Callable[[str], Chart]:
    def read(text: str) -> Chart:
        root = ElementTree.fromstring(text)
        (across,) = scales(list(labels(root, "x")))
        upper, *_, lower = 2 * scales(list(labels(root, "y")))
        lines, bars = {}, {}
        for node in root.iter():
            style, clipped = node.get("style") or "", node.get("clip-path")
            points = numbers(node.get("d") or "") if clipped and node.tag.endswith("}path") else []
            colour = re.match(r"fill: (\S+?)(?:; stroke: (#\w+)|$)", style)
            if len(points) and colour and colour[2]:
                columns = [np.polyval(fit, points[:, n]) for n, fit in enumerate((across, upper))]
                lines[colour[2]] = np.stack(columns, axis=1)
            elif len(points) and colour:
                middle = (points[:, 0].min() + points[:, 0].max()) / 2
                height = np.ptp(np.polyval(lower, points[:, 1]))
                bars.setdefault(colour[1], []).append((np.polyval(across, middle), height))
        return Chart(lines, {name: np.array(each) for name, each in bars.items()})

    return read
