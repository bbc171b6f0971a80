"""Whether an output can be written: checked before any work is done for it."""

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from resnets.addresses import AS_OUTPUT, refuse_address
from resnets.errors import UsageError
from resnets.files.paths import follow_links, is_stream, kind_name, own_stream, status_of

_SIGNATURES = {  # file suffix: the first bytes of such a file
    ".parquet": b"PAR1",
    ".pdf": b"%PDF",
    ".png": b"\x89PNG",
    ".svg": b"<",
}
_WEB_PAGES = (".html", ".htm")  # recognised by their suffix alone
_TEXTS = (".csv", ".tsv", ".json", ".jsonl", ".txt")  # which no output with a kind is


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
        target = follow_links(path)
        if (number := own_stream(target)) is not None:
            os.write(number, b"")  # fails if it is closed or open for reading only
            return path
        status = status_of(target)
        if status is not None and not (is_stream(status.st_mode) or stat.S_ISREG(status.st_mode)):
            raise UsageError(f"{path}: is {kind_name(status.st_mode)}; name a file to write")
        if status is not None and not os.access(target, os.W_OK):
            raise UsageError(f"{path}: is write-protected; name another file")
        if status is None or stat.S_ISREG(status.st_mode):
            _try_folder(target.parent, path)
        if status is not None and stat.S_ISREG(status.st_mode):
            _refuse_other_kind(path, target, kind)
    if status is not None and stat.S_ISREG(status.st_mode):
        _refuse_input(path, status, inputs)  # outside the block: errors of inputs are not reworded
    return path


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


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Refuse to replace what is there unless told to.

    Raises:
        UsageError: there is something, and `overwrite` is not set.
    """
    if path.exists() and not overwrite:
        raise UsageError(f"{path} exists; give another --output, or --overwrite")


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
