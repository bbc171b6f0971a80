"""Opening of image files and bytes with Pillow; every error becomes a ContentError."""

import contextlib
import importlib.util
import io
import logging
import re
import threading
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageFile, TiffImagePlugin, UnidentifiedImageError

from resnets.errors import ContentError, OtherFormat, TooLarge, install_hint
from resnets.escaping import escaped
from resnets.files.reading import read_input
from resnets.images import memory_budget
from resnets.images.memory_budget import IN_USE

# some builds of Pillow have no AVIF; looked for without loading it
AVIF = ("AVIF",) if importlib.util.find_spec("PIL._avif") else ()
# HEIC by either package of the same authors: pillow_heif brings an encoder under the GPL as well
_HEIF = next((name for name in ("pi_heif", "pillow_heif") if importlib.util.find_spec(name)), None)
HEIC = ("HEIC",) if _HEIF else ()
ALLOWED = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", *AVIF, *HEIC)
# the records of libtiff and of libheif's decoders are why TIFF and HEIC are left out
UNTRUSTED = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "PPM")
HEIC_HINT = f"{install_hint('heic')} to read HEIC, or convert it to JPEG"
EMPTY = "0 bytes; not an image"  # the error of an empty file
MAX_PIXELS = 128_000_000  # 108-megapixel phones pass; as RGB in memory: 384 MB
MAX_BYTES = 1 << 29  # as large as its pixels may be, uncompressed
_TILE_WIDTH, _TILE_LENGTH, _ROWS_PER_STRIP = 322, 323, 278  # tags of TIFF

_SIGNATURES = (  # offset, bytes, format
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (8, b"WEBP", "WEBP"),
    (0, b"BM", "BMP"),
    (0, b"GIF87a", "GIF"),
    (0, b"GIF89a", "GIF"),
    *((0, mark, "TIFF") for mark in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"MM*\0", b"II\0*")),
    (4, b"ftypavif", "AVIF"),
    (4, b"ftypavis", "AVIF"),
    (4, b"ftyphei", "HEIC"),
    (4, b"ftyp", "MP4 or HEIF"),
    (4, b"JXL ", "JPEG XL"),
    (0, b"\xff\x0a", "JPEG XL"),
    (4, b"jP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"\0\0\1\0", "icon"),
    (0, b"qoif", "QOI"),
    (0, b"%PDF", "PDF"),
    (0, b"<svg", "SVG"),
    (0, b"<?xml", "XML"),
    (0, b"PK\3\4", "ZIP"),
    (0, b"\0\5\x16\7", "macOS resource"),
)

_PORTABLE = re.compile(rb"P[1-6]\s+[\d#]")  # PBM, PGM and PPM, which Pillow calls PPM

_OF_BYTES = re.compile(r"\bb(?=(['\"]).*\1)")  # in front of b'...', which only Python's users know

logging.getLogger("PIL").addHandler(logging.NullHandler())  # its messages are part of our errors


@contextlib.contextmanager
def reading(source: bytes | Path, formats: Sequence[str]) -> Iterator[bytes]:
    """A context with the bytes of an image, in which any exception becomes a ContentError.

    Decoders raise many exceptions on damaged files: OSError and ValueError, but also SyntaxError,
    IndexError, TypeError, struct.error and MemoryError.

    Raises:
        ContentError: the reason, in one line; it begins with the name if the source is a path.
    """
    name = f"{escaped(str(source))}: " if isinstance(source, Path) else ""
    format_name = "image"
    try:
        data = contents(source)
        format_name = _allowed_format(data, formats)
        yield data
    except ContentError as error:
        raise type(error)(f"{name}{error}") from None
    except UnidentifiedImageError:
        raise ContentError(f"{name}broken {format_name}: its header makes no sense") from None
    except Exception as error:
        reason = one_line(str(error)) or type(error).__name__
        raise ContentError(f"{name}broken {format_name}: {reason}") from error


def contents(source: bytes | Path) -> bytes:
    """The bytes of a file; pipes and devices are refused, since they might not end."""
    if not isinstance(source, Path):
        return source
    try:
        IN_USE.reading(source.stat().st_size)
        return read_input(source, MAX_BYTES)
    except OSError as error:
        raise ContentError(f"cannot be read: {error.strerror or error}") from None
    except ValueError as error:  # a NUL in the path
        raise ContentError(f"cannot be read: {error}") from None


def _allowed_format(data: bytes, formats: Sequence[str]) -> str:
    """The format of an image by its first bytes.

    Raises:
        OtherFormat: it is not one of `formats`.
        ContentError: it is empty.
    """
    if not data:
        raise ContentError(EMPTY)
    name = format_of(data)
    if name is not None and name in formats:
        return name
    is_of_files = set(formats) > set(UNTRUSTED)
    if name == "HEIC" and is_of_files and not HEIC:
        raise OtherFormat(f"HEIC data; {HEIC_HINT}")
    content = f"{name} data" if name else f"not an image (it starts with {_start(data)})"
    read = ", ".join(formats)
    if name in (*ALLOWED, "HEIC"):
        why = "which is read from files, but not over HTTP or as bytes"
        raise OtherFormat(f"{content}, {why}; send one of {read}")
    raise OtherFormat(f"{content}; what can be read is {read}")


def _start(data: bytes) -> str:
    r"""The first bytes of a file for people: as text where they are, else in hexadecimal digits.

    >>> _start(b"<!DOCTYPE html>"), _start(b"\x89")
    ('"<!DOCTYP"', 'the bytes 89')
    """
    first = data[:8]
    text = first.decode("ascii", errors="replace")
    return f'"{text}"' if text.isascii() and text.isprintable() else f"the bytes {first.hex(' ')}"


def format_of(data: bytes) -> str | None:
    """The format of a file by its first bytes; None if unknown."""
    for start, mark, name in _SIGNATURES:
        if data.startswith(mark, start):
            return name if name != "MP4 or HEIF" or b"heic" not in data[16:64] else "HEIC"
    return "PPM" if _PORTABLE.match(data) else None


def open_image(data: bytes, max_pixels: int) -> ImageFile.ImageFile:
    """Read the header of an image of an allowed format with Pillow.

    Raises:
        TooLarge: it has more than max_pixels. Damaged headers may raise any exception.
    """
    try:
        image = _opened(data)
    except Image.DecompressionBombError:  # far more even than Pillow opens
        raise TooLarge(
            f"far more than the {max_pixels:,} pixels that are read (a decompression bomb?)"
        ) from None
    refuse_bomb(image.width, image.height, max_pixels)
    size, kind = f"{image.width} x {image.height} pixels", f"{image.format} ({image.mode})"
    IN_USE.decoding(_bytes_to_decode(image), f"{size} of {kind}")
    return image


def _opened(data: bytes) -> ImageFile.ImageFile:
    """An image by Pillow, or by libheif behind Pillow's interface."""
    name = format_of(data) or ""
    if name != "HEIC":
        return Image.open(io.BytesIO(data), formats=(name,))
    heif: Any = importlib.import_module(str(_HEIF))
    image: ImageFile.ImageFile = heif.HeifImageFile(io.BytesIO(data))
    return image


def _bytes_to_decode(image: ImageFile.ImageFile) -> int:
    """Peak memory of decoding an opened image, including the resulting array."""
    pixels = image.width * image.height
    buffer = _tiff_buffer(image) if isinstance(image, TiffImagePlugin.TiffImageFile) else 0
    if image.mode in ("I", "F"):
        return buffer + memory_budget.DEEP * pixels
    by_format = {
        "WEBP": memory_budget.WEBP,
        "AVIF": memory_budget.WEBP,
        "HEIF": memory_budget.HEIC,
        "JPEG": memory_budget.UNKNOWN_JPEG,
        "MPO": memory_budget.UNKNOWN_JPEG,
    }
    return buffer + by_format.get(str(image.format), memory_budget.USUAL) * pixels


def _tiff_buffer(image: TiffImagePlugin.TiffImageFile) -> int:
    """Bytes of a tile or strip of a TIFF, which libtiff decodes in one piece."""
    tags = image.tag_v2
    wide, tall = tags.get(_TILE_WIDTH), tags.get(_TILE_LENGTH)
    if wide is None or tall is None:
        wide = image.width
        tall = min(tags.get(_ROWS_PER_STRIP, image.height), image.height)
    bits = sum(map(int, tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,))))
    return int(wide) * int(tall) * -(-bits // 8)


def refuse_bomb(width: int, height: int, max_pixels: int) -> None:
    """Raise `TooLarge` if an image has too many pixels, before any is decoded."""
    if width * height > max_pixels:
        raise TooLarge(
            f"{width} x {height} pixels; at most {max_pixels:,} are read (a decompression bomb?)"
        )


class _IgnoreWarnings:
    """A context that ignores Pillow's warnings, as long as any thread is in it.

    `warnings.catch_warnings` is not thread-safe: it replaces the filters of the whole process, so
    that two threads can undo each other's change. Here the first thread to enter adds one filter,
    only for warnings from Pillow's modules, and the last to leave removes it.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.inside = 0
        self.filter: object = None

    def __enter__(self) -> None:
        with self.lock:
            self.inside += 1
            if self.inside == 1:
                warnings.filterwarnings("ignore", module=r"PIL\.")
                self.filter = warnings.filters[0]

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.inside -= 1
            if self.inside == 0:
                with contextlib.suppress(ValueError):  # removed if others restored their filters
                    warnings.filters.remove(self.filter)  # type: ignore[attr-defined]


IGNORE_PILLOW_WARNINGS = _IgnoreWarnings()


def one_line(text: str) -> str:
    """Text as one printable line of at most 200 characters, for terminals and logs.

    >>> one_line("invalid literal: b'2a'")  # as Pillow shows bytes
    "invalid literal: '2a'"
    """
    printable = "".join(c if c.isprintable() else " " for c in _OF_BYTES.sub("", text))
    return " ".join(printable.split())[:200]
