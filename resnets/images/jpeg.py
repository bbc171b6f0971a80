"""JPEG, decoded no further than needed: at reduced scale, only as far down, by simplejpeg."""

import contextlib
import functools
import importlib
import io
from types import ModuleType
from typing import NamedTuple

import numpy as np
from PIL import Image

from resnets.errors import ContentError
from resnets.images import room
from resnets.images.converting import orientation_of, to_pixels, with_channels
from resnets.images.opening import QUIET
from resnets.images.resizing import Pixels
from resnets.images.room import IN_USE

_SCALES = (8, 4, 2)  # what a decoder shrinks by at a gain
_MAX_SCANS = 500  # each costs a pass over all the pixels; libjpeg-turbo's own fuzzing limit

_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SEQUENTIAL = (0xC0, 0xC1)
_PROGRESSIVE = 0xC2
_APP1, _START_OF_SCAN = 0xE1, 0xDA
_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"  # how an APP1 segment begins
_END = b"\xff\xd9"
_COLOURS = {"GRAY": 1, "RGB": 3, "RGBA": 4}  # values a pixel, by simplejpeg's names


class Frame(NamedTuple):
    """What the header of a JPEG says, as far as it matters here.

    Attributes:
        height: as stored, in pixels.
        width: as stored, in pixels.
        components: 1 (grey), 3 or 4.
        kind: which marker starts the frame.
        position: where in the file the height is.
        band: height of a row of blocks, in pixels.
        one_scan: whether all components are coded together, from top to bottom.
        orientation: 1 to 8.
        values: stored for each pixel, of all components; below their number where colours have a
            lower resolution.
    """

    height: int
    width: int
    components: int
    kind: int
    position: int
    band: int
    one_scan: bool
    orientation: int
    values: float


def read_frame(data: bytes) -> Frame | None:
    """The header of a JPEG, or None where only libjpeg can tell.

    Raises:
        ContentError: so many scans that decoding would not end in good time.
    """
    frame, metadata, position = None, [], 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        kind = data[position + 1]
        start, end = position + 4, position + 2 + (data[position + 2] << 8 | data[position + 3])
        if kind == _APP1:
            metadata.append(data[start:end])
        elif kind in _START_OF_FRAME:
            _refuse_many_scans(data, kind)
            frame = kind, data[start:end], position + 5
        elif kind == _START_OF_SCAN:
            return _frame_of(frame, data[start:end], metadata)
        position = end
    return None


def _frame_of(
    header: tuple[int, bytes, int] | None, scan: bytes, metadata: list[bytes]
) -> Frame | None:
    """What a frame's header and that of its first scan say.

    Args:
        header: the marker that starts the frame, its segment, and where in the file the height is.
        scan: the header of the first scan.
        metadata: the APP1 segments.

    Returns:
        None if it is of a kind that few decoders know.
    """
    kind, segment, position = header or (0, b"", 0)
    if len(segment) < 9 or segment[0] != 8 or len(segment) != 6 + 3 * segment[5] or not scan:
        return None
    height, width = segment[1] << 8 | segment[2], segment[3] << 8 | segment[4]
    components, band = segment[5], 8 * max(sampling & 15 for sampling in segment[7::3])
    if kind not in (*_SEQUENTIAL, _PROGRESSIVE) or components not in (1, 3, 4):
        return None
    if 0 in (height, width, band):
        return None
    orientation = _orientation_in(metadata) if metadata else 1
    together = kind in _SEQUENTIAL and scan[0] == components
    values = _values_per_pixel(segment[7::3])
    return Frame(height, width, components, kind, position, band, together, orientation, values)


def _values_per_pixel(samplings: bytes) -> float:
    """Values that are stored for each pixel, from the components' sampling factors.

    >>> _values_per_pixel(bytes([0x22, 0x11, 0x11]))  # two colours at half the resolution
    1.5
    """
    pairs = [(max(1, each >> 4), max(1, each & 15)) for each in samplings]
    widest, tallest = max(wide for wide, _ in pairs), max(tall for _, tall in pairs)
    return sum(wide * tall / (widest * tallest) for wide, tall in pairs)


def _bytes_to_decode(frame: Frame, scale: int) -> int:
    """What decoding takes at its peak, with the array that is made of it and a copy to resize it.

    Where the components come one after the other, libjpeg keeps all their coefficients, of 16 bits.
    """
    coefficients = 0.0 if frame.one_scan else 2 * frame.values
    decoded = room.USUAL / scale**2
    return int(max(decoded, decoded / 2 + coefficients) * frame.height * frame.width)


def _refuse_many_scans(data: bytes, kind: int) -> None:
    """Raise a ContentError if a progressive JPEG would be decoded again and again."""
    progressive = kind & 3 == _PROGRESSIVE & 3  # with arithmetic coding or without
    if progressive and (scans := data.count(b"\xff\xda")) > _MAX_SCANS:
        raise ContentError(f"{scans} scans; at most {_MAX_SCANS} are decoded")


def _orientation_in(metadata: list[bytes]) -> int:
    """The orientation that the APP1 segments of a JPEG give: 1 to 8, and 1 where they give none.

    Pillow reads it, from an empty image that has these segments: to open the file with Pillow as
    well takes several times as long.
    """
    image = Image.Image()
    for segment in metadata:
        if segment.startswith(_EXIF):
            image.info["exif"] = image.info.get("exif", _EXIF) + segment[len(_EXIF) :]
        elif segment.startswith(_XMP):
            image.info["xmp"] = segment[len(_XMP) :]
    with QUIET:
        return orientation_of(image)


def scale_for(side: int, wanted: int | None) -> int:
    """How much smaller to decode so that a side keeps at least as many pixels as wanted."""
    if wanted is not None:
        for scale in _SCALES:
            if side // scale >= wanted > 0:
                return scale
    return 1


def decode_frame(
    data: bytes,
    frame: Frame,
    channels: int,
    *,
    scale: int = 1,
    bottom: int | None = None,
    smooth: bool = True,
) -> Pixels:
    """Decode a JPEG as it is stored: (ceil(H / scale), ceil(W / scale), channels) uint8.

    Args:
        data: the file.
        frame: its header.
        channels: 1, 3 or 4.
        scale: 1, 2, 4 or 8, by which each side shrinks.
        bottom: the row of the full image where decoding may stop: below, pixels may be missing.
        smooth: interpolate colours that are stored at half the resolution, as Pillow does.
    """
    size = f"{frame.width} x {frame.height} pixels"
    IN_USE.decoding(_bytes_to_decode(frame, scale), f"{size} of JPEG")
    height = frame.height
    if bottom is not None:
        data, height = _shortened(data, frame, bottom)
    shape = (-(-height // scale), -(-frame.width // scale))
    colours = "GRAY" if frame.components == channels == 1 else "RGBA" if channels == 4 else "RGB"
    pixels = _quickly(data, frame, shape, scale, colours, smooth)
    if pixels is not None:
        same = pixels.shape[2] == channels
        return pixels if same else with_channels(Image.fromarray(pixels), channels)
    with QUIET:
        image = Image.open(io.BytesIO(data), formats=("JPEG",))
        image.draft(None, (frame.width // scale, height // scale))
        try:
            return to_pixels(image, channels)
        except OSError:
            whole = (
                _recovered(image.mode, (frame.width, height), data) if _known(frame, data) else None
            )
            if whole is None:
                raise
            return with_channels(whole.reduce(scale) if scale > 1 else whole, channels)


def _recovered(mode: str, size: tuple[int, int], data: bytes) -> Image.Image | None:
    """A JPEG with errors that libjpeg passes over, of which Pillow says no more than "broken".

    libjpeg goes on at the next restart marker, for Pillow as for simplejpeg; but Pillow then takes
    the error for the end. Rows are decoded from the top, so all of them are there if the last one
    is, which does not depend on what was there before.

    Returns:
        None if the last row was not decoded.
    """
    last_rows = []
    for colour in ("black", "white"):
        image = Image.new(mode, size, colour)
        with contextlib.suppress(ValueError):
            image.frombytes(data, "jpeg", (mode, ""))
        last_rows.append(image.crop((0, size[1] - 1, *size)).tobytes())
    return image if last_rows[0] == last_rows[1] else None


def _shortened(data: bytes, frame: Frame, bottom: int) -> tuple[bytes, int]:
    """Say in the header that the image ends below a row, so that a decoder stops there.

    The rows above come out bit for bit as from the whole: where colours are interpolated, one band
    more is kept for their neighbours. Scans one after the other cannot be cut this way, and a file
    without an end is left to show that.

    Returns:
        The file with its new header, and the height that stands there.
    """
    bands = -(-bottom // frame.band) + (frame.band > 8)
    height = bands * frame.band
    if not frame.one_scan or height >= frame.height or not data.endswith(_END):
        return data, frame.height
    at = frame.position
    return b"".join((data[:at], height.to_bytes(2), memoryview(data)[at + 2 :])), height


def _quickly(
    data: bytes, frame: Frame, shape: tuple[int, int], scale: int, colours: str, smooth: bool
) -> Pixels | None:
    """Decode with simplejpeg, or None where Pillow must say what to make of the file.

    Both use libjpeg-turbo, and their pixels are the same. But simplejpeg would fill up a file that
    ends early, and knows no CMYK that is inverted; and where libjpeg gives up, it gives back what
    was in the memory before. So it reads only files without any fault. One that was shortened has
    the fault that more follows: then the last row tells whether it was decoded.
    """
    library = simplejpeg()
    if library is None or not _known(frame, data):
        return None
    height, width = shape
    given = np.empty((height, width, _COLOURS[colours]), np.uint8)
    never = (np.arange(given[-1].size) * 89 % 251).astype(np.uint8).reshape(given[-1].shape)
    given[-1] = never
    try:
        pixels: Pixels = library.decode_jpeg(
            data,
            colours,
            fastupsample=not smooth,
            min_height=height,
            min_width=width,
            min_factor=scale,
            strict=height == -(-frame.height // scale),
            buffer=given,
        )
    except Exception:  # whatever is odd about the file, it is read the same without simplejpeg
        return None
    if pixels.shape[:2] != shape or np.array_equal(pixels[-1], never):
        return None
    return pixels


def _known(frame: Frame, data: bytes) -> bool:
    """Whether a file is of the kind that simplejpeg decodes as Pillow does, and has its end."""
    return frame.components != 4 and data.endswith(_END)


@functools.cache
def simplejpeg() -> ModuleType | None:
    """The library, where the extra `fast` is installed."""
    try:
        return importlib.import_module("simplejpeg")
    except ImportError:
        return None
