"""Outages of remote places: a line about one by the first process that meets it."""

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
from resnets.outages import Outage

_OVER = 120.0  # seconds after which an outage is over that a process has told of


def outage_of(address: str) -> Outage:
    """The state of the server of an address, which fails or does not."""
    parts = urlsplit(address)
    server = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"  # without a password

    def tell(text: str) -> None:
        if _is_first(server):
            say(f"{server}: {text}", file=sys.stderr)

    return Outage(tell)


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
            if time.time() - mark.stat().st_mtime > _OVER:
                mark.unlink()
