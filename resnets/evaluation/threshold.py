"""The least confidence from which on a network's answers keep an error rate."""

import math

import numpy as np
from numpy.typing import ArrayLike

from resnets.errors import UsageError
from resnets.evaluation.logits import Integers
from resnets.evaluation.proportion import LEVEL, Proportion


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
