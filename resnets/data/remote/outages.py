"""Outages of remote places: how long one has lasted, and a line about it by one process."""

import contextlib
import hashlib
import multiprocessing
import os
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

from resnets.escaping import say
from resnets.files.folders import cache_folder, warn_of_cache

_APART = 120.0  # seconds between two failures, beyond which they belong to two outages


class Outage:
    """Whether a server fails, for all requests of a process together.

    Attributes:
        server: its name, for users.
        since: when the first request began that failed, by `time.monotonic`; None: all is well.
        last: when a request failed last.
        told: when a line was last printed, or another process had printed it.
    """

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        self.server = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"  # without a password
        self.since: float | None = None
        self.last = self.told = -_APART

    def begin(self, began: float) -> float:
        """Take note that a request failed; returns since when requests fail.

        Args:
            began: when it did, by `time.monotonic`.
        """
        now, since = time.monotonic(), self.since
        earlier = began if since is None or now - self.last > _APART else min(since, began)
        self.since, self.last = earlier, now
        return earlier

    def end(self) -> None:
        """Take note that a request was answered."""
        self.since = None

    def tell(self) -> None:
        """Print a line, unless one was printed since the last time without failures."""
        now = time.monotonic()
        is_new, self.told = now - self.told > _APART, now
        if is_new and _is_first(self.server):
            say(f"slow or no answer from {self.server}; trying again", file=sys.stderr)


def _is_first(server: str) -> bool:
    """Whether no other process of the program has told of an outage; in doubt none has.

    The first one leaves a file. Processes that are started meanwhile see it, too.
    """
    parent = multiprocessing.parent_process()
    program = os.getpid() if parent is None else parent.pid
    folder = cache_folder() / "outages"
    mark = folder / hashlib.sha256(f"{program} {server}".encode()).hexdigest()[:32]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_old(folder)
        mark.touch(exist_ok=False)
    except FileExistsError:
        return False
    except OSError as error:
        warn_of_cache(error)
    return True


def _remove_old(folder: Path) -> None:
    """Remove the files of outages that are over."""
    for mark in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            if time.time() - mark.stat().st_mtime > _APART:
                mark.unlink()
