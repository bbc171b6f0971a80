"""Whether to rely on a network: a verdict in plain words, and what to look at first.

The yardstick is the target for the error rate that the network was calibrated for. A network may
also be relied on if it keeps to that rate only where it is sure enough.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from resnets.evaluation.calibration import Calibration
from resnets.evaluation.doctor import Copies
from resnets.evaluation.evaluate import Evaluation
from resnets.evaluation.exposure import Exposure
from resnets.evaluation.label_errors import LabelErrors
from resnets.evaluation.metrics import Metrics
from resnets.evaluation.proportion import Proportion
from resnets.format import exact_percent, fraction, percent, percent_interval

Level = Literal["yes", "care", "no"]

_OFTEN = 0.5  # share of the images that must get an answer before one says yes
_FLATTERED = 0.01  # share of copies above which the accuracy is not believed without a look
_MISCALIBRATED = 0.05  # expected calibration error from which probabilities mislead
_FEW = 20  # images of a class from which on its figures say something
_MOSTLY = 0.5  # share of copies from which the images tell nothing
_CANNOT_TELL = "These images cannot tell."
_WIDE = 0.05  # width of the accuracy's interval that is worth a remark


@dataclass(frozen=True)
class Evidence:
    """What a verdict is made from.

    Attributes:
        judged: the figures.
        calibration: None if none was ever fitted.
        exposure: how many of the images the network has seen before.
        labels: which of the images' labels are probably wrong.
        copies: of training images among these; None if none could be looked for.
        without_copies: accuracy on the other images; None if there are no copies, or only copies.
    """

    judged: Evaluation
    calibration: Calibration | None
    exposure: Exposure
    labels: LabelErrors
    copies: Copies | None
    without_copies: Proportion | None


@dataclass(frozen=True)
class Verdict:
    """Whether to rely on a network.

    Attributes:
        level: yes, with care, or no.
        answer: to "would you ship it?", in a few words.
        reasons: a sentence each.
    """

    level: Level
    answer: str
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Remark:
    """Something to look at, and the section of the report that shows it."""

    text: str
    section: str


def verdict(evidence: Evidence) -> Verdict:
    """Whether to rely on the network."""
    metrics = evidence.judged.metrics
    always = metrics.largest_class
    if evidence.exposure.seen:
        return Verdict("no", _CANNOT_TELL, (_seen_before(evidence.exposure, metrics.top1.total),))
    if evidence.copies and evidence.copies.share > _MOSTLY:
        why = (
            f"{percent(evidence.copies.share)} of these images look like one that it was "
            "trained on, so they do not show how it does on new ones."
        )
        return Verdict("no", _CANNOT_TELL, (why,))
    if not metrics.better_than_chance:
        return Verdict(
            "no",
            "No.",
            (
                f"It is right on {_short(metrics.top1)}. Always giving the most frequent answer "
                f"would be right on {_short(always)}: these images do not show that it is better.",
            ),
        )
    found = _by_target(evidence)
    copies = evidence.copies
    if copies and copies.share > _FLATTERED and found.level == "yes":
        why = f"But {percent(copies.share)} of these images look like one that it was trained on."
        return Verdict("care", "Not before a look at the copies.", (*found.reasons, why))
    return found if found.level == "no" else _with_doubt(found, evidence.exposure)


def _seen_before(exposure: Exposure, total: int) -> str:
    """Why images that the network has seen tell nothing."""
    trained, validated = exposure.trained or 0, exposure.validated or 0
    seen = [f"trained on {trained:,}"] if trained else []
    seen += [f"validated on {validated:,}"] if validated else []
    return (
        f"The network was {' and '.join(seen)} of these {total:,} images, so they do not show how "
        "it does on new ones."
    )


def _with_doubt(found: Verdict, exposure: Exposure) -> Verdict:
    """The verdict with what cannot be checked; without that it is never an unconditional yes."""
    if not exposure.unknown:
        return found
    why = f"It cannot be checked whether it was trained on these images: {exposure.unknown}."
    if found.level != "yes":
        return Verdict(found.level, found.answer, (*found.reasons, why))
    return Verdict("care", "Yes, if these images are new to it.", (*found.reasons, why))


def _by_target(evidence: Evidence) -> Verdict:
    """The verdict by the error rate that is the target."""
    judged, metrics, calibration = evidence.judged, evidence.judged.metrics, evidence.calibration
    mistakes = Proportion(metrics.top1.total - metrics.top1.count, metrics.top1.total)
    first = f"It is right on {_short(metrics.top1)}"
    if calibration is None:
        return Verdict(
            "care",
            "That depends on what a mistake costs.",
            (
                f"{first}: expect {_expected(mistakes)}.",
                "It was never calibrated, so there is no target for its error rate, and it cannot "
                "say when it does not know.",
            ),
        )
    target = exact_percent(calibration.max_error)
    if mistakes.interval[1] <= calibration.max_error:
        return Verdict("yes", "Yes.", (f"{first}; the target is at most {target} of mistakes.",))
    if judged.answered is None or judged.wrong is None:
        return Verdict(
            "no",
            "Not yet.",
            (
                f"{first}; the target is at most {target} of mistakes.",
                "It is never sure enough to keep to that: every prediction is marked unsure.",
            ),
        )
    return _by_answers(judged.answered, judged.wrong, calibration.max_error, first)


def _by_answers(answered: Proportion, wrong: Proportion, target: float, first: str) -> Verdict:
    """The verdict on a network that answers only where it is sure enough."""
    aim = f"the target is at most {exact_percent(target)}"
    if answered.count == answered.total:
        told = f"It is sure enough to answer each of them: {_short(wrong)} are wrong; {aim}."
    else:
        told = (
            f"Where it is sure enough it answers, which is on {_short(answered)}; of these answers "
            f"{_short(wrong)} are wrong; {aim}. The others are marked unsure."
        )
    reasons = (f"{first}.", told)
    low, high = wrong.interval
    if low > target:
        return Verdict("no", "Not yet.", reasons)
    if high > target:
        doubt = (
            f"These {wrong.total:,} answers are too few to be sure: the true error rate may be up "
            f"to {percent(high)}."
        )
        kept = wrong.value <= target
        answer = "Perhaps: so far it keeps to the target." if kept else "Probably not yet."
        return Verdict("care", answer, (*reasons, doubt))
    if answered.value < _OFTEN:
        return Verdict("care", "Only as a help: most images it leaves to a person.", reasons)
    return Verdict("yes", "Yes, for the predictions that are not marked unsure.", reasons)


def remarks(evidence: Evidence) -> Iterator[Remark]:
    """What to look at, the gravest first."""
    metrics, judged = evidence.judged.metrics, evidence.judged
    if evidence.copies and evidence.copies.pairs:
        yield Remark(_copied(evidence.copies, metrics, evidence.without_copies), "copies")
    yield from _classes_to_look_at(metrics)
    pairs = metrics.most_confused(1)
    if pairs and pairs[0].count > 1 and metrics.better_than_chance:
        pair = pairs[0]
        yield Remark(
            f"The most frequent mistake: {pair.true} taken for {pair.predicted}, {pair.count:,} "
            f"times ({percent(pair.share)} of {pair.true}).",
            "confusion",
        )
    if judged.after.error > _MISCALIBRATED:
        yield Remark(
            f"Its probabilities are off by {percent(judged.after.error)} on average: do not "
            "take them at their word.",
            "calibration",
        )
    suspects = len(evidence.labels.suspects)
    if suspects:
        text = "1 label looks" if suspects == 1 else f"{suspects:,} labels look"
        yield Remark(f"{text} wrong: some of the mistakes may not be the network's.", "labels")
    low, high = metrics.top1.interval
    if high - low > _WIDE:
        yield Remark(
            f"{metrics.top1.total:,} images leave much open: the accuracy on new ones may be "
            f"anything from {percent_interval(low, high, 1)} %. More of them would tell more.",
            "figures",
        )


def _copied(copies: Copies, metrics: Metrics, without: Proportion | None) -> str:
    """What to say of copies."""
    count = len(copies.pairs)
    text = (
        f"{count:,} of {copies.looked_at:,} images looked at {'is' if count == 1 else 'are'} among "
        "the training images, too, or look like one of them"
    )
    if without is None:
        return f"{text}."
    return f"{text}; the accuracy is {_short(metrics.top1)}, and without these {_short(without)}."


def _classes_to_look_at(metrics: Metrics) -> Iterator[Remark]:
    """The class that is found least, if chance does not explain it; and those with few images."""
    found = [
        (Proportion(metrics.confusion[i][i], row.support), row.name)
        for i, row in enumerate(metrics.classes)
        if row.support
    ]
    share, name = min(found, key=lambda pair: pair[0].value)
    if share.interval[1] < metrics.top1.value and metrics.better_than_chance:
        yield Remark(f"The weakest class is {name}: {_short(share)} of it are found.", "classes")
    few = [row.name for row in metrics.classes if row.support < _FEW]
    if few:
        names = ", ".join(few[:5]) + (f" and {len(few) - 5} more" if len(few) > 5 else "")
        if len(few) == len(metrics.classes):
            names = "every class"
        yield Remark(f"Fewer than {_FEW} images to be judged by: {names}.", "classes")


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
