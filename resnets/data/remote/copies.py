"""What is kept of remote files whose images cannot be read by ranges: copies, or their parts.

What is kept of one place lies in a folder of its own. Where there is a limit, that of other places
goes, the one that was used longest ago first, unless a process uses it. A process uses a folder as
long as it lives: it holds a lock on a file in it.
"""

import contextlib
import hashlib
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, TypeVar

from resnets.data.remote.failures import RemoteError
from resnets.data.remote.folder import RemoteFolder
from resnets.errors import UsageError
from resnets.files.folders import cache_folder, temporary_folder, warn_of_cache
from resnets.files.writing import open_updating, replacing
from resnets.format import byte_size
from resnets.json_text import to_json

_T = TypeVar("_T")
_LOCK = ".in-use"
_AT_ONCE = 16  # files that are asked for at a time
_PIECE = 1 << 20  # bytes that are copied at a time

_in_use: list[int] = []  # descriptors of the locks of this process, see `_use`


def copied(folder: RemoteFolder, files: Sequence[str], total: int) -> Path:
    """A folder with copies of remote files, which stay as long as the files are the same.

    Args:
        folder: of the files; its `cache_bytes` limit the copies of all places, 0 does not.
        files: their names.
        total: their bytes.

    Raises:
        UsageError: the copies would take more than the limit.
        RemoteError: a file cannot be reached.
    """
    limit = folder.cache_bytes
    if limit and total > limit:
        raise UsageError(
            f"--cache: these files are copied whole, which takes {byte_size(total)}, more than "
            f"the {byte_size(limit)} that it allows; allow more, leave --cache out, or write them "
            "as shards (resnets shard), which are read by ranges"
        )

    def fill(place: Path) -> None:
        for file in files:
            if not (place / file).exists():
                with folder.stream(file) as stream, replacing(place / file) as target:
                    shutil.copyfileobj(stream, target, _PIECE)

    return kept(folder, files, total, fill)


def kept(
    folder: RemoteFolder, files: Sequence[str], needed: int, fill: Callable[[Path], None]
) -> Path:
    """A folder in the cache for what is kept of remote files while they are the same.

    Args:
        folder: of the files; its `cache_bytes` limit what is kept of all places, 0 does not.
        files: their names.
        needed: bytes that are needed in the folder, at most the limit if there is one.
        fill: writes into the folder what is missing there.

    Raises:
        RemoteError: a file cannot be reached.
    """
    versions = of_each(folder.version, files)
    state = to_json([folder.address, *zip(files, versions, strict=True)])
    name = hashlib.sha256(state.encode()).hexdigest()[:32]
    place = cache_folder() / "copies" / name
    try:
        _use(place)
        if folder.cache_bytes:
            _make_room(place, needed, folder.cache_bytes)
        fill(place)
        return place
    except RemoteError:
        raise
    except OSError as error:
        warn_of_cache(error)
    place = temporary_folder() / name
    place.mkdir(parents=True, exist_ok=True)
    fill(place)
    return place


def total_of(folder: RemoteFolder, files: Sequence[str]) -> int:
    """The bytes of files, 0 of what there is not."""
    return sum(size or 0 for size in of_each(folder.size, files))


def of_each(function: Callable[[str], _T], files: Sequence[str]) -> list[_T]:
    """What a function returns for each file, many at a time, as each takes a round trip."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return [*pool.map(function, files)]


def trim(place: Path, pattern: str, limit: int) -> None:
    """Remove files of a place that were used longest ago, so that all in it takes a limit at most.

    Args:
        place: of `kept`.
        pattern: of the files that can be made again; the one that was used last stays.
        limit: bytes.
    """
    used = _bytes_of(place)
    for file in sorted(place.glob(pattern), key=_last_use)[:-1]:
        if used <= limit:
            return
        with contextlib.suppress(OSError):  # gone, or in use by another process of Windows
            status = file.stat()
            file.unlink()
            used -= _on_disk(status)


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
    """Remove what is kept of other places, so that what one needs fits beside what is left."""
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
                total += _on_disk(file.stat())
    return total


def _on_disk(status: os.stat_result) -> int:
    """The bytes that a file takes: those it has, or fewer if it lacks some (a sparse file)."""
    blocks: int | None = getattr(status, "st_blocks", None)  # of 512 bytes; Windows has none
    return status.st_size if blocks is None else min(status.st_size, 512 * blocks)


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
