"""Calibration: the temperature for honest probabilities, and confidence thresholds.

A network is calibrated if nine in ten of the predictions with a confidence of 0.9 are right. One
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
from resnets.evaluation.logits import Booleans, Floats, Integers, check_logits, log_softmax
from resnets.evaluation.proportion import LEVEL, Proportion
from resnets.fields import from_table
from resnets.format import exact_percent, percent, plural

_TEMPERATURES = (0.05, 20.0)  # the range searched; fitted ones lie between 0.5 and 3 in practice
_SPREAD = 0.25  # standard deviation of log(temperature) over networks, before any image is seen


def _log_likelihood(logits: Floats, labels: Integers) -> Floats:
    """Logarithm of the probability of each label. (N, K), (N,) -> (N,)."""
    return np.asarray(log_softmax(logits)[np.arange(len(labels)), labels])


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """The most probable temperature. logits (N, K), labels (N,).

    As in Guo et al. 2017, section 4.2, but with a prior: log(temperature) is normal around 0. On
    thousands of images that is their optimum; a few say little and leave it near 1; and where
    every prediction is right, the prior keeps it above zero, which would claim certainty.
    """
    from scipy.optimize import minimize_scalar

    scores, truth = check_logits(logits, labels)

    def loss(log_temperature: float) -> float:
        likelihood = _log_likelihood(scores * math.exp(-log_temperature), truth).sum()
        return float(0.5 * (log_temperature / _SPREAD) ** 2 - likelihood)

    bounds = tuple(map(math.log, _TEMPERATURES))
    best = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6})
    return math.exp(best.x) if best.fun < loss(0.0) - 1e-9 else 1.0


_DOUBT = 1 - LEVEL  # accepted probability of a broken promise, over the choice of the images
_EVEN = 0.5  # the same where nothing is promised
_SEED = 0  # draws the images that are held back


@dataclass(frozen=True)
class Threshold:
    """A confidence threshold for a target error rate.

    Attributes:
        max_error: the target error rate, 0 to 1.
        value: the threshold, 0 to 1; None if the most confident predictions are wrong too often,
            or are too few to tell.
        promised: whether `max_error` holds for new images like these, with 95 % confidence.
        errors: the wrong ones of the predictions at or above the threshold, measured on the images
            that were held back if it is promised, else on those that chose the threshold. None
            without value.
    """

    max_error: float
    value: float | None
    promised: bool
    errors: Proportion | None

    def __post_init__(self) -> None:
        check_error_rate(self.max_error)
        if self.value is not None and not 0 <= self.value <= 1:
            raise UsageError(f"value is {self.value}; a threshold is 0 to 1, or None")


def _images_needed(max_error: float, candidates: int = 1) -> int:
    """The least number of images that can promise an error rate, if every prediction is right.

    Two thirds of them are held back; of those, n without a mistake are enough where
    (1 - max_error)^n <= doubt (Clopper and Pearson 1934).

    >>> _images_needed(0.02), _images_needed(0.1)
    (224, 44)
    """
    least = math.ceil(math.log(_DOUBT / candidates) / math.log1p(-max_error))
    return math.ceil(3 * least / 2)


def _held_back(total: int, max_error: float, candidates: int = 1) -> Booleans:
    """Which of N images decide about the promise, and therefore about nothing before it: (N,).

    Two thirds, drawn by a fixed seed; none where they could not promise `max_error` anyway, and
    then all of them are for the fit.

    Args:
        total: N.
        max_error: the target error rate, 0 to 1.
        candidates: among how many networks these same images have chosen.

    Raises:
        UsageError: `max_error` is not between 0 and 1.
    """
    check_error_rate(max_error)
    chosen = np.zeros(total, dtype=bool)
    if total >= _images_needed(max_error, candidates):
        chosen[np.random.default_rng(_SEED).permutation(total)[: 2 * total // 3]] = True
    return chosen


def check_error_rate(max_error: float) -> None:
    """Refuse a value that is not an error rate.

    Raises:
        UsageError: it is not between 0 and 1.
    """
    if not 0 < max_error < 1:
        raise UsageError(f"max_error {max_error}: must be between 0 and 1, such as 0.02")


def _fit_threshold(
    confidence: ArrayLike,
    correct: ArrayLike,
    max_error: float,
    held: ArrayLike | None = None,
    candidates: int = 1,
) -> Threshold:
    """Choose the confidence threshold for a target error rate.

    Where images are held back, the others propose thresholds, from the one with the strongest
    evidence down, and those held back test them in this order until one fails: each by the
    exact bound of its error rate (Clopper and Pearson 1934) at the full 5 %, as a fixed sequence of
    tests allows (Angelopoulos et al. 2021, arXiv:2110.01052, section 2.3). The last one that passed
    is promised. Where these images have chosen among several networks before, that may be by their
    luck: the doubt is shared among the networks (Bonferroni).

    Where nothing can be promised, it is the least threshold at which `max_error` is more likely
    kept than not: by the same bound, at 50 %.

    Args:
        confidence: (N,), 0 to 1, at a temperature that was not fitted on images held back.
        correct: (N,), whether each prediction is right.
        max_error: between 0 and 1.
        held: (N,), which images are held back, see `_held_back`; None: none.
        candidates: among how many networks these same images have chosen.

    Raises:
        UsageError: `max_error` is not between 0 and 1.
    """
    check_error_rate(max_error)
    sure, right = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=bool)
    back = np.zeros(len(sure), dtype=bool) if held is None else np.asarray(held, dtype=bool)
    if back.any() and not back.all():
        proposed = _candidate_thresholds(sure[~back], right[~back], max_error)
        value = _last_confirmed(proposed, sure[back], right[back], max_error, _DOUBT / candidates)
        if value is not None:
            return Threshold(max_error, value, True, _errors_above(sure[back], right[back], value))
    value = _least_threshold(sure, right, max_error)
    return Threshold(max_error, value, False, _errors_above(sure, right, value))


def selections(confidence: Floats, correct: Booleans) -> tuple[Floats, Integers, Integers]:
    """Each distinct threshold, falling; the number of predictions at or above it; the wrong ones.

    Predictions of equal confidence are selected together.
    """
    values, counts = np.unique(-confidence, return_counts=True)
    accepted = np.cumsum(counts, dtype=np.int64)
    missed = ~correct[np.argsort(-confidence, kind="stable")]
    wrong = np.cumsum(missed, dtype=np.int64)[accepted - 1]
    return -values, accepted, wrong


def _candidate_thresholds(confidence: Floats, correct: Booleans, max_error: float) -> Floats:
    """Thresholds to test, in this order: from the one with the strongest evidence down.

    The evidence is by how many standard errors the wrong ones are fewer than `max_error` allows.
    """
    values, accepted, wrong = selections(confidence, correct)
    evidence = (max_error * accepted - wrong) / np.sqrt(accepted)
    return values[int(evidence.argmax()) :]


def _last_confirmed(
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


def _least_threshold(confidence: Floats, correct: Booleans, max_error: float) -> float | None:
    """The least threshold that more likely keeps an error rate than not; None if none does."""
    from scipy.special import bdtr  # the probability of at most k of n

    values, accepted, wrong = selections(confidence, correct)
    passed = np.flatnonzero(bdtr(wrong, accepted, max_error) <= _EVEN)
    return float(values[passed[-1]]) if passed.size else None


def least_confident(max_error: float) -> int:
    """How many predictions without a mistake make it likely that an error rate is kept.

    >>> least_confident(0.02), least_confident(0.1)
    (35, 7)
    """
    return math.ceil(math.log(_EVEN) / math.log1p(-max_error))


def too_few_in_words(total: int, max_error: float) -> str:
    """That images are too few for any threshold, in words; empty where they may be enough.

    >>> too_few_in_words(30, 0.02).partition(":")[0]
    '30 images are too few for a target of 2 %'
    """
    least = least_confident(max_error)
    if total >= least:
        return ""
    return (
        f"{plural(total, 'image')} {'is' if total == 1 else 'are'} too few for a target of "
        f"{exact_percent(max_error)}: at least {least:,} confident ones without a mistake are "
        "needed"
    )


def _errors_above(confidence: Floats, correct: Booleans, value: float | None) -> Proportion | None:
    """The wrong ones of the predictions at or above a threshold; None if there are none."""
    sure = confidence >= (math.inf if value is None else value)
    return Proportion(int((sure & ~correct).sum()), int(sure.sum())) if sure.any() else None


BINS = 15  # as in Guo et al. 2017, section 5
_ROUNDING = 1e-12  # of an error rate that went through JSON or a command line


@dataclass(frozen=True)
class Reliability:
    """Accuracy by confidence: one value per bin of equal width.

    The bins are 0 < c <= 1/15, 1/15 < c <= 2/15 ... The mean of an empty bin is NaN.

    Attributes:
        counts: number of predictions.
        accuracy: share of them that are right.
        confidence: their mean confidence.
    """

    counts: Integers
    accuracy: Floats
    confidence: Floats

    @property
    def error(self) -> float:
        """Expected calibration error: the mean over predictions of their bin's |gap|, 0 to 1."""
        used = self.counts > 0
        gaps = np.abs(self.accuracy - self.confidence)[used]
        return float(np.average(gaps, weights=self.counts[used]))


def reliability(logits: ArrayLike, labels: ArrayLike, bins: int = BINS) -> Reliability:
    """Accuracy against confidence. logits (N, K), labels (N,)."""
    confidence, correct = confidence_and_correctness(logits, labels)
    places = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(places, minlength=bins)
    sums = (np.bincount(places, weights=values, minlength=bins) for values in (correct, confidence))
    with np.errstate(invalid="ignore"):
        accuracy, means = (total / counts for total in sums)
    return Reliability(counts, accuracy, means)


def confidence_and_correctness(logits: ArrayLike, labels: ArrayLike) -> tuple[Floats, Booleans]:
    """Confidence of each prediction (N,) and whether it is right (N,)."""
    logarithms = log_softmax(logits)
    return np.exp(logarithms.max(axis=1)), logarithms.argmax(axis=1) == np.asarray(labels)


_TARGETS = (
    *(0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02),
    *(0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3),
)  # further error rates to fit thresholds for, so that `--max-error` can be changed later


NOT_LOWERED = (
    "The temperature is chosen by the loss on the images that it was fitted to; it did not lower "
    "the calibration error here."
)


def is_not_lowered(temperature: float, before: float, after: float) -> bool:
    """Whether a temperature has left the calibration error as it was, or raised it."""
    return temperature != 1 and after >= before


@dataclass(frozen=True)
class Calibration:
    """The temperature and the confidence threshold of a network.

    Attributes:
        temperature: what the logits are divided by, > 0.
        threshold: least confidence of a prediction that is not unsure; None if none is high enough.
        max_error: target error rate of the predictions at or above the threshold, 0 to 1.
        promised: whether the threshold holds `max_error` with 95 % confidence on new images like
            these.
        errors: the wrong ones of these predictions: if promised, measured on the images that were
            held back; else on those that chose the threshold. None without threshold.
        total: number of images it was fitted on.
        error_before: expected calibration error at temperature 1, 0 to 1.
        error_after: the same at `temperature`.
        held_back: number of the images that decided about the promise, and about nothing else.
        candidates: among how many networks these images had chosen before; the doubt is shared.
        images: a phrase that describes them; empty for the validation images of the training.
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

    def confident(self, probabilities: ArrayLike) -> Booleans:
        """Whether each row of probabilities reaches the threshold. (..., K) -> (...)."""
        confidence = np.asarray(probabilities).max(axis=-1)
        return np.asarray(confidence >= (math.inf if self.threshold is None else self.threshold))

    def at(self, max_error: float) -> "Calibration":
        """The same with the threshold for another target: the nearest fitted one not above it.

        Raises:
            UsageError: the target is stricter than all that were fitted, or not an error rate.
        """
        check_error_rate(max_error)
        present = Threshold(self.max_error, self.threshold, self.promised, self.errors)
        strict = [
            threshold
            for threshold in (*self.thresholds, present)
            if threshold.max_error <= max_error + _ROUNDING
        ]
        if not strict:
            least = min(threshold.max_error for threshold in (*self.thresholds, present))
            raise UsageError(
                f"max error {max_error:g}: the model file has no threshold for less than "
                f"{least:g}; `resnets calibrate MODEL DATA --max-error {max_error:g}` fits one on "
                "your own labelled images"
            )
        best = max(strict, key=lambda threshold: threshold.max_error)
        return replace(
            self,
            threshold=best.value,
            max_error=best.max_error,
            promised=best.promised,
            errors=best.errors,
        )

    @property
    def reachable_target(self) -> float | None:
        """The strictest target for which there is a threshold, 0 to 1; None if there is none."""
        own = Threshold(self.max_error, self.threshold, self.promised, self.errors)
        rates = [one.max_error for one in (own, *self.thresholds) if one.value is not None]
        return min(rates, default=None)

    def without_promises(self, reason: str) -> "Calibration":
        """The same without a promise for new images, because of a reason."""
        others = tuple(replace(threshold, promised=False) for threshold in self.thresholds)
        withheld = reason if self.promised else ""
        return replace(self, promised=False, thresholds=others, withheld=withheld)

    def in_words(self) -> str:
        """Calibration error and target, in sentences on two lines."""
        return f"{self.error_in_words()}\n{self.target_in_words()}"

    def error_in_words(self) -> str:
        """The calibration error before and after, as a sentence."""
        before, after = (percent(error) for error in (self.error_before, self.error_after))
        changed = f", and {after} at temperature {self.temperature:.2f}"
        errors = (self.error_before, self.error_after)
        worse = f" {NOT_LOWERED}" if is_not_lowered(self.temperature, *errors) else ""
        return (
            f"Calibration error {before}{changed if self.temperature != 1 else ''} "
            f"({self.images or plural(self.total, 'validation image')}).{worse}"
        )

    def target_in_words(self) -> str:
        """The target, what was measured, and whether it is promised: a sentence each."""
        target = (
            f"Target: at most {exact_percent(self.max_error)} of the confident predictions are "
            "wrong."
        )
        if self.threshold is None or self.errors is None:
            why = too_few_in_words(self.total, self.max_error) or (
                f"No threshold meets it on these {plural(self.total, 'image')}, where at "
                f"least {least_confident(self.max_error):,} must be confident, and right"
            )
            return f"{target} {why}. So every prediction is unsure."
        apart = (self.promised or self.withheld) and self.held_back
        measured = plural(self.held_back if apart else self.total, "image")
        where = "held back for it" if apart else "that chose the threshold"
        return (
            f"{target} Measured on the {measured} {where}: "
            f"{_with_verb(self.errors.total)} confident ({percent(self.threshold)} or more), and "
            f"{_with_verb(self.errors.count, ' of these')} wrong: {self.errors}. "
            f"{self.promise_in_words()}"
        )

    def promise_in_words(self) -> str:
        """Whether the target holds for new images."""
        if self.promised and self.errors is not None:
            bound = self.errors.upper_bound(1 - _DOUBT / self.candidates)
            return (
                "The target holds for new images like these, with 95 % confidence (at most "
                f"{percent(bound, 2)} wrong, by the one-sided bound)."
            )
        if self.withheld:
            return f"The target is not promised for new images: {self.withheld}."
        needed, why = _images_needed(self.max_error, self.candidates), ""
        if self.total < needed and self.errors is not None:
            needed = math.ceil(
                needed * self.total / self.errors.total
            )  # where as many are confident
            why = f": that takes {plural(needed, 'image')} or more"
        if self.held_back:
            why = f": {plural(self.held_back, 'image')} held back did not confirm it"
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
        calibration = from_table(cls, values, "calibration.")
        threshold = calibration.threshold
        if calibration.temperature <= 0 or not (threshold is None or 0 <= threshold <= 1):
            raise ContentError("calibration: needs temperature > 0, threshold 0 to 1 or none")
        return calibration


def _with_verb(count: int, which: str = "") -> str:
    """A count and its verb.

    >>> _with_verb(1, " of these"), _with_verb(2)
    ('1 of these is', '2 are')
    """
    return f"{count:,}{which} {'is' if count == 1 else 'are'}"


def calibrate(
    logits: ArrayLike,
    labels: ArrayLike,
    max_error: float = 0.02,
    candidates: int = 1,
    images: str = "",
) -> Calibration:
    """Fit temperature and thresholds.

    The images that decide whether a threshold is promised (two thirds, see `_held_back`) do not
    decide about the temperature or about which thresholds are tested. Where there are too few
    images to promise the target, all of them are used for the fit.

    Args:
        logits: (N, K), of images on which the network was not trained: the validation split.
        labels: (N,).
        max_error: target error rate of the confident predictions, between 0 and 1.
        candidates: among how many networks these images have chosen this one, such as the epochs
            of a training with patience.
        images: which ones, in words; empty for the validation images of the training.

    Raises:
        UsageError: if there is no image, or `max_error` is not between 0 and 1.
    """
    scores, truth = check_logits(logits, labels)
    held = _held_back(len(truth), max_error, candidates)
    temperature = fit_temperature(scores[~held], truth[~held])
    confidence, correct = confidence_and_correctness(scores / temperature, truth)
    chosen, *others = (
        _fit_threshold(confidence, correct, rate, held, candidates)
        for rate in (max_error, *_TARGETS)
    )
    return Calibration(
        temperature=temperature,
        threshold=chosen.value,
        max_error=max_error,
        promised=chosen.promised,
        errors=chosen.errors,
        total=len(truth),
        error_before=reliability(scores, truth).error,
        error_after=reliability(scores / temperature, truth).error,
        held_back=int(held.sum()),
        candidates=candidates,
        images=images,
        thresholds=tuple(others),
    )
