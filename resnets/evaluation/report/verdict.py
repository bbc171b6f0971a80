"""The verdict of a report: whether to rely on a network, why, and what to look at first.

The verdict compares the error rate with the target that the network was calibrated for. A network
that meets the target only on the predictions that are not marked unsure may be relied on for these.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from resnets.evaluation.calibration import Calibration, least_confident, too_few_in_words
from resnets.evaluation.doctor import Duplicates
from resnets.evaluation.evaluate import Evaluation
from resnets.evaluation.exposure import Exposure
from resnets.evaluation.label_errors import LabelErrors
from resnets.evaluation.metrics import Metrics
from resnets.evaluation.next_steps import TRUSTED, wide_interval
from resnets.evaluation.proportion import Proportion
from resnets.format import exact_percent, fraction, percent, percent_interval, plural

Level = Literal["yes", "care", "no"]

_RARELY = 0.2  # share of predictions with the status ok below which nearly all need a review
_FAR = 5  # times the target that the error rate may be, from which the status ok says little
_OFTEN = 0.5  # least share of predictions with the status ok for the verdict "reliable"
_FLATTERED = 0.01  # share of duplicates of seen images above which they need a review
_MISCALIBRATED = 0.05  # expected calibration error from which probabilities mislead
_FEW = 20  # fewer images of a class than this say little about it
_MOSTLY = 0.5  # share of duplicates of seen images above which there is no verdict
_RELIABLE = "Reliable on data like this"
_REVIEW = "Good enough with review"
_NOT_READY = "Not ready to rely on"
_PROBABLY_NOT = "Probably not ready to rely on"
_NO_VERDICT = "No verdict: these images are not new to the network"
_WIDE = 0.05  # the accuracy's interval is worth a remark if it is wider than this


@dataclass(frozen=True)
class Evidence:
    """The figures that a verdict is based on.

    Attributes:
        evaluation: on the images of the report.
        calibration: None if the network was never calibrated.
        exposure: on how many of the images the network was trained or validated.
        labels: which of the images' labels are probably wrong.
        duplicates: of training and validation images among these; None if there was nothing to
            compare with.
        without_duplicates: accuracy on the other images; None if there are no duplicates, or
            nothing else.
        seen_kind: which images these were compared with, see `seen_kind` of the exposure.
    """

    evaluation: Evaluation
    calibration: Calibration | None
    exposure: Exposure
    labels: LabelErrors
    duplicates: Duplicates | None
    without_duplicates: Proportion | None
    seen_kind: str = "training or validation"


@dataclass(frozen=True)
class Verdict:
    """Whether to rely on a network.

    Attributes:
        level: "yes", "care" (with review) or "no".
        headline: the verdict in a few words.
        reasons: one sentence each.
    """

    level: Level
    headline: str
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Remark:
    """Something to look at, and the section of the report with the details."""

    text: str
    section: str


def verdict(evidence: Evidence) -> Verdict:
    """Whether to rely on the network."""
    metrics, duplicates = evidence.evaluation.metrics, evidence.duplicates
    largest = metrics.largest_class
    if evidence.exposure.seen:
        return Verdict("no", _NO_VERDICT, (_seen_before(evidence.exposure, metrics.top1.total),))
    if duplicates and duplicates.share > _MOSTLY:
        why = (
            f"{percent(duplicates.share)} of these images repeat or resemble a "
            f"{evidence.seen_kind} image, so they do not show how the network does on new ones."
        )
        return Verdict("no", _NO_VERDICT, (why,))
    if not metrics.better_than_chance:
        why = (
            f"The network predicts {_short(metrics.top1)} correctly. Always predicting the most "
            f"frequent class would be right on {_short(largest)}: these images do not show that "
            "the network is better than that."
        )
        return Verdict("no", _NOT_READY, (why,))
    by_target = _beside_guessing(_verdict_by_target(evidence), largest)
    if duplicates and duplicates.share > _FLATTERED and by_target.level == "yes":
        why = (
            f"But {percent(duplicates.share)} of these images repeat or resemble a "
            f"{evidence.seen_kind} image: review them first, as they make the accuracy look better "
            "than it is."
        )
        return Verdict("care", _REVIEW, (*by_target.reasons, why))
    return by_target if by_target.level == "no" else _with_doubt(by_target, evidence.exposure)


def _beside_guessing(by_target: Verdict, largest: Proportion) -> Verdict:
    """The verdict with what guessing would do, after the accuracy."""
    guess = f"Always predicting the most frequent class would be right on {_short(largest)}."
    first, *others = by_target.reasons
    return Verdict(by_target.level, by_target.headline, (first, guess, *others))


def _seen_before(exposure: Exposure, total: int) -> str:
    """Why there is no verdict from images that the network has seen."""
    trained, validated = exposure.trained or 0, exposure.validated or 0
    parts = [f"trained on {trained:,}"] if trained else []
    parts += [f"validated on {validated:,}"] if validated else []
    return (
        f"The network was {' and '.join(parts)} of these {plural(total, 'image')}, so they do not "
        "show how it does on new ones."
    )


def _with_doubt(by_target: Verdict, exposure: Exposure) -> Verdict:
    """The verdict with what cannot be checked; then it is never an unconditional yes."""
    if not exposure.unknown:
        return by_target
    why = f"It cannot be checked whether it was trained on these images: {exposure.unknown}."
    if by_target.level != "yes":
        return Verdict(by_target.level, by_target.headline, (*by_target.reasons, why))
    return Verdict("care", "Reliable if these images are new to it", (*by_target.reasons, why))


def _verdict_by_target(evidence: Evidence) -> Verdict:
    """The verdict by the target error rate."""
    evaluation, calibration = evidence.evaluation, evidence.calibration
    top1, statuses = evaluation.metrics.top1, evaluation.statuses
    mistakes = Proportion(top1.total - top1.count, top1.total)
    accuracy = f"The network predicts {_short(top1)} correctly"
    if calibration is None:
        why = (
            "It was never calibrated, so there is no target error rate to compare with, and every "
            "prediction has the status not calibrated. `resnets calibrate` sets both."
        )
        return Verdict(
            "care",
            "No verdict: the network has no target error rate",
            (f"{accuracy}: expect {_expected(mistakes)}.", why),
        )
    target = f"the target error rate is at most {exact_percent(calibration.max_error)}"
    if mistakes.interval[1] <= calibration.max_error:
        return Verdict("yes", _RELIABLE, (f"{accuracy}; {target}.",))
    if statuses.wrong is None:
        return _verdict_without_threshold(calibration, f"{accuracy}; {target}.")
    return _verdict_by_status(statuses.ok, statuses.wrong, calibration.max_error, f"{accuracy}.")


def _verdict_without_threshold(calibration: Calibration, accuracy: str) -> Verdict:
    """The verdict on a network none of whose predictions has the status ok."""
    least, total = least_confident(calibration.max_error), calibration.total
    if calibration.threshold is None and total < 2 * least:
        few = too_few_in_words(total, calibration.max_error)
        how = (
            f"For calibration {few}"
            if few
            else f"It was calibrated on {plural(total, 'image')}, of which at least {least:,} had "
            "to be confident, and right, for a threshold"
        )
        why = f"{how}. So every prediction is marked unsure."
        return Verdict("care", _PROBABLY_NOT, (accuracy, why))
    why = "It is not confident enough to meet the target: every prediction is marked unsure."
    return Verdict("no", _NOT_READY, (accuracy, why))


def _verdict_by_status(ok: Proportion, wrong: Proportion, target: float, accuracy: str) -> Verdict:
    """The verdict on a network that meets the target only where it is confident, if at all.

    Args:
        ok: predictions with the status ok.
        wrong: the wrong ones of these.
        target: error rate, 0 to 1.
        accuracy: a sentence about all predictions.
    """
    aim = f"the target error rate is at most {exact_percent(target)}"
    if ok.count == ok.total:
        rates = f"All predictions have the status ok; {_short(wrong)} of them are wrong, and {aim}."
    else:
        rates = (
            f"{_short(ok)} of the predictions have the status ok; of these {_short(wrong)} are "
            f"wrong, and {aim}."
        )
    reasons = (accuracy, rates)
    low, high = wrong.interval
    if low > target:
        return Verdict("no", _NOT_READY, (*reasons, "So the target is missed."))
    if high > target:
        few = (
            f"These are too few predictions ({wrong.total:,}) to be sure: the true error rate may "
            f"be up to {percent(high)}."
        )
        is_near = wrong.value <= target and high <= _FAR * target and ok.value >= _RARELY
        return Verdict("care", _REVIEW if is_near else _PROBABLY_NOT, (*reasons, few))
    if ok.value < _RARELY:
        few = "So nearly all predictions need a review."
        return Verdict("care", _PROBABLY_NOT, (*reasons, few))
    if ok.value < _OFTEN:
        few = "So most predictions need a review."
        return Verdict("care", _REVIEW, (*reasons, few))
    return Verdict("yes", f"{_RELIABLE}, where the status is ok", reasons)


def remarks(evidence: Evidence) -> Iterator[Remark]:
    """What to look at, the most serious first."""
    evaluation, metrics = evidence.evaluation, evidence.evaluation.metrics
    if evidence.duplicates and evidence.duplicates.pairs:
        text = _on_duplicates(evidence, evidence.duplicates)
        yield Remark(text, "duplicates")
    yield from _on_classes(metrics)
    pairs = metrics.most_confused(1)
    if pairs and pairs[0].count > 1 and metrics.better_than_chance:
        pair = pairs[0]
        yield Remark(
            f"The most frequent mistake: {pair.true} predicted as {pair.predicted}, "
            f"{pair.count:,} times ({percent(pair.share)} of {pair.true}).",
            "confusion",
        )
    if evaluation.after.error > _MISCALIBRATED:
        yield Remark(
            f"The probabilities are off by {percent(evaluation.after.error)} on average: do not "
            "take them at face value.",
            "calibration",
        )
    suspects = len(evidence.labels.suspects)
    if suspects:
        yield Remark(
            f"{plural(suspects, 'suspicious label')}: {_whose(metrics.top1.value)}.",
            "labels",
        )
    low, high = metrics.top1.interval
    if wide_interval(metrics.top1):
        yield Remark(wide_interval(metrics.top1), "figures")
    elif high - low > _WIDE:
        yield Remark(
            f"The accuracy on {plural(metrics.top1.total, 'image')} is uncertain: on new images it "
            f"may be anything from {percent_interval(low, high, 1)} %. More images would narrow "
            "that.",
            "figures",
        )


def _whose(accuracy: float) -> str:
    """Whose mistakes the suspicious labels are."""
    if accuracy >= TRUSTED:
        return "some mistakes may be the label's, not the network's"
    return f"at an accuracy of {percent(accuracy)} most of them are the network's mistakes"


def _on_duplicates(evidence: Evidence, duplicates: Duplicates) -> str:
    """How many duplicates of seen images there are, and the accuracy without them."""
    metrics, without = evidence.evaluation.metrics, evidence.without_duplicates
    count = len(duplicates.pairs)
    verbs = "repeats or resembles" if count == 1 else "repeat or resemble"
    compared = plural(duplicates.looked_at, "image")
    text = f"{count:,} of the {compared} compared {verbs} a {evidence.seen_kind} image"
    if without is None:
        return f"{text}."
    return f"{text}; the accuracy is {_short(metrics.top1)}, and without these {_short(without)}."


def _on_classes(metrics: Metrics) -> Iterator[Remark]:
    """The class with the lowest recall, if not by chance, and the classes with few images."""
    recalls = [
        (Proportion(metrics.confusion[i][i], row.support), row.name)
        for i, row in enumerate(metrics.classes)
        if row.support
    ]
    recall, name = min(recalls, key=lambda pair: pair[0].value)
    is_low = recall.interval[1] < metrics.top1.value
    if is_low and (metrics.better_than_chance or not recall.count):  # which is a fact by itself
        yield Remark(f"The weakest class is {name}: its recall is {_short(recall)}.", "classes")
    few = [row.name for row in metrics.classes if row.support < _FEW]
    if few:
        names = ", ".join(few[:5]) + (f" and {len(few) - 5} more" if len(few) > 5 else "")
        if len(few) == len(metrics.classes):
            names = "every class"
        yield Remark(f"Fewer than {_FEW} images to evaluate on: {names}.", "classes")


def _short(share: Proportion) -> str:
    """A share without its interval.

    >>> _short(Proportion(9173, 10000))
    '91.7 % (9,173/10,000)'
    """
    return f"{percent(share.value)} ({fraction(share.count, share.total)})"


def _expected(mistakes: Proportion) -> str:
    """How many mistakes to expect.

    >>> _expected(Proportion(827, 10000))
    '77 to 88 mistakes in 1,000 images'
    """
    low, high = (round(1000 * end) for end in mistakes.interval)
    return f"{low} to {high} mistakes in 1,000 images"
