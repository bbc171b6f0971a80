"""Temperature and thresholds fitted anew, on other images than in training.

Shapes: N images, K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from resnets.data.labelled import LabelledImages
from resnets.data.membership import Members, TrainedOn
from resnets.data.sources.opening import Data
from resnets.errors import ContentError, UsageError
from resnets.evaluation.calibration import Calibration, calibrate
from resnets.evaluation.exposure import Exposure, exposure_of_contents, member_of, members_of
from resnets.evaluation.logits import Integers
from resnets.evaluation.outputs import choose_images, without_near_duplicates
from resnets.evaluation.predict import Source
from resnets.format import exact_percent, percent
from resnets.model_file import Description

MAX_ERROR = 0.02
_MISSING = 5  # classes named of those without an image


@dataclass(frozen=True)
class CalibrationImages:
    """Images to calibrate on.

    Attributes:
        images: with labels numbered as the network's logits are.
        what: which ones, in words.
        candidates: among how many networks these images have chosen this one.
        members: what each image is recognised by.
        remarks: what a user should know of this choice.
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
    """The images of a source to calibrate a network on: none that it was trained on.

    Of all images, those that look like training images are left out, too, as `evaluate` does.

    Args:
        source: as for `open_data`.
        description: of the network.
        split: as for `evaluate`, but what the network was trained on is left out of each; only
            "validation" takes what it was validated on.
        file: of the network; in the folder of its run, it leads to its training images.
        skip_unreadable: leave out images that cannot be read.

    Raises:
        UsageError: the network was trained on these images, or there is no such split.
    """
    found = choose_images(
        source,
        description,
        split,
        file=file,
        skip_unreadable=skip_unreadable,
        only_new=split != "validation",
    )
    # a split "all" that was named is no wish for images that were seen: those are left out of it
    found = without_near_duplicates(
        replace(found, automatic=found.automatic or split == "all"), instead="give other images"
    )
    seen = found.exposure
    _refuse_trained(seen, len(found.images))
    remarks = [f"{text}." for text in (seen.left_out(), seen.unknown and seen.in_words()) if text]
    members = members_of(found.images)
    remarks.append(
        "These images then no longer measure this network: "
        + ("evaluate leaves them out." if _has_digests(description) else "evaluate it on others.")
    )
    return CalibrationImages(
        found.images,
        found.part,
        _candidates(seen, description),
        members,
        tuple(remarks),
        found.warnings,
        found.skipped,
    )


def _has_digests(description: Description) -> bool:
    """Whether the model file has the digests of its training, to which others can be added."""
    generations = TrainedOn.from_dict(description.trained_on).generations
    return bool(generations and not generations[0].unknown)


def _refuse_trained(seen: Exposure, total: int) -> None:
    """Refuse images that a network is known to have been trained on.

    Raises:
        UsageError: how many they are.
    """
    if seen.trained:
        raise UsageError(
            f"the network was trained on {seen.trained:,} of these {total:,} images: it is surer "
            "of them than of new ones, so they cannot calibrate it; leave them out"
        )


def _candidates(seen: Exposure, description: Description) -> int:
    """Among how many networks images have chosen this one, if it was validated on any of them."""
    if not seen.validated:
        return 1
    return int(description.calibration.get("candidates", _epochs_to_choose(description)))


def members_of_sources(sources: Sequence[Source], description: Description) -> tuple[Members, int]:
    """The members and the candidates of images without a data set: see `CalibrationImages`.

    Raises:
        UsageError: the network was trained on some of them.
    """
    contents = [each.content for each in sources if not isinstance(each.content, ContentError)]
    seen = exposure_of_contents(contents, description)
    _refuse_trained(seen, len(sources))
    return np.array(list(map(member_of, contents)), np.uint64), _candidates(seen, description)


def _epochs_to_choose(description: Description) -> int:
    """Among how many epochs the validation images have chosen, by the recipe."""
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
    """The description with temperature and thresholds fitted anew.

    Args:
        description: of the network.
        logits: (N, K), of images that it was not trained on.
        labels: (N,).
        images: which ones, in words.
        max_error: target for the share of wrong ones among the sure predictions.
        candidates: among how many networks these images have chosen this one.
        members: what the images are recognised by; they count as validated on from now on.

    Raises:
        UsageError: there is no image, or `max_error` is not between 0 and 1.
    """
    made = calibrate(logits, labels, max_error, candidates, images)
    history = TrainedOn.from_dict(description.trained_on)
    if members is not None and history:
        history = history.with_validated(members)
    return replace(description, calibration=made.to_dict(), trained_on=history.to_dict())


def remarks(labels: Integers, class_names: tuple[str, ...]) -> list[str]:
    """What these images cannot tell: of classes that are not among them."""
    present = np.bincount(labels, minlength=len(class_names))
    missing = [name for name, count in zip(class_names, present, strict=True) if not count]
    if not missing:
        return []
    more = f" and {len(missing) - _MISSING} more" if len(missing) > _MISSING else ""
    return [
        f"No image of {', '.join(missing[:_MISSING])}{more}: nothing was measured for "
        f"{'this class' if len(missing) == 1 else 'these classes'}."
    ]


def changes(before: Description, after: Description) -> str:
    """Temperature and threshold before and after."""
    old, new = (
        Calibration.from_dict(each.calibration) if each.calibration else None
        for each in (before, after)
    )
    return f"Before: {_values_in_words(old)}. Now: {_values_in_words(new)}."


def _values_in_words(calibration: Calibration | None) -> str:
    """Temperature and threshold in a few words."""
    if calibration is None:
        return "never calibrated"
    least = calibration.threshold
    threshold = "no threshold" if least is None else f"threshold {percent(least)}"
    target = exact_percent(calibration.max_error)
    return f"temperature {calibration.temperature:.2f}, {threshold} for a target of {target}"
