"""Signals that end a process: Ctrl-C that waits, SIGTERM that ends at once, or that is an error."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")  # no system has all of them
STOPPING = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))


class Signalled(KeyboardInterrupt):
    """A signal other than Ctrl-C's ends a command.

    Attributes:
        signal: which one.
    """

    def __init__(self, number: signal.Signals, text: str | None = None) -> None:
        super().__init__(text or number.name)
        self.signal = number


@contextmanager
def signals_raise() -> Iterator[None]:
    """Let the signals by which the system would end the process raise an error, as Ctrl-C does.

    A second one ends the process at once. Those that something else handles or ignores stay so.

    Raises:
        Signalled: one came.
    """
    if threading.current_thread() is not threading.main_thread():  # which alone has handlers
        yield
        return
    numbers = [number for number in STOPPING if signal.getsignal(number) == signal.SIG_DFL]
    received = False

    def stop(number: int, _: object) -> None:
        nonlocal received
        if received:
            os._exit(128 + number)
        received = True
        raise Signalled(signal.Signals(number))

    for number in numbers:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


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
