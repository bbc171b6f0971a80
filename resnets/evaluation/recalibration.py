"""Calibration of a trained network on new images: temperature and thresholds.

Shapes: N images, K classes, F features.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from resnets.data.labelled import LabelledImages
from resnets.data.membership import Members, TrainedOn
from resnets.data.sources.names import listed
from resnets.data.sources.opening import Data
from resnets.errors import UsageError
from resnets.evaluation.calibration import Calibration, calibrate
from resnets.evaluation.doctor.duplicates import look_alikes
from resnets.evaluation.exposure import Exposure, exposure_of_members, members_of
from resnets.evaluation.familiarity import class_directions, familiarity_of, fit_familiarity
from resnets.evaluation.logits import Booleans, Integers
from resnets.evaluation.outputs import (
    EvaluationImages,
    NothingNewError,
    choose_images,
    without_near_duplicates,
)
from resnets.format import exact_percent, percent, plural
from resnets.model_file import Description

MAX_ERROR = 0.02
_LEAST_TO_REFIT = 20  # images, of which 5 % are one
_LEAST_TO_KNOW = 2  # images of a class: one for its mean, one for the threshold
_SEED = 0  # draws the halves
_MISSING = 5  # classes without an image that a message names


@dataclass(frozen=True)
class CalibrationImages:
    """Images to calibrate on.

    Attributes:
        images: with labels numbered as the network's logits are.
        what: a phrase that describes them.
        candidates: among how many networks these images have chosen this one.
        members: digests that the images are recognised by.
        remarks: sentences about this choice for the user.
        warnings: about the source, one sentence each.
        skipped: name and reason of each image that cannot be read.
    """

    images: LabelledImages
    what: str
    candidates: int
    members: Members
    remarks: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()


def choose_calibration_images(
    source: Data,
    description: Description,
    split: str,
    *,
    file: Path | None = None,
    skip_unreadable: bool = False,
) -> CalibrationImages:
    """Choose the images of a source to calibrate a network on: none that it was trained on.

    Images that look like training or validation images are left out too, as by `evaluate`, and of
    photos of one class that look alike, such as those of a burst, all but the first.

    Args:
        source: as for `open_data`.
        description: of the network.
        split: as for `evaluate`, but without the images that the network was trained on; only
            "validation" includes images that it was validated on.
        file: of the network; in the folder of its run, it leads to its training images.
        skip_unreadable: leave out images that cannot be read.

    Raises:
        UsageError: the network was trained on these images, or there is no such split.
    """
    try:
        chosen = choose_images(
            source,
            description,
            split,
            file=file,
            skip_unreadable=skip_unreadable,
            only_new=split != "validation",
        )
    except NothingNewError as error:
        raise UsageError(f"{error.problem}; {_needs_new(description)}") from None
    # even of an explicit split "all", images that the network has seen are left out
    chosen = without_near_duplicates(
        replace(chosen, automatic=chosen.automatic or split == "all"), instead="give other images"
    )
    exposure = chosen.exposure
    _refuse_trained(exposure, len(chosen.images))
    texts = (
        exposure.left_out(),
        exposure.unknown and exposure.in_words(),
        exposure.not_looked_for(chosen.seen is not None),
        exposure.copies_left_out,
    )
    remarks = [f"{text[0].upper()}{text[1:]}." for text in texts if text]
    members = members_of(chosen.images)
    chosen, alike = _without_look_alikes(chosen)
    remarks += alike
    remarks.append(
        "These images can then no longer be used to evaluate this network: "
        + ("evaluate leaves them out." if _has_digests(description) else "evaluate it on others.")
    )
    return CalibrationImages(
        chosen.images,
        chosen.part,
        _candidates(exposure, description),
        members,
        tuple(remarks),
        chosen.warnings,
        chosen.skipped,
    )


def _without_look_alikes(chosen: EvaluationImages) -> tuple[EvaluationImages, list[str]]:
    """The images without those that look like another of their class, and a remark on these.

    A promise is for independent images: those of a burst are right or wrong together.
    """
    alike = look_alikes(chosen.images)
    if not alike.any():
        return chosen, []
    images, rest = chosen.images.subset(~alike), chosen.part.partition(" images, ")[2]
    left = int(alike.sum())
    example = chosen.images.names[int(alike.argmax())]
    words = f"are {left:,} that look like others of their class, such as {example}"
    if left == 1:
        words = f"is one that looks like another of its class, {example}"
    remark = f"Left out {words}: a promise takes images that are independent."
    return replace(chosen, images=images, part=f"{plural(len(images), 'image')}, {rest}"), [remark]


def _needs_new(description: Description) -> str:
    """What to do where the network has seen every image."""
    advice = (
        "calibration needs labelled images that the network has not seen, as it is more confident "
        "of those that it knows: give others"
    )
    if not description.calibration:
        return advice
    known = Calibration.from_dict(description.calibration)
    fitted_on = known.images or plural(known.total, "validation image")
    if known.reachable_target is None:
        return f"{advice}. The file was calibrated on {fitted_on}, and no threshold met any target"
    return (
        f"{advice}. The file has thresholds that were fitted on {fitted_on}; `resnets predict "
        f"MODEL IMAGES --max-error {known.reachable_target:g}` takes the one for the strictest "
        "target that they allow"
    )


def _has_digests(description: Description) -> bool:
    """Whether the model file has digests of its training images, to which others can be added."""
    generations = TrainedOn.from_dict(description.trained_on).generations
    return bool(generations and not generations[0].unknown)


def _refuse_trained(seen: Exposure, total: int) -> None:
    """Refuse images that a network is known to have been trained on.

    Raises:
        UsageError: how many they are.
    """
    if seen.trained:
        raise UsageError(
            f"the network was trained on {seen.trained:,} of these {plural(total, 'image')}: it is "
            "more confident of them than of new ones, so they cannot calibrate it; leave them out"
        )


def _candidates(seen: Exposure, description: Description) -> int:
    """Among how many networks the images chose this one; 1 if it was not validated on them."""
    if not seen.validated:
        return 1
    return int(description.calibration.get("candidates", _epochs_to_choose(description)))


def candidates_of(members: Members, description: Description) -> int:
    """The candidates of images without a data set: see `CalibrationImages`.

    Args:
        members: (N,), what each image is recognised by.
        description: of the network.

    Raises:
        UsageError: the network was trained on some of them.
    """
    exposure = exposure_of_members(members, description)
    _refuse_trained(exposure, len(members))
    return _candidates(exposure, description)


def _epochs_to_choose(description: Description) -> int:
    """Among how many epochs the validation images chose, by the recipe."""
    recipe = description.recipe
    return max(1, int(recipe.get("epochs", 1))) if recipe.get("patience", 0) else 1


def recalibrate(
    description: Description,
    logits: ArrayLike,
    labels: ArrayLike,
    images: str,
    max_error: float = MAX_ERROR,
    candidates: int = 1,
    members: Members | None = None,
) -> Description:
    """The description with a new temperature and new thresholds.

    Args:
        description: of the network.
        logits: (N, K), of images that it was not trained on.
        labels: (N,).
        images: a phrase that describes them.
        max_error: target error rate of the confident predictions.
        candidates: among how many networks these images have chosen this one.
        members: digests that the images are recognised by; they count as validated on from now on.

    Raises:
        UsageError: there is no image, or `max_error` is not between 0 and 1.
    """
    calibration = calibrate(logits, labels, max_error, candidates, images)
    history = TrainedOn.from_dict(description.trained_on)
    if members is not None and history:
        history = history.with_validated(members)
    return replace(description, calibration=calibration.to_dict(), trained_on=history.to_dict())


def refit_familiarity(
    description: Description, features: ArrayLike | None, labels: Integers
) -> tuple[Description, str]:
    """The description with a familiarity threshold that these images choose.

    A network that has no familiarity score gets one, if there are at least two images of each
    class: half of them give the class means, and the others the threshold.

    Args:
        description: of the network.
        features: (N, F), of images that it was not trained on; None where they are not known.
        labels: (N,).

    Returns:
        The description, and why nothing was fitted; empty if something was.
    """
    if features is None:
        return description, "the features of a network of one's own are not known"
    values = np.asarray(features)
    known = familiarity_of(description.familiarity)
    if known is not None and len(values) < _LEAST_TO_REFIT:
        return description, (
            f"its threshold stays: at least {_LEAST_TO_REFIT} images choose a new one, and here "
            f"{'is' if len(values) == 1 else 'are'} {len(values)}"
        )
    if known is not None:
        return replace(description, familiarity=known.refitted(values).to_dict()), ""
    counts = np.bincount(labels, minlength=len(description.class_names))
    few = int((counts < _LEAST_TO_KNOW).sum())
    if few:
        return description, (
            f"{few:,} of the {plural(len(counts), 'class')} "
            f"{'has' if few == 1 else 'have'} less than {_LEAST_TO_KNOW} images here, and without "
            "their means every image of them would be unfamiliar"
        )
    first = _half_of_each_class(labels)
    directions = class_directions(values[first], labels[first])
    fitted = fit_familiarity(directions, values[~first])
    return replace(description, familiarity=fitted.to_dict()), ""


def _half_of_each_class(labels: Integers) -> Booleans:
    """A random half of the images of each class, (N,): of an odd number the smaller one."""
    chosen = np.zeros(len(labels), dtype=bool)
    order = np.random.default_rng(_SEED).permutation(len(labels))
    for label in np.unique(labels):
        places = order[labels[order] == label]
        chosen[places[: len(places) // 2]] = True
    return chosen


def familiarity_in_words(description: Description, why_none: str) -> str:
    """What was fitted, or why nothing was, as a sentence."""
    familiarity = familiarity_of(description.familiarity)
    if familiarity is None:
        return f"No image gets the status unfamiliar: {why_none}."
    if why_none:
        return f"Status unfamiliar: {why_none}."
    return (
        f"Status unfamiliar: {familiarity.lost} of the images that chose its threshold. How many "
        "images of other things get it was not measured (`resnets evaluate MODEL DATA --other "
        "FOLDER`)."
    )


def remarks(labels: Integers, class_names: tuple[str, ...]) -> list[str]:
    """A remark on the classes that have no image."""
    present = np.bincount(labels, minlength=len(class_names))
    missing = [name for name, count in zip(class_names, present, strict=True) if not count]
    if not missing:
        return []
    return [
        f"No image of {listed(missing, _MISSING)}: nothing was measured for "
        f"{'this class' if len(missing) == 1 else 'these classes'}."
    ]


def changes(before: Description, after: Description) -> str:
    """Temperature and thresholds before and after."""
    return f"Before: {_values_in_words(before)}. Now: {_values_in_words(after)}."


def _values_in_words(description: Description) -> str:
    """Temperature and thresholds in a few words."""
    known = familiarity_of(description.familiarity)
    familiar = "no familiarity" if known is None else f"least familiarity {known.threshold:.3f}"
    if not description.calibration:
        return f"never calibrated, {familiar}"
    calibration = Calibration.from_dict(description.calibration)
    least = calibration.threshold
    threshold = "no threshold" if least is None else f"threshold {percent(least)}"
    target = exact_percent(calibration.max_error)
    return (
        f"temperature {calibration.temperature:.2f}, {threshold} for a target of {target}, "
        f"{familiar}"
    )
