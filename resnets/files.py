"""Writing files so that a crash, a full disk or a reader in between never finds half of one."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[IO[bytes]]:
    """Open a temporary file beside `path` which takes its place when the block ends well.

    The content is on the disk before the name changes, and the folder is synced after it. When the
    block raises, the temporary file goes and `path` stays as it was.

    >>> with replacing(tmp / "note") as file:
    ...     _ = file.write(b"whole or not at all")
    >>> (tmp / "note").read_bytes()
    b'whole or not at all'
    """
    path = Path(path)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fchmod(file.fileno(), 0o666 & ~current_umask())  # mkstemp makes private files
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_atomically(path: str | Path, content: bytes) -> None:
    """Write a whole file, or none of it: see `replacing`."""
    with replacing(path) as file:
        file.write(content)


def sync_folder(folder: Path) -> None:
    """Make a change of names in a folder last through a power cut, where the system can."""
    if os.name != "posix":  # Windows cannot open a folder
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def current_umask() -> int:
    """The permission bits that new files of this process do not get."""
    umask = os.umask(0)
    os.umask(umask)
    return umask
