"""The white level of a data set with 16 or 32 bits a value, from a sample of its images."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from resnets.errors import ContentError
from resnets.images.white import Clipped, Kind, Levels, Values, White, clipped

if TYPE_CHECKING:  # it needs pyarrow, which a slim installation does not have
    from resnets.data.labelled import LabelledImages

SAMPLE = 256  # images from which the white level is determined


@dataclass(frozen=True)
class _WhiteLevel:
    """The white level of a data set.

    Attributes:
        white: for each type of values.
        clipped: values of the sample above it.
    """

    white: White
    clipped: Clipped

    def in_words(self) -> Iterator[str]:
        """The white level and the clipped values in sentences; none for 8-bit images."""
        for sentence in self.white.in_words():
            yield f"{sentence}, by a sample of the training images"
        if self.clipped.values:
            yield f"warning: {self.clipped.in_words()}"


def find_white_level(images: "LabelledImages") -> _WhiteLevel:
    """Determine the white level from an evenly spaced sample of images.

    Images that cannot be read are ignored here; an error names them when they are used.
    """
    indices = sampled(len(images), SAMPLE)
    levels, above = Levels(), Clipped()
    for kind, values in _deep_images(images, indices):
        levels.note(kind, values)
    white = levels.white()
    if white.to_dict():
        for kind, values in _deep_images(images, indices):
            above += clipped(kind, values, white)
    return _WhiteLevel(white, above)


def _deep_images(images: "LabelledImages", indices: list[int]) -> Iterator[tuple[Kind, Values]]:
    """The type and the values of each image that has 16 or 32 bits a value."""

    def look(index: int) -> tuple[Kind, Values] | None:
        try:
            return images.deep(index)
        except ContentError:
            return None

    images.expect(indices)
    yield from filter(None, map(look, indices))


def sampled(total: int, count: int) -> list[int]:
    """Indices of `count` images, evenly spaced over `total`.

    >>> sampled(9, 3), sampled(2, 3)
    ([0, 4, 8], [0, 1])
    """
    indices: list[int] = np.linspace(0, total - 1, min(total, count)).astype(int).tolist()
    return indices
