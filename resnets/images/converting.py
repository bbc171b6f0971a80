"""Conversion of any of Pillow's modes, and of numbers of channels, to upright uint8 pixels.

Colour is converted to grey and grey to colour only here, for files and arrays alike. Transparent
pixels become white if the result has no alpha channel. Colours are interpreted as sRGB, whatever
profile is embedded.
"""

import numpy as np
from PIL import Image

from resnets.errors import ContentError
from resnets.images.resizing import Pixels
from resnets.images.white import (
    UNKNOWN,
    Values,
    White,
    bits_of_grey,
    blocks,
    deep_values,
    own_white,
)

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_STRIP = 1 << 20  # pixels converted at a time
_ORIENTATION = 0x0112  # the EXIF tag

TURNED = (5, 6, 7, 8)  # orientations that exchange height and width; after that, these flip:
_FLIPPED_ROWS = (3, 4, 7, 8)
_FLIPPED_COLUMNS = (2, 3, 6, 7)


def to_pixels(image: Image.Image, channels: int, white: White = UNKNOWN) -> Pixels:
    """Decode an opened image in its stored orientation: (H, W, channels) uint8, writable."""
    image.load()
    return with_channels(_to_eight_bits(image, white), channels)


def with_channels(image: Image.Image, channels: int) -> Pixels:
    """An image of 8 bits a value as an array, (H, W, channels)."""
    rows = max(1, _STRIP // image.width)
    if image.height <= rows:
        return _whole_with_channels(image, channels)
    pixels = np.empty((image.height, image.width, channels), np.uint8)
    for top in range(0, image.height, rows):  # without a copy of the whole image
        bottom = min(top + rows, image.height)
        strip = image.crop((0, top, image.width, bottom))
        pixels[top:bottom] = _whole_with_channels(strip, channels)
    return pixels


def _whole_with_channels(image: Image.Image, channels: int) -> Pixels:
    """As `with_channels`, with intermediate copies of the image."""
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


def from_pixels(pixels: Pixels, channels: int) -> Pixels:
    """Convert pixels to another number of channels, in the same way as `decode`.

    Args:
        pixels: of one image (H, W, C) or of several (..., H, W, C), uint8; C is 1, 3 or 4.
        channels: 1 (grey), 3 (RGB) or 4 (RGBA).

    Returns:
        (..., H, W, channels) uint8; the same array if it has that number of channels.

    >>> from_pixels(np.array([[[255, 0, 0]]], dtype=np.uint8), 1).tolist()
    [[[76]]]
    """
    count = pixels.shape[-1]
    if count == channels:
        return pixels
    rows = pixels.reshape(-1, *pixels.shape[-2:])  # several images, one below the other
    converted = np.empty((*rows.shape[:2], channels), np.uint8)
    step = max(1, _STRIP // max(1, rows.shape[1]))
    for top in range(0, len(rows), step):
        strip = rows[top : top + step]
        picture = Image.fromarray(strip[..., 0] if count == 1 else strip)
        converted[top : top + step] = _whole_with_channels(picture, channels)
    return converted.reshape(*pixels.shape[:-1], channels)


def _to_eight_bits(image: Image.Image, white: White = UNKNOWN) -> Image.Image:
    """The image with at most 8 bits a value; Pillow's own conversions would clip larger values.

    Values are divided by the white level; values below 0 and NaN become black. The white level is
    that of the file (4095 in TIFF of 12 bits), else the one determined for images of its type,
    else estimated from the image alone: see `own_white`.
    """
    if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
        return image
    typed_values = deep_values(image)
    if typed_values is None:
        values: Values = np.asarray(image)
        level = 2.0 ** bits_of_grey(image) - 1
    else:
        kind, values = typed_values
        level = white.of(kind) or own_white(kind, values)
    grey = Image.fromarray(_scale_to_bytes(values, level))
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return grey


def _scale_to_bytes(values: Values, white: float) -> Pixels:
    """Scale values from 0..white to 0..255, rounded; values outside are clipped.

    Raises:
        ContentError: no value is a finite number; the image would be black without a word.
    """
    if not any(np.isfinite(block).any() for block in blocks(values)):
        raise ContentError("none of its values is a finite number")
    levels = np.empty(values.shape, np.uint8)
    for block, row in zip(blocks(values), blocks(levels), strict=True):
        numbers = np.nan_to_num(block.astype(np.float32), nan=0.0)
        row[:] = np.rint(np.clip(numbers, 0, white) * (255 / white))
    return levels


def orientation_of(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 (upright) if there is none.

    Call it after loading: Pillow rotates TIFF on loading, and PNG may store it after the pixels.
    """
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # unreadable metadata must not prevent reading the pixels
        return 1
    return orientation if orientation in range(1, 9) else 1


def upright(pixels: Pixels, orientation: int) -> Pixels:
    """Rotate and flip pixels (H, W, C) according to the EXIF orientation; contiguous."""
    if orientation in TURNED:
        pixels = pixels.transpose(1, 0, 2)
    rows = -1 if orientation in _FLIPPED_ROWS else 1
    columns = -1 if orientation in _FLIPPED_COLUMNS else 1
    return np.ascontiguousarray(pixels[::rows, ::columns])


def stored_box(
    box: tuple[int, int, int, int], height: int, width: int, orientation: int
) -> tuple[int, int, int, int]:
    """The box in the stored image that corresponds to a box in the upright image.

    Args:
        box: top, left, height and width in the upright image.
        height: of the upright image.
        width: of the upright image.
        orientation: 1 to 8.

    >>> stored_box((0, 0, 1, 2), 3, 4, orientation=6)  # upright after a quarter turn clockwise
    (2, 0, 2, 1)
    """
    top, left, tall, wide = box
    if orientation in _FLIPPED_ROWS:
        top = height - top - tall
    if orientation in _FLIPPED_COLUMNS:
        left = width - left - wide
    return (left, top, wide, tall) if orientation in TURNED else (top, left, tall, wide)
