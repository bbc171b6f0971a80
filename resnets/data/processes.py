"""Worker processes: their number, how they start, and how they end.

They start in the same way on every system, never as a fork of this process, whose threads may hold
locks. Python would let each of them import the program's main script again, up to its
``if __name__ == "__main__":``. That is avoided, unless they need a class which the script defines.
"""

import copy
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import types
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import BaseContext, SpawnProcess
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from resnets.errors import UsageError
from resnets.files.reading import read_input
from resnets.machine import cores, settle_memory

_PLATFORM = sys.platform
_METHOD = "spawn" if sys.platform == "win32" else "forkserver"
_LARGEST_SCRIPT = 1 << 24  # bytes
_MOST_ON_WINDOWS = 61  # processes that a pool can wait for there: see concurrent.futures
_GROUP_SIGNALS = {  # signals that stop a run: its main process handles them
    getattr(signal, name)
    for name in ("SIGTERM", "SIGINT", "SIGHUP")
    if hasattr(signal, name)  # Windows has no SIGHUP
}


def worker_count(workers: int | None = None, processes: int = 1, platform: str = _PLATFORM) -> int:
    """The number of worker processes that read images for each training process.

    Args:
        workers: the user's setting. None: one per core, shared by the training processes; 0:
            none, so that the training process reads the images itself.
        processes: training processes on this machine.
        platform: the value of `sys.platform`.

    Raises:
        UsageError: it is negative, or more than Windows allows.

    >>> worker_count(0), worker_count(3)
    (0, 3)
    """
    most = _MOST_ON_WINDOWS if platform == "win32" else None
    if workers is None:
        share = max(1, cores() // processes)
        return share if most is None else min(share, most)
    if workers < 0:
        raise UsageError(f"workers is {workers}; it must be 0 (read in this process) or more")
    if most is not None and workers > most:
        raise UsageError(f"workers is {workers}; on Windows it must be from 0 to {most}")
    return workers


class _WithoutMain(BaseProcess):
    """A process that does not import the main script: it starts while `__main__` is empty."""

    def start(self) -> None:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = types.ModuleType("__main__")
        try:
            super().start()
        finally:
            sys.modules["__main__"] = main


class _Spawned(_WithoutMain, SpawnProcess):
    pass


_WITHOUT_MAIN: dict[str, type[BaseProcess]] = {"spawn": _Spawned}

if sys.platform != "win32":
    from multiprocessing.context import ForkServerProcess

    class _Forked(_WithoutMain, ForkServerProcess):
        pass

    _WITHOUT_MAIN["forkserver"] = _Forked


def process_context(preload: str, *values: Any, method: str | None = None) -> BaseContext:
    """The multiprocessing context in which worker processes start.

    Args:
        preload: the module that a forkserver imports once for all workers.
        values: the arguments of the processes. These import the main script again only if it
            defines a class of one of the values.
        method: forkserver or spawn; by default forkserver, if the system has it.

    Raises:
        UsageError: the main script defines such a class but cannot be imported again: it does all
            its work on import, or is a notebook or a terminal. Or a value cannot be sent.
    """
    method = method or _METHOD
    context = copy.copy(multiprocessing.get_context(method))
    if _of_main(values):
        _require_importable(sys.modules["__main__"])
    else:
        context.Process = _WITHOUT_MAIN[method]  # type: ignore[attr-defined]
    if method == "forkserver":
        _run_forkserver(preload)
    return context


def _run_forkserver(preload: str) -> None:
    """Start the forkserver such that signals to this process group do not end it."""
    if sys.platform != "win32":
        multiprocessing.get_context("forkserver").set_forkserver_preload([preload])
        resource_tracker.ensure_running()  # else the forkserver starts it, which resets the mask
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _GROUP_SIGNALS)
        try:
            forkserver.ensure_running()  # inherits the mask: its end would look like a worker's
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def become_worker() -> None:
    """Set up this worker: ignore Ctrl-C, end with the main process, and reuse freed memory."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Windows sends it to all processes of a console
    if sys.platform != "win32":
        os.setpgid(0, 0)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _GROUP_SIGNALS)
    settle_memory()
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    """Wait for the main process to end, for whatever reason, and end this one."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _of_main(values: Any) -> bool:
    """Whether the main script defines a class of one of the values."""
    searcher = _MainSearcher()
    try:
        pickle.Pickler(searcher, 5, buffer_callback=lambda _: None).dump(values)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise UsageError(
            f"the images cannot be sent to worker processes ({error}): read them in this process "
            "(workers=0, or --workers 0)"
        ) from None
    return searcher.has_main


class _MainSearcher:
    """A file that searches for the name of the main module in the data written to it."""

    has_main = False

    def write(self, data: Any) -> int:
        """Search the data; returns its length."""
        self.has_main |= b"__main__" in bytes(data)
        return len(data)


def _require_importable(main: types.ModuleType) -> None:
    file = getattr(main, "__file__", None)
    remedy = "or read in this process (workers=0, or --workers 0)"
    if file is None or not Path(file).is_file():
        raise UsageError(
            "worker processes need a class that is defined here, in a notebook or terminal, where "
            f"they cannot import it: define it in a module, {remedy}"
        )
    if b"__main__" not in read_input(file, _LARGEST_SCRIPT):
        raise UsageError(
            f"worker processes import {file} for a class that it defines, and would do its work "
            f'again: put what it does below `if __name__ == "__main__":`, {remedy}'
        )
