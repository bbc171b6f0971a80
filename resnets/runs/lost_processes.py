"""What a training of several processes says where one of them is lost, perhaps the first."""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from resnets.escaping import say
from resnets.runs.folder import how_to_continue
from resnets.torchrun import restarts_left, speaks_for_machine
from resnets.training.heartbeat import is_failed_exchange


@contextlib.contextmanager
def reason_says_how_to_continue(as_command: bool, places: Sequence[Path]) -> Iterator[None]:
    """Add how to continue to the reason: torchrun may have printed much since it was first said.

    Args:
        as_command: whether the process is there for this run alone; if not, nothing is added.
        places: the folder of the run, once it is there.

    Raises:
        ChildProcessError: as it was raised, with the command that goes on.
    """
    try:
        yield
    except ChildProcessError as error:
        if not as_command or not places or restarts_left():
            raise
        raise ChildProcessError(f"{error}. {how_to_continue(places[-1])}") from error


@contextlib.contextmanager
def loss_says_how_to_continue(as_command: bool, places: Sequence[Path]) -> Iterator[None]:
    """Say how to go on where another process is lost, in one process of each machine.

    When torchrun notices the loss it sends SIGTERM to the other processes, before they have learnt
    which one is missing. So the process that speaks ignores SIGTERM until it has named that one,
    unless torchrun starts all again; torchrun kills it after half a minute.

    Args:
        as_command: whether the process is there for this run alone; if not, nothing is said.
        places: the folder of the run, once it is there.
    """
    try:
        yield
    except Exception as error:
        lost = isinstance(error, ChildProcessError) or is_failed_exchange(error)
        if as_command and places and lost and speaks_for_machine():
            _say_how_to_continue(places[-1])
        raise


def _say_how_to_continue(folder: Path) -> None:
    """Say how to go on; the reason follows as the error that ends the command."""
    if restarts_left():
        begin = "torchrun starts all processes again. If it cannot, to continue"
    else:
        begin = "To continue"
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
    say(how_to_continue(folder, begin), file=sys.stderr, flush=True)
