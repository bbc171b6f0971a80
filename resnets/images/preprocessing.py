"""Preprocessing of a decoded image to the network's input; it is stored in the model file."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnets.errors import UsageError
from resnets.fields import from_table, is_finite
from resnets.images.resizing import Box, Pixels, centre, centre_crop, resampled, resized_shape
from resnets.images.white import UNKNOWN, White

_LARGEST_SIDE = 8192  # pixels, which bounds the memory that a model file can require


@dataclass(frozen=True)
class Preprocessing:
    """Resizing, centre crop and normalisation: (x / 255 - mean) / std.

    An image is resized by `resampled` to `resized_shape`; the crop begins at `centre`. An exported
    graph contains the same operations.

    Attributes:
        size: side of the centre crop, in pixels.
        resize: shorter side of the resized image before the crop, in pixels, at least `size`.
        mean: subtracted from each channel, in 0..1; one number for each channel: 1 (grey), 3 (RGB)
            or 4 (RGBA).
        std: divides each channel after that.
        white: white level of images of 16 or 32 bits a value; unknown in files of earlier versions,
            and if no training image was of that type.

    >>> grey = Preprocessing(size=28, resize=28, mean=(0.5,), std=(0.25,))
    >>> grey.normalise(grey.pixels(np.full((28, 30, 1), 255, np.uint8))).max()
    np.float32(2.0)
    """

    size: int
    resize: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    white: White = UNKNOWN

    def __post_init__(self) -> None:
        if problem := self._problem():
            raise UsageError(f"preprocessing: {problem}")

    def _problem(self) -> str | None:
        for name, side in (("size", self.size), ("resize", self.resize)):
            if not isinstance(side, int) or isinstance(side, bool):
                return f"{name} is {side!r}, not a whole number of pixels"
            if not 1 <= side <= _LARGEST_SIDE:
                return f"{name} is {side}, not 1 to {_LARGEST_SIDE} pixels"
        if self.size > self.resize:
            return f"size {self.size} is more than resize {self.resize}: nothing to cut it from"
        for name, values in (("mean", self.mean), ("std", self.std)):
            if not isinstance(values, tuple) or len(values) not in (1, 3, 4):
                return f"{name} is {values!r}, not a tuple of 1 (grey), 3 (RGB) or 4 (RGBA) numbers"
            if not all(is_finite(value) for value in values):
                return f"{name} is {values!r}, not finite numbers"
        if len(self.mean) != len(self.std):
            return f"{len(self.mean)} means, but {len(self.std)} standard deviations"
        if min(self.std) <= 0:
            return f"std is {self.std!r}, not above 0"
        return None

    @property
    def channels(self) -> int:
        """1 (grey), 3 (RGB) or 4 (RGBA)."""
        return len(self.mean)

    def pixels(self, image: Pixels) -> Pixels:
        """Resize and crop an image.

        Args:
            image: (H, W, C) uint8.

        Returns:
            (C, size, size) uint8, contiguous. Only cropped if the shorter side already is `resize`.

        Raises:
            UsageError: the image is of another shape or type.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != self.channels:
            raise UsageError(
                f"image of shape {image.shape} and type {image.dtype}; "
                f"expected (H, W, {self.channels}) of uint8"
            )
        height, width, _ = image.shape
        if 0 in image.shape:
            raise UsageError(f"image without pixels: its shape is {image.shape}")
        if min(height, width) == self.resize:
            cropped = centre_crop(image, self.size)
        else:  # computes only the crop: the longer side may be 10,000 times the shorter
            cropped = resampled(image, self.box(height, width), self.size, self.size)
        return np.ascontiguousarray(cropped.transpose(2, 0, 1))

    def box(self, height: int, width: int) -> Box:
        """The box of an image of height x width pixels that the network sees."""
        new_height, new_width = resized_shape(height, width, self.resize)
        tall, wide = height / new_height, width / new_width
        top, left = centre(new_height, self.size) * tall, centre(new_width, self.size) * wide
        return top, left, self.size * tall, self.size * wide

    def frame(self, image: Pixels) -> Pixels:
        """The network's input in the centre of a square of the size before the crop.

        Args:
            image: (H, W, C) uint8.

        Returns:
            (resize, resize, C) uint8, black around `pixels`; the image itself if it has that size.

        Raises:
            UsageError: the image is of another shape or type.

        >>> whole = Preprocessing(size=2, resize=4, mean=(0.5,), std=(0.25,))
        >>> whole.frame(np.full((8, 8, 1), 9, np.uint8))[1, :, 0].tolist()
        [0, 9, 9, 0]
        """
        shape = (self.resize, self.resize, self.channels)
        if image.shape == shape and image.dtype == np.uint8:
            return image
        framed = np.zeros(shape, np.uint8)
        start = centre(self.resize, self.size)
        middle = slice(start, start + self.size)
        framed[middle, middle] = self.pixels(image).transpose(1, 2, 0)
        return framed

    def normalise(self, pixels: Pixels) -> NDArray[np.float32]:
        """The normalised input of the network, float32: (N, C, size, size) or (C, size, size)."""
        mean = np.asarray(self.mean, np.float64)[:, None, None]
        std = np.asarray(self.std, np.float64)[:, None, None]
        numbers = pixels.astype(np.float32)
        numbers *= (1 / (255 * std)).astype(np.float32)
        numbers -= (mean / std).astype(np.float32)
        return numbers

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON or TOML; without `white` if unknown, as in earlier versions."""
        values: dict[str, Any] = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }
        if self.white == UNKNOWN:
            del values["white"]
        else:
            values["white"] = self.white.to_dict()
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Preprocessing":
        """Undo `to_dict`.

        Raises:
            ContentError: a name or a value that is not allowed, or one that is missing.
        """
        return from_table(cls, values, "preprocessing.")
