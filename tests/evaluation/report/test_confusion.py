import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from resnets.evaluation.metrics import measure
from resnets.evaluation.report.confusion import chosen_classes, confusion_matrix

HOSTILE = ['</svg><script>alert("1")</script>', "a & b", "$x^2$", "x" * 500]


def drawn(metrics, classes):
    return ElementTree.fromstring(confusion_matrix(metrics, classes))


@pytest.fixture
def metrics():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 4, 200)
    return measure(generator.normal(size=(200, 4)) + 2 * np.eye(4)[labels], labels, HOSTILE)


def test_every_count_stands_in_its_row_and_column(metrics):
    root = drawn(metrics, range(4))
    squares = [node for node in root.iter("g") if node.find("title") is not None]
    rows = sorted({float(node.find("rect").get("y")) for node in squares})
    columns = sorted({float(node.find("rect").get("x")) for node in squares})
    seen = np.zeros((4, 4), int)
    for node in squares:
        place = node.find("rect")
        row, column = rows.index(float(place.get("y"))), columns.index(float(place.get("x")))
        seen[row, column] = int(node.find("text").text)
    assert seen.tolist() == [list(row) for row in metrics.confusion]


def test_names_stay_names_and_long_ones_are_cut(metrics):
    root = drawn(metrics, range(4))
    assert not root.findall(".//script")
    words = ["".join(node.itertext()) for node in root.iter("text")]
    assert {"a & b", "$x^2$", "x" * 15 + "…"} <= set(words)
    titles = [node.text for node in root.iter("title")]
    assert any(title.startswith("a & b, taken for") for title in titles)


def test_what_is_right_and_what_is_wrong_have_colours_of_their_own(metrics):
    for node in drawn(metrics, range(4)).iter("g"):
        if node.find("title") is not None:
            true, _, rest = node.find("title").text.partition(", taken for ")
            right = rest.rpartition(":")[0] == true
            assert node.find("rect").get("fill") == ("#3987e5" if right else "#d95926")


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
    assert "42, taken for 77: 30 of 30" in text
    assert "42 taken for 77 30 times" in re.search('aria-label="([^"]*)"', text)[1]
