"""Storages of images: files, Arrow columns or an array of pixels.

A storage is a sequence of images that are read one at a time. Each image has a name by which a
user finds it. A storage can be sent to a worker process.

A storage of files in a remote place has two more things: `reads_ahead` is True, and
`expect(indices)` begins to fetch images that will be read soon, in this order.
"""

import bisect
import contextlib
import hashlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from resnets.data.digests import EDGE, FileDigests, ImageDigests, digests_of_bytes, digests_of_file
from resnets.data.sources.names import printable
from resnets.errors import ContentError
from resnets.files import open_input, regular
from resnets.images.memory_budget import IN_USE
from resnets.images.opening import MAX_BYTES
from resnets.machine import reading_threads

Pixels = NDArray[np.uint8]

_LARGEST = 1 << 44  # bytes of a mapped file


class Storage(Protocol):
    """Images by index: encoded bytes, or pixels (H, W, C) uint8."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> bytes | Pixels:
        """The image as it is stored. Raises ContentError with the reason, without the name."""

    def name(self, index: int) -> str:
        """The name by which a user finds the image."""

    def digests(self, index: int) -> ImageDigests:
        """The image's digests, without decoding it. Raises ContentError as `read` does."""


def reads_ahead(storage: Storage) -> bool:
    """Whether a storage fetches images before they are read, if it is told which."""
    return bool(getattr(storage, "reads_ahead", False))


def expect(storage: Storage, indices: Iterable[int]) -> None:
    """Tell a storage that reads ahead which images will be read soon, in this order."""
    if reads_ahead(storage):
        storage.expect([int(index) for index in indices])  # type: ignore[attr-defined]


@dataclass(frozen=True)
class RowNames:
    """Names the rows of several files: file[row]."""

    files: tuple[str, ...]
    starts: tuple[int, ...]  # the first row of each file, counted through all files

    @classmethod
    def of(cls, files: Sequence[str], rows: Sequence[int]) -> "RowNames":
        """Names for files with these numbers of rows.

        >>> RowNames.of(["a", "b"], [2, 5])(3)
        'b[1]'
        """
        return cls(tuple(files), tuple(itertools.accumulate(rows, initial=0))[:-1])

    def __call__(self, index: int) -> str:
        """The name of a row."""
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

    def digests(self, index: int) -> ImageDigests:
        """The digest is of the shape and the pixels."""
        pixels = self.pixels[index]
        data = b"%d %d %d\n" % pixels.shape + pixels.tobytes()
        digest = hashlib.sha256(data).digest()
        return ImageDigests(digest, digest, familiar=True)


@dataclass(frozen=True)
class FileStorage:
    """Image files below a folder."""

    root: Path
    paths: Sequence[str]  # relative to root, or absolute

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, index: int) -> bytes:
        """The whole file."""
        with self.open_image(index) as file:
            IN_USE.reading(os.fstat(file.fileno()).st_size)
            return file.read()

    def name(self, index: int) -> str:
        """The path, relative to the root."""
        return printable(self.paths[index])

    def digests(self, index: int, cache: FileDigests | None = None) -> ImageDigests:
        """Read the whole file, unless it is large and its digest is in the cache."""
        path = self.paths[index]
        with _file_errors():
            status = (self.root / path).stat()
        large = status.st_size > 2 * EDGE
        digests = cache.get(path, status) if cache and large else None
        if digests is None:
            with self.open_image(index) as file:
                digests = digests_of_file(file, os.fstat(file.fileno()).st_size)
            if cache and large:
                cache.put(path, status, digests)
        return digests

    @contextlib.contextmanager
    def open_image(self, index: int) -> Iterator[IO[bytes]]:
        """An open file, whose errors are ContentErrors."""
        with _file_errors(), open_input(self.root / self.paths[index], MAX_BYTES) as file:
            yield file


@contextlib.contextmanager
def _file_errors() -> Iterator[None]:
    """Turn the system's errors about a file into a ContentError."""
    try:
        yield
    except OSError as error:
        raise ContentError(f"cannot be read ({error.strerror or error})") from None
    except ContentError:
        raise
    except ValueError as error:  # a name with a NUL, or with half a character
        raise ContentError(f"not a valid file name ({error})") from None


@contextlib.contextmanager
def cached_digests(storage: Storage) -> Iterator[Callable[[int], ImageDigests]]:
    """A function like `storage.digests` that caches the digests of large files."""
    if not isinstance(storage, FileStorage):
        yield storage.digests
        return
    cache = FileDigests(storage.root)
    yield lambda index: storage.digests(index, cache)
    cache.save()


class ArrowStorage:
    """Encoded images in a column of Arrow data in memory."""

    def __init__(self, images: Any, name: Callable[[int], str]) -> None:
        """Store a column.

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

    def digests(self, index: int) -> ImageDigests:
        """The digests of a row's bytes."""
        return digests_of_bytes(self.read(index))


class MappedStorage(ArrowStorage):
    """Encoded images in a memory-mapped Arrow file; another process maps it again."""

    def __init__(self, file: Path, name: Callable[[int], str]) -> None:
        """Map a file of one column."""
        super().__init__(
            pa.ipc.open_file(pa.memory_map(str(regular(file, _LARGEST)))).read_all().column(0), name
        )
        self.file = file

    def __reduce__(self) -> tuple[type["MappedStorage"], tuple[Path, Callable[[int], str]]]:
        return MappedStorage, (self.file, self.name)


@dataclass(frozen=True)
class JoinedStorage:
    """The images of several storages, one storage after the other."""

    parts: tuple[Storage, ...]

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def find(self, index: int) -> tuple[Storage, int]:
        """The storage that holds an image, and the image's index in it."""
        for part in self.parts:
            if index < len(part):
                return part, index
            index -= len(part)
        raise IndexError(index)

    def read(self, index: int) -> bytes | Pixels:
        """The image from the storage that holds it."""
        part, place = self.find(index)
        return part.read(place)

    def name(self, index: int) -> str:
        """The image's name in its storage."""
        part, place = self.find(index)
        return part.name(place)

    def digests(self, index: int) -> ImageDigests:
        """The image's digests from its storage."""
        part, place = self.find(index)
        return part.digests(place)

    @property
    def reads_ahead(self) -> bool:
        """Whether any of them does."""
        return any(map(reads_ahead, self.parts))

    def expect(self, indices: Sequence[int]) -> None:
        """Tell each part which of its images will be read soon."""
        places = [self.find(index) for index in indices]
        for part in self.parts:
            expect(part, [place for storage, place in places if storage is part])


def in_threads(function: Callable[[range], Any], count: int, size: int = 256) -> Iterator[Any]:
    """Call a function with consecutive ranges of ``size`` indices below ``count``, in threads.

    Yields:
        The results, in order. An exception is raised in place of its result.
    """
    ranges = [range(start, min(start + size, count)) for start in range(0, count, size)]
    with ThreadPoolExecutor(reading_threads()) as pool:
        yield from pool.map(function, ranges)
