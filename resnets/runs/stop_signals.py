"""Signals that stop a run: noted while it trains, so that its state is saved first."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from resnets.data.batches import ProcessRank
from resnets.interrupting import STOPPING, Signalled, signals_raise
from resnets.runs.folder import how_to_continue, how_to_repeat
from resnets.torchrun import is_under_torchrun

_HANG_UP = getattr(signal, "SIGHUP", None)  # the terminal has gone; Windows does not tell


class Interrupted(KeyboardInterrupt):
    """A signal has stopped a command's training; its state is saved.

    Attributes:
        signal: which one.
        step: steps done.
        folder: of the run; None where there is none yet, and in all processes but the first.
        early: whether it came before a step was done, so that no state was saved.
        elsewhere: the folder of the run, in the first process of each machine, which tells those
            who read its output what the first process of all has saved.
    """

    def __init__(
        self,
        number: signal.Signals,
        step: int,
        folder: Path | None,
        *,
        early: bool = False,
        elsewhere: Path | None = None,
    ) -> None:
        super().__init__(f"stopped by {number.name} after step {step}")
        self.signal, self.step, self.folder, self.early = number, step, folder, early
        self.elsewhere = elsewhere

    def in_words(self) -> list[str]:
        """What stands, and how to go on, a line each; nothing where another process says it."""
        by = f"Stopped by {self.signal.name}"
        if self.folder is None and self.elsewhere is not None:
            saved = f"{by} after step {self.step}, which the first process saves."
            return [saved, how_to_continue(self.elsewhere)]
        if self.folder is None:
            before = f"{by} before training began: nothing was trained, and no run was written."
            return [f"{before}{self._sender()}", how_to_repeat()] if self.early else []
        done = f"{by} and saved after step {self.step}."
        if self.early:
            done = f"{by} before a step was done: nothing new was saved.{self._sender()}"
        return [done, how_to_continue(self.folder)]

    def _sender(self) -> str:
        """Who may have sent the signal: before the first step no process looks for lost ones."""
        if self.signal != signal.SIGTERM or not is_under_torchrun():
            return ""
        return (
            " torchrun sends SIGTERM when it is stopped, and when a process has ended, which its "
            "last lines name."
        )


class StopSignals:
    """Notes signals while it lasts, in the main thread; in other threads Python allows no handlers.

    Args:
        numbers: the signals.
        exits: whether the second one ends the process at once. If not, it raises KeyboardInterrupt.

    Attributes:
        received: the number of the first signal that came, or None.
    """

    def __init__(self, numbers: Sequence[signal.Signals] = STOPPING, exits: bool = True) -> None:
        self.numbers, self.exits = numbers, exits
        self.received: int | None = None
        self.before: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            for number in self.numbers:
                before = signal.getsignal(number)
                if number == _HANG_UP and before == signal.SIG_IGN:
                    continue  # as nohup asks for
                if before is not None:  # None: set by C code, and could not be set again
                    self.before[number] = before
                    signal.signal(number, self.note)
        return self

    def note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Handle a signal."""
        if self.received is not None and self.exits:
            os._exit(128 + number)
        if self.received is not None:
            raise KeyboardInterrupt
        self.received = number

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.before.clear()


@contextlib.contextmanager
def _interrupted(
    as_command: bool, process: ProcessRank, error: Callable[[signal.Signals], Interrupted]
) -> Iterator[None]:
    """Raise an error that says what stands where a signal stops a command.

    Signals end the first process as Ctrl-C does, as it has something to say; others at once.

    Args:
        as_command: whether the process is there for this run alone; if not, nothing changes.
        process: which one it is.
        error: makes the error for a signal.
    """
    if not as_command:
        yield
        return
    try:
        with contextlib.nullcontext() if process.rank else signals_raise():
            yield
    except Interrupted:
        raise
    except KeyboardInterrupt as stop:
        raise error(stop.signal if isinstance(stop, Signalled) else signal.SIGINT) from None


def interrupted_before_training(
    as_command: bool, process: ProcessRank, places: list[Path]
) -> contextlib.AbstractContextManager[None]:
    """Say what stands where a signal stops a command before its training takes note of signals.

    Args:
        as_command: whether the process is there for this run alone; if not, nothing changes.
        process: the first one has something to say.
        places: the folder of the run, once it is there.

    Raises:
        Interrupted: a signal stopped it.
    """

    def error(number: signal.Signals) -> Interrupted:
        first = process.rank == 0
        return Interrupted(number, 0, places[-1] if places and first else None, early=first)

    return _interrupted(as_command, process, error)


def interrupted_after_training(
    as_command: bool, process: ProcessRank, step: int, folder: Path | None
) -> contextlib.AbstractContextManager[None]:
    """Say how a command goes on that a signal stops after training: its last checkpoint is there.

    Args:
        as_command: whether the process is there for this run alone; if not, nothing changes.
        process: the first one has something to say.
        step: steps done.
        folder: of the run; None in all processes but the first.

    Raises:
        Interrupted: a signal stopped it.
    """
    return _interrupted(as_command, process, lambda number: Interrupted(number, step, folder))
