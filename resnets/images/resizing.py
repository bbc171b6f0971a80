"""Resizing with Pillow, and cropping. Images are (H, W, C) uint8.

Input of networks is resized with the antialiased bilinear filter; other filters are for pictures
in reports. Tensors are resized in `resnets.images.vectorised`.
"""

from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnets.errors import UsageError

Pixels = NDArray[np.uint8]
Box = tuple[float, float, float, float]  # top, left, height, width, in pixels; the corner is (0, 0)

_Number = TypeVar("_Number", np.uint8, np.float32)
Filter = Literal["bilinear", "bicubic", "lanczos", "box", "nearest"]

_MODES = {1: "L", 3: "RGB", 4: "RGBX"}  # X: Pillow would weigh colours with an alpha channel


def resampled(
    image: NDArray[_Number], box: Box, height: int, width: int, kernel: Filter = "bilinear"
) -> NDArray[_Number]:
    """Resize a box of an image.

    Bilinear and antialiased: a triangle as wide as two pixels of the coarser of the two grids, cut
    at the edges of the image and not of the box. Rows and columns one after the other, rounded to
    8 bits after each: up to 1 from the exact value.

    Args:
        image: (H, W, C) uint8 with 1, 3 or 4 channels, which do not mix; or (H, W, 1) float32,
            which is not rounded.
        box: the part to resize; fractions of pixels are allowed. It is clipped to the image, which
            it may exceed by rounding errors.
        height: of the result.
        width: of the result.
        kernel: the filter. All except "nearest" are antialiased.

    Returns:
        (height, width, C), of the same type.
    """
    rows, columns, channels = image.shape
    flat = np.ascontiguousarray(image)
    mode = "F" if image.dtype == np.float32 else _MODES[channels]
    picture = Image.frombuffer(mode, (columns, rows), flat, "raw", mode, 0, 1)
    top, left, box_height, box_width = box
    corners = (left, top, min(left + box_width, columns), min(top + box_height, rows))
    resized = picture.resize((width, height), Image.Resampling[kernel.upper()], corners)
    return np.array(resized).reshape(height, width, channels)


def resized_to(
    image: NDArray[_Number], height: int, width: int, kernel: Filter = "bilinear"
) -> NDArray[_Number]:
    """Resize a whole image without keeping its aspect ratio: see `resampled`."""
    return resampled(image, (0, 0, *image.shape[:2]), height, width, kernel)


def square(image: Pixels, box: Box, size: int) -> Pixels:
    """A box of an image as a square, (size, size, C): see `resampled`."""
    return resampled(image, box, size, size)


def resized_shape(height: int, width: int, shorter_side: int) -> tuple[int, int]:
    """Height and width after resizing the shorter side; the other is rounded down.

    >>> resized_shape(375, 500, 256)
    (256, 341)
    """
    shorter = min(height, width)
    return shorter_side * height // shorter, shorter_side * width // shorter


def resize(image: Pixels, shorter_side: int) -> Pixels:
    """Resize a whole image with its aspect ratio; unchanged if its shorter side already fits."""
    height, width, _ = image.shape
    if min(height, width) == shorter_side:
        return image
    return resized_to(image, *resized_shape(height, width, shorter_side))


def centre(length: int, size: int) -> int:
    """The start of the centred part of a side: half of the excess, rounded down."""
    return (length - size) // 2


def centre_crop(image: Pixels, size: int) -> Pixels:
    """The square in the middle of an image.

    Raises:
        UsageError: a side of the image is shorter.
    """
    height, width, _ = image.shape
    if size > min(height, width):
        raise UsageError(f"a square of {size} pixels does not fit into {width} x {height}")
    top, left = centre(height, size), centre(width, size)
    return image[top : top + size, left : left + size]
