"""What stands for an image without decoding it, and a memory of it for large files.

A set of large files takes minutes to read, so what was found is kept: `FileDigests` knows a file
again by its path, size and times, as git does. A file that changed is read again.
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

EDGE = 32 * 1024  # bytes at either end of a large image that earlier versions' digests covered
_CHUNK = 1 << 20  # bytes read at a time
RECENT = 2 * 10**9  # nanoseconds; a file as new as that may change without a new time
_MOST = 2_000_000  # files of a folder that are remembered: 200 MB
_LARGEST = 2**28  # bytes of what is kept of one folder
_FOLDERS = 64  # that are remembered, those used last
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


class Glance(NamedTuple):
    """What is seen of an image without decoding it."""

    digest: bytes  # 32 bytes that stand for all of its content
    earlier: bytes  # the same as versions before 2026-12 made it: see `glance_bytes`
    familiar: bool  # whether it begins as images do


def glance_bytes(data: bytes) -> Glance:
    r"""Look at an encoded image.

    The digest is the SHA-256 of its size and of all of it. Earlier versions took only 32 KiB at
    either end of what has more than 64 KiB; model files and runs of theirs are known again by it.

    >>> short = glance_bytes(b"GIF89a...")
    >>> short.digest == short.earlier == hashlib.sha256(b"9\nGIF89a...").digest()
    True
    """
    size = b"%d\n" % len(data)
    whole = hashlib.sha256(size)
    whole.update(data)
    digest = earlier = whole.digest()
    if len(data) > 2 * EDGE:
        earlier = hashlib.sha256(size + data[:EDGE] + data[-EDGE:]).digest()
    return Glance(digest, earlier, format_of(data[:64]) in ALLOWED)


def glance_file(file: IO[bytes], size: int) -> Glance:
    """Look at an encoded image in a file of `size` bytes, which is read in pieces."""
    if size <= 2 * EDGE:
        return glance_bytes(file.read())
    head, tail = file.read(EDGE), b""
    whole = hashlib.sha256(b"%d\n" % size + head)
    while chunk := file.read(_CHUNK):
        whole.update(chunk)
        tail = (tail + chunk)[-EDGE:]
    ends = hashlib.sha256(b"%d\n" % size + head + tail)
    return Glance(whole.digest(), ends.digest(), format_of(head) in ALLOWED)


class FileDigests:
    """The digests of large files below a folder, from one run to the next.

    They lie in the cache folder, one file for each such folder. It is written whole and in one
    step, so several processes may share it: the last to write wins, and what it did not know is
    read again. What cannot be read is as good as empty, and what cannot be written is not kept.
    """

    def __init__(self, root: Path) -> None:
        """Read what is known of the files below a folder."""
        name = hashlib.sha256(os.fsencode(root.absolute())).hexdigest()[:32]
        self.file = cache_folder() / "digests" / f"{name}.bin"
        self.known = _read_entries(self.file)
        self.rows = {key.tobytes(): row for row, key in enumerate(self.known["path"])}
        self.fresh: dict[bytes, tuple[bytes | int, ...]] = {}
        self.began = time.time_ns()

    def get(self, path: str, status: os.stat_result) -> Glance | None:
        """What was found in a file; None if it is not known as it is now."""
        row = self.rows.get(_key_of(path))
        if row is None:
            return None
        entry = self.known[row]
        if _times(status) != (entry["size"], entry["changed"], entry["status"]):
            return None
        return Glance(entry["digest"].tobytes(), entry["earlier"].tobytes(), familiar=True)

    def put(self, path: str, status: os.stat_result, glance: Glance) -> None:
        """Remember what was found in a file, unless that is so new that it may still change.

        Args:
            path: of the file, as `get` will be asked for it.
            status: of the file, before it was read.
            glance: what was found.
        """
        if glance.familiar and status.st_mtime_ns < self.began - RECENT:
            key = _key_of(path)
            self.fresh[key] = (key, *_times(status), glance.digest, glance.earlier)

    def save(self) -> None:
        """Write what is known, if there is anything new."""
        if not self.fresh:
            return
        added = np.array([*self.fresh.values()], dtype=_ENTRY)
        old = np.array([key not in self.fresh for key in self.rows], dtype=np.bool)
        entries = np.concatenate([added, self.known[old]])[:_MOST].tobytes()
        content = _MARK + hashlib.sha256(entries).digest() + entries
        with contextlib.suppress(OSError):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.file, content)
            _forget(self.file.parent)


def _key_of(path: str) -> bytes:
    """Stands for a path."""
    return hashlib.blake2b(os.fsencode(path), digest_size=16).digest()


def _times(status: os.stat_result) -> tuple[int, int, int]:
    """What changes with a file's content."""
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _read_entries(file: Path) -> "np.ndarray[tuple[int], np.dtype[np.void]]":
    """The entries of a file; none if there is no such file, or it is damaged."""
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


def _forget(folder: Path) -> None:
    """Remove what was not written for longest, beyond `_FOLDERS` files."""
    files = sorted(folder.glob("*.bin"), key=lambda file: file.stat().st_mtime_ns)
    for file in files[:-_FOLDERS]:
        file.unlink(missing_ok=True)
