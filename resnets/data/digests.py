"""Digests of encoded images, and a cache of the digests of large files.

A set of large files takes minutes to read, so their digests are cached: `FileDigests` recognises a
file by its path, size and times, as git does. A file that changed is read again.
"""

import contextlib
import hashlib
import os
import time
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from resnets.files import cache_folder, read_input, write_atomically
from resnets.images.opening import ALLOWED, format_of

EDGE = 32 * 1024  # bytes at each end of a large image that earlier versions' digests covered
_CHUNK = 1 << 20  # bytes read at a time
RECENT = 2 * 10**9  # nanoseconds; a file as new as that may change without a new time
_MOST = 2_000_000  # files of a folder in the cache: 200 MB
_LARGEST = 2**28  # bytes of the cache of one folder
_FOLDERS = 64  # in the cache, the most recently used ones
_MARK = b"resnets digests 1\n"

_ENTRY = np.dtype(
    [
        ("path", "V16"),  # BLAKE2b of it
        ("size", "<i8"),
        ("changed", "<i8"),  # nanoseconds: of the content,
        ("status", "<i8"),  # and of its status, which no program can set back
        ("digest", "V32"),
        ("earlier", "V32"),
    ]
)


class ImageDigests(NamedTuple):
    """The digests of an encoded image."""

    digest: bytes  # 32 bytes, of all of its content
    earlier: bytes  # as computed by versions before 2026-12: see `digests_of_bytes`
    familiar: bool  # whether its first bytes are those of an image format


def digests_of_bytes(data: bytes) -> ImageDigests:
    r"""The digests of an encoded image.

    The digest is the SHA-256 of its size and its content. Earlier versions used only 32 KiB at
    each end of an image of more than 64 KiB; their model files and runs are recognised by that.

    >>> short = digests_of_bytes(b"GIF89a...")
    >>> short.digest == short.earlier == hashlib.sha256(b"9\nGIF89a...").digest()
    True
    """
    size = b"%d\n" % len(data)
    digest = earlier = content_digest(data)
    if len(data) > 2 * EDGE:
        earlier = hashlib.sha256(size + data[:EDGE] + data[-EDGE:]).digest()
    return ImageDigests(digest, earlier, format_of(data[:64]) in ALLOWED)


def content_digest(data: bytes) -> bytes:
    """The digest of an encoded image's content, 32 bytes: see `digests_of_bytes`."""
    whole = hashlib.sha256(b"%d\n" % len(data))
    whole.update(data)
    return whole.digest()


def digests_of_file(file: IO[bytes], size: int) -> ImageDigests:
    """The digests of an encoded image in a file of `size` bytes, which is read in pieces."""
    if size <= 2 * EDGE:
        return digests_of_bytes(file.read())
    head, tail = file.read(EDGE), b""
    whole = hashlib.sha256(b"%d\n" % size + head)
    while chunk := file.read(_CHUNK):
        whole.update(chunk)
        tail = (tail + chunk)[-EDGE:]
    ends = hashlib.sha256(b"%d\n" % size + head + tail)
    return ImageDigests(whole.digest(), ends.digest(), format_of(head) in ALLOWED)


class FileDigests:
    """A cache of the digests of large files below a folder.

    It is one file in the cache folder for each such folder. It is written atomically, so several
    processes may share it: the last one to write wins, and files that it did not know are read
    again. A cache that cannot be read counts as empty; one that cannot be written is not saved.
    """

    def __init__(self, root: Path) -> None:
        """Read the cache for a folder."""
        name = hashlib.sha256(os.fsencode(root.absolute())).hexdigest()[:32]
        self.file = cache_folder() / "digests" / f"{name}.bin"
        self.known = _read_entries(self.file)
        self.rows = {key.tobytes(): row for row, key in enumerate(self.known["path"])}
        self.fresh: dict[bytes, tuple[bytes | int, ...]] = {}
        self.began = time.time_ns()

    def get(self, path: str, status: os.stat_result) -> ImageDigests | None:
        """The digests of a file; None if it is not in the cache or has changed."""
        row = self.rows.get(_path_key(path))
        if row is None:
            return None
        entry = self.known[row]
        if _size_and_times(status) != (entry["size"], entry["changed"], entry["status"]):
            return None
        return ImageDigests(entry["digest"].tobytes(), entry["earlier"].tobytes(), familiar=True)

    def put(self, path: str, status: os.stat_result, digests: ImageDigests) -> None:
        """Add the digests of a file, unless it is so new that it may still change.

        Args:
            path: of the file, the same as for `get`.
            status: of the file, before it was read.
            digests: its digests.
        """
        if digests.familiar and status.st_mtime_ns < self.began - RECENT:
            key = _path_key(path)
            self.fresh[key] = (key, *_size_and_times(status), digests.digest, digests.earlier)

    def save(self) -> None:
        """Write the cache, if it has new entries."""
        if not self.fresh:
            return
        added = np.array([*self.fresh.values()], dtype=_ENTRY)
        old = np.array([key not in self.fresh for key in self.rows], dtype=np.bool)
        entries = np.concatenate([added, self.known[old]])[:_MOST].tobytes()
        content = _MARK + hashlib.sha256(entries).digest() + entries
        with contextlib.suppress(OSError):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.file, content)
            _remove_oldest(self.file.parent)


def _path_key(path: str) -> bytes:
    """The key of a path in the cache."""
    return hashlib.blake2b(os.fsencode(path), digest_size=16).digest()


def _size_and_times(status: os.stat_result) -> tuple[int, int, int]:
    """Size and times of a file, which change with its content."""
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _read_entries(file: Path) -> "np.ndarray[tuple[int], np.dtype[np.void]]":
    """The entries of a cache file; none if there is no such file, or it is damaged."""
    try:
        content = read_input(file, _LARGEST)
    except OSError:
        content = b""
    start = len(_MARK) + 32
    entries = content[start:]
    whole = content[:start] == _MARK + hashlib.sha256(entries).digest()
    if not whole or len(entries) % _ENTRY.itemsize:
        return np.empty(0, _ENTRY)
    return np.frombuffer(entries, _ENTRY)


def _remove_oldest(folder: Path) -> None:
    """Remove the oldest cache files beyond `_FOLDERS`."""
    files = sorted(folder.glob("*.bin"), key=lambda file: file.stat().st_mtime_ns)
    for file in files[:-_FOLDERS]:
        file.unlink(missing_ok=True)
