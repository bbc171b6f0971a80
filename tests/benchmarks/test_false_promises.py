"""The simulation of promised thresholds, at its smallest, and what it found when it was long."""

import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

from resnets.evaluation.calibration import confidence_and_correctness

ROOT = Path(__file__).parents[2]
FOUND = ROOT / "results" / "false_promises.json"


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "benchmarks" / "false_promises.py"))


@pytest.mark.parametrize(("temperature", "threshold"), [(1.0, 0.0), (1.0, 0.5), (3.0, 0.4)])
def test_the_true_error_rate_is_that_of_many_images(
    script: dict[str, Any], temperature: float, threshold: float
) -> None:
    network = script["ODD"]
    case = script["Case"]("", network, 0.1, 1, 200_000)
    logits, labels = script["simulate"](case, np.random.default_rng(0))
    confidence, right = confidence_and_correctness(logits / temperature, labels)
    sure = confidence >= threshold
    assert sure.sum() > 1000
    measured = binomtest(int((~right[sure]).sum()), int(sure.sum()))
    low, high = measured.proportion_ci(0.999)
    assert low < network.beyond(temperature, threshold) < high


def test_the_fewest_mistakes_are_kept(script: dict[str, Any]) -> None:
    case = script["Case"]("", script["equal"](0.5), 0.1, 40, 100)
    mistakes = [
        script["simulate"](case, np.random.default_rng(seed))[1].sum() for seed in range(20)
    ]
    assert np.mean(mistakes) < 43  # the least of 40 draws of Binomial(100, 1/2) is 39 on average


def test_a_case_counts_promises_and_false_ones(script: dict[str, Any]) -> None:
    case = script["Case"]("nearly perfect", script["equal"](0.0001), 0.1, 1, 300)
    counts = script["run_case"](case, 5)
    assert counts["promised"]["now"] == 5
    assert counts["false"]["now"]["count"] == 0


@pytest.mark.skipif(not FOUND.is_file(), reason="no measurement is committed")
def test_no_more_promises_are_false_than_may_be() -> None:
    for case in json.loads(FOUND.read_text(encoding="utf-8"))["cases"]:
        false_promises = case["false"]["now"]
        chance = binomtest(false_promises["count"], case["trials"], 0.05, alternative="greater")
        assert chance.pvalue > 0.01, case["what"]
