"""Small pictures embedded in an HTML page. Pixels are (H, W, 3) uint8."""

import base64
import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnets.evaluation.report.pictures import overlay
from resnets.images import Box, Pixels
from resnets.images.resizing import Filter, bordered_square, resized_to

_SIDE = 160  # pixels, the longer side of a picture: it is shown at half of that or a little more
_SMALL = 64  # pixels, greatest longer side of images that are not resized
_QUALITY = 75  # of lossy WebP, 0 to 100


@dataclass(frozen=True)
class Thumbnail:
    """A picture for an <img>.

    Attributes:
        uri: WebP as a data URI.
        width, height: of the picture, in pixels.
        coarse: whether to show its pixels as squares: smooth enlarging would blur them.
    """

    uri: str
    width: int
    height: int
    coarse: bool


def thumbnail(pixels: Pixels, side: int = _SIDE) -> Thumbnail:
    """A picture of an image; up to 64 pixels it is not resized.

    >>> picture = thumbnail(np.zeros((8, 6, 3), np.uint8))
    >>> picture.width, picture.height, picture.coarse, picture.uri[:23]
    (6, 8, True, 'data:image/webp;base64,')
    """
    coarse = _is_coarse(pixels)
    if not coarse:
        pixels = resized_to(
            pixels, *_fitted_size(pixels, min(side, max(pixels.shape[:2]))), "lanczos"
        )
    picture = Image.fromarray(pixels)
    return Thumbnail(_data_uri(picture, lossless=coarse), *picture.size, coarse)


def part(pixels: Pixels, box: Box) -> Pixels:
    """The pixels of an image in a box, rounded outwards to whole ones.

    If the box exceeds the image, they are a square picture of it with black borders.
    """
    top, left, height, width = box
    if min(top, left) < 0:
        return bordered_square(pixels, box, _SIDE, "lanczos")
    bottom, right = np.ceil(top + height), np.ceil(left + width)
    return pixels[int(top) : int(bottom), int(left) : int(right)]


def heat_thumbnail(pixels: Pixels, heat: NDArray[np.float32], side: int = _SIDE) -> Thumbnail:
    """A picture of an image under its heat map.

    Args:
        pixels: the part of the image that the network sees.
        heat: (h, w) of 0..1.
        side: the longer side of the picture, in pixels.
    """
    kernel: Filter = "nearest" if _is_coarse(pixels) else "lanczos"
    mixed = Image.fromarray(overlay(resized_to(pixels, *_fitted_size(pixels, side), kernel), heat))
    return Thumbnail(_data_uri(mixed, lossless=False), *mixed.size, coarse=False)


def _is_coarse(pixels: Pixels) -> bool:
    """Whether an image is so small that its pixels are shown as squares."""
    height, width, _ = pixels.shape
    return bool(max(height, width) <= _SMALL)


def _fitted_size(pixels: Pixels, side: int) -> tuple[int, int]:
    """Height and width of an image whose longer side becomes `side`.

    >>> _fitted_size(np.zeros((100, 300, 3), np.uint8), 150)
    (50, 150)
    """
    height, width, _ = pixels.shape
    scale = side / max(height, width)
    return max(1, round(scale * height)), max(1, round(scale * width))


def _data_uri(picture: Image.Image, *, lossless: bool) -> str:
    """A picture as WebP in a data URI."""
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", lossless=lossless, quality=100 if lossless else _QUALITY, method=6)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
