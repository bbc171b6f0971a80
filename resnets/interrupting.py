"""Ctrl-C that waits for the end of what must not be cut short, and SIGTERM that ends at once."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let Ctrl-C wait until the end of the context; a second one ends the process at once.

    Raises:
        KeyboardInterrupt: at the end, if it came meanwhile.
    """
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler) or threading.current_thread() is not threading.main_thread():
        yield
        return
    interrupted = False

    def wait(*_: object) -> None:
        nonlocal interrupted
        interrupted = True
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    signal.signal(signal.SIGINT, wait)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
    if interrupted:
        signal.raise_signal(signal.SIGINT)


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the process with exit code 0, where nothing else handles it yet.

    Without a handler, the code would be that of a crash, and the first process of a container would
    go on, as the system ignores the signal there.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
