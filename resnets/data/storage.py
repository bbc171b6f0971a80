"""Where the images of a source lie: in files, in Arrow columns or as an array of pixels.

A storage is a sequence of images that reads one at a time, knows a name for each by which a person
finds it, and can be sent to a worker process.
"""

import bisect
import contextlib
import hashlib
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from resnets.data.names import printable
from resnets.errors import ContentError
from resnets.files import open_input, regular
from resnets.images.opening import ALLOWED, MAX_BYTES, format_of

Pixels = NDArray[np.uint8]

LARGEST = 1 << 44  # bytes of a mapped file
EDGE = 32 * 1024  # bytes at either end of a large image that its digest covers


class Glance(NamedTuple):
    """What is seen of an image without decoding it."""

    digest: bytes  # 32 bytes that stand for its content
    familiar: bool  # whether it begins as images do


class Storage(Protocol):
    """Images by number: encoded bytes, or pixels (H, W, C) uint8."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> bytes | Pixels:
        """The image as it is stored. Raises ContentError with the reason, without the name."""

    def name(self, index: int) -> str:
        """What a person finds the image by."""

    def glance(self, index: int) -> Glance:
        """What is seen without decoding. Raises ContentError as `read` does."""


def glance(size: int, head: bytes, tail: bytes) -> Glance:
    """Look at an encoded image of so many bytes by its first and last ones.

    The digest is the SHA-256 of all of it up to 64 KiB, else of its size and 32 KiB at either end:
    enough to tell compressed files apart, and a large set is not read twice.
    """
    digest = hashlib.sha256(b"%d\n" % size + head + tail).digest()
    return Glance(digest, format_of(head) in ALLOWED)


def glance_bytes(data: bytes) -> Glance:
    """Look at an encoded image in memory.

    >>> glance_bytes(b"GIF89a...").digest == glance(9, b"GIF89a...", b"").digest
    True
    """
    if len(data) <= 2 * EDGE:
        return glance(len(data), data, b"")
    return glance(len(data), data[:EDGE], data[-EDGE:])


@dataclass(frozen=True)
class RowNames:
    """Names the rows of several files: file[row]."""

    files: tuple[str, ...]
    starts: tuple[int, ...]  # the first row of each file, counted through all files

    @classmethod
    def of(cls, files: Sequence[str], rows: Sequence[int]) -> "RowNames":
        """Name files of so many rows.

        >>> RowNames.of(["a", "b"], [2, 5])(3)
        'b[1]'
        """
        return cls(tuple(files), tuple(itertools.accumulate(rows, initial=0))[:-1])

    def __call__(self, index: int) -> str:
        """Name a row."""
        file = bisect.bisect_right(self.starts, index) - 1
        return f"{self.files[file]}[{index - self.starts[file]}]"


@dataclass(frozen=True)
class PixelStorage:
    """Images of one size that were never encoded: pixels (N, H, W, C) uint8."""

    pixels: Pixels
    name: Callable[[int], str]

    def __len__(self) -> int:
        return len(self.pixels)

    def read(self, index: int) -> Pixels:
        """Pixels (H, W, C)."""
        pixels: Pixels = self.pixels[index]
        return pixels

    def glance(self, index: int) -> Glance:
        """The digest is of the shape and the pixels."""
        pixels = self.pixels[index]
        data = b"%d %d %d\n" % pixels.shape + pixels.tobytes()
        return Glance(hashlib.sha256(data).digest(), True)


@dataclass(frozen=True)
class FileStorage:
    """Image files below a folder."""

    root: Path
    paths: Sequence[str]  # relative to root, or absolute

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, index: int) -> bytes:
        """The whole file."""
        with self.opened(index) as file:
            return file.read()

    def name(self, index: int) -> str:
        """The path, relative to the root."""
        return printable(self.paths[index])

    def glance(self, index: int) -> Glance:
        """Reads no more than the digest covers."""
        with self.opened(index) as file:
            size = os.fstat(file.fileno()).st_size
            if size <= 2 * EDGE:
                return glance(size, file.read(), b"")
            head = file.read(EDGE)
            file.seek(-EDGE, os.SEEK_END)
            return glance(size, head, file.read())

    @contextlib.contextmanager
    def opened(self, index: int) -> Iterator[IO[bytes]]:
        """An open file, whose errors are ContentErrors."""
        try:
            with open_input(self.root / self.paths[index], MAX_BYTES) as file:
                yield file
        except OSError as error:
            raise ContentError(f"cannot be read ({error.strerror or error})") from None


class ArrowStorage:
    """Encoded images in a column of Arrow data in memory."""

    def __init__(self, images: Any, name: Callable[[int], str]) -> None:
        """Take a column.

        Args:
            images: a pyarrow.ChunkedArray of binary.
            name: the name of each row; it must be picklable.
        """
        self.chunks = [chunk for chunk in images.chunks if len(chunk)]
        self.starts = list(itertools.accumulate(map(len, self.chunks), initial=0))
        self.name = name

    def __len__(self) -> int:
        return self.starts[-1]

    def read(self, index: int) -> bytes:
        """The bytes of a row."""
        chunk = bisect.bisect_right(self.starts, index) - 1
        data: bytes | None = self.chunks[chunk][index - self.starts[chunk]].as_py()
        if data is None:
            raise ContentError("holds no image bytes")
        return data

    def glance(self, index: int) -> Glance:
        """Looks at the bytes of a row."""
        return glance_bytes(self.read(index))


class MappedStorage(ArrowStorage):
    """Encoded images in an Arrow file; another process opens it anew."""

    def __init__(self, file: Path, name: Callable[[int], str]) -> None:
        """Map a file of one column."""
        super().__init__(
            pa.ipc.open_file(pa.memory_map(str(regular(file, LARGEST)))).read_all().column(0), name
        )
        self.file = file

    def __reduce__(self) -> tuple[type["MappedStorage"], tuple[Path, Callable[[int], str]]]:
        return MappedStorage, (self.file, self.name)


def in_threads(function: Callable[[range], Any], count: int, size: int = 256) -> Iterator[Any]:
    """Call a function with consecutive ranges of ``size`` indices below ``count``, in threads.

    Yields:
        The results, in order. An exception is raised when its turn comes.
    """
    ranges = [range(start, min(start + size, count)) for start in range(0, count, size)]
    with ThreadPoolExecutor(min(8, 2 * (os.cpu_count() or 1))) as pool:
        yield from pool.map(function, ranges)
