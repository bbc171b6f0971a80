"""The temperature that makes a network's probabilities true (Guo et al. 2017, arXiv:1706.04599).

Shapes: N images, K classes. Importing this module costs no more than NumPy.
"""

import math

import numpy as np
from numpy.typing import ArrayLike

from resnets.evaluation.logits import Floats, Integers, checked, log_softmax

TEMPERATURES = (0.05, 20.0)  # the range searched; fitted ones lie between 0.5 and 3 in practice
FOLDS = 5


def proven_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """The fitted temperature, if it helps on images that took no part in the fit; else 1.

    Each fifth of the images is judged at the temperature fitted on the others. The mean gain in
    their log-likelihood must exceed its standard error (the rule of one standard error: Breiman et
    al. 1984, section 3.4.3). A few images with hardly an error prove nothing, and then the network
    is left as it is. logits (N, K), labels (N,).
    """
    scores, truth = checked(logits, labels)
    if len(truth) < 2 * FOLDS:
        return 1.0
    gains = np.empty(len(truth))
    folds = np.arange(len(truth)) % FOLDS
    for fold in range(FOLDS):
        out = folds == fold
        temperature = fit_temperature(scores[~out], truth[~out])
        gains[out] = log_likelihood(scores[out] / temperature, truth[out])
    gains -= log_likelihood(scores, truth)
    proven = gains.mean() > gains.std(ddof=1) / math.sqrt(len(gains))
    return fit_temperature(scores, truth) if proven else 1.0


def log_likelihood(logits: Floats, labels: Integers) -> Floats:
    """Logarithm of the probability of each label. (N, K), (N,) -> (N,)."""
    return np.asarray(log_softmax(logits)[np.arange(len(labels)), labels])


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """The temperature at which the labels are likeliest. logits (N, K), labels (N,).

    As in Guo et al. 2017, section 4.2, but each label counts as right with (N+1)/(N+2) only, the
    rest shared among the other classes (Platt 1999, section 2.2). On thousands of images that is
    the same; on few images, or where every answer is right, the plain optimum is a temperature of
    zero, which claims certainty. In 1/temperature the loss is convex, so there is one minimum.
    """
    from scipy.optimize import minimize_scalar

    scores, truth = checked(logits, labels)
    total, classes = scores.shape
    own = scores[np.arange(total), truth]
    others = (scores.sum(axis=1) - own) / (classes - 1)
    wished = ((total + 1) * own + others) / (total + 2)

    def loss(log_temperature: float) -> float:
        scaled = scores * math.exp(-log_temperature)
        peaks = scaled.max(axis=1)
        normaliser = peaks + np.log(np.exp(scaled - peaks[:, None]).sum(axis=1))
        return float((normaliser - wished * math.exp(-log_temperature)).mean())

    bounds = tuple(map(math.log, TEMPERATURES))
    best = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6})
    return math.exp(best.x) if best.fun < loss(0.0) - 1e-12 else 1.0
