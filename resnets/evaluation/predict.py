"""What a network says of images: a class, a calibrated probability, or that it does not know.

No torch here: an `Engine` takes pixels and gives logits, whatever computes them.
Shapes: B images of a batch, C channels, S the side that the network sees, K classes.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from glob import glob
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from resnets.data.names import has_image_ending, is_hidden, printable
from resnets.errors import ContentError, UsageError
from resnets.evaluation.calibration import Calibration
from resnets.evaluation.logits import log_softmax
from resnets.images import ALLOWED, UNTRUSTED, Pixels, decode, from_pixels
from resnets.model_file import Description

T = TypeVar("T")

UNKNOWN = "unknown"
Ranking = tuple[tuple[str, float], ...]  # classes and their probabilities, likeliest first


class Engine(Protocol):
    """Computes logits."""

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits (B, K) of normalised images (B, C, S, S)."""


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
    engine: Engine,
    description: Description,
    sources: Iterable[Source],
    *,
    top: int = 1,
    batch_size: int = 32,
) -> Iterator[Prediction]:
    """Answer images in their order, decoding them in threads.

    Args:
        engine: computes the logits.
        description: of the network: its classes, preprocessing and calibration.
        sources: the images.
        top: how many of the likeliest classes each answer lists, 1 to K.
        batch_size: images computed at once.

    Raises:
        UsageError: `top` or `batch_size` is not allowed.
    """
    classes = len(description.class_names)
    if not 1 <= top <= classes:
        raise UsageError(f"top is {top}; the network has {classes} classes: it is 1 to {classes}")
    for batch in in_batches(sources, lambda source: read(source, description), batch_size):
        seen = [each for _, each in batch if isinstance(each, np.ndarray)]
        answers = iter(answer(engine, description, seen, top) if seen else ())
        for source, each in batch:
            if isinstance(each, str):
                yield Prediction(source.name, error=each)
            else:
                name, listed = next(answers)
                yield Prediction(source.name, name, listed[0][1], listed)


def in_batches(
    sources: Iterable[Source], look: Callable[[Source], T], batch_size: int
) -> Iterator[list[tuple[Source, T]]]:
    """The images in batches, each with what a function says of it, which runs in threads.

    Raises:
        UsageError: `batch_size` is less than 1.
    """
    if batch_size < 1:
        raise UsageError(f"batch size {batch_size}: it must be at least 1")
    with ThreadPoolExecutor() as pool:
        waiting = iter(sources)
        while batch := list(islice(waiting, batch_size)):
            yield list(zip(batch, pool.map(look, batch), strict=True))


def read(source: Source, description: Description) -> Pixels | str:
    """What the network sees of an image, (C, S, S) uint8; or why it cannot be read."""
    try:
        image = decoded(source, description.preprocessing.channels)
        return description.preprocessing.pixels(image)
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


def answer(
    engine: Engine, description: Description, pixels: Sequence[Pixels], top: int
) -> list[tuple[str, Ranking]]:
    """The answer for each image (C, S, S), and its likeliest classes."""
    logits = engine(description.preprocessing.normalise(np.stack(pixels)))
    probabilities, known = interpret(logits, description)
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
    names, found = description.class_names, []
    for row, sure, best in zip(probabilities, known, order, strict=True):
        listed = tuple((names[index], float(row[index])) for index in best)
        found.append((names[best[0]] if sure else UNKNOWN, listed))
    return found


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
