"""Fast decoding of JPEG: at reduced scale, without the rows below a crop, with simplejpeg."""

import contextlib
import functools
import importlib
import io
from types import ModuleType
from typing import NamedTuple

import numpy as np
from PIL import Image

from resnets.errors import ContentError
from resnets.images import memory_budget
from resnets.images.converting import orientation_of, to_pixels, with_channels
from resnets.images.memory_budget import IN_USE
from resnets.images.opening import IGNORE_PILLOW_WARNINGS
from resnets.images.resizing import Pixels

_SCALES = (8, 4, 2)  # by which a decoder can shrink an image in less time than decoding it all
_MAX_SCANS = 500  # each costs a pass over all pixels; the limit of libjpeg-turbo's fuzzing

_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SEQUENTIAL = (0xC0, 0xC1)
_PROGRESSIVE = 0xC2
_APP1, _START_OF_SCAN = 0xE1, 0xDA
_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"  # how an APP1 segment begins
_END = b"\xff\xd9"
_COLOURS = {"GRAY": 1, "RGB": 3, "RGBA": 4}  # values a pixel, by simplejpeg's names


class Frame(NamedTuple):
    """Data from the header of a JPEG.

    Attributes:
        height: as stored, in pixels.
        width: as stored, in pixels.
        components: 1 (grey), 3 or 4.
        kind: the marker that starts the frame.
        position: offset of the height in the file.
        band: height of a row of blocks, in pixels.
        one_scan: whether all components are coded together, from top to bottom.
        orientation: 1 to 8.
        values: stored values per pixel, over all components; less than the number of components
            if colours have a lower resolution.
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
    """The header of a JPEG, or None if only libjpeg can read it.

    Raises:
        ContentError: it has too many scans: decoding would take too long.
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
    """The frame described by its header and by that of its first scan.

    Args:
        header: the marker that starts the frame, its segment, and the offset of the height.
        scan: the header of the first scan.
        metadata: the APP1 segments.

    Returns:
        None if it is of a rare kind, which few decoders support.
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
    """The stored values per pixel, from the components' sampling factors.

    >>> _values_per_pixel(bytes([0x22, 0x11, 0x11]))  # two colours at half the resolution
    1.5
    """
    pairs = [(max(1, sampling >> 4), max(1, sampling & 15)) for sampling in samplings]
    widest, tallest = max(wide for wide, _ in pairs), max(tall for _, tall in pairs)
    return sum(wide * tall / (widest * tallest) for wide, tall in pairs)


def _bytes_to_decode(frame: Frame, scale: int) -> int:
    """Peak memory of decoding, including the resulting array and a copy for resizing.

    If the components are stored one after the other, libjpeg keeps all their 16-bit coefficients.
    """
    coefficients = 0.0 if frame.one_scan else 2 * frame.values
    decoded = memory_budget.USUAL / scale**2
    return int(max(decoded, decoded / 2 + coefficients) * frame.height * frame.width)


def _refuse_many_scans(data: bytes, kind: int) -> None:
    """Raise a ContentError if a progressive JPEG has too many scans."""
    progressive = kind & 3 == _PROGRESSIVE & 3  # with arithmetic coding or without
    if progressive and (scans := data.count(b"\xff\xda")) > _MAX_SCANS:
        raise ContentError(f"{scans} scans; at most {_MAX_SCANS} are decoded")


def _orientation_in(metadata: list[bytes]) -> int:
    """The orientation in the APP1 segments of a JPEG: 1 to 8, and 1 if there is none.

    Pillow reads it from an empty image with these segments: opening the file with Pillow would
    take several times as long.
    """
    image = Image.Image()
    for segment in metadata:
        if segment.startswith(_EXIF):
            image.info["exif"] = image.info.get("exif", _EXIF) + segment[len(_EXIF) :]
        elif segment.startswith(_XMP):
            image.info["xmp"] = segment[len(_XMP) :]
    with IGNORE_PILLOW_WARNINGS:
        return orientation_of(image)


def scale_for(side: int, wanted: int | None) -> int:
    """The largest scale by which a side can shrink and keep at least ``wanted`` pixels."""
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
    """Decode a JPEG in its stored orientation: (ceil(H / scale), ceil(W / scale), channels) uint8.

    Args:
        data: the file.
        frame: its header.
        channels: 1, 3 or 4.
        scale: 1, 2, 4 or 8, by which each side shrinks.
        bottom: the row of the full image below which decoding may stop and pixels may be missing.
        smooth: interpolate colours stored at half the resolution, as Pillow does.
    """
    size = f"{frame.width} x {frame.height} pixels"
    IN_USE.decoding(_bytes_to_decode(frame, scale), f"{size} of JPEG")
    height = frame.height
    if bottom is not None:
        data, height = _cut_below(data, frame, bottom)
    shape = (-(-height // scale), -(-frame.width // scale))
    colours = "GRAY" if frame.components == channels == 1 else "RGBA" if channels == 4 else "RGB"
    pixels = _decode_with_simplejpeg(data, frame, shape, scale, colours, smooth)
    if pixels is not None:
        same = pixels.shape[2] == channels
        return pixels if same else with_channels(Image.fromarray(pixels), channels)
    with IGNORE_PILLOW_WARNINGS:
        image = Image.open(io.BytesIO(data), formats=("JPEG",))
        image.draft(None, (frame.width // scale, height // scale))
        try:
            return to_pixels(image, channels)
        except OSError:
            whole = (
                _decode_with_errors(image.mode, (frame.width, height), data)
                if _is_supported(frame, data)
                else None
            )
            if whole is None:
                raise
            return with_channels(whole.reduce(scale) if scale > 1 else whole, channels)


def _decode_with_errors(mode: str, size: tuple[int, int], data: bytes) -> Image.Image | None:
    """Decode a JPEG with errors that libjpeg tolerates, but Pillow reports as broken.

    libjpeg continues at the next restart marker, in Pillow as in simplejpeg; but Pillow then treats
    the error as the end. Rows are decoded from the top, so all are decoded if the last one is. That
    is so if the last row does not depend on the colour with which the image was filled before.

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


def _cut_below(data: bytes, frame: Frame, bottom: int) -> tuple[bytes, int]:
    """Reduce the height in the header, so that a decoder stops below a row.

    The rows above are the same, bit for bit, as from the whole file: if colours are interpolated,
    one more band is kept for the neighbours. Files whose components have separate scans cannot be
    cut this way; truncated files are not cut either, so that decoding reports them.

    Returns:
        The file with its new header, and the new height.
    """
    bands = -(-bottom // frame.band) + (frame.band > 8)
    height = bands * frame.band
    if not frame.one_scan or height >= frame.height or not data.endswith(_END):
        return data, frame.height
    at = frame.position
    return b"".join((data[:at], height.to_bytes(2), memoryview(data)[at + 2 :])), height


def _decode_with_simplejpeg(
    data: bytes, frame: Frame, shape: tuple[int, int], scale: int, colours: str, smooth: bool
) -> Pixels | None:
    """Decode with simplejpeg; None if the file must be left to Pillow.

    Both use libjpeg-turbo, and their pixels are the same. But simplejpeg fills missing rows of a
    truncated file and does not support inverted CMYK; and if libjpeg fails, it returns
    uninitialised memory. So it reads only files without faults. A file shortened by `_cut_below`
    has the fault of excess data: then the last row shows whether it was decoded.
    """
    library = simplejpeg()
    if library is None or not _is_supported(frame, data):
        return None
    height, width = shape
    buffer = np.empty((height, width, _COLOURS[colours]), np.uint8)
    unlikely = (np.arange(buffer[-1].size) * 89 % 251).astype(np.uint8).reshape(buffer[-1].shape)
    buffer[-1] = unlikely
    try:
        pixels: Pixels = library.decode_jpeg(
            data,
            colours,
            fastupsample=not smooth,
            min_height=height,
            min_width=width,
            min_factor=scale,
            strict=height == -(-frame.height // scale),
            buffer=buffer,
        )
    except Exception:  # whatever is wrong with the file, Pillow reads it or reports it
        return None
    if pixels.shape[:2] != shape or np.array_equal(pixels[-1], unlikely):
        return None
    return pixels


def _is_supported(frame: Frame, data: bytes) -> bool:
    """Whether simplejpeg decodes a file as Pillow does: not four components, and not truncated."""
    return frame.components != 4 and data.endswith(_END)


@functools.cache
def simplejpeg() -> ModuleType | None:
    """The library, if the extra `fast` is installed."""
    try:
        return importlib.import_module("simplejpeg")
    except ImportError:
        return None
