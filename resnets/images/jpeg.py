"""JPEG, decoded no further than needed: at reduced scale, only as far down, by simplejpeg."""

import functools
import importlib
import io
from types import ModuleType
from typing import NamedTuple

from PIL import Image

from resnets.errors import ContentError
from resnets.images.converting import orientation_of, to_pixels, with_channels
from resnets.images.opening import QUIET
from resnets.images.resizing import Pixels

SCALES = (8, 4, 2)  # what a decoder shrinks by at a gain
MAX_SCANS = 500  # each costs a pass over all the pixels; libjpeg-turbo's own fuzzing limit

START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
SEQUENTIAL = (0xC0, 0xC1)
PROGRESSIVE = 0xC2
APP1, START_OF_SCAN = 0xE1, 0xDA
END = b"\xff\xd9"


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
    """

    height: int
    width: int
    components: int
    kind: int
    position: int
    band: int
    one_scan: bool = False
    orientation: int = 1


def read_frame(data: bytes) -> Frame | None:
    """The header of a JPEG, or None where only libjpeg can tell.

    Raises:
        ContentError: so many scans that decoding would not end in good time.
    """
    frame, turned, position = None, False, 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        kind = data[position + 1]
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4])
        segment = data[position + 4 : end]
        if kind == APP1:
            turned |= mentions_orientation(segment)
        elif kind in START_OF_FRAME:
            refuse_many_scans(data, kind)
            frame = frame_of(kind, segment, position)
        elif kind == START_OF_SCAN:
            return finished(data, frame, segment, turned)
        position = end
    return None


def frame_of(kind: int, segment: bytes, position: int) -> Frame | None:
    """The frame header, or None if it is of a kind that few decoders know."""
    if len(segment) < 9 or segment[0] != 8 or len(segment) != 6 + 3 * segment[5]:
        return None
    if kind not in (*SEQUENTIAL, PROGRESSIVE) or segment[5] not in (1, 3, 4):
        return None
    height, width = int.from_bytes(segment[1:3]), int.from_bytes(segment[3:5])
    band = 8 * max(sampling & 15 for sampling in segment[7::3])
    if 0 in (height, width, band):
        return None
    return Frame(height, width, segment[5], kind, position + 5, band)


def refuse_many_scans(data: bytes, kind: int) -> None:
    """Raise a ContentError if a progressive JPEG would be decoded again and again."""
    progressive = kind & 3 == PROGRESSIVE & 3  # with arithmetic coding or without
    if progressive and (scans := data.count(b"\xff\xda")) > MAX_SCANS:
        raise ContentError(f"{scans} scans; at most {MAX_SCANS} are decoded")


def finished(data: bytes, frame: Frame | None, scan: bytes, turned: bool) -> Frame | None:
    """The frame with what the scan header and the metadata add."""
    if frame is None or not scan:
        return None
    orientation = 1
    if turned:
        with QUIET:
            orientation = orientation_of(Image.open(io.BytesIO(data), formats=("JPEG",)))
    together = frame.kind in SEQUENTIAL and scan[0] == frame.components
    return frame._replace(one_scan=together, orientation=orientation)


def mentions_orientation(segment: bytes) -> bool:
    """Whether EXIF or XMP in this segment may hold an orientation (else asking is a waste)."""
    return b"\x01\x12" in segment or b"\x12\x01" in segment or b"tiff:Orientation" in segment


def scale_for(side: int, wanted: int | None) -> int:
    """How much smaller to decode so that a side keeps at least as many pixels as wanted."""
    return next((scale for scale in SCALES if wanted and side // scale >= wanted), 1)


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
    if bottom is not None:
        data, frame = shortened(data, frame, bottom)
    shape = (-(-frame.height // scale), -(-frame.width // scale))
    colours = "GRAY" if frame.components == channels == 1 else "RGBA" if channels == 4 else "RGB"
    pixels = quickly(data, frame, shape, scale, colours, smooth)
    if pixels is not None:
        same = pixels.shape[2] == channels
        return pixels if same else with_channels(Image.fromarray(pixels), channels)
    with QUIET:
        image = Image.open(io.BytesIO(data), formats=("JPEG",))
        image.draft(None, (frame.width // scale, frame.height // scale))
        return to_pixels(image, channels)


def shortened(data: bytes, frame: Frame, bottom: int) -> tuple[bytes, Frame]:
    """Say in the header that the image ends below a row, so that a decoder stops there.

    The rows above come out bit for bit as from the whole: where colours are interpolated, one band
    more is kept for their neighbours. Scans one after the other cannot be cut this way, and a file
    without an end is left to show that.
    """
    bands = -(-bottom // frame.band) + (frame.band > 8)
    height = bands * frame.band
    if not frame.one_scan or height >= frame.height or not data.endswith(END):
        return data, frame
    at = frame.position
    cut = b"".join((data[:at], height.to_bytes(2), memoryview(data)[at + 2 :]))
    return cut, frame._replace(height=height)


def quickly(
    data: bytes, frame: Frame, shape: tuple[int, int], scale: int, colours: str, smooth: bool
) -> Pixels | None:
    """Decode with simplejpeg, or None where Pillow must say what to make of the file.

    Both use libjpeg-turbo, and their pixels are the same. But simplejpeg would fill up a file that
    ends early, and knows no CMYK that is inverted.
    """
    library = simplejpeg()
    if library is None or frame.components == 4 or not data.endswith(END):
        return None
    height, width = shape
    try:
        pixels: Pixels = library.decode_jpeg(
            data,
            colours,
            fastupsample=not smooth,
            min_height=height,
            min_width=width,
            min_factor=scale,
            strict=False,
        )
    except Exception:  # Pillow finds out whether the file or the library is at fault
        return None
    return pixels if pixels.shape[:2] == shape else None


@functools.cache
def simplejpeg() -> ModuleType | None:
    """The library, where the extra `fast` is installed."""
    try:
        return importlib.import_module("simplejpeg")
    except ImportError:
        return None
