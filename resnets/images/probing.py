"""Properties of image files from their headers, without decoding: to find unusual images."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import ImageFile, TiffImagePlugin

from resnets.images.converting import TURNED, orientation_of
from resnets.images.memory_budget import IN_USE
from resnets.images.opening import (
    ALLOWED,
    AVIF,
    HEIC,
    IGNORE_PILLOW_WARNINGS,
    MAX_PIXELS,
    open_image,
    reading,
)
from resnets.images.white import BITS_PER_SAMPLE

ENDINGS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "BMP": (".bmp", ".dib"),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    **dict.fromkeys(AVIF, (".avif", ".avifs")),
    **dict.fromkeys(HEIC, (".heic", ".heif")),
}
_OUR_NAMES = {"MPO": "JPEG", "HEIF": "HEIC"}  # where Pillow's plugins have others
_FRAMES_COUNTED = 1000
_PNG_ORIENTATION = (b"eXIf", b"XML:com.adobe.xmp", b"Raw profile type exif")  # chunks
_BITS = {"1": 1, "I": 32, "F": 32}


@dataclass(frozen=True)
class Probe:
    """Properties of an image file from its header.

    Attributes:
        format: one of `ALLOWED`.
        mode: Pillow's name of its pixel format: L, RGB, P, CMYK, I;16, ...
        width: of the upright image, in pixels.
        height: of the upright image, in pixels.
        frames: number of images in the file; in TIFF counted up to 1000.
        orientation: EXIF's, 1 (upright) to 8.
        bits: of a stored value, before any conversion.
        transparent: whether it has an alpha channel or a transparent colour.
    """

    format: str
    mode: str
    width: int
    height: int
    frames: int
    orientation: int
    bits: int
    transparent: bool


def probe(
    source: bytes | Path, *, formats: Sequence[str] = ALLOWED, max_pixels: int = MAX_PIXELS
) -> Probe:
    """Read the header of an image.

    Args:
        source: the content of an image file, or its path.
        formats: the formats to read.
        max_pixels: images with more pixels are refused.

    Raises:
        ContentError: as for `decode`, except that damaged or missing pixels are not noticed.

    >>> from PIL import Image
    >>> Image.new("CMYK", (60, 40)).save(tmp / "print.jpg")
    >>> probe(tmp / "print.jpg").mode
    'CMYK'
    """
    with IN_USE, reading(source, formats) as data, IGNORE_PILLOW_WARNINGS:
        image = open_image(data, max_pixels)
        frames = _count_frames(image, data)
        orientation = _orientation_in_header(image, data)
        format_name = _OUR_NAMES.get(str(image.format), str(image.format))
        # Pillow returns the size of a TIFF after rotation
        turned = orientation in TURNED and format_name != "TIFF"
        return Probe(
            format=format_name,
            mode=image.mode,
            width=image.height if turned else image.width,
            height=image.width if turned else image.height,
            frames=frames,
            orientation=orientation,
            bits=_stored_bits(image, data),
            transparent=image.has_transparency_data,
        )


def _orientation_in_header(image: ImageFile.ImageFile, data: bytes) -> int:
    """The orientation; read from PNG only if it has one, since Pillow decodes the pixels for it."""
    if image.format == "PNG" and not any(mark in data for mark in _PNG_ORIENTATION):
        return 1
    return orientation_of(image)


def _stored_bits(image: ImageFile.ImageFile, data: bytes) -> int:
    """Bits of a stored value; Pillow's mode does not tell if Pillow converts on loading."""
    if image.format == "PNG":
        return data[24]  # in the header chunk, which comes first
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return max(map(int, image.tag_v2.get(BITS_PER_SAMPLE, (1,))))
    return _BITS.get(image.mode, 8)


def _count_frames(image: ImageFile.ImageFile, data: bytes) -> int:
    """The number of images in a file, in time at most linear in its size."""
    if image.format == "GIF":
        return _gif_frames(data)
    if image.format == "MPO":
        return 1  # the others are the same photo: a preview, or a stereo pair
    if image.format != "TIFF":
        return int(getattr(image, "n_frames", 1))
    for count in range(1, _FRAMES_COUNTED):
        try:
            image.seek(count)
        except EOFError:
            image.seek(0)
            return count
    image.seek(0)
    return _FRAMES_COUNTED


def _gif_frames(data: bytes) -> int:
    """Count the images of a GIF by its blocks (GIF89a specification, sections 17 to 27)."""
    frames, position = 0, 13 + _color_table(data[10])
    while position < len(data):
        kind = data[position]
        if kind == 0x2C and position + 9 < len(data):  # image descriptor, then a byte of LZW
            frames += 1
            position += 11 + _color_table(data[position + 9])
        elif kind == 0x21:  # extension and its label
            position += 2
        else:  # the trailer, or what Pillow would not read either
            break
        while position < len(data) and data[position]:
            position += data[position] + 1
        position += 1
    return max(frames, 1)


def _color_table(flags: int) -> int:
    """Bytes of the colour table that follows a header with these flags."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0
