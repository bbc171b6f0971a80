"""From any of Pillow's modes to upright uint8 pixels with 1, 3 or 4 channels.

Transparent pixels show white where there is no alpha channel to keep. Colours are taken as sRGB,
whatever profile is embedded.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from resnets.images.resizing import Pixels

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
ORIENTATION = 0x0112  # the EXIF tag
BITS_PER_SAMPLE = 258  # the TIFF tag

TURNED = (5, 6, 7, 8)  # orientations that exchange height and width; flipped after that:
FLIPPED_ROWS = (3, 4, 7, 8)
FLIPPED_COLUMNS = (2, 3, 6, 7)


def to_pixels(image: Image.Image, channels: int) -> Pixels:
    """Decode an opened image, as it is stored: (H, W, channels) uint8, contiguous and writable."""
    image.load()
    return with_channels(eight_bit(image), channels)


def with_channels(image: Image.Image, channels: int) -> Pixels:
    """An image of 8 bits a value as an array, (H, W, channels)."""
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if channels != 4:
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image).convert("RGB")
    elif image.mode not in ("1", "L", "RGB"):
        image = image.convert("RGB")  # CMYK, LAB, YCbCr, HSV or a palette
    if image.mode != MODES[channels]:
        image = image.convert(MODES[channels])
    return np.array(image).reshape(image.height, image.width, channels)


def eight_bit(image: Image.Image) -> Image.Image:
    """An image with at most 8 bits a value; Pillow's own conversions would clip the others.

    16 bits are divided by 257, 12 by 16.06: all bits set is white. Numbers of 32 bits do not tell
    what white is: it is the smallest of 1 (for fractions), 255, 65,535 and the largest value that
    no value is above. Below 0 is black, and so is NaN.
    """
    deep = image.mode.startswith("I;16")
    if not deep and image.mode not in ("I", "F"):
        return image
    values = np.asarray(image)
    white = 2.0 ** bits_of_grey(image) - 1 if deep else white_level(values)
    grey = Image.fromarray(scaled(values, white))
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return grey


def bits_of_grey(image: Image.Image) -> int:
    """How many bits of a mode for 16 bits are in use: all, but for TIFF of 12."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return 16
    return min(int(image.tag_v2.get(BITS_PER_SAMPLE, (16,))[0]), 16)


def white_level(values: NDArray[np.generic]) -> float:
    """Which value is white, for numbers of 32 bits: see `eight_bit`."""
    finite = values[np.isfinite(values)]
    largest = float(finite.max(initial=0))
    ranges = (1.0, 255.0, 65535.0) if values.dtype.kind == "f" else (255.0, 65535.0)
    return next((white for white in ranges if largest <= white), largest)


def scaled(values: NDArray[np.generic], white: float) -> Pixels:
    """Values from 0..white to 0..255, rounded; those outside are clipped."""
    numbers = np.nan_to_num(values.astype(np.float32), nan=0.0)
    levels: Pixels = np.rint(np.clip(numbers, 0, white) * (255 / white)).astype(np.uint8)
    return levels


def orientation_of(image: Image.Image) -> int:
    """1 to 8 as EXIF numbers them; 1 (upright) where nothing says otherwise.

    Ask after loading: TIFF is turned by Pillow as it loads, and PNG may say it after its pixels.
    """
    try:
        orientation = image.getexif().get(ORIENTATION, 1)
    except Exception:  # metadata that cannot be read do not make the pixels worse
        return 1
    return orientation if orientation in range(1, 9) else 1


def upright(pixels: Pixels, orientation: int) -> Pixels:
    """Turn and mirror pixels (H, W, C) as EXIF's orientation asks; contiguous."""
    if orientation in TURNED:
        pixels = pixels.transpose(1, 0, 2)
    rows = -1 if orientation in FLIPPED_ROWS else 1
    columns = -1 if orientation in FLIPPED_COLUMNS else 1
    return np.ascontiguousarray(pixels[::rows, ::columns])


def stored_box(
    box: tuple[int, int, int, int], height: int, width: int, orientation: int
) -> tuple[int, int, int, int]:
    """Where a box of an upright image is as the image is stored.

    Args:
        box: top, left, height and width in the upright image.
        height: of the upright image.
        width: of the upright image.
        orientation: 1 to 8.

    >>> stored_box((0, 0, 1, 2), 3, 4, orientation=6)  # upright after a quarter turn clockwise
    (2, 0, 2, 1)
    """
    top, left, tall, wide = box
    if orientation in FLIPPED_ROWS:
        top = height - top - tall
    if orientation in FLIPPED_COLUMNS:
        left = width - left - wide
    return (left, top, wide, tall) if orientation in TURNED else (top, left, tall, wide)
