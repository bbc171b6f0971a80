"""Preprocessing of a decoded image to the network's input; it is stored in the model file."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from resnets.errors import UsageError
from resnets.fields import from_table, is_finite
from resnets.images.resizing import (
    Box,
    Pixels,
    Rounding,
    bordered_shape,
    crop_start,
    resampled,
    resized_shape,
    resized_to,
)
from resnets.images.white import UNKNOWN, White

Interpolation = Literal["bilinear", "bicubic"]
CropMode = Literal["center", "squash", "border"]  # by timm's names
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # torchvision's
_LATER = {"interpolation": "bilinear", "crop_mode": "center", "crop_rounding": "down"}  # defaults
_LONGEST = 8  # times the shorter side: a longer image is not resized whole before the crop
_LARGEST_SIDE = 8192  # pixels, which bounds the memory that a model file can require


@dataclass(frozen=True)
class Preprocessing:
    """Resizing, centre crop and normalisation: (x / 255 - mean) / std.

    An image is resized by `resampled` to `resized`; the crop begins at `crop_start`. An exported
    graph contains the same operations. Crop modes are those of timm 1.0
    (`transforms_imagenet_eval` in data/transforms_factory.py).

    Attributes:
        size: side of the centre crop, in pixels.
        resize: side of the resized image before the crop, in pixels, at least `size`; which of
            the sides, `crop_mode` says.
        mean: subtracted from each channel, in 0..1; one number for each channel: 1 (grey), 3 (RGB)
            or 4 (RGBA).
        std: divides each channel after that.
        white: white level of images of 16 or 32 bits a value; unknown in files of earlier versions,
            and if no training image was of that type.
        interpolation: filter of the resizing, antialiased: bilinear, or bicubic with a = -0.5.
        crop_mode: center resizes the shorter side, so that the crop loses what is beside it;
            squash resizes both sides, without the aspect ratio; border resizes the longer side and
            surrounds what is missing with the mean colour.
        crop_rounding: of half a pixel where the crop begins, see `crop_start`.

    >>> grey = Preprocessing(size=28, resize=28, mean=(0.5,), std=(0.25,))
    >>> grey.normalise(grey.pixels(np.full((28, 30, 1), 255, np.uint8))).max()
    np.float32(2.0)
    """

    size: int
    resize: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    white: White = UNKNOWN
    interpolation: Interpolation = "bilinear"
    crop_mode: CropMode = "center"
    crop_rounding: Rounding = "down"

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
        return self._unknown_choice()

    def _unknown_choice(self) -> str | None:
        choices = (
            ("interpolation", self.interpolation, get_args(Interpolation)),
            ("crop_mode", self.crop_mode, get_args(CropMode)),
            ("crop_rounding", self.crop_rounding, get_args(Rounding)),
        )
        for name, value, allowed in choices:
            if value not in allowed:
                return f"{name} is {value!r}; it must be one of {', '.join(allowed)}"
        return None

    @property
    def channels(self) -> int:
        """1 (grey), 3 (RGB) or 4 (RGBA)."""
        return len(self.mean)

    def with_channels(self, channels: int) -> "Preprocessing":
        """The same for another number of channels, each with the mean of the means and deviations.

        See `adapt_to_chs` in data/loader.py of timm 1.0.

        >>> Preprocessing(28, 28, (0.25, 0.5, 0.75), (0.5, 0.5, 0.5)).with_channels(1).mean
        (0.5,)
        """
        if channels == self.channels:
            return self
        mean, std = (sum(values) / self.channels for values in (self.mean, self.std))
        return replace(self, mean=(mean,) * channels, std=(std,) * channels)

    @property
    def fill(self) -> tuple[int, ...]:
        """The colour of a border: the mean, as 8-bit values."""
        return tuple(round(255 * min(max(value, 0.0), 1.0)) for value in self.mean)

    def pixels(self, image: Pixels) -> Pixels:
        """Resize and crop an image.

        Args:
            image: (H, W, C) uint8.

        Returns:
            (C, size, size) uint8, contiguous. Only cropped if it has the size before the crop.

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
        shape = self.resized(height, width)
        if shape == (height, width):
            cropped = self._crop(image)
        elif self._is_resized_whole(shape):
            cropped = self._crop(resized_to(image, *shape, self.interpolation))
        else:
            box = self.box(height, width)
            cropped = resampled(image, box, self.size, self.size, self.interpolation)
        return np.ascontiguousarray(cropped.transpose(2, 0, 1))

    def _is_resized_whole(self, shape: tuple[int, int]) -> bool:
        """Whether to resize a whole image to `shape`, and not only what the crop keeps of it.

        Pillow 13 chooses by the sizes whether rows or columns come first. The bicubic filter
        overshoots, so the order shows where values are clipped between them: publishers' pixels
        are those of the whole image.
        """
        if self.crop_mode != "center":
            return True
        return self.interpolation == "bicubic" and max(shape) <= _LONGEST * self.resize

    def _crop(self, image: Pixels) -> Pixels:
        """The crop of a resized image, with a border where it is smaller: (size, size, C)."""
        height, width, channels = image.shape
        top, left = self.start(height), self.start(width)
        inside = image[max(top, 0) :, max(left, 0) :][: self.size, : self.size]
        if inside.shape[:2] == (self.size, self.size):
            return inside
        bordered = np.empty((self.size, self.size, channels), np.uint8)
        bordered[:] = np.array(self.fill, np.uint8)
        above, before = max(-top, 0), max(-left, 0)
        bordered[above : above + len(inside), before : before + inside.shape[1]] = inside
        return bordered

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of an image of height x width pixels after resizing, before the crop."""
        if self.crop_mode == "squash":
            return self.resize, self.resize
        if self.crop_mode == "border":
            return bordered_shape(height, width, self.resize)
        return resized_shape(height, width, self.resize)

    def start(self, length: int) -> int:
        """Where the crop begins on a side of the resized image; below 0 in a border."""
        return crop_start(length, self.size, self.crop_rounding)

    def box(self, height: int, width: int) -> Box:
        """The box of an image of height x width pixels that the network sees.

        It exceeds the image where the network sees a border.
        """
        new_height, new_width = self.resized(height, width)
        tall, wide = height / new_height, width / new_width
        top, left = self.start(new_height) * tall, self.start(new_width) * wide
        return top, left, self.size * tall, self.size * wide

    @property
    def window(self) -> slice:
        """The rows, and the columns, of a `frame` that the network sees."""
        start = self.start(self.resize)
        return slice(start, start + self.size)

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
        framed[self.window, self.window] = self.pixels(image).transpose(1, 2, 0)
        return framed

    def normalise(self, pixels: Pixels) -> NDArray[np.float32]:
        """The normalised input of the network, float32: (N, C, size, size) or (C, size, size)."""
        mean = np.asarray(self.mean, np.float64)[:, None, None]
        std = np.asarray(self.std, np.float64)[:, None, None]
        numbers = pixels.astype(np.float32)
        numbers *= (1 / (255 * std)).astype(np.float32)
        numbers -= (mean / std).astype(np.float32)
        return numbers

    def in_words(self) -> str:
        """One line: sizes, interpolation, crop, mean and deviation.

        >>> Preprocessing(28, 32, (0.5,), (0.25,)).in_words()
        '28 x 28 pixels from 32 (bilinear, crop mode center), mean 0.5, std 0.25'
        """
        mean, std = (
            " ".join(f"{value:.4g}" for value in channels) for channels in (self.mean, self.std)
        )
        return (
            f"{self.size} x {self.size} pixels from {self.resize} ({self.interpolation}, crop mode "
            f"{self.crop_mode}), mean {mean}, std {std}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON or TOML; as in earlier versions where these could say it."""
        values: dict[str, Any] = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
            if value != _LATER.get(name)
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
