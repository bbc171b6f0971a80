"""Reading of files: regular files of limited size.

A path may name a pipe, a device, a socket or a link instead of a file. Links are followed; of the
others none is read, so that no read blocks or never ends.
"""

import errno
import io
import os
import sys
from pathlib import Path
from typing import IO

from resnets.addresses import AS_FILE, refuse_address
from resnets.errors import UsageError
from resnets.files.paths import BINARY, path_error, refuse_irregular
from resnets.format import plural

_TEXT_LIMIT = 1 << 26  # bytes; for a configuration, a log or a list of names
_CHUNK = 1 << 20  # bytes read at a time where the size is unknown
_NONBLOCK = getattr(os, "O_NONBLOCK", 0)  # Windows does not have it


def open_input(path: str | Path, limit: int) -> io.BufferedReader:
    """Open a regular file for reading; links are followed.

    Args:
        path: of the file.
        limit: the largest size in bytes.

    Raises:
        OSError: it cannot be opened, is not a regular file, or is larger. `strerror` is the reason.

    >>> open_input(os.devnull, limit=10)
    Traceback (most recent call last):
    OSError: [Errno 22] not a file but a device: '/dev/null'
    """
    file = _open_checked(path, limit)
    if os.fstat(file.fileno()).st_size == 0 and file.peek(1):  # as some files in /proc
        file.close()
        raise path_error(errno.EINVAL, "reports a size of 0, but is not empty", path)
    return file


def regular(path: str | Path, limit: int) -> Path:
    """Check that `open_input` can open a path, for libraries that open files by name."""
    _open_checked(path, limit).close()
    return Path(path)


def existing(path: Path) -> Path:
    """Check that an input file exists, before any work; returns its path.

    Raises:
        UsageError: it does not exist or cannot be read.

    >>> existing(Path("nowhere.txt"))
    Traceback (most recent call last):
    resnets.errors.UsageError: nowhere.txt: no such file
    """
    try:
        regular(path, sys.maxsize)
    except FileNotFoundError:
        refuse_address(path, AS_FILE)
        raise UsageError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{path}: cannot be read ({reason})") from None
    return path


def read_input(path: str | Path, limit: int) -> bytes:
    """The whole content of a regular file; links are followed. Raises as `open_input` does.

    >>> _ = (tmp / "note").write_bytes(b"short")
    >>> read_input(tmp / "note", limit=5)
    b'short'
    >>> read_input(tmp / "note", limit=4)
    Traceback (most recent call last):
    OSError: [Errno 27] 5 bytes; at most 4 are read: '...'
    """
    with _open_checked(path, limit) as file:
        content = file.read(os.fstat(file.fileno()).st_size + 1) or b""
        rest = read_limited(file, limit - len(content)) if content else b""
    if rest is None:
        reason = f"more than {plural(limit, 'byte')}; at most {limit:,} are read"
        raise path_error(errno.EFBIG, reason, path)
    return content + rest if rest else content


def read_text(path: str | Path, limit: int = _TEXT_LIMIT, errors: str = "strict") -> str:
    """The whole text of a regular file in UTF-8, with line ends of any system.

    Raises:
        OSError: as for `open_input`.
        UnicodeDecodeError: it is not UTF-8, and `errors` is "strict".
    """
    text = read_input(path, limit).decode("utf-8", errors)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_limited(stream: IO[bytes], limit: int) -> bytes | None:
    """The rest of a stream; None if that is more than `limit` bytes.

    >>> read_limited(io.BytesIO(b"12345"), 5), read_limited(io.BytesIO(b"12345"), 4)
    (b'12345', None)
    """
    parts: list[bytes] = []
    remaining = limit
    while remaining >= 0 and (part := stream.read(min(_CHUNK, remaining + 1))):
        parts.append(part)
        remaining -= len(part)
    return b"".join(parts) if remaining >= 0 else None


def _open_checked(path: str | Path, limit: int) -> io.BufferedReader:
    """Open a file without waiting for a pipe's writer, and check its kind and size."""
    refuse_irregular(Path(path).stat(), path)  # first, since opening some devices has side effects
    descriptor = os.open(path, os.O_RDONLY | _NONBLOCK | BINARY)
    try:
        status = os.fstat(descriptor)
        refuse_irregular(status, path)  # again, since the path may have been replaced
        if status.st_size > limit:
            reason = f"{plural(status.st_size, 'byte')}; at most {limit:,} are read"
            raise path_error(errno.EFBIG, reason, path)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise
