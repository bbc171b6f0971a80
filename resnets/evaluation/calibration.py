"""Probabilities that mean what they say, and the probability below which a prediction is unsure.

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

from resnets.errors import ContentError
from resnets.evaluation.logits import Booleans, Floats, Integers, checked, log_softmax
from resnets.evaluation.proportion import Proportion
from resnets.evaluation.temperature import proven_temperature
from resnets.evaluation.threshold import fit_threshold

BINS = 15  # as in Guo et al. 2017, section 5


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
        temperature: what the logits are divided by, > 0; 1 where no other was proven better.
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
        changed = f", at temperature {self.temperature:.2f} {after:.1f} %"
        fitted = (
            f"calibration error {before:.1f} %{changed if self.temperature != 1 else ''} "
            f"({self.total} validation images)"
        )
        wish = f"an error rate of {100 * self.max_error:g} %"
        if self.threshold is None:
            return f"{fitted}; no confidence gives {wish}, so every prediction is unsure"
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
    temperature = proven_temperature(scores, truth)
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
