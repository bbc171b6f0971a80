"""Temperature and thresholds fitted anew, on other images than in training.

Shapes: N images, K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from resnets.data.labelled import LabelledImages
from resnets.errors import ContentError, UsageError
from resnets.evaluation.calibration import Calibration, calibrate
from resnets.evaluation.exposure import exposure_of_contents
from resnets.evaluation.logits import Integers
from resnets.evaluation.outputs import choose
from resnets.evaluation.predict import Source
from resnets.model_file import Description

MAX_ERROR = 0.02
MISSING = 5  # classes named of those without an image


@dataclass(frozen=True)
class Chosen:
    """Images to calibrate on.

    Attributes:
        images: with labels numbered as the network's logits are.
        what: which ones, in words.
        candidates: among how many networks these images have chosen this one.
        remarks: what a user should know of this choice.
    """

    images: LabelledImages
    what: str
    candidates: int
    remarks: tuple[str, ...]


def choose_images(
    source: str, description: Description, split: str, *, skip_unreadable: bool = False
) -> Chosen:
    """The images of a source to calibrate a network on: none that it was trained on.

    Args:
        source: as for `open_data`.
        description: of the network.
        split: as for `evaluate`; "auto" leaves out what the network was trained on.
        skip_unreadable: leave out images that cannot be read.

    Raises:
        UsageError: the network was trained on these images, or there is no such split.
    """
    found = choose(source, description, split, skip_unreadable=skip_unreadable)
    if found.exposure.trained:
        raise UsageError(
            f"{found.what}: a network is surer of these than of new ones, so they cannot calibrate "
            "it; give other images, or --split validation"
        )
    validated = bool(found.exposure.validated)
    own = description.calibration.get("candidates", epochs_to_choose(description))
    seen = found.exposure
    remarks = [f"{text}." for text in (seen.left_out(), seen.unknown and seen.in_words()) if text]
    if found.split == "test":
        remarks.append("These images then no longer measure this network: evaluate it on others.")
    return Chosen(
        found.images,
        found.part,
        own if validated else 1,
        (*found.warnings, *remarks),
    )


def refuse_seen(sources: Sequence[Source], description: Description) -> None:
    """Refuse images that a network is known to have been trained on.

    Raises:
        UsageError: how many they are.
    """
    contents = [each.content for each in sources if not isinstance(each.content, ContentError)]
    seen = exposure_of_contents(contents, description)
    if seen.trained:
        raise UsageError(
            f"the network was trained on {seen.trained:,} of these {len(sources):,} images: it is "
            "surer of them than of new ones, so they cannot calibrate it; leave them out"
        )


def epochs_to_choose(description: Description) -> int:
    """Among how many epochs the validation images have chosen, by the recipe."""
    recipe = description.recipe
    return max(1, int(recipe.get("epochs", 1))) if recipe.get("patience", 0) else 1


def recalibrated(
    description: Description,
    logits: ArrayLike,
    labels: ArrayLike,
    images: str,
    max_error: float = MAX_ERROR,
    candidates: int = 1,
) -> Description:
    """The description with temperature and thresholds fitted anew.

    Args:
        description: of the network.
        logits: (N, K), of images that it was not trained on.
        labels: (N,).
        images: which ones, in words.
        max_error: target for the share of wrong ones among the sure predictions.
        candidates: among how many networks these images have chosen this one.

    Raises:
        UsageError: there is no image, or `max_error` is not between 0 and 1.
    """
    made = calibrate(logits, labels, max_error, candidates, images)
    return replace(description, calibration=made.to_dict())


def remarks(labels: Integers, class_names: tuple[str, ...]) -> list[str]:
    """What these images cannot tell: of classes that are not among them."""
    present = np.bincount(labels, minlength=len(class_names))
    missing = [name for name, count in zip(class_names, present, strict=True) if not count]
    if not missing:
        return []
    more = f" and {len(missing) - MISSING} more" if len(missing) > MISSING else ""
    return [
        f"No image of {', '.join(missing[:MISSING])}{more}: nothing was measured for "
        f"{'this class' if len(missing) == 1 else 'these classes'}."
    ]


def changes(before: Description, after: Description) -> str:
    """Temperature and threshold before and after."""
    old, new = (
        Calibration.from_dict(each.calibration) if each.calibration else None
        for each in (before, after)
    )
    return f"Before: {values(old)}. Now: {values(new)}."


def values(calibration: Calibration | None) -> str:
    """Temperature and threshold in a few words."""
    if calibration is None:
        return "never calibrated"
    least = calibration.threshold
    threshold = "no threshold" if least is None else f"threshold {100 * least:.1f} %"
    target = f"{100 * calibration.max_error:g} %"
    return f"temperature {calibration.temperature:.2f}, {threshold} for a target of {target}"
