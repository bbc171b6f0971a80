"""Decoding of image files: whole images, or crops for training."""

from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from resnets.errors import ContentError, UsageError
from resnets.images import jpeg
from resnets.images.converting import (
    MODES,
    TURNED,
    orientation_of,
    stored_box,
    to_pixels,
    upright,
)
from resnets.images.memory_budget import IN_USE
from resnets.images.opening import (
    ALLOWED,
    IGNORE_PILLOW_WARNINGS,
    MAX_PIXELS,
    format_of,
    one_line,
    open_image,
    reading,
    refuse_bomb,
)
from resnets.images.png import decode_plain
from resnets.images.resizing import Box, Pixels, square
from resnets.images.white import UNKNOWN, Kind, Values, White, deep_values


def decode(
    source: bytes | Path,
    *,
    formats: Sequence[str] = ALLOWED,
    max_pixels: int = MAX_PIXELS,
    channels: int = 3,
    minimum_side: int | None = None,
    white: White = UNKNOWN,
) -> Pixels:
    """Decode an image: upright, 8 bits a value, the first frame of several.

    The EXIF orientation is applied; 16 and 32 bits are scaled, not clipped; transparent pixels are
    blended with white unless channels is 4. Truncated files are refused.

    Args:
        source: the content of an image file, or its path.
        formats: the formats to read: of `ALLOWED`, or `UNTRUSTED` for files from unknown sources.
        max_pixels: images with more pixels are refused before anything is decoded.
        channels: 1 (grey), 3 (RGB) or 4 (RGBA; opaque if the image has no alpha channel).
        minimum_side: JPEG may be decoded at 1/2, 1/4 or 1/8 of its size as long as the shorter
            side has at least this many pixels: much faster for large photos, slightly different.
        white: the white level of images of 16 or 32 bits a value.

    Returns:
        (H, W, channels) uint8, contiguous and writable.

    Raises:
        ContentError: the file is damaged or not allowed; the message is one line, and begins with
            the name if source is a path.
        UsageError: channels is not 1, 3 or 4.

    >>> from PIL import Image
    >>> Image.new("RGB", (3, 2)).save(tmp / "black.png")
    >>> decode(tmp / "black.png").shape
    (2, 3, 3)
    """
    if channels not in MODES:
        raise UsageError(f"channels is {channels!r}; it must be 1 (grey), 3 (RGB) or 4 (RGBA)")
    with IN_USE, reading(source, formats) as data:
        if (frame := _jpeg_frame(data, max_pixels)) is not None:
            scale = jpeg.scale_for(min(frame.height, frame.width), minimum_side)
            pixels = jpeg.decode_frame(data, frame, channels, scale=scale)
            return upright(pixels, frame.orientation)
        if (plain := decode_plain(data, channels, max_pixels)) is not None:
            return plain
        with IGNORE_PILLOW_WARNINGS:
            image = open_image(data, max_pixels)
            pixels = to_pixels(image, channels, white)
            orientation = orientation_of(image)
            del image  # before the pixels are rotated, which takes memory too
            return upright(pixels, orientation)


def read_deep(data: bytes, max_pixels: int = MAX_PIXELS) -> tuple[Kind, Values] | None:
    """The type and the stored values of an image of 16 or 32 bits a value.

    Returns:
        None for images of at most 8 bits, and for images that define their white level.

    Raises:
        ContentError: as for `decode`.
    """
    with IN_USE, reading(data, ALLOWED), IGNORE_PILLOW_WARNINGS:
        if format_of(data) == "JPEG":
            return None
        return deep_values(open_image(data, max_pixels))


def from_pillow(image: Image.Image, channels: int = 3, white: White = UNKNOWN) -> Pixels:
    """The pixels of a Pillow image of any mode, the same as `decode` returns.

    Args:
        image: opened, not necessarily loaded.
        channels: 1 (grey), 3 (RGB) or 4 (RGBA; opaque if the image has no alpha channel).
        white: the white level of images of 16 or 32 bits a value.

    Returns:
        (H, W, channels) uint8, contiguous and writable.

    Raises:
        ContentError: its file cannot be decoded; the message is one line.

    >>> from_pillow(Image.new("CMYK", (3, 2))).shape
    (2, 3, 3)
    """
    try:
        with IGNORE_PILLOW_WARNINGS:
            refuse_bomb(image.width, image.height, MAX_PIXELS)
            return upright(to_pixels(image, channels, white), orientation_of(image))
    except ContentError:
        raise
    except Exception as error:  # decoders raise anything: see `reading`
        reason = one_line(str(error)) or type(error).__name__
        raise ContentError(f"broken image: {reason}") from error


def _jpeg_frame(data: bytes, max_pixels: int) -> jpeg.Frame | None:
    """The header of a JPEG; None for other formats, and for headers that only Pillow can read."""
    frame = jpeg.read_frame(data) if format_of(data) == "JPEG" else None
    if frame is not None:
        refuse_bomb(frame.width, frame.height, max_pixels)
    return frame


def decode_crop(
    data: bytes,
    choose: Callable[[int, int], Sequence[int]],
    size: int,
    *,
    channels: int = 3,
    resample: Callable[[Pixels, Box, int], Pixels] = square,
    white: White = UNKNOWN,
) -> Pixels:
    """Decode a box of an image and resize it to a square, as for random resized crops.

    The result is that of decoding the image, cropping the box and resizing it, with these
    differences for JPEG, which save time: rows below the box are not decoded; the image is decoded
    at 1/2, 1/4 or 1/8 of its size if the box keeps `size` pixels a side; and colours stored at
    half the resolution are not interpolated.

    Args:
        data: the content of an image file.
        choose: a function from the height and width of the upright image to the top, left, height
            and width of a box in it, in pixels.
        size: side of the square.
        channels: 1 (grey), 3 (RGB) or 4 (RGBA).
        resample: a function from an image (H, W, C), a box in it and a size to (size, size, C);
            `resnets.images.vectorised.square` is faster, but needs torch.
        white: the white level of images of 16 or 32 bits a value.

    Returns:
        (size, size, channels) uint8, contiguous.

    Raises:
        ContentError: as for `decode`.
        UsageError: the box is not in the image.

    >>> from PIL import Image
    >>> Image.new("RGB", (60, 40)).save(tmp / "black.jpg")
    >>> data = (tmp / "black.jpg").read_bytes()
    >>> decode_crop(data, lambda height, width: (0, 0, height, width // 2), size=32).shape
    (32, 32, 3)
    """
    with reading(data, ALLOWED):
        frame = _jpeg_frame(data, MAX_PIXELS)
    if frame is None:
        pixels = decode(data, channels=channels, white=white)
        top, left, tall, wide = _chosen_box(choose, *pixels.shape[:2])
        return resample(pixels[top : top + tall, left : left + wide], (0, 0, tall, wide), size)
    turned = frame.orientation in TURNED
    shape = (frame.width, frame.height) if turned else (frame.height, frame.width)
    top, left, tall, wide = stored_box(_chosen_box(choose, *shape), *shape, frame.orientation)
    scale = jpeg.scale_for(min(tall, wide), size)
    with IN_USE, reading(data, ALLOWED):
        pixels = jpeg.decode_frame(
            data, frame, channels, scale=scale, bottom=top + tall, smooth=False
        )
    row, column = top // scale, left // scale
    part = pixels[row : -(-(top + tall) // scale), column : -(-(left + wide) // scale)]
    inside = (top / scale - row, left / scale - column, tall / scale, wide / scale)
    return upright(resample(part, inside, size), frame.orientation)


def _chosen_box(
    choose: Callable[[int, int], Sequence[int]], height: int, width: int
) -> tuple[int, int, int, int]:
    """The box chosen by a function: top, left, height and width.

    Raises:
        UsageError: the box is not in the image.
    """
    top, left, tall, wide = map(int, choose(height, width))
    if min(top, left) < 0 or min(tall, wide) < 1 or top + tall > height or left + wide > width:
        raise UsageError(
            f"the box of {wide} x {tall} pixels at top {top}, left {left} is not in the image of "
            f"{width} x {height} pixels"
        )
    return top, left, tall, wide
