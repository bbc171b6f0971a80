"""A lock of a folder in a bucket, where there are no locks: a file that says who is at work.

Who is at work writes the file anew every few seconds. Who finds it waits until it changes, and then
stays out; if it does not change, its process was killed, and the file is taken over. Clocks are not
compared. Buckets of all kinds can do this, and it is enough against two commands by mistake.
"""

import contextlib
import os
import platform
import sys
import threading
import time
import uuid
from collections.abc import Iterator

from resnets.data.remote.fetching import NoSuchFileError
from resnets.data.remote.folder import RemoteFolder
from resnets.errors import FolderInUse
from resnets.escaping import say
from resnets.format import duration
from resnets.locks import LOCK, in_use

_LIFE = 10.0  # seconds between two signs of life
_DEAD = 35.0  # seconds without one
_LOOK = 1.0  # seconds between two looks
_BOTH = 0.5  # seconds within which another one, that found no file either, writes its own


@contextlib.contextmanager
def locked_remotely(folder: RemoteFolder) -> Iterator[None]:
    """Be the only process that works in a folder, as far as all of them ask.

    Raises:
        FolderInUse: another process is at work.
        RemoteError: the folder cannot be read or written.
    """
    own = f"{os.getpid()} on {platform.node()}\n{uuid.uuid4().hex}\n"
    if before := _content(folder):
        _wait_for_end(folder, before)
    ended = threading.Event()
    signs = threading.Thread(target=_give_signs, args=(folder, own, ended), daemon=True)
    try:
        folder.write_bytes(LOCK, own.encode())
        time.sleep(_BOTH)
        _refuse_other(folder, own)
        signs.start()
        yield
    finally:
        ended.set()
        if signs.is_alive():
            signs.join()
        with contextlib.suppress(OSError):  # the next one waits a little
            if _content(folder).startswith(own):
                folder.remove(LOCK)


def _give_signs(folder: RemoteFolder, own: str, ended: threading.Event) -> None:
    """Write the file anew until the work has ended; an outage is not ours to tell."""
    number = 0
    while not ended.wait(_LIFE):
        number += 1
        with contextlib.suppress(OSError):
            folder.write_bytes(LOCK, f"{own}{number}".encode())


def _wait_for_end(folder: RemoteFolder, before: str) -> None:
    """Wait until a file has not changed for so long that its process is dead, or is gone."""
    say(
        f"{folder.address}: another process ({_owner(before)}) works here, or was killed; waiting "
        f"for a sign of life, {duration(_DEAD)} at most",
        file=sys.stderr,
    )
    deadline = time.monotonic() + _DEAD
    while time.monotonic() < deadline:
        time.sleep(_LOOK)
        now = _content(folder)
        if not now:
            return
        if now != before:
            raise _in_use(folder, now)


def _refuse_other(folder: RemoteFolder, own: str) -> None:
    """Refuse if another process has begun at the same time, and wrote last."""
    now = _content(folder)
    if now and now != own:
        raise _in_use(folder, now)


def _content(folder: RemoteFolder) -> str:
    """What the file says; empty if there is none."""
    try:
        return folder.content(LOCK).decode("utf-8", "replace")
    except NoSuchFileError:
        return ""


def _in_use(folder: RemoteFolder, content: str) -> FolderInUse:
    return FolderInUse(in_use(folder.address, _owner(content)))


def _owner(content: str) -> str:
    return content.partition("\n")[0]
