"""Opening files safely: inputs that end, outputs that are whole, and neither anything else.

A path may name a pipe, a device, a socket or a link instead of a file. What is read must be a
regular file (links are followed), so that nothing waits for ever and nothing is endless. What is
written replaces a regular file at once or not at all; pipes and character devices are written to.
"""

import atexit
import contextlib
import errno
import functools
import io
import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, BinaryIO

from resnets.errors import UsageError

_TEXT_LIMIT = 1 << 26  # bytes of a configuration, a log or a list of names
_CHUNK = 1 << 20  # bytes read at a time where the size is not known
_KEPT_IN_MEMORY = 1 << 26  # bytes on their way to a pipe; more wait in a temporary file
_MOST_LINKS = 40  # from link to link, as Linux counts them
_NONBLOCK = getattr(os, "O_NONBLOCK", 0)  # Windows has neither of them ...
_BINARY = getattr(os, "O_BINARY", 0)  # ... and alone needs this

_KINDS = (  # of what is no regular file
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a disk"),
    (stat.S_ISSOCK, "a socket"),
)
_BEGINNINGS = {  # the first bytes of a file of a kind
    ".parquet": b"PAR1",
    ".pdf": b"%PDF",
    ".png": b"\x89PNG",
    ".svg": b"<",
}
_WEB_PAGES = (".html", ".htm")  # these are known by their names
_STREAM = re.compile(r"/dev/(?:(stdin|stdout|stderr)|fd/(\d+))|/proc/self/fd/(\d+)")
_STANDARD = {"stdin": 0, "stdout": 1, "stderr": 2}


def open_input(path: str | Path, limit: int) -> io.BufferedReader:
    """Open a regular file for reading; links are followed.

    Args:
        path: of the file.
        limit: how many bytes it may have.

    Raises:
        OSError: it cannot be opened, is no regular file, or is larger. `strerror` is the reason.

    >>> open_input(os.devnull, limit=10)
    Traceback (most recent call last):
    OSError: [Errno 22] not a file but a device: '/dev/null'
    """
    file = _opened(path, limit)
    if os.fstat(file.fileno()).st_size == 0 and file.peek(1):  # as some files of /proc
        file.close()
        raise _error(errno.EINVAL, "says that it is empty, but is not", path)
    return file


def regular(path: str | Path, limit: int) -> Path:
    """A path for libraries that open by name, found to be one that `open_input` opens."""
    _opened(path, limit).close()
    return Path(path)


def read_input(path: str | Path, limit: int) -> bytes:
    """The whole content of a regular file; links are followed. Raises as `open_input` does.

    >>> _ = (tmp / "note").write_bytes(b"short")
    >>> read_input(tmp / "note", limit=5)
    b'short'
    >>> read_input(tmp / "note", limit=4)
    Traceback (most recent call last):
    OSError: [Errno 27] 5 bytes; at most 4 are read: '...'
    """
    with _opened(path, limit) as file:
        content = file.read(os.fstat(file.fileno()).st_size + 1) or b""
        rest = read_limited(file, limit - len(content)) if content else b""
    if rest is None:
        raise _error(errno.EFBIG, f"more than {limit:,} bytes; at most those are read", path)
    return content + rest if rest else content


def read_text(path: str | Path, limit: int = _TEXT_LIMIT, errors: str = "strict") -> str:
    """The whole text of a regular file in UTF-8, with any kind of line ends.

    Raises:
        OSError: as for `open_input`.
        UnicodeDecodeError: it is not UTF-8, and `errors` is "strict".
    """
    text = read_input(path, limit).decode("utf-8", errors)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_limited(stream: IO[bytes], limit: int) -> bytes | None:
    """What is left in a stream; None if that is more than `limit` bytes.

    >>> read_limited(io.BytesIO(b"12345"), 5), read_limited(io.BytesIO(b"12345"), 4)
    (b'12345', None)
    """
    parts: list[bytes] = []
    left = limit
    while left >= 0 and (part := stream.read(min(_CHUNK, left + 1))):
        parts.append(part)
        left -= len(part)
    return b"".join(parts) if left >= 0 else None


def _opened(path: str | Path, limit: int) -> io.BufferedReader:
    """Open without waiting for a writer at the other end, and look at what was opened."""
    _refuse_irregular(Path(path).stat(), path)  # first: to open some devices has effects
    descriptor = os.open(path, os.O_RDONLY | _NONBLOCK | _BINARY)
    try:
        status = os.fstat(descriptor)
        _refuse_irregular(status, path)  # again: the name may have changed its meaning
        if status.st_size > limit:
            what = f"{status.st_size:,} bytes; at most {limit:,} are read"
            raise _error(errno.EFBIG, what, path)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def _refuse_irregular(status: os.stat_result, path: str | Path) -> None:
    if not stat.S_ISREG(status.st_mode):
        number = errno.EISDIR if stat.S_ISDIR(status.st_mode) else errno.EINVAL
        raise _error(number, f"not a file but {_kind_of(status.st_mode)}", path)


def _kind_of(mode: int) -> str:
    """What a mode of `os.stat` stands for, where it is no regular file."""
    return next((name for matches, name in _KINDS if matches(mode)), "something else")


def _error(number: int, reason: str, path: str | Path) -> OSError:
    return OSError(number, reason, os.fspath(path))


def writable(path: Path, inputs: Iterable[str | Path] = (), kind: str = "") -> Path:
    """The path of an output, found fit to be written before any work is done for it.

    Nothing is changed. It may name a regular file or none, a link to either, a pipe or a character
    device. A file is replaced as a whole, so that its folder must take new files.

    Args:
        path: of the output.
        inputs: the files that the command reads; looked at only where `path` is a file already.
            Those that do not exist are passed over.
        kind: an ending such as ".parquet"; a file of another kind is not replaced. Empty: any is.

    Raises:
        UsageError: it cannot be written, is one of the inputs, or is a file of another kind; the
            reason, and what would do.
    """
    with _refusing(path):
        target = _followed(path)
        if (number := _own_stream(target)) is not None:
            os.write(number, b"")  # fails where it is closed, or was opened for reading
            return path
        status = _status(target)
        if status is not None and not (_is_stream(status.st_mode) or stat.S_ISREG(status.st_mode)):
            raise UsageError(f"{path}: is {_kind_of(status.st_mode)}; name a file to write")
        if status is not None and not os.access(target, os.W_OK):
            raise UsageError(f"{path}: is write-protected; name another file")
        if status is None or stat.S_ISREG(status.st_mode):
            _try_folder(target.parent, path)
        if status is not None and stat.S_ISREG(status.st_mode):
            _refuse_other_kind(path, target, kind)
    if status is not None and stat.S_ISREG(status.st_mode):
        _refuse_input(path, status, inputs)  # what is wrong with an input is told as it is
    return path


def existing(path: Path) -> Path:
    """The path of a file to be read, found to be there before any work.

    Raises:
        UsageError: there is none.

    >>> existing(Path("nowhere.txt"))
    Traceback (most recent call last):
    resnets.errors.UsageError: nowhere.txt: no such file
    """
    try:
        regular(path, sys.maxsize)
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{path}: cannot be read ({reason})") from None
    return path


def _refuse_input(path: Path, status: os.stat_result, inputs: Iterable[str | Path]) -> None:
    """Refuse to replace a file that the command reads, by whatever name or link."""
    for each in inputs:
        try:
            same = os.path.samestat(status, Path(each).stat())
        except (OSError, ValueError):
            continue
        if same:
            raise UsageError(f"{path}: is an input of this command ({each}); name another file")


def _refuse_other_kind(path: Path, target: Path, kind: str) -> None:
    """Refuse to replace a file that is plainly not of a kind; one without content is of any."""
    if kind in _WEB_PAGES:
        fits = target.suffix.lower() in _WEB_PAGES
    elif kind in _BEGINNINGS:
        with target.open("rb") as file:
            start = file.read(16)
        fits = not start or start.removeprefix(b"\xef\xbb\xbf").lstrip()[:4].startswith(
            _BEGINNINGS[kind]
        )
    else:
        return
    if not fits:
        raise UsageError(f"{path}: exists and is no {kind} file; name another file, or delete it")


def writable_folder(path: Path) -> Path:
    """The path of a folder to be made or filled, found fit for that before any work.

    Raises:
        UsageError: it names something else, or may not be written.
    """
    with _refusing(path):
        nearest = Path(path)
        while not _exists(nearest):
            nearest = nearest.parent
        _try_folder(nearest, path)
    return path


def _exists(path: Path) -> bool:
    """Whether a path names anything, be it a link to nothing; other errors are not passed over."""
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    return True


def _try_folder(folder: Path, path: Path) -> None:
    """Make a file without a name in a folder: permissions alone do not tell what a disk takes."""
    if not folder.exists():
        raise UsageError(f"{path}: there is no folder {folder}; make it first")
    if not folder.is_dir():
        which = "is" if folder == path else f"{folder} is"
        raise UsageError(f"{path}: {which} not a folder; name another one")
    with tempfile.TemporaryFile(dir=folder):
        pass


@contextlib.contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """What the system has against a path, as wrong usage."""
    try:
        yield
    except UsageError:
        raise
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror or error})") from None
    except ValueError as error:  # a NUL in it
        raise UsageError(f"{path}: no path ({error})") from None


def _followed(path: str | Path) -> Path:
    """Where the links of a path lead, to its end or to one of this process's own streams.

    Raises:
        OSError: they lead in a circle.
    """
    target = Path(path)
    for _ in range(_MOST_LINKS):
        if _own_stream(target) is not None or not target.is_symlink():
            return target
        target = target.parent / target.readlink()
    raise _error(errno.ELOOP, os.strerror(errno.ELOOP), path)


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _is_stream(mode: int) -> bool:
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[IO[bytes]]:
    """Open a temporary file whose content goes to `path` when the block ends well.

    A regular file is replaced: the content is on the disk before the name changes, and the folder
    is synced after it. A link stays, and what it leads to is replaced. Pipes and character
    devices, /dev/stdout among them, are written to. When the block raises, nothing is written.

    Raises:
        OSError: `path` cannot be written, or is a folder, a socket or a disk.

    >>> with replacing(tmp / "note") as file:
    ...     _ = file.write(b"whole or not at all")
    >>> (tmp / "note").read_bytes()
    b'whole or not at all'
    """
    target = _followed(path)
    own = _own_stream(target) is not None
    status = None if own else _status(target)
    if own or (status is not None and _is_stream(status.st_mode)):
        writing = _sent(target)
    elif status is None:
        writing = _new_file(target, 0o666 & ~_current_umask())  # mkstemp makes private files
    else:
        _refuse_irregular(status, path)
        writing = _new_file(target, stat.S_IMODE(status.st_mode) & 0o777)
    with writing as file:
        yield file


@contextlib.contextmanager
def _new_file(path: Path, mode: int) -> Iterator[IO[bytes]]:
    """A temporary file beside a regular one, which takes its place."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            if hasattr(os, "fchmod"):  # Windows has it from Python 3.13 on
                os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


@contextlib.contextmanager
def _sent(path: Path) -> Iterator[IO[bytes]]:
    """A temporary file whose content is sent to a pipe or device: these cannot be rewound."""
    with tempfile.SpooledTemporaryFile(_KEPT_IN_MEMORY) as content:
        yield content
        content.seek(0)
        sys.stdout.flush()  # what was printed before comes before
        number = _own_stream(path)
        handle = os.open(path, os.O_WRONLY) if number is None else os.dup(number)
        with os.fdopen(handle, "wb") as stream:
            shutil.copyfileobj(content, stream)


def _own_stream(path: Path) -> int | None:
    """The descriptor that a path such as /dev/stdout stands for."""
    match = _STREAM.fullmatch(os.fspath(path))
    if match is None:
        return None
    return _STANDARD[match[1]] if match[1] else int(match[2] or match[3])


def write_atomically(path: str | Path, content: bytes) -> None:
    """Write a whole file, or none of it: see `replacing`."""
    with replacing(path) as file:
        file.write(content)


def open_appending(path: Path) -> BinaryIO:
    """Open a regular file, made if need be, to write after its end.

    Raises:
        OSError: it cannot be opened, or is no regular file.
    """
    if (status := _status(path)) is not None:
        _refuse_irregular(status, path)
    return path.open("ab")


def sync_folder(folder: Path) -> None:
    """Make a change of names in a folder last through a power cut, where the system can."""
    if os.name != "posix":  # Windows cannot open a folder
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _current_umask() -> int:
    """The permission bits that new files of this process do not get."""
    umask = os.umask(0)
    os.umask(umask)
    return umask


def cache_folder(platform: str = sys.platform) -> Path:
    """Where what can be had again is kept; it need not exist, and may not be writable.

    $RESNETS_CACHE if that is set, else resnets in $XDG_CACHE_HOME, else in the folder that the
    system has for caches. Where the user has no home, it is a place where nothing can be written:
    who keeps something there goes on without.

    >>> cache_folder().name
    'resnets'
    """
    if named := os.environ.get("RESNETS_CACHE"):
        return _in_home(named)
    places = {"win32": "~/AppData/Local", "darwin": "~/Library/Caches"}
    shared = os.environ.get("XDG_CACHE_HOME", "")
    if not Path(shared).is_absolute():  # its specification says to pass over a relative one
        shared = os.environ.get("LOCALAPPDATA", "") if platform == "win32" else ""
    return _in_home(shared or places.get(platform, "~/.cache")) / "resnets"


def _in_home(path: str) -> Path:
    """A path whose ~ is the user's home, below no folder at all for a user without one."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(os.devnull) / path


@functools.cache
def temporary_folder() -> Path:
    """A private folder that goes when this process ends.

    Raises:
        OSError: there is no room for one.
    """
    folder = tempfile.mkdtemp(prefix="resnets-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)
