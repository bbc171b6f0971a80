import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from resnets.evaluation.calibration import Reliability, reliability
from resnets.evaluation.report.charts import reliability_diagram

BLUE, ORANGE = "#3987e5", "#d95926"


@pytest.fixture
def bins():
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(500, 4), scale=3)
    return reliability(logits, generator.integers(0, 4, 500))


def test_the_diagram_is_one_svg_element_that_needs_nothing_from_outside(bins):
    text = reliability_diagram(bins, bins)
    root = ElementTree.fromstring(text)
    assert root.tag.endswith("svg")
    assert root.get("role") == "img"
    assert f"calibration error {100 * bins.error:.1f} %" in root.get("aria-label")
    links = re.findall(r'(?:href|src)="([^"]*)"|url\(([^)]*)\)', text)
    assert links
    assert all(link.startswith("#") for pair in links for link in pair if link)
    assert not re.search("<script|@import|<image|<metadata", text)


def test_its_words_are_text_that_can_be_read_and_searched(bins):
    root = ElementTree.fromstring(reliability_diagram(bins, bins))
    words = {"".join(node.itertext()) for node in root.iter() if node.tag.endswith("text")}
    error = f"calibration error {100 * bins.error:.1f} %"
    assert {"confidence", f"as trained: {error}", f"calibrated: {error}"} <= words


def test_every_id_is_referred_to_and_bears_the_charts_name(bins):
    text = reliability_diagram(bins)
    ids = re.findall(r' id="([^"]*)"', text)
    used = re.findall(r'(?:href="|url\()#([^")]*)', text)
    assert set(ids) == set(used)
    assert len(ids) == len(set(ids))
    assert all(name.startswith("reliability-") for name in ids)


def test_no_text_or_line_is_black_whatever_the_ground(bins):
    text = reliability_diagram(bins)
    assert not re.search("#000000|#ffffff|#010203|black|white", text)
    assert "fill: currentColor" in text


def test_the_same_figures_give_the_same_bytes(bins):
    assert reliability_diagram(bins) == reliability_diagram(bins)


def test_a_single_answer_can_be_drawn():
    one = reliability([[3.0, 0.0]], [0])
    assert isinstance(one, Reliability)
    assert reliability_diagram(one).startswith("<svg")


def test_curves_and_bars_are_where_the_figures_are(read_chart):
    """As the numbers at the axes say; orange as trained, blue calibrated."""
    generator = np.random.default_rng(1)
    logits, labels = generator.normal(size=(500, 4), scale=3), generator.integers(0, 4, 500)
    before, after = reliability(logits, labels), reliability(logits / 3, labels)
    chart = read_chart(reliability_diagram(before, after))
    for bins, colour in ((before, ORANGE), (after, BLUE)):
        used = bins.counts > 0
        expected = np.stack([bins.confidence, bins.accuracy], axis=1)[used]
        np.testing.assert_allclose(chart.lines[colour], expected, atol=1e-4)
        middles, heights = chart.bars[colour][chart.bars[colour][:, 1] > 0].T
        np.testing.assert_allclose(middles, (np.flatnonzero(used) + 0.5) / len(used), atol=0.02)
        np.testing.assert_allclose(heights, bins.counts[used] / 500, atol=1e-4)
