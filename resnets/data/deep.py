"""What white is in a data set of 16 or 32 bits a value: found once, from a sample of its images."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from resnets.data.labelled import LabelledImages
from resnets.errors import ContentError
from resnets.images.white import Clipped, Kind, Levels, Values, White, clipped

SAMPLE = 256  # images that tell what white is in all


@dataclass(frozen=True)
class _Depth:
    """What was found.

    Attributes:
        white: for each kind of numbers.
        clipped: values of the sample above it.
    """

    white: White
    clipped: Clipped

    def in_words(self) -> Iterator[str]:
        """The decision and the clipped values, in sentences; none for 8-bit images."""
        for sentence in self.white.in_words():
            yield f"{sentence}, by a sample of the training images"
        if self.clipped.values:
            yield f"warning: {self.clipped.in_words()}"


def find_depth(images: LabelledImages) -> _Depth:
    """Look at a sample of images, evenly spread; the same each time.

    Images that cannot be read say nothing here: they are met, and named, where they are used.
    """
    indices = sampled(len(images), SAMPLE)
    levels, found = Levels(), Clipped()
    for kind, values in _deep_images(images, indices):
        levels.note(kind, values)
    white = levels.white()
    if white.to_dict():
        for kind, values in _deep_images(images, indices):
            found += clipped(kind, values, white)
    return _Depth(white, found)


def _deep_images(images: LabelledImages, indices: list[int]) -> Iterator[tuple[Kind, Values]]:
    """The numbers of those of 16 or 32 bits a value, and their kinds."""

    def look(index: int) -> tuple[Kind, Values] | None:
        try:
            return images.deep(index)
        except ContentError:
            return None

    yield from filter(None, map(look, indices))


def sampled(total: int, count: int) -> list[int]:
    """Indices of `count` images, evenly spread over all `total`.

    >>> sampled(9, 3), sampled(2, 3)
    ([0, 4, 8], [0, 1])
    """
    found: list[int] = np.linspace(0, total - 1, min(total, count)).astype(int).tolist()
    return found
