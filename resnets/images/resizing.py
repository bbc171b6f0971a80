"""Resizing with Pillow, and cropping. Images are (H, W, C) uint8.

Input of networks is resized with the antialiased bilinear or bicubic filter; other filters are for
pictures in reports. Tensors are resized in `resnets.images.vectorised`.
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

Rounding = Literal["down", "even"]

_MODES = {1: "L", 3: "RGB", 4: "RGBX"}  # X: Pillow would weigh colours with an alpha channel


def resampled(
    image: NDArray[_Number], box: Box, height: int, width: int, kernel: Filter = "bilinear"
) -> NDArray[_Number]:
    """Resize a box of an image.

    Bilinear and antialiased: a triangle as wide as two pixels of the coarser of the two grids, cut
    at the edges of the image and not of the box. Bicubic: Keys' kernel with a = -0.5, four pixels
    wide. Rows and columns one after the other, rounded to 8 bits after each: up to 1 from the
    exact value.

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


def square(image: Pixels, box: Box, size: int, kernel: Filter = "bilinear") -> Pixels:
    """A box of an image as a square, (size, size, C): see `resampled`."""
    return resampled(image, box, size, size, kernel)


def bordered_square(image: Pixels, box: Box, size: int, kernel: Filter = "bilinear") -> Pixels:
    """A box that may exceed the image as a square: black where there is no image.

    Args:
        image: (H, W, C) uint8.
        box: contains some of the image.
        size: side of the result, in pixels.
        kernel: the filter, see `resampled`.

    Returns:
        (size, size, C) uint8.

    >>> image = np.ones((2, 4, 1), np.uint8)
    >>> bordered_square(image, (-1.0, 0.0, 4.0, 4.0), 4)[..., 0].tolist()
    [[0, 0, 0, 0], [1, 1, 1, 1], [1, 1, 1, 1], [0, 0, 0, 0]]
    """
    height, width, channels = image.shape
    top, left, tall, wide = box
    rows, upper, lower = _covered(top, tall, height, size)
    columns, before, after = _covered(left, wide, width, size)
    square_image = np.zeros((size, size, channels), np.uint8)
    square_image[rows, columns] = resampled(
        image,
        (upper, before, lower - upper, after - before),
        rows.stop - rows.start,
        columns.stop - columns.start,
        kernel,
    )
    return square_image


def _covered(start: float, extent: float, length: int, size: int) -> tuple[slice, float, float]:
    """Which of `size` pixels across a range are within the image, and start and end of that part.

    Args:
        start: of the range, in pixels of the image.
        extent: of the range, likewise.
        length: of the image.
        size: pixels of the result across the range.
    """
    first, last = max(0.0, start), min(float(length), start + extent)
    begin = min(round((first - start) / extent * size), size - 1)
    end = max(round((last - start) / extent * size), begin + 1)
    return slice(begin, end), first, last


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


def bordered_shape(height: int, width: int, longer_side: int) -> tuple[int, int]:
    """Height and width after resizing the longer side; the other is rounded, halves to even.

    >>> bordered_shape(375, 500, 256), bordered_shape(3, 4, 2), bordered_shape(5, 4, 2)
    ((192, 256), (2, 2), (2, 2))
    """
    longer = max(height, width)

    def rounded(side: int) -> int:
        doubled = 2 * longer_side * side + longer
        quotient = doubled // (2 * longer)
        is_tie_to_odd = doubled == quotient * 2 * longer and quotient % 2
        return max(1, quotient - 1 if is_tie_to_odd else quotient)

    return rounded(height), rounded(width)


def _centre(length: int, size: int) -> int:
    """The start of the centred part of a side: half of the excess, rounded down."""
    return (length - size) // 2


def crop_start(length: int, size: int, rounding: Rounding = "down") -> int:
    """Where a centred crop begins on a side; if the side is shorter, below 0 by half of the rest.

    Args:
        length: of the side.
        size: of the crop.
        rounding: of half a pixel: down, as in this package and in Hugging Face's transformers; or
            to the even number, as in torchvision and timm.

    >>> [crop_start(length, 4) for length in range(9)]
    [-2, -1, -1, 0, 0, 0, 1, 1, 2]
    >>> [crop_start(length, 4, "even") for length in range(9)]
    [-2, -1, -1, 0, 0, 0, 1, 2, 2]
    """
    excess = length - size
    if excess < 0:
        return -(-excess // 2)
    return round(excess / 2) if rounding == "even" else excess // 2


def centre_crop(image: Pixels, size: int) -> Pixels:
    """The square in the middle of an image.

    Raises:
        UsageError: a side of the image is shorter.
    """
    height, width, _ = image.shape
    if size > min(height, width):
        raise UsageError(f"a square of {size} pixels does not fit into {width} x {height}")
    top, left = _centre(height, size), _centre(width, size)
    return image[top : top + size, left : left + size]
