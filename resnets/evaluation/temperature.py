"""The temperature that makes a network's probabilities true (Guo et al. 2017, arXiv:1706.04599).

Shapes: N images, K classes. Importing this module costs no more than NumPy.
"""

import math

import numpy as np
from numpy.typing import ArrayLike

from resnets.evaluation.logits import Floats, Integers, checked, log_softmax

TEMPERATURES = (0.05, 20.0)  # the range searched; fitted ones lie between 0.5 and 3 in practice
SPREAD = 0.25  # standard deviation of log(temperature) over networks, before any image is seen


def log_likelihood(logits: Floats, labels: Integers) -> Floats:
    """Logarithm of the probability of each label. (N, K), (N,) -> (N,)."""
    return np.asarray(log_softmax(logits)[np.arange(len(labels)), labels])


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """The most probable temperature. logits (N, K), labels (N,).

    As in Guo et al. 2017, section 4.2, but with a prior: log(temperature) is normal around 0. On
    thousands of images that is their optimum; a few say little and leave it near 1; and where
    every prediction is right, it does not become zero, which would claim certainty.
    """
    from scipy.optimize import minimize_scalar

    scores, truth = checked(logits, labels)

    def loss(log_temperature: float) -> float:
        likelihood = log_likelihood(scores * math.exp(-log_temperature), truth).sum()
        return float(0.5 * (log_temperature / SPREAD) ** 2 - likelihood)

    bounds = tuple(map(math.log, TEMPERATURES))
    best = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6})
    return math.exp(best.x) if best.fun < loss(0.0) - 1e-9 else 1.0
