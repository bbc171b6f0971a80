"""Copies of whole remote files in the cache, for formats whose images cannot be read by ranges.

The copies of one place lie in a folder of their own, with what is unpacked of them. Where there is
a limit, those of other places go, the one that was used longest ago first, unless a process uses
it. A process uses copies as long as it lives: it holds a lock on a file beside them.
"""

import contextlib
import hashlib
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from resnets.data.remote.failures import RemoteError
from resnets.data.remote.folder import RemoteFolder
from resnets.errors import UsageError
from resnets.files.folders import cache_folder, temporary_folder, warn_of_cache
from resnets.files.writing import open_updating, replacing
from resnets.format import byte_size
from resnets.json_text import to_json

_LOCK = ".in-use"
_PIECE = 1 << 20  # bytes that are copied at a time

_in_use: list[int] = []  # descriptors of the locks of this process, see `_use`


def copied(folder: RemoteFolder, files: Sequence[str], unpacks_from: int) -> Path:
    """A folder with copies of remote files, which stay as long as the files are the same.

    Args:
        folder: of the files; its `cache_bytes` limit the copies of all places, 0 does not.
        files: their names.
        unpacks_from: bytes from which on about as many again are unpacked into the same folder.

    Raises:
        UsageError: the copies would take more than the limit.
        RemoteError: a file cannot be reached.
    """
    state = to_json([folder.address, *((file, folder.version(file)) for file in files)])
    name = hashlib.sha256(state.encode()).hexdigest()[:32]
    place = cache_folder() / "copies" / name
    try:
        _use(place)
        if folder.cache_bytes:
            needed = sum(folder.size(file) or 0 for file in files)
            _make_room(place, needed * (1 + (needed > unpacks_from)), folder.cache_bytes)
        return _filled(place, folder, files)
    except RemoteError:
        raise
    except OSError as error:
        warn_of_cache(error)
    return _filled(temporary_folder() / name, folder, files)


def _filled(place: Path, folder: RemoteFolder, files: Sequence[str]) -> Path:
    """The folder of copies, with those that it lacks."""
    place.mkdir(parents=True, exist_ok=True)
    for file in files:
        if not (place / file).exists():
            with folder.stream(file) as stream, replacing(place / file) as target:
                shutil.copyfileobj(stream, target, _PIECE)
    return place


def _use(place: Path) -> None:
    """Keep copies from being removed by other processes for as long as this one lives."""
    while True:
        place.mkdir(parents=True, exist_ok=True)
        with open_updating(place / _LOCK) as file:
            _lock(file, alone=False)
            with contextlib.suppress(FileNotFoundError):  # else it was removed at that moment
                if os.path.samestat(os.fstat(file.fileno()), (place / _LOCK).stat()):
                    os.utime(place)
                    _in_use.append(os.dup(file.fileno()))  # which keeps the lock
                    return


def _lock(file: BinaryIO, *, alone: bool) -> bool:
    """Lock a file, alone if no other process has it, else together with others.

    Returns:
        Whether it is locked. Windows has no locks for several, and removes no file that is open.
    """
    if sys.platform != "win32":
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB if alone else fcntl.LOCK_SH)
        except OSError:  # in use, or a file system without locks
            return False
    return True


def _make_room(place: Path, needed: int, limit: int) -> None:
    """Remove copies of other places, so that those of one fit beside what is left.

    Raises:
        UsageError: they do not fit.
    """
    if needed > limit:
        raise UsageError(
            f"--cache: these files have to be copied whole, which takes {byte_size(needed)} with "
            f"what is unpacked of them, more than the {byte_size(limit)} that it allows; allow "
            "more, leave --cache out, or write them as shards (resnets shard), which are read by "
            "ranges"
        )
    others = [other for other in place.parent.iterdir() if other.is_dir() and other != place]
    used = {other: _bytes_of(other) for other in others}
    for other in sorted(others, key=_last_use):
        if sum(used.values()) + needed <= limit:
            return
        if _remove(other):
            used[other] = 0


def _last_use(place: Path) -> int:
    """When copies were used last, in nanoseconds."""
    try:
        return place.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _bytes_of(place: Path) -> int:
    """What copies take on the disk."""
    total = 0
    with contextlib.suppress(FileNotFoundError):
        for file in place.iterdir():
            with contextlib.suppress(FileNotFoundError):
                total += file.stat().st_size
    return total


def _remove(place: Path) -> bool:
    """Remove copies, unless a process uses them; whether they are gone."""
    try:
        with open_updating(place / _LOCK) as file:
            if not _lock(file, alone=True):
                return False
            shutil.rmtree(place)
    except OSError:
        return False
    return True
