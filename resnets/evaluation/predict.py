"""Predictions for images: reading them, and running an engine.

No torch here: an `Engine` takes pixels and gives probabilities, whatever computes them.
Shapes: B images of a batch, H x W pixels, C channels, S the side that the network sees, R the
preprocessing's `resize`, K classes.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from resnets.errors import ContentError, UsageError
from resnets.evaluation.calibration import Calibration, least_confident, too_few_in_words
from resnets.evaluation.engine import Engine, batch_size_of, images_named
from resnets.evaluation.familiarity import familiarity_of
from resnets.evaluation.logits import log_softmax
from resnets.evaluation.source import Source, StoredImage
from resnets.format import exact_percent, percent, plural
from resnets.images import ALLOWED, UNTRUSTED, Pixels, Preprocessing, decode, from_pixels
from resnets.images.memory_budget import IN_USE
from resnets.images.opening import format_of
from resnets.images.probing import ENDINGS
from resnets.images.stderr import silent_decoders
from resnets.machine import reading_threads
from resnets.model_file import Description
from resnets.notebook import html_table

Ranking = tuple[tuple[str, float], ...]  # classes and their probabilities, most probable first
Status = Literal["ok", "not calibrated", "unsure", "unfamiliar", "unreadable", "unanswered"]
"""Whether to rely on a prediction; `Prediction` says what each one means."""
_ACCEPTED: tuple[Status, ...] = ("ok", "not calibrated")
_SHOWN = 50  # predictions in a notebook's table


@dataclass(frozen=True)
class Prediction:
    """The prediction of a network for one image, and whether to rely on it.

    Attributes:
        image: its name.
        prediction: the most probable class; None if there is none: see `error`.
        probability: of that class, calibrated, 0 to 1; None if there is no prediction.
        status: "ok" where the probability reaches the threshold in the model file, which was
            fitted for a target error rate; "unsure" where it does not; "not calibrated" in place of
            either where the file has no threshold, as published and converted weights until
            `calibrate` was run; "unfamiliar" where the image is unlike the images that the network
            was trained on; "unreadable" where the image cannot be read, and "unanswered" where the
            server that was asked failed for it, so that there is no prediction. It is separate from
            `prediction`, as a class may have any name.
        top: the most probable classes with their probabilities, most probable first.
        error: why there is no prediction.
        sorted_to: where the image was copied to; None if it was not.
        features: what the network's classifier gets, (F,) float32, where it was asked for.
    """

    image: str
    prediction: str | None = None
    probability: float | None = None
    status: Status = "unreadable"
    top: Ranking = ()
    error: str | None = None
    sorted_to: str | None = None
    features: NDArray[np.float32] | None = field(default=None, repr=False, compare=False)

    @property
    def answer(self) -> str | None:
        """Deprecated: `prediction` if the status is accepted, else "unknown" (None if unreadable).

        See `is_accepted`. A class may be called "unknown" too, so this does not tell the two apart.
        """
        warnings.warn(
            "Prediction.answer is deprecated and goes with the next release: use .prediction (the "
            'class) and .status ("ok", "not calibrated", "unsure", "unfamiliar", "unreadable")',
            DeprecationWarning,
            stacklevel=2,
        )
        is_class = is_accepted(self.status) or self.prediction is None
        return self.prediction if is_class else "unknown"

    def _repr_html_(self) -> str:
        """For notebooks."""
        rows = [("image", self.image), ("status", self.status)]
        if self.error is not None:
            return html_table([*rows, ("error", self.error)], title="Prediction")
        ranked = [(name, percent(probability)) for name, probability in self.top]
        return html_table([*rows, *ranked], title="Prediction")

    def row(self) -> dict[str, Any]:
        """As one flat row of a table."""
        flat: dict[str, Any] = {
            "image": self.image,
            "prediction": self.prediction,
            "probability": self.probability,
            "status": self.status,
        }
        for rank, (name, probability) in enumerate(self.top, 1):
            flat |= {f"top{rank}": name, f"probability{rank}": probability}
        if self.sorted_to is not None:
            flat["sorted_to"] = self.sorted_to
        return flat | {"error": self.error}


def is_accepted(status: Status) -> bool:
    """Whether a prediction is used without review.

    It is where nothing speaks against it: a network that was never calibrated has no threshold that
    could, so "not calibrated" is accepted, but promises nothing. Setting all of its predictions
    aside would make such a network useless.

    >>> is_accepted("ok"), is_accepted("not calibrated"), is_accepted("unsure")
    (True, True, False)
    """
    return status in _ACCEPTED


class Predictions(list[Prediction]):
    """A list of predictions, which notebooks show as a table."""

    def _repr_html_(self) -> str:
        shown = [_cells(prediction) for prediction in self[:_SHOWN]]
        if len(self) > _SHOWN:
            shown.append((f"and {len(self) - _SHOWN:,} more", "", "", ""))
        return html_table(shown, columns=("image", "prediction", "probability", "status"))


def _cells(prediction: Prediction) -> tuple[object, ...]:
    """A prediction as a row of a table."""
    status = prediction.error or prediction.status
    return prediction.image, prediction.prediction, percent(prediction.probability), status


def prediction_of(name: str, status: Status, top: Ranking) -> Prediction:
    """The prediction for an image that could be read."""
    return Prediction(name, *top[0], status, top)


def _check_top(top: int, description: Description) -> None:
    """Refuse a number of classes that the network does not have."""
    classes = len(description.class_names)
    if not 1 <= top <= classes:
        raise UsageError(
            f"top is {top}; the network has {plural(classes, 'class')}: allowed is 1 to {classes}"
        )


def rankings(
    probabilities: NDArray[np.floating[Any]],
    description: Description,
    top: int,
    familiar: NDArray[np.bool_] | None = None,
) -> list[tuple[Status, Ranking]]:
    """The status of each image, and its most probable classes.

    Args:
        probabilities: (B, K).
        description: of the network.
        top: how many classes to list.
        familiar: (B,), whether the features of each image are familiar; None where the network
            has no such score.
    """
    names = description.class_names
    if top == 1:  # sorting would be slow for the most frequent case
        rows: list[Ranking] = [
            ((names[index], probabilities.item(row, index)),)
            for row, index in enumerate(probabilities.argmax(1).tolist())
        ]
    else:
        order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
        values = probabilities[np.arange(len(order))[:, None], order]  # quicker than by its name
        rows = [
            tuple((names[index], value) for index, value in zip(*row, strict=True))
            for row in zip(order.tolist(), values.tolist(), strict=True)
        ]
    confidence = [row[0][1] for row in rows]
    return list(zip(statuses(confidence, description, familiar), rows, strict=True))


def statuses(
    confidence: Sequence[float],
    description: Description,
    familiar: NDArray[np.bool_] | None = None,
) -> list[Status]:
    """The status of each image from the probability of its most probable class, B of them.

    An image that is not familiar is unfamiliar, whatever the probability: a network may be
    confident about nonsense.
    """
    are_familiar = [True] * len(confidence) if familiar is None else familiar.tolist()
    if not is_calibrated(description):
        return ["not calibrated" if is_familiar else "unfamiliar" for is_familiar in are_familiar]
    threshold = description.calibration["threshold"]
    least = 2.0 if threshold is None else threshold  # None: no probability is high enough
    return [
        ("ok" if share >= least else "unsure") if is_familiar else "unfamiliar"
        for share, is_familiar in zip(confidence, are_familiar, strict=True)
    ]


def is_calibrated(description: Description) -> bool:
    """Whether a threshold was fitted, be it that none was high enough."""
    return "threshold" in description.calibration


def why_never_ok(description: Description) -> str:
    """Why no prediction of a network has the status ok, in words; empty where one can have it."""
    if not is_calibrated(description):
        return (
            "status not calibrated: this network has no confidence threshold, so nothing is known "
            "of how often it is wrong; `resnets calibrate MODEL DATA` fits one on labelled images "
            "that it was not trained on"
        )
    if description.calibration["threshold"] is not None:
        return ""
    calibration = Calibration.from_dict(description.calibration)
    target, total = calibration.max_error, calibration.total
    few = too_few_in_words(total, target)
    why = (
        f"this network was calibrated on few images: {few}"
        if few
        else f"on the {plural(total, 'image')} that this network was calibrated on, no threshold "
        f"makes it likely that at most {exact_percent(target)} are wrong, which takes "
        f"{least_confident(target):,} confident ones that are right, or more"
    )
    reachable = calibration.reachable_target
    other = (
        ""
        if reachable is None
        else f"--max-error {reachable:g} is the strictest usual target that has a threshold; "
    )
    return (
        f"status unsure: {why}; {other}`resnets calibrate MODEL DATA` fits a threshold on other "
        "labelled images"
    )


def interpret(
    logits: NDArray[np.float32], description: Description
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Probabilities (B, K), and whether each row reaches the threshold (B,)."""
    if description.calibration:
        calibration = Calibration.from_dict(description.calibration)
        probabilities = calibration.probabilities(logits)
        return probabilities, calibration.confident(probabilities)
    return np.exp(log_softmax(logits)), np.ones(len(logits), np.bool_)


_T = TypeVar("_T")


def predict(
    engine: Engine,
    sources: Iterable[Source],
    *,
    top: int = 1,
    batch_size: int = 32,
    features: bool = False,
) -> Iterator[Prediction]:
    """Predict images in their order, decoding them in threads.

    Args:
        engine: computes the probabilities.
        sources: the images.
        top: how many of the most probable classes each prediction lists, 1 to K.
        batch_size: images computed at once.
        features: whether each prediction also has the image's features.

    Raises:
        UsageError: `top` or `batch_size` is not allowed.
        ContentError: the output for an image is not finite; the message names the image.
    """
    description, preprocessing = engine.description, engine.description.preprocessing
    _check_top(top, description)
    compute = _computation(engine, top, features)
    size = batch_size_of(engine, batch_size)
    for batch in batches_of(sources, lambda source: read(source, preprocessing), size):
        frames = [frame for _, frame in batch if not isinstance(frame, str)]
        names = [source.name for source, frame in batch if not isinstance(frame, str)]
        predictions = iter(compute(names, stacked(frames)) if frames else ())
        for source, frame in batch:
            if isinstance(frame, str):  # why the image cannot be read
                yield Prediction(source.name, error=frame)
            else:
                yield next(predictions)


def predict_arrays(
    engine: Engine, images: Pixels, names: Iterable[str], *, top: int = 1, batch_size: int = 32
) -> list[Prediction]:
    """Predict decoded images of one size, with as little work as possible around the engine.

    Args:
        engine: computes the probabilities.
        images: (N, H, W, C) uint8.
        names: of the images, N.
        top: how many of the most probable classes each prediction lists, 1 to K.
        batch_size: images computed at once, at least 1.

    Raises:
        UsageError: `top` is not allowed, or `images` are not (N, H, W, C) uint8.
    """
    _check_top(top, engine.description)
    compute = _computation(engine, top)
    predictions: list[Prediction] = []
    names = list(names)
    batch_size = batch_size_of(engine, batch_size)
    for start in range(0, len(images), batch_size):
        chosen = slice(start, start + batch_size)
        predictions += compute(names[chosen], images[chosen])
    return predictions


def _computation(
    engine: Engine, top: int, wants_features: bool = False
) -> Callable[[Sequence[str], Pixels], list[Prediction]]:
    """A function from names and images (B, H, W, C) uint8 to predictions.

    Raises:
        ContentError: the network's familiarity score is damaged.
    """
    description = engine.description
    familiarity = familiarity_of(description.familiarity)

    def compute(names: Sequence[str], images: Pixels) -> list[Prediction]:
        with images_named(names):
            if familiarity is None and not wants_features:
                rows = rankings(engine.probabilities(images), description, top)
                return [prediction_of(name, *row) for name, row in zip(names, rows, strict=True)]
            probabilities, features = engine.outputs(images)
        familiar = None if familiarity is None else familiarity.familiar(features)
        rows = rankings(probabilities, description, top, familiar)
        predictions = [prediction_of(name, *row) for name, row in zip(names, rows, strict=True)]
        if not wants_features:
            return predictions
        return [
            replace(each, features=row) for each, row in zip(predictions, features, strict=True)
        ]

    return compute


def stacked(frames: Sequence[Pixels]) -> Pixels:
    """Images of one size as a batch; one alone is not copied."""
    return frames[0][None] if len(frames) == 1 else np.stack(frames)


def batches_of(
    sources: Iterable[Source], prepare: Callable[[Source], _T], batch_size: int
) -> Iterator[list[tuple[Source, _T]]]:
    """The images in batches, each with the result of a function, which runs in threads.

    Raises:
        UsageError: `batch_size` is less than 1.
    """
    if batch_size < 1:
        raise UsageError(f"batch size {batch_size}: it must be at least 1")
    waiting = iter(sources)
    with ExitStack() as stack:
        run: Callable[..., Iterable[_T]] = map
        while batch := list(islice(waiting, batch_size)):
            if run is map and len(batch) > 1 and not all(map(_in_memory, batch)):
                run = stack.enter_context(ThreadPoolExecutor(reading_threads())).map
            yield list(zip(batch, run(prepare, batch), strict=True))


def _in_memory(source: Source) -> bool:
    """Whether an image is decoded already, so that a thread would cost more than it saves."""
    return isinstance(source.content, np.ndarray)


def read(source: Source, preprocessing: Preprocessing) -> Pixels | str:
    """The input of an engine for an image, (R, R, C) uint8; or why it cannot be read."""
    try:
        with IN_USE:
            return preprocessing.frame(decoded(source, preprocessing))
    except OSError as error:  # before the errors of images: wrong bytes of a remote place are both
        if isinstance(source.content, StoredImage):  # out of reach, which says nothing of the image
            raise
        return error.strerror or str(error)
    except ContentError as error:
        return str(error)


def decoded(source: Source, preprocessing: Preprocessing) -> Pixels:
    """The pixels of an image, (H, W, C) uint8, with the channels that the network expects.

    Raises:
        ContentError: why it cannot be read.
    """
    content = source.loaded()
    if isinstance(content, ContentError):
        raise content
    if isinstance(content, np.ndarray):
        return from_pixels(content, preprocessing.channels)
    formats = UNTRUSTED if isinstance(content, bytes) else ALLOWED
    channels, white = preprocessing.channels, preprocessing.white
    with silent_decoders() if _is_tiff(content) else nullcontext():
        return decode(content, channels=channels, formats=formats, white=white)


def _is_tiff(content: Path | bytes) -> bool:
    """Whether libtiff decodes an image, which prints what is wrong with it on standard error."""
    if isinstance(content, bytes):
        return format_of(content) == "TIFF"
    return content.suffix.lower() in ENDINGS["TIFF"]
