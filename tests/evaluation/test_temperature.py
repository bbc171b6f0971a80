from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import log_softmax as scipy_log_softmax
from scipy.stats import norm

from resnets.evaluation.calibration import (
    _SPREAD,
    _log_likelihood,
    calibrate,
    confidence_and_correctness,
    fit_temperature,
)
from resnets.evaluation.evaluate import evaluate_logits
from resnets.images import Preprocessing
from resnets.model_file import Description


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_the_temperature_that_made_the_labels_is_found_again(drawn, temperature):
    logits, labels = drawn(20_000, temperature=temperature)
    assert fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.03)


def test_on_many_images_the_temperature_is_the_plain_optimum_of_guo(drawn):
    logits, labels = drawn(5000, temperature=1.7, seed=3)

    def loss(values):
        return -scipy_log_softmax(logits / values[0], axis=1)[np.arange(len(labels)), labels].mean()

    plain = minimize(loss, [1.0], method="L-BFGS-B", bounds=[(0.05, 20)]).x[0]
    assert fit_temperature(logits, labels) == pytest.approx(plain, rel=5e-3)


@given(st.integers(1, 300), st.integers(2, 6))
def test_a_network_that_was_always_right_is_not_called_certain(total, classes):
    labels = np.arange(total) % classes
    logits = 7.0 * np.eye(classes)[labels]
    assert 0.4 < fit_temperature(logits, labels) <= 1


@given(st.integers(0, 2**32), st.integers(1, 30), st.floats(0, 40))
def test_every_temperature_is_finite_and_in_its_range(drawn, seed, total, scale):
    logits, labels = drawn(total, classes=3, scale=scale, seed=seed)
    assert 0.05 <= fit_temperature(logits, labels) <= 20


def test_logits_that_say_nothing_leave_the_temperature_at_one():
    assert fit_temperature(np.zeros((5, 3)), [0, 1, 2, 0, 1]) == 1


@pytest.mark.parametrize("total", [10, 75, 300])
@pytest.mark.parametrize("temperature", [0.6, 1.0, 1.6])
def test_a_few_images_make_probabilities_truer_and_hardly_ever_worse(drawn, total, temperature):
    gains = []
    for seed in range(20):
        fitted = fit_temperature(*drawn(total, temperature=temperature, seed=seed))
        logits, labels = drawn(2000, temperature=temperature, seed=100 + seed)
        truths = [_log_likelihood(logits / each, labels).mean() for each in (fitted, 1.0)]
        gains.append(truths[0] - truths[1])
    if temperature == 1:
        assert np.mean(gains) > -0.02  # what was true before can only become a little less so
    else:
        assert np.mean(gains) > 0


def test_one_confident_error_in_160_images_lowers_every_confidence_only_a_little():
    labels = np.arange(160) % 10
    logits = 9.0 * np.eye(10)[labels]
    labels[7] = 0
    temperature = fit_temperature(logits, labels)
    confidence, _ = confidence_and_correctness(logits / temperature, labels)
    assert confidence.min() > 0.99  # 159 of 160 are right


def test_the_fit_is_the_peak_of_the_posterior(drawn):
    logits, labels = drawn(50, classes=3, temperature=1.8, seed=2)
    peak = np.log(fit_temperature(logits, labels))

    def posterior(log_temperature):
        scaled = scipy_log_softmax(logits / np.exp(log_temperature), axis=1)
        prior = norm.logpdf(log_temperature, scale=_SPREAD)
        return scaled[np.arange(50), labels].sum() + prior

    assert posterior(peak) > max(posterior(peak - 0.01), posterior(peak + 0.01))


def test_a_loss_after_a_temperature_says_so_and_is_that_of_the_divided_logits(drawn):
    logits, labels = drawn(50, temperature=2.0)
    calibration = replace(calibrate(logits, labels), temperature=2.0)
    plain = Description({}, tuple("abcdefghij"), Preprocessing(8, 8, (0.5,), (0.5,)))
    known = replace(plain, calibration=calibration.to_dict())
    before, after = (evaluate_logits(each, logits, labels, "images") for each in (plain, known))
    for evaluation, temperature in ((before, 1.0), (after, 2.0)):
        scores = scipy_log_softmax(logits / temperature, axis=1)
        assert evaluation.metrics.loss == pytest.approx(-scores[np.arange(50), labels].mean())
        assert ("temperature" in evaluation.loss_in_words) == (temperature != 1)
