"""The least confidence from which on a network's predictions keep to an error rate.

Shapes: N images, of which two thirds may be held back.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from resnets.errors import UsageError
from resnets.evaluation.logits import Booleans, Floats, Integers
from resnets.evaluation.proportion import LEVEL, Proportion

DOUBT = 1 - LEVEL  # the probability of a broken promise, over the choice of the images
SEED = 0  # of which images are held back


@dataclass(frozen=True)
class Threshold:
    """The least confidence from which on predictions keep to an error rate.

    Attributes:
        max_error: the error rate aimed at, 0 to 1.
        value: the least confidence, 0 to 1; None if even the surest are wrong too often.
        promised: whether `max_error` holds for new images like these, with 95 % confidence.
        errors: wrong ones of the predictions that are at least so sure, as measured: on the images
            that were held back if it is promised, else on those that the value was chosen by. None
            without value.
    """

    max_error: float
    value: float | None
    promised: bool
    errors: Proportion | None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Threshold":
        """Read what `dataclasses.asdict` wrote. Raises TypeError, KeyError or ValueError."""
        errors = values["errors"]
        made = cls(**{**values, "errors": errors and Proportion(**errors)})
        check_rate(made.max_error)
        if made.value is not None and not 0 <= made.value <= 1:
            raise ValueError(f"threshold {made.value}: it is 0 to 1, or none")
        return made


def images_needed(max_error: float, candidates: int = 1) -> int:
    """The least number of images that can promise an error rate, if not one of them is wrong.

    Two thirds of them are held back; of those, n without a mistake are enough where
    (1 - max_error)^n <= doubt (Clopper and Pearson 1934).

    >>> images_needed(0.02), images_needed(0.1)
    (224, 44)
    """
    least = math.ceil(math.log(DOUBT / candidates) / math.log1p(-max_error))
    return math.ceil(3 * least / 2)


def held_back(total: int, max_error: float, candidates: int = 1) -> Booleans:
    """Which of N images decide about the promise, and therefore about nothing before it: (N,).

    Two thirds, drawn by a fixed seed; none where they could not promise `max_error` anyway, and
    then all of them are for the fit.

    Args:
        total: N.
        max_error: the error rate aimed at, 0 to 1.
        candidates: among how many networks these same images have chosen.

    Raises:
        UsageError: `max_error` is not between 0 and 1.
    """
    check_rate(max_error)
    chosen = np.zeros(total, dtype=bool)
    if total >= images_needed(max_error, candidates):
        chosen[np.random.default_rng(SEED).permutation(total)[: 2 * total // 3]] = True
    return chosen


def check_rate(max_error: float) -> None:
    """Refuse what is no error rate.

    Raises:
        UsageError: it is not between 0 and 1.
    """
    if not 0 < max_error < 1:
        raise UsageError(f"max_error {max_error}: must be between 0 and 1, such as 0.02")


def fit_threshold(
    confidence: ArrayLike,
    correct: ArrayLike,
    max_error: float,
    held: ArrayLike | None = None,
    candidates: int = 1,
) -> Threshold:
    """The least confidence from which on predictions keep to an error rate.

    Where images are held back, the others name thresholds, from the one for which they speak most
    down to lower ones, and those held back test them in this order until one fails: each by the
    exact bound of its error rate (Clopper and Pearson 1934) at the full 5 %, as a fixed sequence of
    tests allows (Angelopoulos et al. 2021, arXiv:2110.01052, section 2.3). The last one that passed
    is promised. Where these images have chosen among several networks before, that may be by their
    luck: the doubt is shared among the networks (Bonferroni).

    Where nothing can be promised, the least confidence from which on the measured error rate is at
    most `max_error`.

    Args:
        confidence: (N,), 0 to 1. What it was computed with was not fitted on images held back.
        correct: (N,), whether each prediction is right.
        max_error: between 0 and 1.
        held: (N,), which images are held back, see `held_back`; None: none.
        candidates: among how many networks these same images have chosen.

    Raises:
        UsageError: `max_error` is not between 0 and 1.
    """
    check_rate(max_error)
    sure, right = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=bool)
    back = np.zeros(len(sure), dtype=bool) if held is None else np.asarray(held, dtype=bool)
    if back.any() and not back.all():
        named = proposed(sure[~back], right[~back], max_error)
        value = confirmed(named, sure[back], right[back], max_error, DOUBT / candidates)
        if value is not None:
            return Threshold(max_error, value, True, errors(sure[back], right[back], value))
    value = measured(sure, right, max_error)
    return Threshold(max_error, value, False, errors(sure, right, value))


def selections(confidence: Floats, correct: Booleans) -> tuple[Floats, Integers, Integers]:
    """Each threshold that selects other images, falling; how many it selects, how many are wrong.

    Predictions of equal confidence stand or fall together.
    """
    values, counts = np.unique(-confidence, return_counts=True)
    accepted = np.cumsum(counts, dtype=np.int64)
    missed = ~correct[np.argsort(-confidence, kind="stable")]
    wrong = np.cumsum(missed, dtype=np.int64)[accepted - 1]
    return -values, accepted, wrong


def proposed(confidence: Floats, correct: Booleans, max_error: float) -> Floats:
    """Thresholds to test, in this order: from the one with the strongest evidence down.

    The evidence is by how many standard errors the wrong ones are fewer than `max_error` allows.
    """
    values, accepted, wrong = selections(confidence, correct)
    evidence = (max_error * accepted - wrong) / np.sqrt(accepted)
    return values[int(evidence.argmax()) :]


def confirmed(
    thresholds: Floats, confidence: Floats, correct: Booleans, max_error: float, doubt: float
) -> float | None:
    """The last of the thresholds before the first at which the error rate may be too high.

    Args:
        thresholds: falling, chosen without these images.
        confidence: (N,), of images held back.
        correct: (N,), whether each of their predictions is right.
        max_error: the error rate to hold.
        doubt: the probability with which a threshold that does not hold it may pass.
    """
    from scipy.special import bdtr  # the probability of at most k of n

    order = np.sort(confidence)
    accepted = len(order) - np.searchsorted(order, thresholds)
    missed = np.sort(confidence[~correct])
    wrong = len(missed) - np.searchsorted(missed, thresholds)
    failed = np.flatnonzero(~(bdtr(wrong, accepted, max_error) <= doubt))
    passed = int(failed[0]) if failed.size else len(thresholds)
    return float(thresholds[passed - 1]) if passed else None


def measured(confidence: Floats, correct: Booleans, max_error: float) -> float | None:
    """The least threshold at which at most this share of these images is wrong; None if none is."""
    values, accepted, wrong = selections(confidence, correct)
    kept = np.flatnonzero(wrong <= max_error * accepted)
    return float(values[kept[-1]]) if kept.size else None


def errors(confidence: Floats, correct: Booleans, value: float | None) -> Proportion | None:
    """Wrong ones of the predictions that are at least so sure; None if there is none."""
    sure = confidence >= (math.inf if value is None else value)
    return Proportion(int((sure & ~correct).sum()), int(sure.sum())) if sure.any() else None
