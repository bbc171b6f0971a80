"""Writing of files: completely or not at all.

An output replaces a regular file atomically; pipes and character devices are written to.
"""

import contextlib
import errno
import glob
import os
import secrets
import shutil
import signal
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, BinaryIO

from resnets.files.paths import (
    BINARY,
    follow_links,
    is_stream,
    own_stream,
    path_error,
    refuse_irregular,
    status_of,
)

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # errors of a full disk or quota
_KEPT_IN_MEMORY = 1 << 26  # bytes to be sent to a pipe; above it a temporary file holds them
_NAME_KEPT = 40  # characters of a file's name in that of its temporary file
_ABANDONED = 86400.0  # seconds without a change after which nobody will write a temporary file on
_ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
_TEMPORARY: set[Path] = set()  # files that this process is writing
if hasattr(os, "register_at_fork"):  # a child writes none of them
    os.register_at_fork(after_in_child=_TEMPORARY.clear)


@contextlib.contextmanager
def replacing(path: str | Path, *, sync: bool = True) -> Iterator[IO[bytes]]:
    """Open a temporary file whose content replaces `path` when the block ends without an error.

    A regular file is replaced atomically: the content is synced to the disk before the file is
    renamed, and the folder afterwards. Of a link, the target is replaced. Pipes and character
    devices such as /dev/stdout are written to. If the block raises, nothing is written.

    Args:
        path: of the file.
        sync: whether to sync to the disk; not for what may be lost in a power cut.

    Raises:
        OSError: `path` cannot be written, or is a folder, a socket or a disk.

    >>> with replacing(tmp / "note") as file:
    ...     _ = file.write(b"whole or not at all")
    >>> (tmp / "note").read_bytes()
    b'whole or not at all'
    """
    target = follow_links(path)
    isown_stream = own_stream(target) is not None
    status = None if isown_stream else status_of(target)
    if isown_stream or (status is not None and is_stream(status.st_mode)):
        output = _send_on_exit(target)
    elif status is None:
        output = _new_file(target, None, sync)
    else:
        refuse_irregular(status, path)
        output = _new_file(target, stat.S_IMODE(status.st_mode) & 0o777, sync)
    with no_room_names(target), output as file:
        yield file


def write_atomically(path: str | Path, content: bytes, *, sync: bool = True) -> None:
    """Write a file completely or not at all: see `replacing`."""
    with replacing(path, sync=sync) as file:
        file.write(content)


@contextlib.contextmanager
def no_room_names(path: Path) -> Iterator[None]:
    """Give the path of the file that is written to an error that says there is no room for it.

    The system's own names no file.
    """
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno in NO_ROOM:
            error.filename = os.fspath(path)
        raise


@contextlib.contextmanager
def _new_file(path: Path, mode: int | None, sync: bool) -> Iterator[IO[bytes]]:
    """A temporary file in the same folder, which is renamed to `path` at the end.

    Without a mode it gets that of any new file: to ask for the umask is to change it for a moment,
    in which another thread may make a file.
    """
    temporary = path.parent / f".{path.name[:_NAME_KEPT]}.{secrets.token_hex(8)}"
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | BINARY
    with _removed_by_signals(temporary):
        handle = os.open(temporary, flags, 0o666 if mode is None else 0o600)
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
                file.flush()
                if mode is not None and hasattr(os, "fchmod"):  # Windows has it from Python 3.13
                    os.fchmod(file.fileno(), mode)
                if sync:
                    os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    if sync:
        sync_folder(path.parent)


@contextlib.contextmanager
def _removed_by_signals(temporary: Path) -> Iterator[None]:
    """Remove a temporary file where a signal ends the process, as a scheduler does.

    Only where the signal would end it as the system does: nobody else has taken care of it.
    """
    here = threading.current_thread() is threading.main_thread() and os.name == "posix"
    signals = [number for number in _ENDING if here and signal.getsignal(number) == signal.SIG_DFL]
    _TEMPORARY.add(temporary)
    for number in signals:
        signal.signal(number, _end)
    try:
        yield
    finally:
        _TEMPORARY.discard(temporary)
        for number in signals:
            if signal.getsignal(number) is _end:  # nobody has put another in its place
                signal.signal(number, signal.SIG_DFL)


def _end(number: int, _: object) -> None:
    """Remove the temporary files of this process, and let a signal end it."""
    for path in tuple(_TEMPORARY):
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


@contextlib.contextmanager
def _send_on_exit(path: Path) -> Iterator[IO[bytes]]:
    """A temporary file whose content is sent to a pipe or device at the end."""
    with tempfile.SpooledTemporaryFile(_KEPT_IN_MEMORY) as content:
        yield content
        content.seek(0)
        sys.stdout.flush()  # keeps the order with earlier prints
        number = own_stream(path)
        handle = os.open(path, os.O_WRONLY) if number is None else os.dup(number)
        with os.fdopen(handle, "wb") as stream:
            shutil.copyfileobj(content, stream)


def remove_left_over(path: Path) -> None:
    """Remove what killed processes have left of a file; not what another one may be writing."""
    begins = f".{path.name[:_NAME_KEPT]}."
    for other in path.parent.glob(f"{glob.escape(begins)}*"):
        with contextlib.suppress(OSError):
            if time.time() - other.stat().st_mtime > _ABANDONED:
                other.unlink()


def copy_file(source: Path, target: Path) -> None:
    """Copy a regular file, with its times, to a path where nothing is; links are followed.

    Nothing stays at `target` where that fails.

    Raises:
        OSError: it cannot be read, is not a regular file, or something is at `target`; there is no
            room for it. It names the file that this is about.
    """
    refuse_irregular(source.stat(), source)
    if target.exists() or target.is_symlink():
        raise path_error(errno.EEXIST, "exists already", target)
    try:
        shutil.copy2(source, target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            target.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in NO_ROOM:  # whatever shutil names
            raise path_error(error.errno, error.strerror or str(error), target) from None
        raise


def open_appending(path: Path) -> BinaryIO:
    """Open a regular file, which is created if it is missing, to append to it.

    Raises:
        OSError: it cannot be opened, or is not a regular file.
    """
    if (status := status_of(path)) is not None:
        refuse_irregular(status, path)
    return path.open("ab")


def open_updating(path: Path) -> BinaryIO:
    """Open a regular file, which is created if it is missing, to read and write it in place.

    Raises:
        OSError: it cannot be opened, or is not a regular file.
    """
    if (status := status_of(path)) is not None:
        refuse_irregular(status, path)
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | BINARY, 0o666), "r+b")


def sync_folder(folder: Path) -> None:
    """Sync a folder, so that renamed files survive a power cut, where the system can."""
    if os.name != "posix":  # Windows cannot open a folder
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
