import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import log_softmax as scipy_log_softmax

from resnets.evaluation.calibration import answers
from resnets.evaluation.temperature import fit_temperature, proven_temperature


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
    temperature = fit_temperature(logits, labels)
    confidence, _ = answers(logits / temperature, labels)
    assert confidence == pytest.approx((total + 1) / (total + 2), abs=1e-3)  # Laplace's rule


@given(st.integers(0, 2**32), st.integers(1, 30), st.floats(0, 40))
def test_every_temperature_is_finite_and_in_its_range(drawn, seed, total, scale):
    logits, labels = drawn(total, classes=3, scale=scale, seed=seed)
    assert 0.05 <= fit_temperature(logits, labels) <= 20


def test_logits_that_say_nothing_leave_the_temperature_at_one():
    assert fit_temperature(np.zeros((5, 3)), [0, 1, 2, 0, 1]) == 1


@pytest.mark.parametrize("temperature", [0.5, 1.5, 2.5])
def test_a_temperature_that_helps_is_proven_on_a_thousand_images(drawn, temperature):
    logits, labels = drawn(1000, temperature=temperature)
    assert proven_temperature(logits, labels) == fit_temperature(logits, labels) != 1


@pytest.mark.parametrize("total", [1, 9, 160, 2000])
def test_probabilities_that_are_true_are_mostly_left_as_they_are(drawn, total):
    changed = sum(proven_temperature(*drawn(total, seed=seed)) != 1 for seed in range(40))
    assert changed <= 10  # of 40; a gain beyond one standard error comes by chance in 16 % at most


def test_one_confident_error_in_160_images_does_not_lower_every_confidence():
    labels = np.arange(160) % 10
    logits = 9.0 * np.eye(10)[labels]
    labels[7] = 0
    assert fit_temperature(logits, labels) > 1.2
    assert proven_temperature(logits, labels) == 1


def test_the_proof_is_the_held_out_likelihood_of_each_fifth(drawn):
    logits, labels = drawn(50, classes=3, temperature=1.3, seed=2)
    gains = []
    for i in range(50):
        others = np.arange(50) % 5 != i % 5
        temperature = fit_temperature(logits[others], labels[others])
        fitted, plain = (scipy_log_softmax(logits[i] / t)[labels[i]] for t in (temperature, 1))
        gains.append(fitted - plain)
    proven = np.mean(gains) > np.std(gains, ddof=1) / np.sqrt(50)
    assert (proven_temperature(logits, labels) != 1) == proven
