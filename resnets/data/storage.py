"""Where the images of a source lie: in files, in Arrow columns or as an array of pixels.

A storage is a sequence of images that reads one at a time, knows a name for each by which a person
finds it, and can be sent to a worker process.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from resnets.errors import ContentError

Pixels = NDArray[np.uint8]

EDGE = 32 * 1024  # bytes at either end of a large image that its digest covers


class Storage(Protocol):
    """Images by number: encoded bytes, or pixels (H, W, C) uint8."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> bytes | Pixels:
        """The image as it is stored. Raises ContentError with the reason, without the name."""

    def name(self, index: int) -> str:
        """What a person finds the image by."""

    def digest(self, index: int) -> bytes:
        """32 bytes that stand for the content: see `digest`."""


def digest(size: int, head: bytes, tail: bytes) -> bytes:
    """SHA-256 of an encoded image: of all of it up to 64 KiB, else of its size and both ends.

    The ends suffice to tell two compressed files apart, and spare reading a large set twice.
    """
    return hashlib.sha256(b"%d\n" % size + head + tail).digest()


def digest_bytes(data: bytes) -> bytes:
    """`digest` of bytes in memory.

    >>> digest_bytes(b"abc") == digest(3, b"abc", b"")
    True
    """
    if len(data) <= 2 * EDGE:
        return digest(len(data), data, b"")
    return digest(len(data), data[:EDGE], data[-EDGE:])


@dataclass(frozen=True)
class PixelStorage:
    """Images of one size that were never encoded. pixels (N, H, W, C) uint8"""

    pixels: Pixels
    origin: str  # such as "digits"; an image is called origin[index]
    names: Sequence[str] | None = None  # what the source itself calls them

    def __len__(self) -> int:
        return len(self.pixels)

    def read(self, index: int) -> Pixels:
        return self.pixels[index]

    def name(self, index: int) -> str:
        own = f" ({self.names[index]})" if self.names else ""
        return f"{self.origin}[{index}]{own}"

    def digest(self, index: int) -> bytes:
        pixels = self.pixels[index]
        return hashlib.sha256(b"%d %d %d\n" % pixels.shape + pixels.tobytes()).digest()


@dataclass(frozen=True)
class FileStorage:
    """Image files below a folder."""

    root: Path
    paths: Sequence[str]  # relative to root, with forward slashes

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, index: int) -> bytes:
        try:
            return (self.root / self.paths[index]).read_bytes()
        except OSError as error:
            raise ContentError(f"cannot be read ({error.strerror or error})") from None

    def name(self, index: int) -> str:
        return self.paths[index]

    def digest(self, index: int) -> bytes:
        try:
            with (self.root / self.paths[index]).open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                if size <= 2 * EDGE:
                    return digest(size, file.read(), b"")
                head = file.read(EDGE)
                file.seek(-EDGE, os.SEEK_END)
                return digest(size, head, file.read())
        except OSError as error:
            raise ContentError(f"cannot be read ({error.strerror or error})") from None


class ArrowStorage:
    """Encoded images in a column of Arrow data, in memory or mapped from a file."""

    def __init__(self, images: Any, row_name: Callable[[int], str]) -> None:
        """Take a column.

        Args:
            images: a pyarrow.ChunkedArray of binary.
            row_name: the name of each row; it must be picklable.
        """
        self.chunks = [chunk for chunk in images.chunks if len(chunk)]
        self.starts = np.cumsum([0, *map(len, self.chunks)])
        self.row_name = row_name

    def __len__(self) -> int:
        return int(self.starts[-1])

    def read(self, index: int) -> bytes:
        chunk = int(np.searchsorted(self.starts, index, side="right")) - 1
        data = self.chunks[chunk][index - int(self.starts[chunk])].as_py()
        if data is None:
            raise ContentError("holds no image bytes")
        return bytes(data)

    def name(self, index: int) -> str:
        return self.row_name(index)

    def digest(self, index: int) -> bytes:
        return digest_bytes(self.read(index))


def in_threads(function: Callable[[range], Any], count: int, size: int = 256) -> Iterator[Any]:
    """Call a function with consecutive ranges of ``size`` indices below ``count``, in threads.

    Yields:
        The results, in order. An exception is raised when its turn comes.
    """
    ranges = [range(start, min(start + size, count)) for start in range(0, count, size)]
    with ThreadPoolExecutor(min(8, 2 * (os.cpu_count() or 1))) as pool:
        yield from pool.map(function, ranges)
