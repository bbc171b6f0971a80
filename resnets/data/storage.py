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
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol, TypeAlias, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from resnets.data.digests import EDGE, FileDigests, ImageDigests, digests_of_bytes, digests_of_file
from resnets.data.sources.names import printable
from resnets.errors import ContentError
from resnets.files.reading import open_input, regular
from resnets.images.memory_budget import IN_USE
from resnets.images.opening import MAX_BYTES
from resnets.machine import reading_threads

Pixels = NDArray[np.uint8]

_T = TypeVar("_T")

_LARGEST = 1 << 44  # bytes of a mapped file
_MANY = 1000  # files from which on the digests of small ones are cached, too


class Storage(Protocol):
    """Images by index: encoded bytes, or pixels (H, W, C) uint8."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> bytes | Pixels:
        """The image as it is stored. Raises ContentError with the reason, without the name."""

    def name(self, index: int) -> str:
        """The name by which a user finds the image."""

    def digests(self, index: int) -> ImageDigests:
        """The image's digests, without decoding it. Raises ContentError as `read` does."""


class Readable(Protocol):
    """Images that are read by index, of which nothing else need be known."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> bytes | Pixels:
        """The image as it is stored."""


def reads_ahead(storage: Readable) -> bool:
    """Whether a storage fetches images before they are read, if it is told which."""
    return bool(getattr(storage, "reads_ahead", False))


def expect(storage: Readable, indices: Iterable[int]) -> None:
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

    def digests(self, index: int) -> ImageDigests:
        """Reads the whole file."""
        with self.open_image(index) as file:
            return digests_of_file(file, os.fstat(file.fileno()).st_size)

    def status(self, index: int) -> os.stat_result:
        """The size and times of the file. Raises ContentError."""
        with _file_errors():
            return (self.root / self.paths[index]).stat()

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


class DigestsOf:
    """Digests of images of a storage; those of large files, and of many files, are cached."""

    def __init__(self, storage: Storage, indices: NDArray[np.int64]) -> None:
        """Open the cache, if there is one for the storage.

        Args:
            storage: where the images lie.
            indices: (N,) which of them are asked for, in the order of their numbers here.
        """
        self.storage, self.indices = storage, indices
        self.cache = FileDigests(storage.root) if isinstance(storage, FileStorage) else None
        self.least = 2 * EDGE if len(storage) < _MANY else 0  # bytes; smaller files are read

    def __call__(self, numbers: Sequence[int]) -> list[ImageDigests | ContentError]:
        """The digests of some images; in place of those of an unreadable one, the error."""
        indices = self.indices[numbers].tolist()
        if isinstance(self.storage, FileStorage) and self.cache is not None:
            return self._of_files(self.storage, self.cache, indices)
        return [_try(self.storage.digests, index) for index in indices]

    def save(self) -> None:
        """Write the cache."""
        if self.cache is not None:
            self.cache.save()

    @property
    def changed(self) -> list[str]:
        """The names of files that have other content than when they were last read."""
        return [] if self.cache is None else sorted(map(printable, self.cache.changed))

    def _of_files(
        self, storage: FileStorage, cache: FileDigests, indices: Sequence[int]
    ) -> list[ImageDigests | ContentError]:
        """The digests of files from the cache, and of those that it does not know by reading."""
        statuses = [_try(storage.status, index) for index in indices]
        cached = {
            index: (storage.paths[index], status)
            for index, status in zip(indices, statuses, strict=True)
            if not isinstance(status, ContentError) and status.st_size > self.least
        }
        known = dict(zip(cached, cache.get(*_columns(cached.values())), strict=True))
        read = {
            index: status if isinstance(status, ContentError) else _try(storage.digests, index)
            for index, status in zip(indices, statuses, strict=True)
            if known.get(index) is None
        }
        new = [
            (*cached[index], own)
            for index, own in read.items()
            if index in cached and not isinstance(own, ContentError)
        ]
        cache.put(*_columns(new, 3))
        return [known.get(index) or read[index] for index in indices]


def _columns(rows: Iterable[tuple[Any, ...]], count: int = 2) -> tuple[list[Any], ...]:
    """The columns of rows of `count` values."""
    rows = list(rows)
    return tuple([row[column] for row in rows] for column in range(count))


def _try(function: Callable[[int], _T], index: int) -> _T | ContentError:
    """What a function returns, or the ContentError that it raises."""
    try:
        return function(index)
    except ContentError as error:
        return error


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

    def parted(
        self, rows: NDArray[np.int64]
    ) -> Iterator[tuple[Storage, NDArray[np.bool_], NDArray[np.int64]]]:
        """Each storage, which of the rows (M,) are its own, and what it calls these."""
        starts = itertools.accumulate(map(len, self.parts), initial=0)
        for part, start in zip(self.parts, starts, strict=False):
            own = (rows >= start) & (rows < start + len(part))
            yield part, own, rows[own] - start

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


def in_threads(
    function: Callable[[range], Any],
    count: int,
    size: int = 16,
    begin: Callable[[range], object] = lambda _: None,
) -> Iterator[Any]:
    """Call a function with consecutive ranges of ``size`` indices below ``count``, in threads.

    What stops the caller, such as Ctrl-C, waits for the ranges that are being worked on. A photo
    may take tenths of a second, so these are small; a thread takes several at once.

    Args:
        function: of a range.
        count: of all indices.
        size: of a range.
        begin: called before with several ranges that a thread takes at once, as one.

    Yields:
        The results, in order. An exception is raised in place of its result.
    """
    stopped = threading.Event()

    def work(part: range) -> list[Any]:
        begin(part)
        pieces = (part[start : start + size] for start in range(0, len(part), size))
        return [function(piece) for piece in pieces if not stopped.is_set()]

    several = size * max(1, _TOGETHER // size)
    parts = [range(start, min(start + several, count)) for start in range(0, count, several)]
    with ThreadPoolExecutor(reading_threads()) as pool:
        try:
            for results in pool.map(work, parts):
                yield from results
        finally:
            stopped.set()


_TOGETHER = 256  # indices that a thread takes at once


Fill: TypeAlias = Callable[[NDArray[np.uint8], range], None]  # fills some rows of an array


def filled(
    shape: tuple[int, ...],
    fill: Fill,
    begin: Callable[[range], object] = lambda _: None,
    into: NDArray[np.uint8] | None = None,
    rows: range | None = None,
) -> NDArray[np.uint8]:
    """An array (N, ...) of uint8 whose rows are filled in threads.

    Args:
        shape: of the array.
        fill: fills some rows of it.
        begin: called before with rows that will be filled soon.
        into: the array; a new one by default.
        rows: which are to be filled; all by default.
    """
    array = np.empty(shape, np.uint8) if into is None else into
    wanted = range(shape[0]) if rows is None else rows

    def fill_part(part: range) -> None:
        fill(array, wanted[part.start : part.stop])

    def begin_part(part: range) -> None:
        begin(wanted[part.start : part.stop])

    for _ in in_threads(fill_part, len(wanted), begin=begin_part):
        pass
    return array


Filled: TypeAlias = Callable[  # such as `filled`
    [tuple[int, ...], Fill, Callable[[range], object]], NDArray[np.uint8]
]
