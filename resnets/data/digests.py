"""Digests of encoded images, and a cache of the digests of files.

A set of large files, or of many, takes minutes to read, so their digests are cached: `FileDigests`
recognises a file by its path, size and times, as git does. A file that changed is read again.
"""

import hashlib
import itertools
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from resnets.files.folders import cache_folder, writing_to_cache
from resnets.files.reading import read_input
from resnets.files.writing import replacing
from resnets.images.opening import ALLOWED, format_of

EDGE = 32 * 1024  # bytes at each end of a large image that earlier versions' digests covered
_CHUNK = 1 << 20  # bytes read at a time
RECENT = 2 * 10**9  # nanoseconds; a file as new as that may change without a new time
_MOST = 20_000_000  # files of a folder in the cache: 2 GB
_LARGEST = 2**31  # bytes of the cache of one folder
_FOLDERS = 64  # in the cache, the most recently used ones,
_SPACE = 2**32  # and bytes of all of them
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

_Entries = np.ndarray[tuple[int], np.dtype[np.void]]
_Keys = NDArray[np.uint64]  # (N, 2)


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
    """A cache of the digests of files below a folder.

    It is one file in the cache folder for each such folder. It is written atomically, so several
    processes may share it: the last one to write wins, and files that it did not know are read
    again. A cache that cannot be read counts as empty; one that cannot be written is not saved.

    Attributes:
        changed: the paths of files whose content is no longer that of their digest in the cache.
    """

    def __init__(self, root: Path) -> None:
        """Read the cache for a folder."""
        name = hashlib.sha256(os.fsencode(root.absolute())).hexdigest()[:32]
        self.file = cache_folder() / "digests" / f"{name}.bin"
        self.known = _sorted(_read_entries(self.file))
        self.keys = _keys_in(self.known)
        self.fresh: list[_Entries] = []
        self.outdated: dict[str, bytes] = {}
        self.changed: list[str] = []
        self.began = time.time_ns()

    def get(
        self, paths: Sequence[str], statuses: Sequence[os.stat_result]
    ) -> list[ImageDigests | None]:
        """The digests of files; None for each that is not in the cache or has changed."""
        if not len(self.known) or not paths:
            return [None] * len(paths)
        keys = _keys_of(paths)
        rows = np.searchsorted(self.keys[:, 0], keys[:, 0]).clip(max=len(self.known) - 1)
        entries = self.known[rows]
        there = (self.keys[rows] == keys).all(1)
        now = np.array([_size_and_times(status) for status in statuses], np.int64)
        then = np.stack([entries[name] for name in ("size", "changed", "status")], 1)
        same = there & (now == then).all(1)
        for number in np.flatnonzero(there & ~same).tolist():
            self.outdated[paths[number]] = entries["digest"][number].tobytes()
        whole, earlier = (_split(entries[name]) for name in ("digest", "earlier"))
        return [
            ImageDigests(whole[number], earlier[number], familiar=True) if is_same else None
            for number, is_same in enumerate(same.tolist())
        ]

    def put(
        self,
        paths: Sequence[str],
        statuses: Sequence[os.stat_result],
        digests: Sequence[ImageDigests],
    ) -> None:
        """Add the digests of files, except of those so new that they may still change.

        Args:
            paths: of the files, the same as for `get`.
            statuses: of the files, before they were read.
            digests: their digests.
        """
        read = list(zip(paths, statuses, digests, strict=True))
        self.changed += [
            path for path, _, own in read if self.outdated.get(path, own.digest) != own.digest
        ]
        entries = [
            (_path_key(path), *_size_and_times(status), own.digest, own.earlier)
            for path, status, own in read
            if own.familiar and status.st_mtime_ns < self.began - RECENT
        ]
        if entries:
            self.fresh.append(np.array(entries, dtype=_ENTRY))

    def save(self) -> None:
        """Write the cache, if it has new entries."""
        if not self.fresh:
            return
        entries = _sorted(np.concatenate([*self.fresh, self.known])[:_MOST])
        content = entries.view(np.uint8).data
        with writing_to_cache():
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self.file) as file:
                file.write(_MARK + hashlib.sha256(content).digest())
                file.write(content)
            _remove_oldest(self.file.parent)


def _path_key(path: str) -> bytes:
    """The key of a path in the cache."""
    return hashlib.blake2b(os.fsencode(path), digest_size=16).digest()


def _keys_of(paths: Sequence[str]) -> _Keys:
    """The keys of paths, (N, 2)."""
    return np.frombuffer(b"".join(map(_path_key, paths)), "<u8").reshape(-1, 2)


def _keys_in(entries: _Entries) -> _Keys:
    """The keys of the entries of a cache, (N, 2)."""
    return np.ascontiguousarray(entries["path"]).view("<u8").reshape(-1, 2)


def _sorted(entries: _Entries) -> _Entries:
    """Entries by the first half of their keys; of those with the same key only the first."""
    keys = _keys_in(entries)
    if (keys[:-1, 0] < keys[1:, 0]).all():
        return entries
    order = np.argsort(keys[:, 0], kind="stable")
    first = np.append(True, (keys[order[1:]] != keys[order[:-1]]).any(1))
    ordered: _Entries = entries[order[first]]
    return ordered


def _split(digests: NDArray[np.void]) -> list[bytes]:
    """Digests (N,) as bytes."""
    joined = np.ascontiguousarray(digests).tobytes()
    return [joined[start : start + 32] for start in range(0, len(joined), 32)]


def _size_and_times(status: os.stat_result) -> tuple[int, int, int]:
    """Size and times of a file, which change with its content."""
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _read_entries(file: Path) -> _Entries:
    """The entries of a cache file; none if there is no such file, or it is damaged."""
    try:
        content = memoryview(read_input(file, _LARGEST))
    except OSError:
        content = memoryview(b"")
    start = len(_MARK) + 32
    entries = content[start:]
    whole = content[:start] == _MARK + hashlib.sha256(entries).digest()
    if not whole or len(entries) % _ENTRY.itemsize:
        return np.empty(0, _ENTRY)
    return np.frombuffer(entries, _ENTRY)


def _remove_oldest(folder: Path) -> None:
    """Remove the oldest cache files beyond `_FOLDERS` and `_SPACE`."""
    files = sorted(folder.glob("*.bin"), key=lambda file: -file.stat().st_mtime_ns)
    sizes = itertools.accumulate(file.stat().st_size for file in files)
    for number, (file, size) in enumerate(zip(files, sizes, strict=True)):
        if number and (number >= _FOLDERS or size > _SPACE):
            file.unlink(missing_ok=True)
