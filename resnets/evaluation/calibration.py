"""Probabilities that mean what they say, and the confidence below which to answer "unknown".

A network is calibrated when of the answers given with confidence 0.9 nine in ten are right. One
temperature, fitted on images that the network was not trained on, gets most networks near that
(Guo et al. 2017, arXiv:1706.04599). Confidence is the probability of the predicted class.

Shapes: N images, K classes. Importing this module costs no more than NumPy.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from resnets.errors import ContentError, UsageError
from resnets.evaluation.logits import Booleans, Floats, Integers, checked, log_softmax
from resnets.evaluation.proportion import LEVEL, Proportion

BINS = 15  # as in Guo et al. 2017, section 5
TEMPERATURES = (0.05, 20.0)  # the range searched; fitted ones lie between 0.5 and 3 in practice


@dataclass(frozen=True)
class Reliability:
    """How right the answers of each confidence are: one value per bin of equal width.

    The bins are 0 < c <= 1/15, 1/15 < c <= 2/15 ... The mean of an empty bin is NaN.

    Attributes:
        counts: number of answers.
        accuracy: share of them that are right.
        confidence: their mean confidence.
    """

    counts: Integers
    accuracy: Floats
    confidence: Floats

    @property
    def error(self) -> float:
        """Expected calibration error: the mean over all answers of their bin's |gap|, 0 to 1."""
        used = self.counts > 0
        gaps = np.abs(self.accuracy - self.confidence)[used]
        return float(np.average(gaps, weights=self.counts[used]))


def reliability(logits: ArrayLike, labels: ArrayLike, bins: int = BINS) -> Reliability:
    """Accuracy against confidence. logits (N, K), labels (N,)."""
    confidence, correct = answers(logits, labels)
    places = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(places, minlength=bins)
    sums = (np.bincount(places, weights=values, minlength=bins) for values in (correct, confidence))
    with np.errstate(invalid="ignore"):
        accuracy, means = (total / counts for total in sums)
    return Reliability(counts, accuracy, means)


def answers(logits: ArrayLike, labels: ArrayLike) -> tuple[Floats, Booleans]:
    """Confidence of each answer (N,) and whether it is right (N,)."""
    logarithms = log_softmax(logits)
    return np.exp(logarithms.max(axis=1)), logarithms.argmax(axis=1) == np.asarray(labels)


@dataclass(frozen=True)
class Calibration:
    """What makes a network's logits into probabilities, and when to keep silent.

    Attributes:
        temperature: what the logits are divided by, > 0.
        threshold: the least confidence that is an answer; None if no answer can be trusted so.
        max_error: the error rate wished for among the answers, 0 to 1.
        promised: whether the threshold holds `max_error` with 95 % confidence on new images like
            these; if not, it was only so on the images it was fitted on, which are too few to tell.
        errors: wrong ones of the answers at the threshold; None without threshold.
        total: number of images it was fitted on.
        error_before: expected calibration error at temperature 1, 0 to 1.
        error_after: the same at `temperature`.
    """

    temperature: float
    threshold: float | None
    max_error: float
    promised: bool
    errors: Proportion | None
    total: int
    error_before: float
    error_after: float

    def probabilities(self, logits: ArrayLike) -> Floats:
        """Calibrated probabilities. (..., K) -> (..., K)."""
        return np.exp(log_softmax(np.asarray(logits, dtype=np.float64) / self.temperature))

    def known(self, probabilities: ArrayLike) -> Booleans:
        """Whether each row of probabilities is sure enough for an answer. (..., K) -> (...)."""
        confidence = np.asarray(probabilities).max(axis=-1)
        return np.asarray(confidence >= (math.inf if self.threshold is None else self.threshold))

    def in_words(self) -> str:
        """What a person should know of it."""
        before, after = 100 * self.error_before, 100 * self.error_after
        fitted = (
            f"calibration error {before:.1f} %, at temperature {self.temperature:.2f} "
            f"{after:.1f} % ({self.total} validation images)"
        )
        wish = f"an error rate of {100 * self.max_error:g} %"
        if self.threshold is None:
            return f"{fitted}; no confidence gives {wish}, so every answer would be unknown"
        kind = "holds" if self.promised else "had (too few images to promise)"
        return (
            f"{fitted}; from a confidence of {100 * self.threshold:.1f} % an answer {kind} {wish}"
        )

    def to_dict(self) -> dict[str, Any]:
        """For the model file: plain values only."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Calibration":
        """Read what `to_dict` wrote.

        Raises:
            ContentError: if that is not it.
        """
        try:
            errors = values["errors"]
            made = cls(**{**values, "errors": errors and Proportion(**errors)})
            sound = made.temperature > 0 and (made.threshold is None or 0 <= made.threshold <= 1)
        except (TypeError, KeyError, ValueError) as error:
            raise ContentError(f"not a calibration: {error}") from None
        if not sound:
            raise ContentError("not a calibration: needs temperature > 0, threshold 0 to 1 or none")
        return made


def calibrate(logits: ArrayLike, labels: ArrayLike, max_error: float = 0.02) -> Calibration:
    """Fit temperature and threshold.

    Args:
        logits: (N, K), of images on which the network was not trained: the validation split.
        labels: (N,).
        max_error: wished error rate among the answers, between 0 and 1.

    Raises:
        UsageError: if there is no image, or `max_error` is not between 0 and 1.
    """
    scores, truth = checked(logits, labels)
    temperature = fit_temperature(scores, truth)
    confidence, correct = answers(scores / temperature, truth)
    threshold, promised = fit_threshold(confidence, correct, max_error)
    accepted = confidence >= (math.inf if threshold is None else threshold)
    wrong = int((accepted & ~correct).sum())
    return Calibration(
        temperature=temperature,
        threshold=threshold,
        max_error=max_error,
        promised=promised,
        errors=Proportion(wrong, int(accepted.sum())) if accepted.any() else None,
        total=len(truth),
        error_before=reliability(scores, truth).error,
        error_after=reliability(scores / temperature, truth).error,
    )


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


def fit_threshold(
    confidence: ArrayLike, correct: ArrayLike, max_error: float, level: float = LEVEL
) -> tuple[float | None, bool]:
    """The least confidence from which on the answers keep an error rate.

    First by selection with guaranteed risk (Geifman and El-Yaniv 2017, arXiv:1705.08500, algorithm
    1): a binary search over the answers by confidence, in which each step passes if the exact
    upper bound of its error rate stays below `max_error`; the bounds share the doubt 1 - `level`.
    Where no step passes, because the images are too few, the least confidence from which on the
    measured error rate is at most `max_error`, which promises nothing.

    Args:
        confidence: (N,), 0 to 1.
        correct: (N,), whether each answer is right.
        max_error: between 0 and 1.
        level: probability with which a promise holds, over the choice of the images.

    Returns:
        The threshold, None if even the surest answers are too often wrong; whether it is promised.

    Raises:
        UsageError: if `max_error` is not between 0 and 1.
    """
    if not 0 < max_error < 1:
        raise UsageError(f"max_error {max_error}: must be between 0 and 1, such as 0.02")
    sure, right = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=bool)
    values, counts = np.unique(-sure, return_counts=True)  # equal ones stand or fall together
    accepted = np.cumsum(counts)
    wrong = np.cumsum(~right[np.argsort(-sure, kind="stable")])[accepted - 1]
    place = guaranteed(accepted, wrong, max_error, 1 - level)
    if place is not None:
        return float(-values[place]), True
    measured = np.flatnonzero(wrong <= max_error * accepted)
    return (float(-values[measured[-1]]), False) if measured.size else (None, False)


def guaranteed(accepted: Integers, wrong: Integers, max_error: float, doubt: float) -> int | None:
    """Algorithm 1 of Geifman and El-Yaniv 2017: the last of the nested selections that passes.

    Unlike there, the search starts at selections that would pass without a wrong answer: smaller
    ones never pass, and whether they are smaller does not depend on what is right.

    Args:
        accepted: (M,), rising: the number of answers in each selection.
        wrong: (M,), how many of them are wrong.
        max_error: the error rate to hold.
        doubt: the probability of a broken promise.
    """
    share = doubt / math.ceil(math.log2(len(accepted) + 1))  # at most so many steps
    least = math.log(share) / math.log1p(-max_error)
    passed, refused = int(np.searchsorted(accepted, least)) - 1, len(accepted)
    found = None
    while refused - passed > 1:
        middle = (passed + refused) // 2
        errors = Proportion(int(wrong[middle]), int(accepted[middle]))
        if errors.upper_bound(1 - share) <= max_error:
            found = passed = middle
        else:
            refused = middle
    return found
