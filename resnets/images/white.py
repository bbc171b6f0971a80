"""The white level of images of 16 or 32 bits a value, which is not stored in them.

A file of 32 bits may contain fractions of 1, or the values of a camera of 8, 12 or 16 bits, and so
may one of 16 bits. A white level for each image would make the darkest of a set as bright as all
others. So it is determined once, from a sample of the training images, and stored with the network
(`Preprocessing.white`).
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
from resnets.format import value_in_data

Kind = Literal["float32", "int32", "int16"]
Values = NDArray[Any]  # (H, W), as stored

_USUAL = (1.0, 255.0, 4095.0, 65535.0)
_BEYOND = tuple(2.0**bits - 1 for bits in range(17, 128))  # if all usual levels are too low
_WHITES = _USUAL + _BEYOND
_MARGIN = 1.25  # values may exceed the white level by this factor: resampling overshoots at edges
_RARE = 0.001  # share of the values that may exceed it by more
_WORDS = {"float32": "32-bit fractions", "int32": "32-bit integers", "int16": "16-bit integers"}

_BLOCK = 1 << 20  # values worked on at a time

BITS_PER_SAMPLE, _SAMPLE_FORMAT = 258, 339  # TIFF tags
_UNSIGNED = 1


@dataclass(frozen=True)
class White:
    """The white level for each type of values; None if no image had that type."""

    float32: float | None = None
    int32: float | None = None
    int16: float | None = None

    def __post_init__(self) -> None:
        for kind, value in self.to_dict().items():
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not (0 < value < math.inf):
                raise ContentError(f"white of {kind} is {value!r}, not a number above 0")

    def of(self, kind: Kind) -> float | None:
        """The white level of one type."""
        value: float | None = getattr(self, kind)
        return value

    def to_dict(self) -> dict[str, float]:
        """As plain values, without unknown levels."""
        every = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: value for name, value in every.items() if value is not None}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "White":
        """Undo `to_dict`.

        Raises:
            ContentError: an unknown type, or a value that is not a number above 0.
        """
        return from_table(cls, values, "white.")

    def in_words(self) -> Iterator[str]:
        """One sentence for each type with a known level."""
        for kind, value in self.to_dict().items():
            yield f"White is {value_in_data(value)} in images of {_WORDS[kind]}"


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
    """The type of an image's values; None if its white level is known."""
    if image.mode.startswith("I;16"):
        return "int16" if bits_of_grey(image) == 16 else None
    if image.format == "PPM" and image.mode == "I":
        return None  # says what its white is; Pillow makes that 65,535
    return {"F": "float32", "I": "int32"}.get(image.mode)  # type: ignore[return-value]


def bits_of_grey(image: Image.Image) -> int:
    """The bits in use of a 16-bit image: all 16, except in TIFF of 12 bits."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return 16
    return min(int(image.tag_v2.get(BITS_PER_SAMPLE, (16,))[0]), 16)


def blocks(values: Values) -> Iterator[Values]:
    """An image in blocks of whole rows, so that intermediate results take little memory."""
    rows = max(1, _BLOCK // max(1, values.shape[1]))
    for start in range(0, len(values), rows):
        yield values[start : start + rows]


class Levels:
    """A histogram of the values of images, from which their white level is determined."""

    def __init__(self) -> None:
        self.counts: dict[Kind, NDArray[np.int64]] = {}

    def note(self, kind: Kind, values: Values) -> None:
        """Count the values of an image that are finite and above 0."""
        histogram = np.zeros(len(_WHITES) + 1, np.int64)
        for block in blocks(values):
            numbers = block[np.isfinite(block) & (block > 0)].astype(np.float64)
            places = np.searchsorted(_MARGIN * np.array(_WHITES), numbers)
            histogram += np.bincount(places, minlength=len(histogram))
        self.counts[kind] = self.counts.get(kind, 0) + histogram

    def white(self) -> White:
        """For each type, the smallest level that nearly all values do not exceed by much."""
        return White(**{kind: _smallest_white(counts) for kind, counts in self.counts.items()})


def _smallest_white(counts: NDArray[np.int64]) -> float:
    """The smallest of `_WHITES` that at most a share of `_RARE` of the values exceeds.

    Args:
        counts: of the values up to each of `_WHITES`, and above all.
    """
    above = counts.sum() - np.cumsum(counts)
    return _WHITES[int(np.argmax(above[:-1] <= _RARE * counts.sum()))]


def own_white(kind: Kind, values: Values) -> float:
    """The white level of a single image, estimated from its values.

    With 16 bits it is 65,535. With 32 bits it is the smallest of 1 (for fractions), 255 and 65,535
    that nearly all its values do not exceed by much, else its largest value.
    """
    if kind == "int16":
        return 65535.0
    levels = Levels()
    levels.note(kind, values)
    smallest = _smallest_white(levels.counts[kind])
    allowed = (1.0, 255.0, 65535.0) if kind == "float32" else (255.0, 65535.0)
    largest = max(float(block[np.isfinite(block)].max(initial=0)) for block in blocks(values))
    return next((white for white in allowed if smallest <= white), largest)


@dataclass(frozen=True)
class Clipped:
    """Values above the white level, which become white.

    Attributes:
        values: number of these values.
        images: number of images with such values.
        total: number of images examined, of 16 or 32 bits a value.
        largest: the largest of the values.
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
        """For example: 24 values in 3 of 8 sampled images are above white and are clipped."""
        return (
            f"{self.values:,} values in {self.images:,} of {self.total:,} sampled images are above "
            f"white and are clipped (the largest is {value_in_data(self.largest)})"
        )


def clipped(kind: Kind, values: Values, white: White) -> Clipped:
    """The values of an image above the white level."""
    level = white.of(kind)
    if level is None:
        level = own_white(kind, values)
    above = [block[block > level] for block in blocks(values)]
    count = sum(map(len, above))
    largest = max(float(block.max(initial=0)) for block in above)
    return Clipped(count, int(count > 0), 1, largest)
