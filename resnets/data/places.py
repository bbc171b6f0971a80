"""Pieces of large files in a folder, read without reading the rest: see `shards`."""

import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from resnets.addresses import is_remote
from resnets.data.digests import content_digest
from resnets.data.remote import Place, RemoteFolder
from resnets.errors import ContentError
from resnets.files.reading import open_input, read_input
from resnets.files.writing import write_atomically

_MOST_OPEN = 64  # files of a folder; more are closed, since systems allow few
_LARGEST = 1 << 44  # bytes of a file
AGAIN = "copy it again, or run `resnets shard` again"


class _DamagedFileError(OSError, ContentError):
    """A file of shards is missing, or holds other bytes than the index says.

    That says nothing of an image: as an outage, it ends a prediction.
    """


class Folder(Protocol):
    """Files in a folder of this machine or elsewhere; can be sent to worker processes."""

    @property
    def address(self) -> str:
        """The name of the folder, for users."""

    def names(self) -> list[str]:
        """The files that lie in it, sorted; none if it does not exist."""

    def size(self, name: str) -> int | None:
        """Bytes of a file; None if there is none."""

    def read(self, place: Place) -> bytes:
        """Some bytes of a file, compared with their digest.

        Raises:
            ContentError: the file is damaged, with the reason.
            OSError: it cannot be read.
        """

    def expect(self, places: Sequence[Place]) -> None:
        """These are read soon, in this order."""

    def read_file(self, name: str, limit: int) -> bytes:
        """A whole file of at most `limit` bytes. Raises OSError."""

    def write_bytes(self, name: str, content: bytes) -> None:
        """Write a file: completely or not at all."""

    def remove(self, name: str) -> None:
        """Delete a file, if it exists."""


class _OpenFile:
    """A file whose pieces several threads may read; it is closed when none has it any more."""

    def __init__(self, path: Path) -> None:
        self.file, self.lock = open_input(path, _LARGEST), threading.Lock()
        weakref.finalize(self, self.file.close)

    def read(self, offset: int, length: int) -> bytes:
        """Bytes of the file; fewer where it ends."""
        if hasattr(os, "pread"):
            content: bytes = os.pread(self.file.fileno(), length, offset)
            return content
        with self.lock:
            self.file.seek(offset)
            return self.file.read(length)


class LocalFolder:
    """A folder of this machine. Its files are opened on first use, in each process anew."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        self._open: OrderedDict[str, _OpenFile] = OrderedDict()

    def __reduce__(self) -> tuple[type["LocalFolder"], tuple[Path]]:
        return LocalFolder, (self.path,)

    @property
    def address(self) -> str:
        """The path."""
        return str(self.path)

    def names(self) -> list[str]:
        """The files that lie in it, sorted; none if it does not exist."""
        if not self.path.is_dir():
            return []
        return sorted(path.name for path in self.path.iterdir() if path.is_file())

    def size(self, name: str) -> int | None:
        """Bytes of a file; None if there is none."""
        file = self.path / name
        return file.stat().st_size if file.is_file() else None

    def read(self, place: Place) -> bytes:
        """Some bytes of a file.

        Raises:
            _DamagedFileError: it is missing, cannot be read, ends before, or has other bytes.
        """
        try:
            data = self._opened(place.file).read(place.offset, place.length)
        except OSError as error:
            reason = error.strerror or error
            raise _DamagedFileError(f"{place.file} cannot be read ({reason})") from None
        if len(data) != place.length:
            end = place.offset + place.length
            raise _DamagedFileError(
                f"{place.file} ends before byte {end:,}, it was cut off; {AGAIN}"
            )
        if place.digest is not None and content_digest(data) != place.digest:
            raise _DamagedFileError(f"{place.file} is damaged at byte {place.offset:,}; {AGAIN}")
        return data

    def _opened(self, name: str) -> _OpenFile:
        """An open file; those that were not used for longest are closed when nobody reads them."""
        with self._lock:
            file = self._open.pop(name, None)
            if file is None:
                file = _OpenFile(self.path / name)
            self._open[name] = file
            if len(self._open) > _MOST_OPEN:
                self._open.popitem(last=False)
            return file

    def expect(self, places: Sequence[Place]) -> None:
        """Nothing: the system reads ahead."""

    def read_file(self, name: str, limit: int) -> bytes:
        """A whole file of at most `limit` bytes. Raises OSError."""
        return read_input(self.path / name, limit)

    def write_bytes(self, name: str, content: bytes) -> None:
        """Write a file into the folder, which is created: completely or not at all."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path / name, content)

    def remove(self, name: str) -> None:
        """Delete a file, if it exists."""
        (self.path / name).unlink(missing_ok=True)


def folder_at(source: str | Path, cache_bytes: int = 0) -> Folder:
    """The folder of a path, or of an address such as s3://bucket/shards.

    Args:
        source: the path or address.
        cache_bytes: of the cache on the local disk for what is read from an address.
    """
    if isinstance(source, str) and is_remote(source):
        return RemoteFolder(source, cache_bytes)
    return LocalFolder(source)
