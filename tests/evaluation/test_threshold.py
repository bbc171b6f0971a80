import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from resnets.errors import UsageError
from resnets.evaluation.calibration import (
    _fit_threshold,
    _held_back,
    _images_needed,
    calibrate,
    confidence_and_correctness,
)
from resnets.evaluation.proportion import Proportion


def likely_beyond(limit, confidence, correct, target):
    """Whether so few mistakes are less likely than not where the target is just missed."""
    accepted = confidence >= limit
    return binom.cdf((~correct[accepted]).sum(), accepted.sum(), target) <= 0.5


def errors_beyond(limit, confidence, correct):
    accepted = confidence >= limit
    return (~correct[accepted]).mean() if accepted.any() else 0.0


def promise(confidence, correct, max_error, candidates=1):
    held = _held_back(len(confidence), max_error, candidates)
    return _fit_threshold(confidence, correct, max_error, held, candidates)


def seldom_enough(broken, times):
    """Whether promises are broken no more often than in 5 %, as far as so many times can tell."""
    return binomtest(broken, times, 0.05, alternative="greater").pvalue > 0.01


def test_a_promised_error_rate_is_broken_as_seldom_as_promised():
    # confidence c is right with probability c: above t the true error rate is (1 - t) / 2
    generator = np.random.default_rng(5)
    broken = promises = 0
    for _ in range(300):
        confidence = generator.random(5000)
        correct = generator.random(5000) < confidence
        threshold = promise(confidence, correct, 0.1)
        promises += threshold.promised
        broken += threshold.promised and (1 - threshold.value) / 2 > 0.1
    assert promises > 285
    assert seldom_enough(broken, 300)


def test_where_every_threshold_breaks_the_target_few_are_promised():
    # whatever the confidence, 10.1 % are wrong: each promise is false
    generator = np.random.default_rng(7)
    broken = sum(
        promise(generator.random(2000), generator.random(2000) >= 0.101, 0.1).promised
        for _ in range(500)
    )
    assert broken > 0
    assert seldom_enough(broken, 500)


def chosen_by_validation(generator, networks, total, rate):
    """Of networks that are wrong on a share `rate` of all images, that with the fewest mistakes."""
    correct = generator.random((networks, total)) >= rate
    return correct[correct.sum(axis=1).argmax()]


def test_a_network_chosen_among_epochs_by_the_same_images_promises_as_seldom():
    # each of 30 epochs is wrong on 10.1 %: each promise of 10 % is false, whichever is chosen
    generator = np.random.default_rng(8)
    sure, careless, careful = np.full(600, 0.9), 0, 0
    for _ in range(300):
        correct = chosen_by_validation(generator, 30, 600, 0.101)
        careless += promise(sure, correct, 0.1).promised
        careful += promise(sure, correct, 0.1, candidates=30).promised
    assert Proportion(careless, 300).interval[0] > 0.2  # so the choice must be accounted for
    assert seldom_enough(careful, 300)


def test_a_temperature_fitted_on_the_same_images_breaks_no_promise():
    # kinds of images, each with its own logits and its own share of mistakes: the true error rate
    # beyond any threshold at any temperature is a sum over the kinds
    logits = np.array([[4.0, 0, 0], [2.2, 2.0, -3], [3.0, 2.0, 2.0], [1.0, 0.9, -9]])
    shares, wrong = np.array([0.4, 0.3, 0.2, 0.1]), np.array([0.11, 0.098, 0.106, 0.13])
    generator = np.random.default_rng(9)
    broken = 0
    for _ in range(150):
        kinds = generator.choice(4, 400, p=shares)
        labels = (generator.random(400) < wrong[kinds]).astype(int)
        made = calibrate(logits[kinds], labels, max_error=0.1)
        if made.promised:
            confidence, _ = confidence_and_correctness(logits / made.temperature, np.zeros(4, int))
            taken = shares * (confidence >= made.threshold)
            broken += (taken * wrong).sum() / taken.sum() > 0.1
    assert seldom_enough(int(broken), 150)


def test_what_is_held_back_decides_neither_about_temperature_nor_about_what_is_tested(drawn):
    logits, labels = drawn(3000, scale=8.0, temperature=2.0)
    held = _held_back(3000, 0.1)
    assert held.sum() == 2000
    other = np.where(held, (labels + 1) % 10, labels)  # all that is held back gets other labels
    made, changed = calibrate(logits, labels, 0.1), calibrate(logits, other, 0.1)
    assert changed.temperature == made.temperature != 1
    assert made.promised
    assert not changed.promised


def test_a_promise_leaves_few_predictions_out():
    generator = np.random.default_rng(6)
    confidence = generator.random(50_000)
    correct = generator.random(50_000) < confidence
    threshold = promise(confidence, correct, 0.1)
    assert threshold.promised
    assert 0.8 < threshold.value < 0.83  # 0.8 is the true one


@given(st.integers(0, 2**32), st.integers(1, 120), st.sampled_from([0.01, 0.1, 0.3]))
def test_the_measured_error_rate_at_the_threshold_is_at_most_the_target(seed, total, target):
    generator = np.random.default_rng(seed)
    confidence = generator.integers(1, 20, total) / 20  # with equal ones
    correct = generator.random(total) < confidence
    held = _held_back(total, target)
    threshold = _fit_threshold(confidence, correct, target, held)
    if threshold.value is None:
        assert not any(likely_beyond(c, confidence, correct, target) for c in confidence)
        assert threshold.errors is None
        return
    shown = held if threshold.promised else np.full(total, True)
    assert threshold.errors.value == errors_beyond(
        threshold.value, confidence[shown], correct[shown]
    )
    assert threshold.errors.value <= target
    if not threshold.promised:
        lower = confidence[confidence < threshold.value]
        assert likely_beyond(threshold.value, confidence, correct, target)
        assert not any(likely_beyond(c, confidence, correct, target) for c in lower)


@pytest.mark.parametrize(("rate", "candidates"), [(0.02, 1), (0.02, 40), (0.1, 1), (0.001, 3)])
def test_the_fewest_images_that_can_promise_are_those_of_the_closed_form(rate, candidates):
    needed = _images_needed(rate, candidates)
    right = np.ones(needed, dtype=bool)
    threshold = promise(np.linspace(0.5, 1, needed)[::-1], right, rate, candidates)
    exact = math.log(0.05 / candidates) / math.log(1 - rate)  # (1 - rate)^n = 0.05 / candidates
    assert exact <= 2 * needed // 3 < exact + 1  # two thirds are held back
    assert promise(np.full(needed, 0.9), right, rate, candidates).promised
    assert threshold.value >= 0.5
    too_few = promise(np.full(needed - 1, 0.9), right[1:], rate, candidates)
    assert (too_few.value, too_few.promised) == (0.9, False)


@pytest.mark.parametrize("rate", [0, 1, -0.1, math.nan])
def test_an_error_rate_outside_zero_to_one_is_refused(rate):
    with pytest.raises(UsageError, match="between 0 and 1"):
        _fit_threshold([0.5], [True], rate)
    with pytest.raises(UsageError, match="between 0 and 1"):
        _held_back(1000, rate)


def test_predictions_that_are_all_wrong_leave_no_threshold():
    threshold = _fit_threshold([0.9, 0.8], [False, False], 0.5)
    assert (threshold.value, threshold.promised, threshold.errors) == (None, False, None)
