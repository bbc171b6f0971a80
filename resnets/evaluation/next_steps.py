"""What to do next about a network, from what was measured: at most three steps, with commands."""

import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from statistics import NormalDist
from typing import Any

from resnets.data.membership import TrainedOn
from resnets.evaluation.history import History
from resnets.evaluation.metrics import ClassScores, Metrics
from resnets.evaluation.overfitting import (
    LossRise,
    best_epoch,
    ended_by_patience,
    kept_by_patience,
    loss_rise,
    training_accuracy,
)
from resnets.evaluation.proportion import LEVEL, Proportion
from resnets.fields import from_table
from resnets.format import (
    byte_size,
    duration,
    parse_duration,
    percent,
    percent_interval,
    plural,
    points,
    time_limit,
)
from resnets.model_file import Description
from resnets.networks.catalog import CATALOG
from resnets.pretrained.reference import pinned, read_reference
from resnets.pretrained.table import find_recommended, start_for_photos
from resnets.training.named_recipes import RECIPES
from resnets.training.recipe import FEW_STEPS, LEAST_STEPS, Recipe

_STEPS = 3  # that are shown
_WIDE = 0.1  # width of the accuracy's interval that is worth a sentence of its own
_WEAK = 0.05  # by how much a class's recall is below the accuracy where it needs images
TRUSTED = 0.9  # accuracy from which its doubts are more often the label's fault than its own
_LEARNT = 0.97  # accuracy on augmented training images from which more training teaches little
_GAP = 0.1  # between training and new images, from which the network has learnt by heart
_LEAST_PATIENCE = 5  # epochs
_PHOTO = 500  # pixels of a photo's shorter side, for which a recipe's epochs are told
_UNEVEN = 3  # times as many images as a weak class has, from which drawing it as often may help
_MANY = 10_000  # photos from which a network from scratch may do as well
_SMALL_SIDE = 64  # pixels; a network for images of this size or less sees little of a photo
_FOLDS, _FOLDED = 5, 1000  # a cross-validation, and the images from which it is no longer needed
_FEW_NEW = 50  # images that are too few to tell a weak network from one at chance
_EARLY = 0.75  # of the epochs: best before, the validation accuracy asks for no longer training
_LARGER = {  # the next network of the same family
    **{"resnet14": "resnet20", "resnet20": "resnet32", "resnet32": "resnet44"},
    **{"resnet10t": "resnet18", "resnet18": "resnet34", "resnet34": "resnet50"},
    **{"resnet18d": "resnet34d", "resnet34d": "resnet50d", "resnet50d": "resnet101d"},
    **{"resnet26": "resnet50", "resnet50": "resnet101"},
}


@dataclass(frozen=True)
class NextStep:
    """Something to do: why, in a sentence, and the command; empty where none stands for it."""

    text: str
    command: str = ""


@dataclass(frozen=True)
class Findings:
    """What was measured of a network.

    Attributes:
        metrics: on images that are new to it.
        suspects: how many of their labels look wrong.
        recipe: of its training, as the model file holds it; empty if that has none.
        counts: images by split and class, as the model file holds them.
        training: accuracy on its augmented training images, 0 to 1; None if that is not known, or
            not comparable with the accuracy on others.
        rise: of its validation loss during the training; None where that has not clearly risen.
        epoch_records: of its training, as its log has them; empty where that is not at hand.
        best_epoch: after which its validation accuracy was best; 0 where that is not known.
        epochs: that it was trained for; 0 where that is not known.
        steps: likewise.
        seconds: that its training took; 0 where that is not known.
        ended_by_patience: whether its training ended because validation no longer improved.
        budget: time that its training was allowed, such as 10m; empty if any.
        folds: of the cross-validation that it was measured by; 0 for none.
        from_scratch: whether it began without weights.
        planned: steps that were to be done; 0 where that is not known.
        start: id of the published weights that it began with; empty for others, or none.
        calibrated: whether a confidence threshold was fitted.
        again: a command that trains it again, in one line, to which flags can be added; empty where
            its data or code cannot be named on a command line.
        by_default: a command that trains on its data by default settings; empty likewise.
        resume: a command that goes on with its run; empty where that is not at hand.
        look: a command that looks at its data; empty likewise.
        report: a command that lists the labels that look wrong; empty likewise.
        is_on_page: whether these steps stand in a report, which lists those labels itself.
    """

    metrics: Metrics
    suspects: int = 0
    recipe: Mapping[str, Any] = field(default_factory=dict)
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    training: float | None = None
    rise: LossRise | None = None
    epoch_records: Sequence[Mapping[str, Any]] = ()
    best_epoch: int = 0
    epochs: int = 0
    steps: int = 0
    seconds: float = 0.0
    ended_by_patience: bool = False
    budget: str = ""
    folds: int = 0
    from_scratch: bool = True
    planned: int = 0
    start: str = ""
    calibrated: bool = True
    again: str = ""
    by_default: str = ""
    resume: str = ""
    look: str = ""
    report: str = ""
    is_on_page: bool = True

    def command(self, *words: object) -> str:
        """The command that trains again with other flags; empty where there is none."""
        return self.again and " ".join([self.again, *(shlex.quote(str(word)) for word in words)])

    @property
    def gap(self) -> bool:
        """Whether it has learnt its training images by heart: it predicts far fewer new ones."""
        return self.training is not None and self.training - self.metrics.top1.value > _GAP

    @property
    def is_gap_clear(self) -> bool:
        """Whether that difference is more than chance: the two 95 % intervals do not overlap."""
        images = sum(self.counts.get("train", {}).values())
        if not self.gap or self.training is None:
            return False
        least = self.training
        if images:
            least, _ = Proportion(round(self.training * images), images).interval
        return least > self.metrics.top1.interval[1]

    @property
    def are_photos(self) -> bool:
        """Whether it was trained on images larger than 64 pixels, as its augmentation tells."""
        return bool(self.recipe.get("augmentation", {}).get("smallest_crop"))

    @property
    def too_short(self) -> bool:
        """Whether it was trained from scratch on photos for too few steps to leave chance."""
        known = self.from_scratch and self.are_photos and self.recipe.get("freeze") is None
        return known and 0 < self.steps < FEW_STEPS

    @property
    def is_stopped(self) -> bool:
        """Whether it was stopped before its end, by a callback."""
        return self.steps < self.planned and not self.ended_by_patience

    @property
    def best_early(self) -> bool:
        """Whether the validation accuracy was best long before the end."""
        return 0 < self.best_epoch <= _EARLY * self.epochs

    @property
    def few_new(self) -> bool:
        """Whether it was measured on too few images to tell whether it is better than chance."""
        metrics = self.metrics
        seems_better = metrics.top1.value > metrics.largest_class.value
        all_right = metrics.top1.count == metrics.top1.total
        return seems_better or all_right or metrics.top1.total < _FEW_NEW


def findings_of(
    description: Description,
    metrics: Metrics,
    suspects: int,
    history: History | None,
    again: str = "",
    by_default: str = "",
    budget: str = "",
) -> Findings:
    """The findings from a model file's description, its measurement and the log of its training.

    Args:
        description: of the network.
        metrics: on images that are new to it.
        suspects: how many of their labels look wrong.
        history: of its training; None if its log is not at hand.
        again: the command that trains it again, in one line; empty if there is none.
        by_default: the command that trains on its data by default settings; empty likewise.
        budget: time that the training was allowed, such as 10m; empty if any.
    """
    epochs, recipe = history.epochs if history else [], description.recipe
    source = str(description.data.get("source", ""))
    ancestors = TrainedOn.from_dict(description.trained_on).ancestors
    return Findings(
        metrics,
        suspects,
        recipe,
        _counts(description.data.get("counts")),
        training_accuracy(epochs, recipe),
        loss_rise(epochs),
        epochs,
        best_epoch(epochs),
        len(epochs),
        history.step if history else 0,
        history.seconds if history else 0.0,
        ended_by_patience(epochs, recipe),
        budget,
        int(description.data.get("folds") or 0),
        calibrated=bool(description.calibration),
        from_scratch=not ancestors,
        start=pinned(ancestors.generations[0].origin) if len(ancestors.generations) == 1 else "",
        again=again,
        by_default=by_default,
        resume=again and _resume_command(history),
        planned=history.planned if history else 0,
        look=by_default and shlex.join(["resnets", "doctor", source]),
        report=again and _report_command(history, source, bool(description.data.get("skipped"))),
    )


def _counts(counts: Any) -> Mapping[str, Mapping[str, int]]:
    """Images by split and class, as far as the file says; what is damaged is told elsewhere."""
    splits = counts.items() if isinstance(counts, Mapping) else ()
    return {split: by_class for split, by_class in splits if isinstance(by_class, Mapping)}


def next_steps(findings: Findings) -> tuple[NextStep, ...]:
    """The three steps that promise most, best first; fewer where little is known."""
    return tuple(islice(_steps(findings), _STEPS))


def wide_interval(top1: Proportion) -> str:
    """A sentence where the interval of the accuracy is as wide as ten points; else empty.

    >>> wide_interval(Proportion(113, 153))
    'On 153 images the accuracy is uncertain by 14 points (66.4 to 80.2 %): smaller differences between networks may be chance. About 621 images would halve that.'
    """  # noqa: E501
    low, high = top1.interval
    if high - low < _WIDE:
        return ""
    return (
        f"On {plural(top1.total, 'image')} the accuracy is uncertain by {points(high - low, 0)} "
        f"points ({percent_interval(low, high, 1)} %): smaller differences between networks may be "
        f"chance. About {_images_to_halve(top1):,} images would halve that."
    )


def _images_to_halve(top1: Proportion) -> int:
    """How many images make the interval half as wide, at the same accuracy.

    >>> _images_to_halve(Proportion(1, 2)), _images_to_halve(Proportion(0, 24))
    (20, 52)
    >>> _images_to_halve(Proportion(500, 1000))  # of many images, four times as many
    4012
    """
    share, square = top1.value, NormalDist().inv_cdf((1 + LEVEL) / 2) ** 2

    def width(images: int) -> float:  # Wilson's, of a share that need not be a whole number
        spread = share * (1 - share) / images + square / (4 * images**2)
        return math.sqrt(square * spread) / (1 + square / images)

    target = width(top1.total) / 2
    fewer, enough = top1.total, 16 * top1.total
    while fewer + 1 < enough:
        middle = (fewer + enough) // 2
        fewer, enough = (fewer, middle) if width(middle) <= target else (middle, enough)
    return enough


def in_words(steps: tuple[NextStep, ...]) -> Iterator[str]:
    """The steps as lines for a terminal."""
    if steps:
        yield "What to do next:"
    for number, step in enumerate(steps, 1):
        yield f"{number}. {step.text}"
        if step.command:
            yield f"   {step.command}"


def _steps(findings: Findings) -> Iterator[NextStep]:
    """All steps that make sense, the most promising first."""
    if findings.is_stopped:
        after = f" after {findings.steps:,} of {findings.planned:,} steps" if findings.steps else ""
        yield NextStep(
            f"Go on with the training, which was stopped{after}.",
            findings.resume or findings.command(),
        )
        if 2 * findings.steps < findings.planned:  # what it has learnt by then says little
            return
    if findings.too_short:  # to say anything else of it
        yield from _published_weights(findings)
        steps = plural(findings.steps, "step")
        if findings.budget:  # which was planned anew on the way, with more or fewer
            steps = f"the {steps} that there was time for"
        teach = "teaches" if findings.steps == 1 else "teach"
        yield from _longer(findings, f"{steps} {teach} next to nothing")
        yield from _fewest(findings)
        return
    yield from _check_labels(findings)
    yield from _at_chance(findings)
    yield from _calibrate(findings)
    yield from _published_weights(findings)
    if findings.rise is not None:
        yield from _stop_earlier(findings, findings.rise.in_words)
    if findings.metrics.better_than_chance or not findings.few_new:
        yield from _in_folds(findings)
    weakest = _weakest(findings)
    if weakest is not None:
        yield _more_images(findings, weakest)
        yield from _as_often(findings, weakest)
    if findings.rise is None:
        yield from _by_training_accuracy(findings, weakest is None)
    else:
        yield from _against_overfitting(findings, findings.rise, weakest is None)


def _by_training_accuracy(findings: Findings, all_classes: bool) -> Iterator[NextStep]:
    """What follows from how well it predicts its training images, where it does not overfit.

    Args:
        findings: its validation loss has not risen.
        all_classes: whether more images of every class are among the steps.
    """
    training, gap = findings.training, findings.gap
    unlearnt = training is not None and training < _LEARNT
    if unlearnt:
        share = percent(training)
        why = f"only {share} of the training images, as they are augmented, are predicted correctly"
        yield from _longer(findings, why)
        if not gap and not findings.best_early:
            yield from _larger(findings, "this one may be too small to learn its training images")
    if findings.is_gap_clear:
        yield from _more_augmentation(findings)
    if all_classes:
        yield from _fewest(findings)
    if findings.best_early and not unlearnt:
        yield from _longer(findings, "")  # which stopping earlier takes the place of
    elif not unlearnt and not gap:
        why = "larger networks often predict better"
        if training is not None:
            why = "this one has learnt its training images, so its size may be the limit"
        yield from _larger(findings, why)
        yield from _longer(findings, "more steps at a falling rate often help a little")


def _stop_earlier(findings: Findings, why: str) -> Iterator[NextStep]:
    """Keep the best epoch, where the network has become less accurate since.

    Args:
        findings: of the network.
        why: a clause on what the validation shows.
    """
    recipe, last = findings.recipe, findings.rise.last_epoch if findings.rise else findings.epochs
    validated = sum(findings.counts.get("validation", {}).values())
    if recipe.get("patience") or 0 < validated < _FEW_NEW:  # of few the best epoch is chance
        return
    between = 3 * int(recipe.get("validation_every") or 1)  # some validations must have a chance
    patience = max(_LEAST_PATIENCE, between, last // 5)
    if last - findings.best_epoch < patience:  # it would end no sooner
        return
    if findings.rise and findings.epoch_records and not _would_help(findings, patience):
        return
    so = ", so the network overfits" if findings.rise else ""
    text = (
        f"Stop earlier: {why}{so}. This ends the training when the validation accuracy no longer "
        "improves, and keeps the best epoch:"
    )
    yield NextStep(text, findings.command("--patience", patience))


def _would_help(findings: Findings, patience: int) -> bool:
    """Whether it would have kept an epoch of a lower validation loss: it watches the accuracy."""
    kept = kept_by_patience(findings.epoch_records, patience)
    if not kept or findings.rise is None:
        return False
    loss = (findings.epoch_records[kept - 1].get("validation") or {}).get("loss")
    return isinstance(loss, float) and loss < findings.rise.last


def _against_overfitting(
    findings: Findings, rise: LossRise, all_classes: bool
) -> Iterator[NextStep]:
    """What makes learning by heart harder, for a network whose validation loss has risen."""
    if all_classes:
        yield from _fewest(findings)
    yield from _freeze(findings)
    yield from _more_augmentation(findings)
    if not findings.recipe.get("label_smoothing"):
        text = f"Train with label smoothing: {rise.in_words}, as by answers that are too sure."
        yield NextStep(text, findings.command("--label-smoothing", 0.1))


def _at_chance(findings: Findings) -> Iterator[NextStep]:
    """What to do first where the network has not been shown to have learnt anything."""
    metrics = findings.metrics
    if metrics.better_than_chance:
        return
    if findings.few_new:
        yield from _in_folds(findings)
        return
    yield NextStep(
        f"Look at the images and their labels first: {percent(metrics.top1.value)} of the new "
        "images are predicted correctly, which does not show that the network is better than "
        f"always predicting the largest class ({percent(metrics.largest_class.value)}).",
        findings.look,
    )


def _in_folds(findings: Findings) -> Iterator[NextStep]:
    """Cross-validation, where few images were measured and all are few."""
    top1, recipe = findings.metrics.top1, findings.recipe
    images = sum(sum(by_class.values()) for by_class in findings.counts.values())
    unfit = {"--other", "--follow-test"} & set(shlex.split(findings.again))
    is_few = top1.total < images < _FOLDED and bool(wide_interval(top1))
    if findings.folds or unfit or not is_few:
        return
    networks = f"{_FOLDS + 1} networks"
    if recipe.get("freeze") == "all":
        networks += ", all by the features of one pass over the images"
    elif findings.seconds:
        networks += f", about {duration((_FOLDS + 1) * findings.seconds)} by what this one took"
    flags: list[object] = ["--patience", 0] if recipe.get("patience") else []
    if recipe.get("validation") not in (None, 0, Recipe().validation):
        flags += ["--validation", Recipe().validation]
    yield NextStep(
        f"Measure it by cross-validation, as {plural(top1.total, 'new image')} can show little: "
        f"each of the {plural(images, 'image')} is predicted by a network that was trained without "
        f"it. That trains {networks}.",
        findings.command(*flags, "--folds", _FOLDS),
    )


def _check_labels(findings: Findings) -> Iterator[NextStep]:
    """The labels that look wrong; those that a weak network doubts are its own mistakes."""
    if not findings.suspects or findings.metrics.top1.value < TRUSTED:
        return
    has_report = findings.is_on_page or findings.report
    where = "the report" if has_report else "a training that writes a report"
    yield NextStep(
        f"Check the labels: {plural(findings.suspects, 'label')} of the "
        f"{plural(findings.metrics.top1.total, 'evaluated image')} may be wrong; {where} "
        "shows which.",
        findings.report or findings.command(),
    )


def _calibrate(findings: Findings) -> Iterator[NextStep]:
    """Calibration, where the training had no images for it."""
    if not findings.calibrated:
        yield NextStep(
            "Calibrate it: `resnets calibrate` fits a threshold on labelled images that it was not "
            "trained on; until then every prediction has the status not calibrated. Or train with "
            "validation images, which fit it, too:",
            findings.command("--validation", Recipe().validation),
        )


def _published_weights(findings: Findings) -> Iterator[NextStep]:
    """Start from weights trained on ImageNet, where photos were trained on without such weights."""
    recipe, images = findings.recipe, sum(findings.counts.get("train", {}).values())
    side = int(recipe.get("image_size") or 0)
    is_small = 0 < side <= _SMALL_SIDE
    if not (findings.are_photos and images < _MANY and (findings.from_scratch or is_small)):
        return
    why = f"{plural(images, 'photo')} are few"
    if findings.start:
        yield NextStep(
            f"Train at the size of the start network: photos at {side} pixels, as --image-size "
            "asks for, show little.",
            findings.by_default and f"{findings.by_default} --from {shlex.quote(findings.start)}",
        )
        return
    if not findings.from_scratch:
        why = f"the start network sees photos at {side} pixels, which shows little of them"
    # without its recipe, whose learning rates are for training from scratch
    start = start_for_photos(str(recipe.get("network")))
    flags = ["--from", start]
    if recipe.get("freeze") == "all":
        flags += ["--freeze", "all"]
    elif findings.budget:
        flags += ["--budget", findings.budget]
    yield NextStep(
        f"Start from weights that were trained on ImageNet{_to_download(start)}: {why}.",
        findings.by_default and f"{findings.by_default} {shlex.join(flags)}",
    )


def _to_download(network: str) -> str:
    """How much is to be downloaded for the recommended weights of a network; empty if nothing."""
    from resnets.pretrained.opening import is_in_cache  # loads torch, without which serve runs

    row = find_recommended(network)
    if row is None or is_in_cache(read_reference(row.id)):
        return ""
    return f", {byte_size(row.bytes)} to download"


def _weakest(findings: Findings) -> ClassScores | None:
    """The class with the lowest recall, if that is clearly below the accuracy and no chance.

    Of a network that may be at chance nothing is concluded about a class.
    """
    if not findings.metrics.better_than_chance:
        return None
    rows = [row for row in findings.metrics.classes if row.recall is not None]
    least = findings.metrics.top1.value - _WEAK
    rising = sorted(rows, key=lambda row: row.recall or 0.0)
    low = (row for row in rising if (row.recall or 0.0) < least and _is_apart(row, rows))
    return next(low, None)  # the lowest of all may be that of two images


def _is_apart(weakest: ClassScores, rows: Sequence[ClassScores]) -> bool:
    """Whether the lowest recall is below that of the other classes together by more than chance.

    By Fisher's exact test, at 5 % divided by the number of classes: the lowest of many is low by
    chance alone (Bonferroni).
    """
    from scipy.stats import fisher_exact

    right = [round((row.recall or 0.0) * row.support) for row in rows]
    own, images = round((weakest.recall or 0.0) * weakest.support), sum(row.support for row in rows)
    others = sum(right) - own
    table = [
        [own, weakest.support - own],
        [others, images - weakest.support - others],
    ]
    return bool(fisher_exact(table, alternative="less").pvalue * len(rows) < 1 - LEVEL)


def _more_images(findings: Findings, row: ClassScores) -> NextStep:
    """More images of a class, which is recognised less often than the others."""
    count = findings.counts.get("train", {}).get(row.name)
    among = f"; it has {plural(count, 'training image')}" if count else ""
    return NextStep(
        f"Add images to the class {row.name}: its recall is {percent(row.recall)} on "
        f"{plural(row.support, 'image')}{among}. Then train again:",
        findings.command(),
    )


def _as_often(findings: Findings, row: ClassScores) -> Iterator[NextStep]:
    """Count a class as much as the others, which is recognised less often and has few images."""
    counts, recipe = findings.counts.get("train", {}), findings.recipe
    is_balanced = recipe.get("balanced_sampling") or recipe.get("class_weights") == "balanced"
    count, most = counts.get(row.name, 0), max(counts.values(), default=0)
    if count and most >= _UNEVEN * count and not is_balanced:
        flags = ["--balanced-sampling"]
        if recipe.get("freeze") == "all":  # which draws no images
            flags = ["--class-weights", "balanced"]
        text = f"Count the images of {row.name} as much as those of the largest class, {most:,}: "
        yield NextStep(
            f"{text}the network predicts it more often then, and others less.",
            findings.command(*flags),
        )


def _fewest(findings: Findings) -> Iterator[NextStep]:
    """More images of the class that has the fewest."""
    counts = findings.counts.get("train", {})
    if counts:
        name = min(counts, key=lambda class_name: counts[class_name])
        images = plural(counts[name], "training image")
        first = f", first to {name}, which has the fewest ({images})"
        if counts[name] == max(counts.values()):
            first = f" (each has {images})"
        text = f"Add images to every class{first}. Then train again:"
        yield NextStep(text, findings.command())


def _longer(findings: Findings, why: str) -> Iterator[NextStep]:
    """Twice as many epochs, steps, or time; at least as many steps as a small set gets."""
    if findings.ended_by_patience or findings.is_stopped:
        return
    if findings.recipe.get("freeze") == "all":
        yield from _last_stage(findings)
        return
    if findings.best_early:
        epochs = f"epoch {findings.best_epoch} of {findings.epochs:,}"
        yield from _stop_earlier(findings, f"the validation accuracy was best after {epochs}")
        return
    if findings.budget and findings.steps:
        longer = _larger_budget(findings)
        text = f"Train longer, for {longer} instead of {findings.budget}: {why}."
        yield NextStep(text, findings.command("--budget", longer))
        return
    for name in ("steps", "epochs"):
        if length := _length(findings.recipe, name):
            text = f"Train longer, {_longer_length(findings, name):,} {name} instead of {length:,}"
            command = findings.command(f"--{name}", _longer_length(findings, name))
            yield NextStep(f"{text}: {why}.", command)
            return


def _longer_length(findings: Findings, name: str) -> int:
    """Twice as many steps or epochs, or as many as there are `LEAST_STEPS` in."""
    length = _length(findings.recipe, name)
    least = LEAST_STEPS
    if name == "epochs":
        least = math.ceil(LEAST_STEPS * length / findings.steps) if findings.too_short else 0
    return max(2 * length, least)


def _larger_budget(findings: Findings) -> str:
    """Time for twice as many steps, and for `LEAST_STEPS`, in whole minutes or hours."""
    steps = max(2 * findings.steps, LEAST_STEPS)
    networks = findings.folds + 1  # which share it
    training = sum(map(_seconds_of, findings.epoch_records)) or findings.seconds
    beside = max(0.0, findings.seconds - training)  # such as to fit a classifier before
    seconds = networks * (beside + training / findings.steps * steps)
    return time_limit(max(seconds, 2 * parse_duration(findings.budget)))


def _seconds_of(epoch: Mapping[str, Any]) -> float:
    """How long the steps of an epoch took, without what came between them; 0 if unknown."""
    images = epoch.get("training", {}).get("images", 0)
    return float(images / epoch["images_per_second"]) if epoch.get("images_per_second") else 0.0


def _length(recipe: Mapping[str, Any], name: str) -> int:
    """How many steps, or epochs, the run was to have in the end: a budget changes what was planned.

    0 if the recipe has no such limit.
    """
    planned = int(recipe.get(name) or 0)
    per_epoch, *_ = recipe.get("replanned") or (0,)
    if not planned or not per_epoch:
        return planned
    steps = from_table(Recipe, recipe).total_steps(per_epoch)
    return steps if name == "steps" else max(1, round(steps / per_epoch))


def _last_stage(findings: Findings) -> Iterator[NextStep]:
    """The last stage besides the classifier, where that alone was fitted.

    Not of a network that sees photos too small: what it lacks is in no stage.
    """
    if findings.are_photos and int(findings.recipe.get("image_size") or 0) <= _SMALL_SIDE:
        return
    if findings.metrics.top1.count == findings.metrics.top1.total:  # nothing is left to gain
        return
    entry = CATALOG.get(str(findings.recipe.get("network")))
    if entry is not None:
        frozen = len(entry.architecture.depths) - 1
        images = sum(findings.counts.get("train", {}).values()) or _MANY
        epochs = RECIPES["transfer"].resolved(side=_PHOTO, count=images).epochs or 0
        by_recipe = "--recipe" in findings.again and "--freeze all" not in findings.again
        yield NextStep(
            f"Train the last stage too (--freeze {frozen}): only the classifier was fitted. Each "
            f"of its {epochs} epochs takes about as long as a pass over the images did here.",
            findings.command("--freeze", frozen, "--epochs", epochs) if by_recipe else "",
        )


def _larger(findings: Findings, why: str) -> Iterator[NextStep]:
    """The next larger network, which begins from scratch."""
    larger = _LARGER.get(str(findings.recipe.get("network")))
    if larger and findings.from_scratch:
        text = f"Train a larger network, such as {larger}: {why}."
        yield NextStep(text, findings.command("--network", larger))


def _freeze(findings: Findings) -> Iterator[NextStep]:
    """Train only the last stage of a network that started from weights."""
    entry = CATALOG.get(str(findings.recipe.get("network")))
    if findings.from_scratch or entry is None:
        return
    stages = len(entry.architecture.depths) - 1
    frozen = findings.recipe.get("freeze")
    if frozen is None or (frozen != "all" and int(frozen) < stages):
        yield NextStep(
            f"Train the last stage only (--freeze {stages}): fewer weights can be fitted to the "
            "training images alone.",
            findings.command("--freeze", stages),
        )


def _more_augmentation(findings: Findings) -> Iterator[NextStep]:
    """Stronger changes of the training images, where these are learnt by heart."""
    settings, training = findings.recipe.get("augmentation", {}), findings.training
    if training is None or findings.recipe.get("freeze") == "all":  # which has only flips
        return
    if settings.get("policy") == "none" and not settings.get("mixup"):
        new = percent(findings.metrics.top1.value)
        why = f"{percent(training)} of the training images are predicted correctly, and only {new}"
        why += " of new ones"
        if not findings.is_gap_clear:  # the two shares say nothing
            why = findings.rise.in_words if findings.rise else ""
        yield NextStep(
            f"Train with stronger augmentation{why and f': {why}'}.",
            findings.command("--policy", "trivialaugment", "--mixup", 0.2),
        )


def _resume_command(history: History | None) -> str:
    """The command that goes on with a run; empty if it is not at hand."""
    if history is None or history.path is None:
        return ""
    return shlex.join(["resnets", "train", "--resume", history.path.parent.as_posix()])


def _report_command(history: History | None, data: str, skips: bool) -> str:
    """The command that writes the report of a run; empty if it is not at hand.

    Args:
        history: of the run.
        data: that it was trained on.
        skips: whether some of its images cannot be read.
    """
    if history is None or history.path is None or not data:
        return ""
    flags = ["--skip-unreadable"] if skips else []
    return shlex.join(["resnets", "report", history.path.parent.as_posix(), data, *flags])
