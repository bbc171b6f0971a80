import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax as scipy_log_softmax
from scipy.special import softmax
from sklearn.calibration import calibration_curve

from resnets.errors import ContentError
from resnets.evaluation.calibration import (
    Calibration,
    answers,
    calibrate,
    reliability,
)
from resnets.evaluation.logits import log_softmax


def test_log_softmax_is_scipys_even_at_the_ends_of_the_range():
    logits = np.array([[0, 1, 2], [1000, 0, -1000], [-1e308, 0, 1e3]])
    assert log_softmax(logits) == pytest.approx(scipy_log_softmax(logits, axis=1))


@given(st.integers(0, 2**32), st.integers(1, 400))
def test_the_calibration_error_is_that_of_the_papers_formula(drawn, seed, total):
    logits, labels = drawn(total, classes=4, scale=1, seed=seed)
    probabilities = softmax(logits, axis=1)
    confidence, guess = probabilities.max(axis=1), probabilities.argmax(axis=1)
    error = 0.0
    for m in range(1, 16):  # Guo et al. 2017, equation 3: bins ((m-1)/M, m/M]
        inside = ((m - 1) / 15 < confidence) & (confidence <= m / 15)
        if inside.any():
            gap = (guess == labels)[inside].mean() - confidence[inside].mean()
            error += inside.sum() / total * abs(gap)
    assert reliability(logits, labels).error == pytest.approx(error, abs=1e-9)


def test_the_bins_are_those_of_scikit_learns_calibration_curve(drawn):
    logits, labels = drawn(3000)
    found = reliability(logits, labels)
    confidence, correct = answers(logits, labels)
    accuracy, means = calibration_curve(correct, confidence, n_bins=15, strategy="uniform")
    used = found.counts > 0
    assert found.counts.sum() == 3000
    assert found.accuracy[used] == pytest.approx(accuracy)
    assert found.confidence[used] == pytest.approx(means)


def test_a_confidence_between_two_bins_belongs_to_the_lower_one():
    assert reliability([[0.0, 0.0]], [0], bins=2).counts.tolist() == [1, 0]
    assert reliability([[0.0, 900.0]], [0]).counts.tolist() == [0] * 14 + [1]


def test_calibrating_overconfident_logits_lowers_their_calibration_error(drawn):
    logits, labels = drawn(4000, temperature=2.0)
    made = calibrate(logits, labels)
    assert made.error_before > 0.15
    assert made.error_after < 0.03
    new_logits, new_labels = drawn(4000, temperature=2.0, seed=1)
    assert reliability(new_logits / made.temperature, new_labels).error < 0.03


def test_a_network_that_is_never_right_gets_no_threshold():
    made = calibrate([[2.0, 1.0], [3.0, 1.0]], [1, 1])
    assert made.threshold is None
    assert made.errors is None
    assert not made.known(made.probabilities([[9.0, 0.0]])).any()


@settings(max_examples=30)
@given(st.integers(0, 2**32), st.integers(1, 400))
def test_a_calibration_survives_the_model_file(drawn, seed, total):
    made = calibrate(*drawn(total, classes=3, seed=seed))
    read = Calibration.from_dict(json.loads(json.dumps(made.to_dict(), allow_nan=False)))
    assert read == made
    logits, _ = drawn(5, classes=3)
    assert read.probabilities(logits).sum(axis=1) == pytest.approx(1)
    assert read.known(read.probabilities(logits)).shape == (5,)


def test_what_is_known_is_what_was_accepted_when_fitting(drawn):
    logits, labels = drawn(3000)
    made = calibrate(logits, labels, max_error=0.1)
    accepted = made.known(made.probabilities(logits))
    assert accepted.sum() == made.errors.total
    assert (logits.argmax(axis=1) != labels)[accepted].sum() == made.errors.count


@pytest.mark.parametrize(
    "change",
    [{"temperature": 0}, {"threshold": 2.0}, {"errors": 3}, {"temperature": "hot"}, {"x": 1}],
)
def test_a_damaged_calibration_is_a_content_error(drawn, change):
    made = calibrate(*drawn(50)).to_dict()
    with pytest.raises(ContentError, match="not a calibration"):
        Calibration.from_dict(made | change)
    del made["threshold"]
    with pytest.raises(ContentError, match="not a calibration"):
        Calibration.from_dict(made)


def test_logits_that_are_not_finite_are_refused():
    with pytest.raises(ContentError, match="not finite"):
        calibrate([[np.nan, 1.0]], [0])


def test_using_a_calibration_loads_neither_scipy_nor_torch():
    code = (
        "import sys; from resnets.evaluation.calibration import Calibration; "
        "made = Calibration(1.0, .5, .02, True, None, 9, 0.0, 0.0); "
        "made.known(made.probabilities([[1., 2]])); "
        "print([m for m in ('scipy', 'torch', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
