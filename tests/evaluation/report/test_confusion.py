"""What is seen in the drawn matrix, by where it stands there, is what was counted."""

import re
import xml.etree.ElementTree as ElementTree
from typing import NamedTuple

import numpy as np

from resnets.evaluation.metrics import measure
from resnets.evaluation.report.confusion import chosen_classes, confusion_matrix

BLUE, ORANGE = "#3987e5", "#d95926"
NAMES = ["cat", "dog", "owl"]
COUNTS = [[5, 3, 0], [1, 30, 9], [0, 2, 2]]  # rows of different sums
HOSTILE = [
    '</svg><script>alert("1")</script>',
    "a & b",
    "$x^2$",
    "x" * 500,
    "line\nfeed\x00",
    ' id="x" url(#y)',
    "犬 \N{DOG FACE}",
    "",
]


class Drawn(NamedTuple):
    """Texts by their place (x, y), squares by their middle with colour and opacity, and titles."""

    texts: dict[tuple[float, float], str]
    squares: dict[tuple[float, float], tuple[str, float]]
    titles: list[str]


def drawn(metrics, classes) -> Drawn:
    root = ElementTree.fromstring(confusion_matrix(metrics, classes))
    texts, squares = {}, {}
    for node in root.iter():
        kind = node.tag.rpartition("}")[2]
        if kind == "text":
            place = re.search(r"(?:translate\(|rotate\(\S+ )(\S+) (\S+?)\)", node.get("transform"))
            texts[float(place[1]), float(place[2])] = "".join(node.itertext())
        colour = re.search(r"fill: (#\w+); opacity: ([\d.]+)", node.get("style") or "")
        if kind == "path" and colour:
            points = np.array(re.findall(r"[\d.]+ [\d.]+", node.get("d")))
            corners = np.array([list(map(float, point.split())) for point in points])
            middle = (corners.min(axis=0) + corners.max(axis=0)) / 2
            squares[tuple(middle)] = colour[1], float(colour[2])
    return Drawn(texts, squares, [node.text for node in root.iter() if node.tag.endswith("title")])


def measured(counts, names):
    labels, answers = (
        np.repeat(numbers.ravel(), np.ravel(counts)) for numbers in np.indices(np.shape(counts))
    )
    return measure(np.eye(len(names))[answers], labels, names)


def axis(seen: Drawn, names, coordinate: int) -> dict[str, float]:
    """Where each class stands along x (0, above the squares) or y (1, left of them)."""
    first = min(square[1 - coordinate] for square in seen.squares) - 12  # half of a square
    return {
        text: place[coordinate]
        for place, text in seen.texts.items()
        if text in names and place[1 - coordinate] < first
    }


def nearest(classes: dict[str, float], place: float) -> str:
    return min(classes, key=lambda name: abs(classes[name] - place))


def test_every_count_stands_where_the_names_of_its_row_and_column_meet():
    seen = drawn(measured(COUNTS, NAMES), range(3))
    across, down = axis(seen, NAMES, 0), axis(seen, NAMES, 1)
    assert sorted(across, key=across.get) == sorted(down, key=down.get) == NAMES
    counts = np.zeros((3, 3), int)
    for (x, y), text in seen.texts.items():
        if text.isdigit():
            counts[NAMES.index(nearest(down, y)), NAMES.index(nearest(across, x))] = int(text)
    assert counts.tolist() == COUNTS


def test_the_true_classes_are_the_rows():
    seen = drawn(measured(COUNTS, NAMES), range(3))
    (columns,) = (place for place, text in seen.texts.items() if text == "predicted class")
    (rows,) = (place for place, text in seen.texts.items() if text == "true class")
    assert columns[1] < min(y for _, y in seen.squares) < max(y for _, y in seen.squares)
    assert rows[0] < min(x for x, _ in seen.squares)
    assert "dog, predicted as owl: 9 of 40" in seen.titles


def test_right_is_blue_and_wrong_orange_the_stronger_the_larger_the_share_of_the_row():
    seen = drawn(measured(COUNTS, NAMES), range(3))
    across, down = axis(seen, NAMES, 0), axis(seen, NAMES, 1)
    assert len(seen.squares) == np.count_nonzero(COUNTS)
    opacities = {}
    for (x, y), (colour, opacity) in seen.squares.items():
        row, column = NAMES.index(nearest(down, y)), NAMES.index(nearest(across, x))
        assert colour == (BLUE if row == column else ORANGE)
        opacities[COUNTS[row][column] / sum(COUNTS[row])] = opacity
    shares = sorted(opacities)
    slopes = np.diff([opacities[share] for share in shares]) / np.diff(shares)
    np.testing.assert_allclose(slopes, slopes[0], rtol=1e-3)
    assert 0.3 < slopes[0] < 1
    assert 0.1 < opacities[shares[0]] < opacities[shares[-1]] <= 0.7  # text is readable on it


def test_names_stay_names_on_one_line_and_long_ones_are_cut():
    counts = np.random.default_rng(0).integers(1, 9, (len(HOSTILE), len(HOSTILE)))
    metrics = measured(counts, HOSTILE)
    text = confusion_matrix(metrics, range(len(HOSTILE)))
    root = ElementTree.fromstring(text)
    assert not [node for node in root.iter() if node.tag.endswith("script")]
    words = {"".join(node.itertext()) for node in root.iter() if node.tag.endswith("text")}
    shown = {"</svg><script>a…", "a & b", "$x^2$", "x" * 15 + "…", HOSTILE[5], HOSTILE[6]}
    assert shown | {r"line\nfeed\x00"} <= words
    seen = drawn(metrics, range(len(HOSTILE)))
    assert f"a & b, predicted as {HOSTILE[0]}: {counts[1, 0]} of {counts[1].sum()}" in seen.titles


def test_it_stands_in_a_page_light_or_dark_and_is_the_same_each_time():
    metrics = measured(COUNTS, NAMES)
    text = confusion_matrix(metrics, range(3))
    assert text == confusion_matrix(metrics, range(3))
    assert not re.search("#000000|#ffffff|#010203|black|white|<metadata|<image|@import", text)
    assert "currentColor" in text
    ids, used = re.findall(r' id="([^"]*)"', text), re.findall(r'(?:href="|url\()#([^")]*)', text)
    assert set(ids) == set(used)
    assert all(name.startswith("confusion-") for name in ids)


def test_of_many_classes_those_with_most_mistakes_are_shown():
    labels = np.arange(3000) % 100
    answers = labels.copy()
    answers[labels == 42] = 77
    metrics = measure(np.eye(100)[answers], labels)
    chosen = chosen_classes(metrics)
    assert len(chosen) == 20
    assert {42, 77} <= set(chosen)
    assert chosen == sorted(chosen)
    text = confusion_matrix(metrics, chosen)
    assert "42, predicted as 77: 30 of 30" in text
    assert "42 predicted as 77 30 times" in re.search('aria-label="([^"]*)"', text)[1]


def test_two_classes_without_a_mistake_can_be_drawn():
    seen = drawn(measured([[3, 0], [0, 2]], NAMES[:2]), range(2))
    assert len(seen.squares) == 2
    assert "predicted class" in seen.texts.values()
