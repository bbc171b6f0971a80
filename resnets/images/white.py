"""Which value is white in images of 16 or 32 bits a value, which do not say it themselves.

A file of 32 bits may hold fractions of 1, or the values of a camera of 8, 12 or 16 bits, and so may
one of 16 bits. Image by image that cannot be told: the darkest of a set would come out as bright as
all others. So it is decided once, from a sample of the images to train on, and kept with the
network (`Preprocessing.white`).
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from resnets.errors import ContentError
from resnets.fields import from_table

Kind = Literal["float32", "int32", "int16"]
Values = NDArray[Any]  # (H, W), numbers as they are stored

_USUAL = (1.0, 255.0, 4095.0, 65535.0)
_BEYOND = tuple(2.0**bits - 1 for bits in range(17, 128))  # where none of the usual ones will do
_WHITES = _USUAL + _BEYOND
_MARGIN = 1.25  # a white that values exceed by no more than this factor is still the right one:
_RARE = 0.001  # resampling overshoots at edges; and this share of the values may be any
_WORDS = {"float32": "32-bit fractions", "int32": "32-bit integers", "int16": "16-bit integers"}

_BLOCK = 1 << 20  # values worked on at a time

BITS_PER_SAMPLE, _SAMPLE_FORMAT = 258, 339  # TIFF tags
_UNSIGNED = 1


@dataclass(frozen=True)
class White:
    """The value that is white, for each kind of numbers; None where no image had that kind."""

    float32: float | None = None
    int32: float | None = None
    int16: float | None = None

    def __post_init__(self) -> None:
        for kind, value in self.to_dict().items():
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not (0 < value < math.inf):
                raise ContentError(f"white of {kind} is {value!r}, not a number above 0")

    def of(self, kind: Kind) -> float | None:
        """For one kind."""
        value: float | None = getattr(self, kind)
        return value

    def to_dict(self) -> dict[str, float]:
        """Plain values, of the kinds that are known."""
        every = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: value for name, value in every.items() if value is not None}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "White":
        """Undo `to_dict`.

        Raises:
            ContentError: an unknown kind, or a value that is not a number above 0.
        """
        return from_table(cls, values, "white.")

    def in_words(self) -> Iterator[str]:
        """One sentence for each kind that is known."""
        for kind, value in self.to_dict().items():
            yield f"White is {value:,.0f} in images of {_WORDS[kind]}"


UNKNOWN = White()


def deep_values(image: Image.Image) -> tuple[Kind, Values] | None:
    """The numbers of an image of 16 or 32 bits a value as they are stored, and their kind.

    Args:
        image: opened by Pillow; it is loaded where it is such a one.

    Returns:
        None for images of at most 8 bits, and where the file says what white is (TIFF of
        12 bits, PGM).
    """
    kind = _kind_of(image)
    if kind is None:
        return None
    image.load()
    values = np.asarray(image)
    if isinstance(image, TiffImagePlugin.TiffImageFile) and kind == "int32":
        tags = image.tag_v2
        unsigned = tags.get(_SAMPLE_FORMAT, (_UNSIGNED,))[0] == _UNSIGNED
        if unsigned and tags.get(BITS_PER_SAMPLE, (0,))[0] == 32:  # Pillow reads them as signed
            values = values.view(np.uint32)
    return kind, values


def _kind_of(image: Image.Image) -> Kind | None:
    """Which kind of numbers an image has; None where white is known."""
    if image.mode.startswith("I;16"):
        return "int16" if bits_of_grey(image) == 16 else None
    if image.format == "PPM" and image.mode == "I":
        return None  # says what its white is; Pillow makes that 65,535
    return {"F": "float32", "I": "int32"}.get(image.mode)  # type: ignore[return-value]


def bits_of_grey(image: Image.Image) -> int:
    """How many bits of a mode for 16 bits are in use: all, but for TIFF of 12."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return 16
    return min(int(image.tag_v2.get(BITS_PER_SAMPLE, (16,))[0]), 16)


def blocks(values: Values) -> Iterator[Values]:
    """An image in pieces of whole rows, so that what is made of one takes little memory."""
    rows = max(1, _BLOCK // max(1, values.shape[1]))
    for start in range(0, len(values), rows):
        yield values[start : start + rows]


class Levels:
    """Counts how high the values of images are, and so finds what is white in them."""

    def __init__(self) -> None:
        self.counts: dict[Kind, NDArray[np.int64]] = {}

    def note(self, kind: Kind, values: Values) -> None:
        """Count the values of an image; what is not above 0, or not finite, says nothing."""
        found = np.zeros(len(_WHITES) + 1, np.int64)
        for block in blocks(values):
            numbers = block[np.isfinite(block) & (block > 0)].astype(np.float64)
            places = np.searchsorted(_MARGIN * np.array(_WHITES), numbers)
            found += np.bincount(places, minlength=len(found))
        self.counts[kind] = self.counts.get(kind, 0) + found

    def white(self) -> White:
        """The smallest white, of each kind, that nearly all values do not exceed by much."""
        return White(**{kind: _smallest(counts) for kind, counts in self.counts.items()})


def _smallest(counts: NDArray[np.int64]) -> float:
    """The smallest of `_WHITES` that at most a share of `_RARE` exceeds.

    Args:
        counts: of the values up to each of `_WHITES`, and above all.
    """
    above = counts.sum() - np.cumsum(counts)
    return _WHITES[int(np.argmax(above[:-1] <= _RARE * counts.sum()))]


def own_white(kind: Kind, values: Values) -> float:
    """What is white in an image of which nothing else is known.

    Of 16 bits it is 65,535. Of 32 it is the smallest of 1 (for fractions), 255 and 65,535 that
    nearly all its values do not exceed by much, else its largest value.
    """
    if kind == "int16":
        return 65535.0
    levels = Levels()
    levels.note(kind, values)
    found = _smallest(levels.counts[kind])
    allowed = (1.0, 255.0, 65535.0) if kind == "float32" else (255.0, 65535.0)
    largest = max(float(block[np.isfinite(block)].max(initial=0)) for block in blocks(values))
    return next((white for white in allowed if found <= white), largest)


@dataclass(frozen=True)
class Clipped:
    """Values above white, which are shown as white.

    Attributes:
        values: how many.
        images: how many have any.
        total: images looked at, of 16 or 32 bits a value.
        largest: of the values.
    """

    values: int = 0
    images: int = 0
    total: int = 0
    largest: float = 0.0

    def __add__(self, other: "Clipped") -> "Clipped":
        return Clipped(
            self.values + other.values,
            self.images + other.images,
            self.total + other.total,
            max(self.largest, other.largest),
        )

    def in_words(self) -> str:
        """As in: 24 values in 3 of 8 sampled images are above white and are clipped."""
        return (
            f"{self.values:,} values in {self.images:,} of {self.total:,} sampled images are above "
            f"white and are clipped (the largest is {self.largest:,.6g})"
        )


def clipped(kind: Kind, values: Values, white: White) -> Clipped:
    """How many values of an image are above white."""
    level = white.of(kind)
    if level is None:
        level = own_white(kind, values)
    above = [block[block > level] for block in blocks(values)]
    count = sum(map(len, above))
    largest = max(float(block.max(initial=0)) for block in above)
    return Clipped(count, int(count > 0), 1, largest)
