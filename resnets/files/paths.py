"""What a path names: a regular file, a pipe, a device, a link, or a stream of this process."""

import errno
import os
import re
import stat
from pathlib import Path

BINARY = getattr(os, "O_BINARY", 0)  # only Windows has it
_MAX_LINKS = 40  # followed one after another, as in Linux
_KINDS = (  # of paths that are not regular files
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a disk"),
    (stat.S_ISSOCK, "a socket"),
)
_STREAM = re.compile(r"/dev/(?:(stdin|stdout|stderr)|fd/(\d+))|/proc/self/fd/(\d+)")
_STANDARD = {"stdin": 0, "stdout": 1, "stderr": 2}


def status_of(path: Path) -> os.stat_result | None:
    """The status of what a path leads to; None where nothing is."""
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def is_stream(mode: int) -> bool:
    """Whether a mode from `os.stat` is that of a pipe or a character device."""
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def kind_name(mode: int) -> str:
    """The kind of a path that is not a regular file, by its mode from `os.stat`."""
    return next((name for matches, name in _KINDS if matches(mode)), "something else")


def refuse_irregular(status: os.stat_result, path: str | Path) -> None:
    """Raise OSError for what is not a regular file; `strerror` says what it is instead."""
    if not stat.S_ISREG(status.st_mode):
        number = errno.EISDIR if stat.S_ISDIR(status.st_mode) else errno.EINVAL
        raise path_error(number, f"not a file but {kind_name(status.st_mode)}", path)


def follow_links(path: str | Path) -> Path:
    """The path with its links followed, up to a stream of this process such as /dev/stdout.

    Raises:
        OSError: the links form a cycle.
    """
    target = Path(path)
    for _ in range(_MAX_LINKS):
        if own_stream(target) is not None or not target.is_symlink():
            return target
        target = target.parent / target.readlink()
    raise path_error(errno.ELOOP, os.strerror(errno.ELOOP), path)


def own_stream(path: Path) -> int | None:
    """The descriptor of a path such as /dev/stdout; None for other paths."""
    match = _STREAM.fullmatch(os.fspath(path))
    if match is None:
        return None
    return _STANDARD[match[1]] if match[1] else int(match[2] or match[3])


def path_error(number: int, reason: str, path: str | Path) -> OSError:
    """An OSError about a path, whose `strerror` is the reason."""
    return OSError(number, reason, os.fspath(path))
