"""Probabilities that mean what they say, and the confidence below which a prediction is unsure.

A network is calibrated when of the predictions made with confidence 0.9 nine in ten are right. One
temperature, fitted on images that the network was not trained on, gets most networks near that
(Guo et al. 2017, arXiv:1706.04599). Confidence is the probability of the predicted class.

Shapes: N images, K classes. Importing this module costs no more than NumPy.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from resnets.errors import ContentError, UsageError
from resnets.evaluation.logits import Booleans, Floats, Integers, checked, log_softmax
from resnets.evaluation.proportion import Proportion
from resnets.evaluation.temperature import fit_temperature
from resnets.evaluation.threshold import (
    DOUBT,
    Threshold,
    check_rate,
    fit_threshold,
    held_back,
    images_needed,
)

BINS = 15  # as in Guo et al. 2017, section 5
ROUNDING = 1e-12  # of an error rate that went through JSON or a command line


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


RATES = (
    *(0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02),
    *(0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3),
)  # error rates for which thresholds are fitted besides, so that `--max-error` can be changed later


@dataclass(frozen=True)
class Calibration:
    """What makes a network's logits into probabilities, and from which confidence it is sure.

    Attributes:
        temperature: what the logits are divided by, > 0.
        threshold: the least confidence that counts as sure; None if none is sure enough.
        max_error: the target: the share of wrong ones among the sure predictions, 0 to 1.
        promised: whether the threshold holds `max_error` with 95 % confidence on new images like
            these.
        errors: wrong ones of the sure predictions, as measured: if promised, on the images that
            were held back; else on those that the threshold was chosen by. None without threshold.
        total: number of images it was fitted on.
        error_before: expected calibration error at temperature 1, 0 to 1.
        error_after: the same at `temperature`.
        held_back: how many of the images decided about the promise, and about nothing before it.
        candidates: among how many networks these images had chosen before; the doubt is shared.
        images: which ones, in words; empty for the validation images of the training.
        thresholds: for further error rates, rising.
        withheld: why a promise that the images would allow is not made; empty if it is, or if they
            do not.
    """

    temperature: float
    threshold: float | None
    max_error: float
    promised: bool
    errors: Proportion | None
    total: int
    error_before: float
    error_after: float
    held_back: int = 0
    candidates: int = 1
    images: str = ""
    thresholds: tuple[Threshold, ...] = ()
    withheld: str = ""

    def probabilities(self, logits: ArrayLike) -> Floats:
        """Calibrated probabilities. (..., K) -> (..., K)."""
        return np.exp(log_softmax(np.asarray(logits, dtype=np.float64) / self.temperature))

    def known(self, probabilities: ArrayLike) -> Booleans:
        """Whether each row of probabilities counts as sure. (..., K) -> (...)."""
        confidence = np.asarray(probabilities).max(axis=-1)
        return np.asarray(confidence >= (math.inf if self.threshold is None else self.threshold))

    def at(self, max_error: float) -> "Calibration":
        """The same with the threshold for another target: the laxest fitted one that keeps to it.

        Raises:
            UsageError: the target is stricter than all that were fitted, or no error rate.
        """
        check_rate(max_error)
        own = Threshold(self.max_error, self.threshold, self.promised, self.errors)
        kept = [each for each in (*self.thresholds, own) if each.max_error <= max_error + ROUNDING]
        if not kept:
            least = min(each.max_error for each in (*self.thresholds, own))
            raise UsageError(
                f"max error {max_error:g}: the model file has no threshold for less than "
                f"{least:g}; `resnets calibrate MODEL DATA --max-error {max_error:g}` fits one on "
                "your own labelled images"
            )
        best = max(kept, key=lambda each: each.max_error)
        return replace(
            self,
            threshold=best.value,
            max_error=best.max_error,
            promised=best.promised,
            errors=best.errors,
        )

    def without_promises(self, reason: str) -> "Calibration":
        """The same without a promise for new images, because of a reason."""
        others = tuple(replace(each, promised=False) for each in self.thresholds)
        withheld = reason if self.promised else ""
        return replace(self, promised=False, thresholds=others, withheld=withheld)

    def in_words(self) -> str:
        """What a user should know of it, in sentences, on two lines."""
        return f"{self.error_in_words()}\n{self.target_in_words()}"

    def error_in_words(self) -> str:
        """How far the probabilities are off, before and after."""
        before, after = (f"{100 * error:.1f} %" for error in (self.error_before, self.error_after))
        changed = f", at temperature {self.temperature:.2f} {after}"
        return (
            f"Calibration error {before}{changed if self.temperature != 1 else ''} "
            f"({self.images or f'{self.total:,} validation images'})."
        )

    def target_in_words(self) -> str:
        """The target, what was measured, and whether it is promised: a sentence each."""
        target = f"Target: at most {100 * self.max_error:g} % of the sure predictions are wrong."
        if self.threshold is None or self.errors is None:
            return (
                f"{target} At no confidence is that so on these images: every prediction counts as "
                "unsure."
            )
        are = "is" if self.errors.count == 1 else "are"
        apart = (self.promised or self.withheld) and self.held_back
        where = "images held back for it" if apart else "images that the threshold was chosen by"
        return (
            f"{target} Measured on the {self.held_back if apart else self.total:,} {where}: "
            f"{self.errors.total:,} count as sure (confidence {100 * self.threshold:.1f} % or "
            f"more), and {self.errors.count:,} of these {are} wrong: {self.errors}. "
            f"{self.promise_in_words()}"
        )

    def promise_in_words(self) -> str:
        """Whether the target holds for new images."""
        if self.promised and self.errors is not None:
            bound = 100 * self.errors.upper_bound(1 - DOUBT / self.candidates)
            return (
                "The target holds for new images like these, with 95 % confidence (at most "
                f"{bound:.2f} % wrong, by the one-sided bound)."
            )
        if self.withheld:
            return f"The target is not promised for new images: {self.withheld}."
        needed = images_needed(self.max_error, self.candidates)
        why = f": that takes {needed:,} images or more" if self.total < needed else ""
        if self.held_back:
            why = f": {self.held_back:,} images that were held back did not confirm it"
        return f"The target is not promised for new images{why}."

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
            errors, others = values["errors"], values.get("thresholds", ())
            made = cls(
                **{
                    **values,
                    "errors": errors and Proportion(**errors),
                    "thresholds": tuple(map(Threshold.from_dict, others)),
                }
            )
            sound = made.temperature > 0 and (made.threshold is None or 0 <= made.threshold <= 1)
        except (TypeError, KeyError, ValueError) as error:
            raise ContentError(f"not a calibration: {error}") from None
        if not sound:
            raise ContentError("not a calibration: needs temperature > 0, threshold 0 to 1 or none")
        return made


def calibrate(
    logits: ArrayLike,
    labels: ArrayLike,
    max_error: float = 0.02,
    candidates: int = 1,
    images: str = "",
) -> Calibration:
    """Fit temperature and thresholds.

    What decides whether a threshold is promised (two thirds of the images, see `held_back`) does
    not decide about the temperature or which thresholds are tested. Where there are too few
    images to promise the target, all of them are for the fit.

    Args:
        logits: (N, K), of images on which the network was not trained: the validation split.
        labels: (N,).
        max_error: target for the share of wrong ones among the sure predictions, between 0 and 1.
        candidates: among how many networks these images have chosen this one, such as the epochs
            of a training with patience.
        images: which ones, in words; empty for the validation images of the training.

    Raises:
        UsageError: if there is no image, or `max_error` is not between 0 and 1.
    """
    scores, truth = checked(logits, labels)
    held = held_back(len(truth), max_error, candidates)
    temperature = fit_temperature(scores[~held], truth[~held])
    confidence, correct = answers(scores / temperature, truth)
    own, *others = (
        fit_threshold(confidence, correct, rate, held, candidates) for rate in (max_error, *RATES)
    )
    return Calibration(
        temperature=temperature,
        threshold=own.value,
        max_error=max_error,
        promised=own.promised,
        errors=own.errors,
        total=len(truth),
        error_before=reliability(scores, truth).error,
        error_after=reliability(scores / temperature, truth).error,
        held_back=int(held.sum()),
        candidates=candidates,
        images=images,
        thresholds=tuple(others),
    )
