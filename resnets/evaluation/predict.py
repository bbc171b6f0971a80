"""What a network says of images: a class, a calibrated probability, or that it does not know.

No torch here: an `Engine` takes pixels and gives probabilities, whatever computes them.
Shapes: B images of a batch, H x W pixels, C channels, S the side that the network sees, R the
preprocessing's `resize`, K classes.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from glob import glob
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from resnets.data.names import has_image_ending, is_hidden, printable
from resnets.errors import ContentError, UsageError
from resnets.evaluation.calibration import Calibration
from resnets.evaluation.engine import Engine, Floats
from resnets.evaluation.logits import log_softmax
from resnets.images import ALLOWED, UNTRUSTED, Pixels, Preprocessing, decode, from_pixels
from resnets.model_file import Description

T = TypeVar("T")

UNKNOWN = "unknown"
LogitsOf = Callable[[Floats], Floats]  # normalised images (B, C, S, S) to logits (B, K)
Ranking = tuple[tuple[str, float], ...]  # classes and their probabilities, likeliest first


@dataclass(frozen=True)
class Prediction:
    """What a network says of one image.

    Attributes:
        image: its name.
        answer: the likeliest class; "unknown" if its probability is below the threshold that was
            fitted for the wished error rate; None if the image cannot be read.
        probability: of the likeliest class, calibrated, 0 to 1.
        top: the likeliest classes with their probabilities, likeliest first.
        error: why the image cannot be read.
    """

    image: str
    answer: str | None = None
    probability: float | None = None
    top: Ranking = ()
    error: str | None = None

    def row(self) -> dict[str, Any]:
        """As one flat row of a table."""
        flat: dict[str, Any] = {
            "image": self.image,
            "answer": self.answer,
            "probability": self.probability,
        }
        for rank, (name, probability) in enumerate(self.top, 1):
            flat |= {f"top{rank}": name, f"probability{rank}": probability}
        return flat | {"error": self.error}


@dataclass(frozen=True)
class Source:
    """An image to answer.

    Attributes:
        name: what a person finds it by.
        content: its file, the bytes of one, its pixels (H, W, C) uint8 with C of 1, 3 or 4, or
            why it could not be read.
    """

    name: str
    content: Path | bytes | Pixels | ContentError


def predict(
    engine: Engine, sources: Iterable[Source], *, top: int = 1, batch_size: int = 32
) -> Iterator[Prediction]:
    """Answer images in their order, decoding them in threads.

    Args:
        engine: computes the probabilities.
        sources: the images.
        top: how many of the likeliest classes each answer lists, 1 to K.
        batch_size: images computed at once.

    Raises:
        UsageError: `top` or `batch_size` is not allowed.
    """
    description, preprocessing = engine.description, engine.description.preprocessing
    check_top(top, description)
    for batch in in_batches(sources, lambda source: read(source, preprocessing), batch_size):
        frames = [each for _, each in batch if not isinstance(each, str)]
        rows = iter(engine.probabilities(stacked(frames)) if frames else ())
        for source, each in batch:
            if isinstance(each, str):
                yield Prediction(source.name, error=each)
            else:
                name, listed = ranked(next(rows), description, top)
                yield Prediction(source.name, name, listed[0][1], listed)


def predict_array(engine: Engine, image: Pixels, top: int = 1, name: str = "image") -> Prediction:
    """Answer one decoded image (H, W, C), with next to nothing between the array and the engine.

    Raises:
        UsageError: `top` is not allowed, or it is no image of uint8 with the network's channels.
    """
    check_top(top, engine.description)
    answer, listed = ranked(engine.probabilities(image[None])[0], engine.description, top)
    return Prediction(name, answer, listed[0][1], listed)


def check_top(top: int, description: Description) -> None:
    """Refuse more classes than there are, or none."""
    classes = len(description.class_names)
    if not 1 <= top <= classes:
        raise UsageError(f"top is {top}; the network has {classes} classes: it is 1 to {classes}")


def stacked(frames: Sequence[Pixels]) -> Pixels:
    """Images of one size as a batch; one alone is not copied."""
    return frames[0][None] if len(frames) == 1 else np.stack(frames)


def in_batches(
    sources: Iterable[Source], look: Callable[[Source], T], batch_size: int
) -> Iterator[list[tuple[Source, T]]]:
    """The images in batches, each with what a function says of it, which runs in threads.

    Raises:
        UsageError: `batch_size` is less than 1.
    """
    if batch_size < 1:
        raise UsageError(f"batch size {batch_size}: it must be at least 1")
    waiting = iter(sources)
    with ExitStack() as stack:
        run: Callable[..., Iterable[T]] = map
        while batch := list(islice(waiting, batch_size)):
            if run is map and len(batch) > 1 and not all(map(in_memory, batch)):
                run = stack.enter_context(ThreadPoolExecutor()).map
            yield list(zip(batch, run(look, batch), strict=True))


def in_memory(source: Source) -> bool:
    """Whether an image is decoded already, so that a thread would cost more than it saves."""
    return isinstance(source.content, np.ndarray)


def read(source: Source, preprocessing: Preprocessing) -> Pixels | str:
    """What an engine takes of an image, (R, R, C) uint8; or why it cannot be read."""
    try:
        return preprocessing.frame(decoded(source, preprocessing.channels))
    except ContentError as error:
        return str(error)
    except OSError as error:
        return error.strerror or str(error)


def decoded(source: Source, channels: int) -> Pixels:
    """The pixels of an image, (H, W, channels) uint8.

    Raises:
        ContentError: why it cannot be read.
    """
    content = source.content
    if isinstance(content, ContentError):
        raise content
    if isinstance(content, np.ndarray):
        return from_pixels(content, channels)
    formats = UNTRUSTED if isinstance(content, bytes) else ALLOWED
    return decode(content, channels=channels, formats=formats)


def ranked(
    probabilities: NDArray[np.floating[Any]], description: Description, top: int
) -> tuple[str, Ranking]:
    """The answer for one image from its probabilities (K,), and its likeliest classes."""
    names = description.class_names
    if top == 1:
        order = [int(probabilities.argmax())]
    else:
        order = np.argsort(-probabilities, kind="stable")[:top].tolist()
    listed = tuple((names[index], float(probabilities[index])) for index in order)
    threshold = description.calibration.get("threshold", 0.0)
    known = threshold is not None and listed[0][1] >= threshold
    return (names[order[0]] if known else UNKNOWN), listed


def answer(
    logits_of: LogitsOf, description: Description, pixels: Sequence[Pixels], top: int
) -> list[tuple[str, Ranking]]:
    """The answer for each image (C, S, S), and its likeliest classes."""
    logits = logits_of(description.preprocessing.normalise(np.stack(pixels)))
    probabilities, _ = interpret(logits, description)
    return [ranked(row, description, top) for row in probabilities]


def interpret(
    logits: NDArray[np.float32], description: Description
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Probabilities (B, K), and whether each row is sure enough for an answer (B,)."""
    if description.calibration:
        calibration = Calibration.from_dict(description.calibration)
        probabilities = calibration.probabilities(logits)
        return probabilities, calibration.known(probabilities)
    return np.exp(log_softmax(logits)), np.ones(len(logits), np.bool_)


def find_images(words: Sequence[str]) -> list[Source]:
    """The images that a person named: files, folders (searched through), patterns.

    Args:
        words: paths and patterns such as ``photos/*.jpg``.

    Raises:
        UsageError: a word names nothing, or a folder without an image.
    """
    found: list[Source] = []
    for word in words:
        matching = glob(word)  # noqa: PTH207  (Path.glob takes no absolute pattern)
        paths = [Path(word)] if Path(word).exists() else sorted(map(Path, matching))
        files = [file for path in paths for file in (within(path) if path.is_dir() else [path])]
        if not files:
            raise UsageError(f"{word}: no such image, and no folder or pattern of any")
        found += [Source(printable(str(file)), file) for file in files]
    return found


def within(folder: Path) -> list[Path]:
    """The images below a folder, in the order of their paths; hidden files are passed over."""
    return sorted(
        Path(where) / name
        for where, _, names in os.walk(folder)
        for name in names
        if has_image_ending(name) and not is_hidden(name)
    )
