"""Locks by which one process at a time works in a folder."""

import contextlib
import os
import platform
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from resnets.errors import FolderInUse

LOCK = ".lock"  # the file in a folder that is locked
_ATTEMPTS = 20  # to lock the file that has the name of the lock
_LONGEST = 200  # bytes of what the owner of a lock has written of itself


def lock(folder: Path) -> int:
    """Keep other processes out of a folder for as long as this one lives.

    The lock is of the kind that children do not inherit: a worker that outlives its killed parent
    by some seconds must not keep others out.

    Returns:
        A descriptor; closing it ends the lock.

    Raises:
        FolderInUse: another process has it; says which, where it is known.
    """
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        _take(descriptor)
    except (BlockingIOError, PermissionError):
        owner = _owner(descriptor)
        os.close(descriptor)
        raise FolderInUse(in_use(folder, owner)) from None
    except OSError:  # a file system without locks
        return descriptor
    _sign(descriptor)
    return descriptor


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Be the only process that works in a folder, of which nothing is left there afterwards.

    Raises:
        FolderInUse: another process is at work.
    """
    descriptor = lock(folder)
    for _ in range(_ATTEMPTS):  # some mounts number a file anew each time: there none is current
        if _is_current(folder, descriptor):
            break
        os.close(descriptor)  # removed by another one that has just ended
        descriptor = lock(folder)
    try:
        yield
    finally:
        if sys.platform == "win32":  # which removes no file that is open
            os.close(descriptor)
        with contextlib.suppress(OSError):
            (folder / LOCK).unlink(missing_ok=True)
        if sys.platform != "win32":
            os.close(descriptor)


def _is_current(folder: Path, descriptor: int) -> bool:
    """Whether a descriptor is of the file that has the name of the lock now."""
    try:
        return os.path.samestat(os.fstat(descriptor), (folder / LOCK).stat())
    except FileNotFoundError:
        return False


def _take(descriptor: int) -> None:
    """Lock a file, or raise BlockingIOError or PermissionError if another process has it."""
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # its first byte, which need not exist
    else:
        import fcntl

        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _sign(descriptor: int) -> None:
    """Write into a locked file which process has it. Windows lets nobody read what is locked."""
    if sys.platform != "win32":
        with contextlib.suppress(OSError):  # a full disk
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()} on {platform.node()}".encode(), 0)


def in_use(folder: object, owner: str) -> str:
    """What to say of a folder that another process works in.

    Args:
        folder: its path or address.
        owner: what that process has written of itself; empty if it is not known.

    >>> in_use("run", "77 on node1")
    'run: in use by another process (77 on node1); wait until it has ended, or end it (`kill 77` \
on node1)'
    >>> in_use("run", "")
    'run: in use by another process; wait until it has ended, or end it'
    """
    known = re.fullmatch(r"(\d+) on (.+)", owner)
    who = f" ({owner})" if owner else ""
    how = f" (`kill {known[1]}` on {known[2]})" if known else ""
    return f"{folder}: in use by another process{who}; wait until it has ended, or end it{how}"


def _owner(descriptor: int) -> str:
    """Which process has a lock; empty if that is not known."""
    text = b""
    if sys.platform != "win32":
        text = os.pread(descriptor, _LONGEST, 0)
    return text.decode("utf-8", "replace")
