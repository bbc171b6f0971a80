"""Images made smaller and encoded anew, to be stored for training."""

import io
from typing import NamedTuple

from PIL import Image

from resnets.images.decoding import decode
from resnets.images.probing import ENDINGS, Probe, probe
from resnets.images.resizing import Pixels, resized_shape, resized_to

_KEPT = ("JPEG", "PNG")  # formats that every reader of training images knows
_GREY = ("1", "L")


class Encoded(NamedTuple):
    """An encoded image.

    Attributes:
        data: the content of an image file.
        ending: of the file's name, such as ".jpg".
        width: of the upright image, in pixels.
        height: likewise.
        copied: whether it is the original, byte by byte.
    """

    data: bytes
    ending: str
    width: int
    height: int
    copied: bool = False


def fitted(image: bytes | Pixels, size: int, quality: int) -> Encoded:
    """An image whose shorter side has at most `size` pixels, as a file of its own.

    JPEG and PNG that fit already are the same bytes, and so is, at any size, what JPEG cannot hold:
    transparency, and more than 8 bits a value. Other images that fit become PNG, without loss;
    larger ones are resized and become JPEG.

    Args:
        image: the content of an image file, or pixels (H, W, C) uint8.
        size: in pixels.
        quality: of JPEG, 1 to 100.

    Raises:
        ContentError: it cannot be decoded.

    >>> import numpy as np
    >>> small = fitted(np.zeros((30, 40, 3), np.uint8), size=20, quality=90)
    >>> small.ending, small.width, small.height
    ('.jpg', 26, 20)
    """
    if not isinstance(image, bytes):
        return _encoded(image, size, quality)
    about = probe(image)
    fits = min(about.width, about.height) <= size
    if (fits and about.format in _KEPT) or about.transparent or about.bits > 8:
        decode(image, minimum_side=1)  # what is damaged is found now
        return Encoded(image, ENDINGS[about.format][0], about.width, about.height, copied=True)
    pixels = decode(image, channels=_channels(about), minimum_side=None if fits else 2 * size)
    return _encoded(pixels, size, quality)


def _channels(about: Probe) -> int:
    """Channels of an opaque image."""
    return 1 if about.mode in _GREY else 3


def _encoded(pixels: Pixels, size: int, quality: int) -> Encoded:
    """Pixels as PNG if they fit, or have an alpha channel; else resized, as JPEG."""
    fits = min(pixels.shape[:2]) <= size
    if not fits:
        tall, wide = resized_shape(pixels.shape[0], pixels.shape[1], size)
        pixels = resized_to(pixels, tall, wide, "bicubic")
    height, width, channels = pixels.shape
    picture = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
    content = io.BytesIO()
    if fits or channels == 4:
        picture.save(content, "PNG")
        return Encoded(content.getvalue(), ".png", width, height)
    picture.save(content, "JPEG", quality=quality)
    return Encoded(content.getvalue(), ".jpg", width, height)
