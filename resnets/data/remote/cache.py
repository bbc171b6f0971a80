"""A cache of fetched bytes on the local disk: bounded, shared by processes, checked when read.

An entry is a file that is named by the digest of its content. It appears at once (by a rename) and
is checked when it is read, so neither a killed process nor a damaged disk can make it wrong, and
several processes may share the cache.

Entries lie in 256 folders by their name; these form groups, and each group has its share of the
limit. The bytes of a group are counted in a file that is locked while it changes; where the share
is exceeded, the group is listed, and the entries that were used longest ago are deleted.
"""

import contextlib
import functools
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from resnets.data.digests import content_digest
from resnets.data.remote.ranges import Place
from resnets.files.folders import writing_to_cache
from resnets.files.reading import read_input
from resnets.files.writing import open_updating, write_atomically

_FOLDERS = 256
_SHARE = 64 << 20  # bytes: a limit of less has fewer groups, so that large images have room
_LEFT = 7 / 8  # of a share, after it was exceeded


@dataclass(frozen=True)
class Cache:
    """Bytes of remote files below a folder.

    Attributes:
        folder: made on demand; if it cannot be written to, nothing is cached.
        limit: bytes of all entries together; 0 for no cache.
    """

    folder: Path
    limit: int

    @functools.cached_property
    def groups(self) -> int:
        """The number of groups, a power of two."""
        shares = min(_FOLDERS, max(1, self.limit // _SHARE))
        return 1 << (shares.bit_length() - 1)

    def has(self, place: Place) -> bool:
        """Whether there is an entry, whole or not."""
        return self.keeps(place) and self.path(place).is_file()

    def keeps(self, place: Place) -> bool:
        """Whether a place is cached: only one whose content is known by its digest."""
        return (
            bool(self.limit)
            and place.digest is not None
            and place.length <= self.limit // self.groups
        )

    def get(self, place: Place) -> bytes | None:
        """The bytes of a place; None if they are not here. A damaged entry is deleted."""
        if not self.keeps(place):
            return None
        path = self.path(place)
        try:
            data = read_input(path, place.length)
        except FileNotFoundError:
            return None
        except OSError:
            data = b""
        with contextlib.suppress(OSError):
            if content_digest(data) == place.digest:
                os.utime(path)
                return data
            path.unlink(missing_ok=True)  # it stays counted until its group is listed
        return None

    def put(self, place: Place, data: bytes) -> None:
        """Keep the bytes of a place, which have its digest; others go if there are too many."""
        if not self.keeps(place):
            return
        path = self.path(place)
        with writing_to_cache():
            path.parent.mkdir(parents=True, exist_ok=True)
            known = path.exists()
            write_atomically(path, data, sync=False)
            if not known:
                self.count(int(path.parent.name, 16) % self.groups, len(data))

    def path(self, place: Place) -> Path:
        """The file of an entry."""
        name = (place.digest or b"").hex()
        return Path(f"{self.folder}/{name[:2]}/{name[2:]}")  # `/` of paths takes twice as long

    def count(self, group: int, added: int) -> None:
        """Count the bytes of a group, and make room if it has more than its share."""
        with _locked(self.folder / f"bytes-{group}-of-{self.groups}") as file:
            text = file.read(32)
            total = int(text) + added if text.isdigit() else None
            if total is None or total > self.limit // self.groups:
                total = self.make_room(group)
            file.seek(0)
            file.truncate()
            file.write(b"%d" % total)

    def make_room(self, group: int) -> int:
        """Delete what was used longest ago in a group that exceeds its share.

        Returns:
            The bytes that are left.
        """
        share = self.limit // self.groups
        folders = [self.folder / f"{number:02x}" for number in range(group, _FOLDERS, self.groups)]
        entries = sorted(entry for folder in folders for entry in _entries(folder))
        total = sum(size for _, size, _ in entries)
        if total <= share:
            return total
        for _, size, path in entries[:-1]:  # never the newest
            if total <= share * _LEFT:
                break
            path.unlink(missing_ok=True)
            total -= size
        return total


def _entries(folder: Path) -> Iterator[tuple[int, int, Path]]:
    """Of each file in a folder: when it was used last, its bytes, its path."""
    with contextlib.suppress(FileNotFoundError):
        for path in folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                yield status.st_mtime_ns, status.st_size, path


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[BinaryIO]:
    """A small file, open to read and write, that other threads and processes wait for."""
    with open_updating(path) as file:
        with contextlib.suppress(OSError):  # a file system without locks: the count may drift
            if sys.platform == "win32":
                import msvcrt

                msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
            else:
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX)
        yield file
