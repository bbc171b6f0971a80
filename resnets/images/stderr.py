"""Standard error without the messages that C libraries print about damaged images."""

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO


@dataclass
class _Silence:
    """How many blocks are silent now, in all threads, and where standard error led before."""

    blocks: int = 0
    before: int = -1


_SILENCE = _Silence()
_LOCK = threading.Lock()


@contextmanager
def silent_decoders() -> Iterator[TextIO]:
    """Drop what is printed on the process's standard error, such as libtiff's warnings.

    Threads may do so at the same time: the last one that ends gives standard error back.

    Yields:
        A stream that still leads to standard error; to nowhere, if that is closed.
    """
    if sys.stderr is not None:
        sys.stderr.flush()
    with _LOCK:
        if not _SILENCE.blocks:
            _SILENCE.before = _redirect()
        _SILENCE.blocks += 1
        closed = _SILENCE.before < 0
        number = os.open(os.devnull, os.O_WRONLY) if closed else os.dup(_SILENCE.before)
    try:
        with os.fdopen(number, "w", encoding="utf-8") as stream:
            yield stream
    finally:
        with _LOCK:
            _SILENCE.blocks -= 1
            if not _SILENCE.blocks and _SILENCE.before >= 0:
                os.dup2(_SILENCE.before, 2)
                os.close(_SILENCE.before)


def _redirect() -> int:
    """Lead descriptor 2 to nowhere. Returns a copy of what it was; -1 if it was closed."""
    with contextlib.suppress(OSError):
        before = os.dup(2)
        with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        return before
    return -1
