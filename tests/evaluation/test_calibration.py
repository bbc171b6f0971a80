import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax as scipy_log_softmax
from scipy.special import softmax
from scipy.stats import beta
from sklearn.calibration import calibration_curve

from resnets.errors import ContentError, UsageError
from resnets.evaluation.calibration import (
    Calibration,
    _held_back,
    calibrate,
    confidence_and_correctness,
    reliability,
)
from resnets.evaluation.logits import log_softmax

Z = 1.959964  # of the normal distribution, 97.5 %


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
    bins = reliability(logits, labels)
    confidence, correct = confidence_and_correctness(logits, labels)
    accuracy, means = calibration_curve(correct, confidence, n_bins=15, strategy="uniform")
    used = bins.counts > 0
    assert bins.counts.sum() == 3000
    assert bins.accuracy[used] == pytest.approx(accuracy)
    assert bins.confidence[used] == pytest.approx(means)


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
    assert not made.confident(made.probabilities([[9.0, 0.0]])).any()


@settings(max_examples=30)
@given(st.integers(0, 2**32), st.integers(1, 400))
def test_a_calibration_survives_the_model_file(drawn, seed, total):
    made = calibrate(*drawn(total, classes=3, seed=seed))
    read = Calibration.from_dict(json.loads(json.dumps(made.to_dict(), allow_nan=False)))
    assert read == made
    logits, _ = drawn(5, classes=3)
    assert read.probabilities(logits).sum(axis=1) == pytest.approx(1)
    assert read.confident(read.probabilities(logits)).shape == (5,)


def test_what_is_known_is_what_was_accepted_when_fitting(drawn):
    logits, labels = drawn(3000)
    made = calibrate(logits, labels, max_error=0.1)
    accepted = made.confident(made.probabilities(logits)) & _held_back(len(labels), 0.1)
    assert made.promised
    assert accepted.sum() == made.errors.total
    assert (logits.argmax(axis=1) != labels)[accepted].sum() == made.errors.count


@pytest.mark.parametrize(
    "change",
    [{"temperature": 0}, {"threshold": 2.0}, {"errors": 3}, {"temperature": "hot"}, {"x": 1}],
)
def test_a_damaged_calibration_is_a_content_error(drawn, change):
    made = calibrate(*drawn(50)).to_dict()
    with pytest.raises(ContentError, match="calibration"):
        Calibration.from_dict(made | change)
    del made["threshold"]
    with pytest.raises(ContentError, match=r"calibration\.threshold must be given"):
        Calibration.from_dict(made)


def test_logits_that_are_not_finite_are_refused():
    with pytest.raises(ContentError, match="not finite"):
        calibrate([[np.nan, 1.0]], [0])


def test_using_a_calibration_loads_neither_scipy_nor_torch():
    code = (
        "import sys; from resnets.evaluation.calibration import Calibration; "
        "made = Calibration(1.0, .5, .02, True, None, 9, 0.0, 0.0); "
        "made.confident(made.probabilities([[1., 2]])); "
        "print([m for m in ('scipy', 'torch', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("total", [35, 161])
def test_a_few_right_predictions_are_told_as_measured_and_nothing_is_promised(total):
    labels = np.arange(total) % 10
    text = calibrate(9.0 * np.eye(10)[labels], labels).in_words()
    high = Z**2 / (total + Z**2)  # Wilson 1927, of none in so many
    assert f"0 of these are wrong: 0.00 % (0/{total}, " in text
    assert f"to {100 * high:.2f})" in text
    assert "at most 2 %" in text  # the target, by itself
    assert "not promised" in text
    assert "224 images" in text  # 149 of them, two thirds, are held back: 0.98^149 < 0.05


@pytest.mark.parametrize(("rate", "least"), [(0.02, 35), (0.1, 7), (0.3, 2)])
def test_fewer_confident_images_than_make_the_target_likely_choose_no_threshold(rate, least):
    """Of n right ones out of n, an error rate e has the probability (1 - e)^n."""
    assert (1 - rate) ** least <= 0.5 < (1 - rate) ** (least - 1)

    def fitted(total):
        labels = np.arange(total) % 10
        return calibrate(9.0 * np.eye(10)[labels], labels, max_error=rate)

    assert fitted(least).threshold is not None
    few = fitted(least - 1)
    assert few.threshold is None
    assert "too few" in few.in_words()
    assert f"{least} confident" in few.in_words()


def test_a_promise_takes_more_images_the_fewer_of_them_are_confident():
    labels = np.arange(160) % 10
    logits = 9.0 * np.eye(10)[labels]
    logits[::4] /= 30  # not confident
    logits[::4], labels[::4] = logits[::4] + 0.0, (labels[::4] + 1) % 10  # and wrong
    made = calibrate(logits, labels)
    assert made.errors.total == 120
    assert "299 images" in made.in_words()  # 224 / 0.75


def test_what_is_promised_is_told_with_what_was_measured_apart_from_the_target(drawn):
    logits, labels = drawn(5000, scale=8.0)
    made = calibrate(logits, labels)
    held = _held_back(5000, 0.02)
    sure = made.confident(made.probabilities(logits)) & held
    wrong = int((sure & (logits.argmax(axis=1) != labels)).sum())
    text = made.in_words()
    assert made.promised
    assert made.held_back == held.sum() == 3333
    assert "3,333 images held back" in text
    assert f"{sure.sum():,} are confident" in text
    assert f"{100 * wrong / sure.sum():.2f} % ({wrong}/{sure.sum():,}, " in text
    assert "holds for new images" in text


def test_without_a_threshold_it_is_said_that_nothing_is_sure():
    text = calibrate([[2.0, 1.0], [3.0, 1.0]], [1, 1]).in_words()
    assert "every prediction is unsure" in text
    assert "measured" not in text.lower()


def test_enough_images_that_do_not_confirm_the_target_are_told_so():
    labels = np.where(np.arange(2000) % 20 == 0, 1, 0)  # 5 % wrong, whatever the confidence
    logits = np.tile([3.0, 0.0], (2000, 1)) + np.linspace(0, 1, 2000)[:, None] * [1, 0]
    made = calibrate(logits, labels, max_error=0.01)
    assert not made.promised
    assert "did not confirm" in made.in_words() or made.threshold is None


def test_the_threshold_for_another_target_is_the_one_fitted_for_it(drawn):
    logits, labels = drawn(5000, scale=8.0)
    made = calibrate(logits, labels)
    other = calibrate(logits, labels, max_error=0.05)
    calibration = made.at(0.05)
    assert (calibration.threshold, calibration.promised) == (other.threshold, other.promised)
    assert (calibration.max_error, calibration.errors) == (0.05, other.errors)
    assert made.at(0.02) == made
    assert made.at(0.06).max_error == 0.05  # between two the stricter one
    read = Calibration.from_dict(json.loads(json.dumps(made.to_dict())))
    assert read.at(0.1) == made.at(0.1)
    with pytest.raises(UsageError, match=r"resnets calibrate MODEL DATA --max-error 0\.0001"):
        made.at(0.0001)


def test_stricter_targets_never_accept_more_wrong_predictions(drawn):
    logits, labels = drawn(20_000, scale=8.0, seed=1)
    made = calibrate(logits[:5000], labels[:5000])
    new_logits, wrong = logits[5000:], logits[5000:].argmax(axis=1) != labels[5000:]
    for rate in (0.01, 0.02, 0.05):
        sure = made.at(rate).confident(made.probabilities(new_logits))
        assert wrong[sure].mean() <= rate
        assert made.at(rate).promised


def test_a_calibration_of_an_earlier_version_has_one_target_only():
    old = {
        "temperature": 1.2,
        "threshold": 0.8,
        "max_error": 0.02,
        "promised": True,
        "errors": {"count": 3, "total": 400},
        "total": 500,
        "error_before": 0.03,
        "error_after": 0.01,
    }
    read = Calibration.from_dict(old)
    assert read.at(0.02) == read.at(0.3) == read
    assert "3 of these are wrong" in read.in_words()
    with pytest.raises(UsageError, match="resnets calibrate"):
        read.at(0.01)


def test_a_promise_tells_the_one_sided_bound_that_it_rests_on(drawn):
    logits, labels = drawn(3000, classes=4, scale=6.0, seed=5)
    made = calibrate(logits, labels, 0.1)
    assert made.promised
    bound = beta.ppf(0.95, made.errors.count + 1, made.errors.total - made.errors.count)
    assert bound <= 0.1
    assert f"{100 * bound:.2f} %" in made.promise_in_words()


def test_a_temperature_that_raises_the_calibration_error_says_so() -> None:
    """The loss chooses it, and the two need not go together."""
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(30):
        labels = rng.integers(0, 2, 60)
        logits = rng.normal(0, 1, (60, 2)) + 1.2 * np.eye(2)[labels]
        fitted = calibrate(logits, labels, 0.02)
        worse = fitted.error_after >= fitted.error_before
        assert ("did not lower" in fitted.error_in_words()) == worse
        seen.add(worse)
    assert seen == {True, False}
