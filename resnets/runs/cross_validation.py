"""Cross-validation: every image is predicted by a network that was trained without it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from resnets.data.labelled import LabelledImages, joined
from resnets.errors import UsageError
from resnets.evaluation.exposure import Exposure
from resnets.evaluation.logits import Floats
from resnets.evaluation.outputs import Logits
from resnets.format import plural
from resnets.runs.callbacks import Callback, CallbackList, End, Notice, Record
from resnets.runs.folder import FOLD
from resnets.runs.job import Job
from resnets.runs.setup import Setup
from resnets.runs.stop_signals import Interrupted
from resnets.training.recipe import Recipe


@dataclass(frozen=True)
class Predicted:
    """What the network of a fold computes for images that it was not trained on.

    Attributes:
        images: N.
        logits: (N, K).
        scores: their familiarity, (N,), see `scores_of_held_out`; None where it is not known.
        left_copies: number of further images, which are exact copies of these.
    """

    images: LabelledImages
    logits: Logits
    scores: Floats | None
    left_copies: int = 0


TrainFold = Callable[[Job, "Path | Literal[False]", list[Callback]], Predicted]


@dataclass(frozen=True)
class CrossValidation:
    """What networks predict for images that they were not trained on.

    Attributes:
        folds: how many networks.
        images: of all folds, N.
        logits: (N, K), each row by the network of the image's fold.
        scores: their familiarity, (N,), likewise; None where the features are not known.
        left_copies: number of further images, which are exact copies of these.
    """

    folds: int
    images: LabelledImages
    logits: Logits
    scores: Floats | None = None
    left_copies: int = 0

    @property
    def exposure(self) -> Exposure:
        """No network has seen what it predicts here."""
        return Exposure(0, 0, unknown="", left_copies=self.left_copies)

    @property
    def in_words(self) -> str:
        """Which images, and what predicted them."""
        return (
            f"{plural(len(self.images), 'image')}, each predicted by a network that was trained "
            f"without it (cross-validation, {self.folds} folds)"
        )

    @property
    def withheld(self) -> str:
        """Why a threshold that was chosen by it is no promise for the network that is kept."""
        return (
            f"it was measured by cross-validation, on {self.folds} networks that were each trained "
            f"on {self.folds - 1} of {self.folds} parts of the images, and not on the network of "
            "this file"
        )


def refuse_with_folds(job: Job, processes: int) -> None:
    """Refuse what needs images that cross-validation does not set apart.

    Raises:
        UsageError: it names the flag.
    """
    unusable = {
        "--patience": (
            job.recipe.patience,
            "early stopping needs validation images, and folds leave none",
        ),
        "--validation": (
            job.recipe.validation not in (0, Recipe().validation),
            "every image is measured in its fold, and trained on for the network that is kept",
        ),
        "--other": (
            job.other,
            "half of the validation images choose its threshold, and folds leave none",
        ),
        "--follow-test": (job.follow_test, "a fold is measured once, at its end"),
    }
    for flag, (value, why) in unusable.items():
        if value:
            raise UsageError(f"{flag} does not go with --folds: {why}; leave one of them out")
    if processes > 1:
        raise UsageError(
            f"--folds trains its networks in one process; these are {processes}: start it without "
            "torchrun"
        )


def cross_validate(
    setup: Setup, folder: Path | None, callback_list: CallbackList, train_fold: TrainFold
) -> CrossValidation:
    """Train and measure the network of each fold; those that have finished are only measured.

    Args:
        setup: of the network that is trained on all images afterwards.
        folder: of its run, in which each fold has one; None where nothing is written.
        callback_list: gets the records of the folds, without their notices.
        train_fold: trains or goes on with the network of a fold, in a folder.

    Raises:
        Interrupted: by a signal; it names `folder`.
    """
    folds = setup.job.folds or 0
    callbacks = [_without_notices(callback) for callback in callback_list.callbacks]
    parts = []
    for fold in range(1, folds + 1):
        callback_list.notify(f"Fold {fold} of {folds}: trained without it, then measured on it")
        place: Path | Literal[False] = False if folder is None else folder / FOLD.format(fold)
        try:
            part = train_fold(_job_of_fold(setup.job, fold), place, callbacks)
        except Interrupted as stop:
            raise Interrupted(stop.signal, stop.step, folder, early=stop.early) from None
        right = int((part.logits.argmax(1) == part.images.labels).sum())
        total = len(part.images)
        callback_list.notify(f"Fold {fold} of {folds}: {right} of {total} images are right")
        parts.append(part)
    scores = [part.scores for part in parts if part.scores is not None]
    return CrossValidation(
        folds,
        joined([part.images for part in parts]).with_white(setup.preprocessing.white),
        np.concatenate([part.logits for part in parts]),
        np.concatenate(scores) if len(scores) == folds else None,
        sum(part.left_copies for part in parts),
    )


def _job_of_fold(job: Job, fold: int) -> Job:
    """What is asked of the run of a fold: what the whole run settled, and no page about it."""
    return replace(job, fold=fold, report=False, log_to=())


def _without_notices(callback: Callback) -> Callback:
    """A callback that gets no lines for the user, which the whole run has said, and no end."""

    def passed_on(record: Record) -> None:
        if not isinstance(record, Notice | End):
            callback(record)

    return passed_on


def in_lines(cross_validation: CrossValidation, top1: object, has_test: bool) -> Iterator[str]:
    """What to say of the accuracy that was measured.

    Args:
        cross_validation: what was measured.
        top1: the accuracy.
        has_test: whether a test split measures the network that is kept as well.
    """
    itself = "It is measured on the test images alone" if has_test else "It was not measured itself"
    yield f"cross-validation accuracy {top1}: {cross_validation.in_words}"
    yield (
        f"The network that is kept is trained on all of these images. {itself}; with more images "
        f"than each of the {cross_validation.folds} networks had, it is expected to be as good or "
        "slightly better."
    )
