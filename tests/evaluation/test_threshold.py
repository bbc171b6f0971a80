import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resnets.errors import UsageError
from resnets.evaluation.proportion import Proportion
from resnets.evaluation.threshold import fit_threshold


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


@pytest.mark.parametrize("rate", [0, 1, -0.1, math.nan])
def test_an_error_rate_outside_zero_to_one_is_refused(rate):
    with pytest.raises(UsageError, match="between 0 and 1"):
        fit_threshold([0.5], [True], rate)


def test_answers_that_are_all_wrong_leave_no_threshold():
    assert fit_threshold([0.9, 0.8], [False, False], 0.5) == (None, False)
