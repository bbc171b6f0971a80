import json
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import log_softmax as scipy_log_softmax
from scipy.special import softmax
from sklearn.calibration import calibration_curve

from resnets.errors import ContentError, UsageError
from resnets.evaluation.calibration import (
    Calibration,
    answers,
    calibrate,
    fit_temperature,
    fit_threshold,
    reliability,
)
from resnets.evaluation.logits import log_softmax
from resnets.evaluation.proportion import Proportion


def drawn(total, classes=10, temperature=1.0, scale=3.0, seed=0):
    """Logits whose labels were drawn from their own softmax at a temperature."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(scale=scale, size=(total, classes))
    odds = np.cumsum(softmax(logits / temperature, axis=1), axis=1)
    labels = (generator.random((total, 1)) > odds[:, :-1]).sum(axis=1)
    return logits, labels


def test_log_softmax_is_scipys_even_at_the_ends_of_the_range():
    logits = np.array([[0, 1, 2], [1000, 0, -1000], [-1e308, 0, 1e3]])
    assert log_softmax(logits) == pytest.approx(scipy_log_softmax(logits, axis=1))


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_the_temperature_that_made_the_labels_is_found_again(temperature):
    logits, labels = drawn(20_000, temperature=temperature)
    assert fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.03)


def test_on_many_images_the_temperature_is_the_plain_optimum_of_guo():
    logits, labels = drawn(5000, temperature=1.7, seed=3)

    def loss(values):
        return -scipy_log_softmax(logits / values[0], axis=1)[np.arange(len(labels)), labels].mean()

    plain = minimize(loss, [1.0], method="L-BFGS-B", bounds=[(0.05, 20)]).x[0]
    assert fit_temperature(logits, labels) == pytest.approx(plain, rel=5e-3)


@given(st.integers(1, 300), st.integers(2, 6))
def test_a_network_that_was_always_right_is_not_called_certain(total, classes):
    labels = np.arange(total) % classes
    logits = 7.0 * np.eye(classes)[labels]
    temperature = fit_temperature(logits, labels)
    confidence, _ = answers(logits / temperature, labels)
    assert confidence == pytest.approx((total + 1) / (total + 2), abs=1e-3)  # Laplace's rule


@given(st.integers(0, 2**32), st.integers(1, 30), st.floats(0, 40))
def test_every_temperature_is_finite_and_in_its_range(seed, total, scale):
    logits, labels = drawn(total, classes=3, scale=scale, seed=seed)
    assert 0.05 <= fit_temperature(logits, labels) <= 20


def test_logits_that_say_nothing_leave_the_temperature_at_one():
    assert fit_temperature(np.zeros((5, 3)), [0, 1, 2, 0, 1]) == 1


@given(st.integers(0, 2**32), st.integers(1, 400))
def test_the_calibration_error_is_that_of_the_papers_formula(seed, total):
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


def test_the_bins_are_those_of_scikit_learns_calibration_curve():
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


def test_calibrating_overconfident_logits_lowers_their_calibration_error():
    logits, labels = drawn(4000, temperature=2.0)
    made = calibrate(logits, labels)
    assert made.error_before > 0.15
    assert made.error_after < 0.03
    new_logits, new_labels = drawn(4000, temperature=2.0, seed=1)
    assert reliability(new_logits / made.temperature, new_labels).error < 0.03


def errors_beyond(limit, confidence, correct):
    accepted = confidence >= limit
    return (~correct[accepted]).mean() if accepted.any() else 0.0


def test_a_promised_error_rate_is_broken_as_seldom_as_promised():
    # confidence c is right with probability c: above t the true error rate is (1 - t) / 2
    generator = np.random.default_rng(5)
    broken = promises = 0
    for _ in range(300):
        confidence = generator.random(5000)
        correct = generator.random(5000) < confidence
        limit, promised = fit_threshold(confidence, correct, 0.1)
        promises += promised
        broken += promised and (1 - limit) / 2 > 0.1
    assert promises > 290
    assert Proportion(broken, promises).value <= 0.05


def test_a_promise_leaves_few_answers_out():
    generator = np.random.default_rng(6)
    confidence = generator.random(50_000)
    correct = generator.random(50_000) < confidence
    limit, promised = fit_threshold(confidence, correct, 0.1)
    assert promised
    assert 0.8 < limit < 0.83  # 0.8 is the true one


@given(st.integers(0, 2**32), st.integers(1, 120), st.sampled_from([0.01, 0.1, 0.3]))
def test_the_measured_error_rate_at_the_threshold_is_at_most_the_wished(seed, total, wish):
    generator = np.random.default_rng(seed)
    confidence = generator.integers(1, 20, total) / 20  # with equal ones
    correct = generator.random(total) < confidence
    limit, promised = fit_threshold(confidence, correct, wish)
    if limit is None:
        measured = [errors_beyond(c, confidence, correct) for c in confidence]
        assert min(measured) > wish
        return
    assert errors_beyond(limit, confidence, correct) <= wish
    if not promised:
        lower = confidence[confidence < limit]
        assert all(errors_beyond(c, confidence, correct) > wish for c in lower)


def test_few_images_give_a_threshold_but_no_promise():
    # 0 wrong of n promises 2 % from n = ln(0.05) / ln(0.98) = 148.3 on, were it looked at once
    right = np.ones(100, dtype=bool)
    assert fit_threshold(np.linspace(0.5, 1, 100), right, 0.02) == (0.5, False)
    right = np.ones(300, dtype=bool)
    assert fit_threshold(np.linspace(0.5, 1, 300), right, 0.02) == (0.5, True)


def test_answers_that_are_all_wrong_leave_no_threshold():
    assert fit_threshold([0.9, 0.8], [False, False], 0.5) == (None, False)
    made = calibrate([[2.0, 1.0], [3.0, 1.0]], [1, 1])
    assert made.threshold is None
    assert made.errors is None
    assert not made.known(made.probabilities([[9.0, 0.0]])).any()


@settings(max_examples=30)
@given(st.integers(0, 2**32), st.integers(1, 400))
def test_a_calibration_survives_the_model_file(seed, total):
    made = calibrate(*drawn(total, classes=3, seed=seed))
    read = Calibration.from_dict(json.loads(json.dumps(made.to_dict(), allow_nan=False)))
    assert read == made
    logits, _ = drawn(5, classes=3)
    assert read.probabilities(logits).sum(axis=1) == pytest.approx(1)
    assert read.known(read.probabilities(logits)).shape == (5,)


def test_what_is_known_is_what_was_accepted_when_fitting():
    logits, labels = drawn(3000)
    made = calibrate(logits, labels, max_error=0.1)
    accepted = made.known(made.probabilities(logits))
    assert accepted.sum() == made.errors.total
    assert (logits.argmax(axis=1) != labels)[accepted].sum() == made.errors.count


@pytest.mark.parametrize(
    "change",
    [{"temperature": 0}, {"threshold": 2.0}, {"errors": 3}, {"temperature": "hot"}, {"x": 1}],
)
def test_a_damaged_calibration_is_a_content_error(change):
    made = calibrate(*drawn(50)).to_dict()
    with pytest.raises(ContentError, match="not a calibration"):
        Calibration.from_dict(made | change)
    del made["threshold"]
    with pytest.raises(ContentError, match="not a calibration"):
        Calibration.from_dict(made)


@pytest.mark.parametrize("rate", [0, 1, -0.1, math.nan])
def test_an_error_rate_outside_zero_to_one_is_refused(rate):
    with pytest.raises(UsageError, match="between 0 and 1"):
        fit_threshold([0.5], [True], rate)


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
