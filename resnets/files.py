"""Safe reading and writing of files: inputs of limited size, outputs written completely or not.

A path may name a pipe, a device, a socket or a link instead of a file. Inputs must be regular files
(links are followed), so that no read blocks or never ends. An output replaces a regular file
atomically; pipes and character devices are written to.
"""

import atexit
import contextlib
import errno
import functools
import glob
import io
import multiprocessing
import os
import re
import secrets
import shutil
import signal
import stat
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, BinaryIO

from resnets.addresses import AS_FILE, AS_OUTPUT, refuse_address
from resnets.errors import CacheWarning, UsageError
from resnets.format import plural

_TEXT_LIMIT = 1 << 26  # bytes; for a configuration, a log or a list of names
_CHUNK = 1 << 20  # bytes read at a time where the size is unknown
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # errors of a full disk or quota
_KEPT_IN_MEMORY = 1 << 26  # bytes to be sent to a pipe; above it a temporary file holds them
_NAME_KEPT = 40  # characters of a file's name in that of its temporary file
_ABANDONED = 86400.0  # seconds without a change after which nobody will write a temporary file on
_ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
_MAX_LINKS = 40  # followed one after another, as in Linux
_NONBLOCK = getattr(os, "O_NONBLOCK", 0)  # Windows does not have it
_TEMPORARY: set[Path] = set()  # files that this process is writing
if hasattr(os, "register_at_fork"):  # a child writes none of them
    os.register_at_fork(after_in_child=_TEMPORARY.clear)
_WARNED_OF: set[Path] = set()  # cache folders that cannot be written to
_BINARY = getattr(os, "O_BINARY", 0)  # only Windows has it

_KINDS = (  # of paths that are not regular files
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a disk"),
    (stat.S_ISSOCK, "a socket"),
)
_SIGNATURES = {  # file suffix: the first bytes of such a file
    ".parquet": b"PAR1",
    ".pdf": b"%PDF",
    ".png": b"\x89PNG",
    ".svg": b"<",
}
_WEB_PAGES = (".html", ".htm")  # recognised by their suffix alone
_TEXTS = (".csv", ".tsv", ".json", ".jsonl", ".txt")  # which no output with a kind is
_STREAM = re.compile(r"/dev/(?:(stdin|stdout|stderr)|fd/(\d+))|/proc/self/fd/(\d+)")
_STANDARD = {"stdin": 0, "stdout": 1, "stderr": 2}


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
        raise _error(errno.EINVAL, "reports a size of 0, but is not empty", path)
    return file


def regular(path: str | Path, limit: int) -> Path:
    """Check that `open_input` can open a path, for libraries that open files by name."""
    _open_checked(path, limit).close()
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
    with _open_checked(path, limit) as file:
        content = file.read(os.fstat(file.fileno()).st_size + 1) or b""
        rest = read_limited(file, limit - len(content)) if content else b""
    if rest is None:
        reason = f"more than {plural(limit, 'byte')}; at most {limit:,} are read"
        raise _error(errno.EFBIG, reason, path)
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
    _refuse_irregular(Path(path).stat(), path)  # first, since opening some devices has side effects
    descriptor = os.open(path, os.O_RDONLY | _NONBLOCK | _BINARY)
    try:
        status = os.fstat(descriptor)
        _refuse_irregular(status, path)  # again, since the path may have been replaced
        if status.st_size > limit:
            reason = f"{plural(status.st_size, 'byte')}; at most {limit:,} are read"
            raise _error(errno.EFBIG, reason, path)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def _refuse_irregular(status: os.stat_result, path: str | Path) -> None:
    if not stat.S_ISREG(status.st_mode):
        number = errno.EISDIR if stat.S_ISDIR(status.st_mode) else errno.EINVAL
        raise _error(number, f"not a file but {_kind_name(status.st_mode)}", path)


def _kind_name(mode: int) -> str:
    """The kind of a path that is not a regular file, by its mode from `os.stat`."""
    return next((name for matches, name in _KINDS if matches(mode)), "something else")


def _error(number: int, reason: str, path: str | Path) -> OSError:
    return OSError(number, reason, os.fspath(path))


def writable(path: Path, inputs: Iterable[str | Path] = (), kind: str = "") -> Path:
    """Check that an output can be written, before any work is done for it; returns its path.

    Nothing is changed. The path may name a regular file or none, a link to either, a pipe or a
    character device. A file is replaced as a whole, so its folder must be writable.

    Args:
        path: of the output.
        inputs: the files that the command reads; checked only if `path` is an existing file. Those
            that do not exist are ignored.
        kind: a suffix such as ".parquet"; a file of another kind is not replaced, nor is it written
            under the name of a text. Empty: any is.

    Raises:
        UsageError: it cannot be written, is one of the inputs, or is a file of another kind; says
            why, and what to do.
    """
    _refuse_other_name(path, kind)
    with _as_usage_error(path):
        target = _follow_links(path)
        if (number := _own_stream(target)) is not None:
            os.write(number, b"")  # fails if it is closed or open for reading only
            return path
        status = _status(target)
        if status is not None and not (_is_stream(status.st_mode) or stat.S_ISREG(status.st_mode)):
            raise UsageError(f"{path}: is {_kind_name(status.st_mode)}; name a file to write")
        if status is not None and not os.access(target, os.W_OK):
            raise UsageError(f"{path}: is write-protected; name another file")
        if status is None or stat.S_ISREG(status.st_mode):
            _try_folder(target.parent, path)
        if status is not None and stat.S_ISREG(status.st_mode):
            _refuse_other_kind(path, target, kind)
    if status is not None and stat.S_ISREG(status.st_mode):
        _refuse_input(path, status, inputs)  # outside the block: errors of inputs are not reworded
    return path


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


def _refuse_input(path: Path, status: os.stat_result, inputs: Iterable[str | Path]) -> None:
    """Refuse to replace a file that the command reads, even under another name or by a link."""
    for source in inputs:
        try:
            same = os.path.samestat(status, Path(source).stat())
        except (OSError, ValueError):
            continue
        if same:
            raise UsageError(f"{path}: is an input of this command ({source}); name another file")


def _refuse_other_name(path: Path, kind: str) -> None:
    """Refuse the name of a text where something else is written. Raises UsageError."""
    suffix = path.suffix.lower()
    if kind and suffix in _TEXTS:
        raise UsageError(f"{path}: a {kind} file is written, not {suffix}; name it {kind}")


def _refuse_other_kind(path: Path, target: Path, kind: str) -> None:
    """Refuse to replace a file that is clearly of another kind; an empty file is of any kind."""
    if kind in _WEB_PAGES:
        fits = target.suffix.lower() in _WEB_PAGES
    elif kind in _SIGNATURES:
        with target.open("rb") as file:
            start = file.read(16)
        fits = not start or start.removeprefix(b"\xef\xbb\xbf").lstrip()[:4].startswith(
            _SIGNATURES[kind]
        )
    else:
        return
    if not fits:
        raise UsageError(f"{path}: exists, but is not a {kind} file; delete it, or name another")


def writable_folder(path: Path) -> Path:
    """Check that a folder can be created or written to, before any work; returns its path.

    Raises:
        UsageError: the path is not a folder, or cannot be written to.
    """
    with _as_usage_error(path):
        nearest = Path(path)
        while not _exists(nearest):
            nearest = nearest.parent
        _try_folder(nearest, path)
    return path


def _exists(path: Path) -> bool:
    """Whether a path exists, a broken link included; other errors are raised."""
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    return True


def _try_folder(folder: Path, path: Path) -> None:
    """Create a temporary file in a folder: permissions alone do not tell whether that works."""
    if not folder.exists():
        raise UsageError(f"{path}: there is no folder {folder}; make it first")
    if not folder.is_dir():
        which = "is" if folder == path else f"{folder} is"
        raise UsageError(f"{path}: {which} not a folder; name another one")
    with tempfile.TemporaryFile(dir=folder):
        pass


@contextlib.contextmanager
def _as_usage_error(path: Path) -> Iterator[None]:
    """Turn errors of the system about an output path into a UsageError; addresses are none."""
    refuse_address(path, AS_OUTPUT)
    if os.fspath(path) == "-":  # elsewhere the name of a stream; a file of that name is a surprise
        raise UsageError("-: name a file or folder to write; standard output is /dev/stdout")
    try:
        yield
    except UsageError:
        raise
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror or error})") from None
    except ValueError as error:  # the path has a NUL character
        raise UsageError(f"{path}: not a path ({error})") from None


def _follow_links(path: str | Path) -> Path:
    """The path with its links followed, up to a stream of this process such as /dev/stdout.

    Raises:
        OSError: the links form a cycle.
    """
    target = Path(path)
    for _ in range(_MAX_LINKS):
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
    target = _follow_links(path)
    is_own_stream = _own_stream(target) is not None
    status = None if is_own_stream else _status(target)
    if is_own_stream or (status is not None and _is_stream(status.st_mode)):
        output = _send_on_exit(target)
    elif status is None:
        output = _new_file(target, None, sync)
    else:
        _refuse_irregular(status, path)
        output = _new_file(target, stat.S_IMODE(status.st_mode) & 0o777, sync)
    with no_room_names(target), output as file:
        yield file


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
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | _BINARY
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


def remove_left_over(path: Path) -> None:
    """Remove what killed processes have left of a file; not what another one may be writing."""
    begins = f".{path.name[:_NAME_KEPT]}."
    for other in path.parent.glob(f"{glob.escape(begins)}*"):
        with contextlib.suppress(OSError):
            if time.time() - other.stat().st_mtime > _ABANDONED:
                other.unlink()


@contextlib.contextmanager
def _send_on_exit(path: Path) -> Iterator[IO[bytes]]:
    """A temporary file whose content is sent to a pipe or device at the end."""
    with tempfile.SpooledTemporaryFile(_KEPT_IN_MEMORY) as content:
        yield content
        content.seek(0)
        sys.stdout.flush()  # keeps the order with earlier prints
        number = _own_stream(path)
        handle = os.open(path, os.O_WRONLY) if number is None else os.dup(number)
        with os.fdopen(handle, "wb") as stream:
            shutil.copyfileobj(content, stream)


def _own_stream(path: Path) -> int | None:
    """The descriptor of a path such as /dev/stdout; None for other paths."""
    match = _STREAM.fullmatch(os.fspath(path))
    if match is None:
        return None
    return _STANDARD[match[1]] if match[1] else int(match[2] or match[3])


def write_atomically(path: str | Path, content: bytes, *, sync: bool = True) -> None:
    """Write a file completely or not at all: see `replacing`."""
    with replacing(path, sync=sync) as file:
        file.write(content)


def copy_file(source: Path, target: Path) -> None:
    """Copy a regular file, with its times, to a path where nothing is; links are followed.

    Nothing stays at `target` where that fails.

    Raises:
        OSError: it cannot be read, is not a regular file, or something is at `target`; there is no
            room for it. It names the file that this is about.
    """
    _refuse_irregular(source.stat(), source)
    if target.exists() or target.is_symlink():
        raise _error(errno.EEXIST, "exists already", target)
    try:
        shutil.copy2(source, target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            target.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in NO_ROOM:  # whatever shutil names
            raise _error(error.errno, error.strerror or str(error), target) from None
        raise


def open_appending(path: Path) -> BinaryIO:
    """Open a regular file, which is created if it is missing, to append to it.

    Raises:
        OSError: it cannot be opened, or is not a regular file.
    """
    if (status := _status(path)) is not None:
        _refuse_irregular(status, path)
    return path.open("ab")


def open_updating(path: Path) -> BinaryIO:
    """Open a regular file, which is created if it is missing, to read and write it in place.

    Raises:
        OSError: it cannot be opened, or is not a regular file.
    """
    if (status := _status(path)) is not None:
        _refuse_irregular(status, path)
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | _BINARY, 0o666), "r+b")


def sync_folder(folder: Path) -> None:
    """Sync a folder, so that renamed files survive a power cut, where the system can."""
    if os.name != "posix":  # Windows cannot open a folder
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def has_netrc() -> bool:
    """Whether there is a .netrc file, with passwords for web servers, in the home folder."""
    with contextlib.suppress(RuntimeError):  # nobody knows where that is
        return any((Path.home() / name).exists() for name in (".netrc", "_netrc"))
    return False


def cache_folder(platform: str = sys.platform) -> Path:
    """The folder for caches; it may not exist, and may not be writable.

    $RESNETS_CACHE if that is set, else resnets in $XDG_CACHE_HOME, else in the system's folder for
    caches. If the user has no home, it is a path that cannot be written to: callers then work
    without a cache.

    >>> cache_folder().name
    'resnets'
    """
    if path := os.environ.get("RESNETS_CACHE"):
        return in_home(path)
    defaults = {"win32": "~/AppData/Local", "darwin": "~/Library/Caches"}
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not Path(base).is_absolute():  # its specification says to ignore a relative path
        base = os.environ.get("LOCALAPPDATA", "") if platform == "win32" else ""
    return in_home(base or defaults.get(platform, "~/.cache")) / "resnets"


@contextlib.contextmanager
def writing_to_cache() -> Iterator[None]:
    """Go on where the cache folder cannot be written to, which only costs time; say so once."""
    try:
        yield
    except OSError as error:
        warn_of_cache(error)


def warn_of_cache(error: OSError) -> None:
    """Say that the cache folder cannot be written to; once, and not in every worker process."""
    folder = cache_folder()
    if folder in _WARNED_OF or multiprocessing.parent_process() is not None:
        return
    _WARNED_OF.add(folder)
    warnings.warn(
        f"the cache, {folder}, cannot be written to ({error.strerror or error}), so nothing is "
        "kept there for later runs; set RESNETS_CACHE to a folder that can be written to",
        CacheWarning,
        stacklevel=2,
    )


def library_cache(variable: str, name: str) -> Path:
    """The folder in which another library keeps its files.

    Args:
        variable: of the environment, that names it.
        name: in the user's folder for caches, where the variable is not set.
    """
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return in_home(os.environ.get(variable) or f"{caches}/{name}")


def in_home(path: str) -> Path:
    """A path with ~ expanded; for a user without a home, a path that cannot exist."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(os.devnull) / path


@functools.cache
def temporary_folder() -> Path:
    """A private folder that is deleted when this process ends.

    Raises:
        OSError: it cannot be created.
    """
    folder = tempfile.mkdtemp(prefix="resnets-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)
