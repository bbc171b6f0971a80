"""What a file is, without decoding its pixels: for finding odd images before training."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import ImageFile, TiffImagePlugin

from resnets.images.converting import TURNED, orientation_of
from resnets.images.opening import ALLOWED, AVIF, MAX_PIXELS, QUIET, open_image, reading
from resnets.images.room import IN_USE
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
}
_FRAMES_COUNTED = 1000
_PNG_ORIENTATION = (b"eXIf", b"XML:com.adobe.xmp", b"Raw profile type exif")  # what may hold it
_BITS = {"1": 1, "I": 32, "F": 32}


@dataclass(frozen=True)
class Probe:
    """What the header of an image file says.

    Attributes:
        format: one of `ALLOWED`.
        mode: Pillow's word for its kind of pixels: L, RGB, P, CMYK, I;16, ...
        width: of the upright image, in pixels.
        height: of the upright image, in pixels.
        frames: how many images the file holds; TIFF's are counted to 1000.
        orientation: EXIF's, 1 (upright) to 8.
        bits: of a value as stored, before any conversion.
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
    """Look at the header of an image.

    Args:
        source: the content of an image file, or its path.
        formats: which are read.
        max_pixels: images with more are refused.

    Raises:
        ContentError: as `decode` raises it, but pixels that are damaged or missing go unnoticed.

    >>> from PIL import Image
    >>> Image.new("CMYK", (60, 40)).save(tmp / "print.jpg")
    >>> probe(tmp / "print.jpg").mode
    'CMYK'
    """
    with IN_USE, reading(source, formats) as data, QUIET:
        image = open_image(data, max_pixels)
        frames = _count_frames(image, data)
        orientation = _orientation_in_header(image, data)
        format_name = "JPEG" if image.format == "MPO" else str(image.format)
        # Pillow gives the size of a TIFF as it will be once turned
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
    """The orientation; for PNG, Pillow decodes the pixels to find it, so only if there is one."""
    if image.format == "PNG" and not any(mark in data for mark in _PNG_ORIENTATION):
        return 1
    return orientation_of(image)


def _stored_bits(image: ImageFile.ImageFile, data: bytes) -> int:
    """Bits of a value in the file; Pillow's modes hide them where it converts as it loads."""
    if image.format == "PNG":
        return data[24]  # in the header chunk, which comes first
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return max(map(int, image.tag_v2.get(BITS_PER_SAMPLE, (1,))))
    return _BITS.get(image.mode, 8)


def _count_frames(image: ImageFile.ImageFile, data: bytes) -> int:
    """How many images a file holds, in time that grows no faster than the file."""
    if image.format == "GIF":
        return _gif_frames(data)
    if image.format == "MPO":
        return 1  # what follows is the same photo: a preview, or another eye's
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
