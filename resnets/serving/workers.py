"""Several processes that share one port.

The parent binds the port and starts the workers, each of which opens the models and accepts
connections of the same socket. A worker that dies is started again; only its requests fail.
"""

import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, redirect_stderr
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from socket import socket
from types import FrameType
from typing import Any

from resnets.errors import ContentError, UsageError
from resnets.serving.logs import log, logging_to_stderr

Work = Callable[[socket, Callable[[], None]], None]
"""Opens the models and serves on a socket until told to stop; calls the function once it does."""

_CAN_SHARE = not sys.platform.startswith("win")  # a socket between processes, as workers need it
_FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # where each worker writes its metrics; the parent makes it
_TICK = 0.1  # seconds between two looks at the workers
_LONGEST = 30.0  # seconds to wait before a worker is started again
_MARGIN = 5.0  # seconds beyond the grace period after which a worker is killed
_STOP = (signal.SIGINT, signal.SIGTERM)
_INTERRUPTED = 130  # exit code


def serve_by_workers(
    work: Work, count: int, listener: socket, grace: float, started: Callable[[], None]
) -> None:
    """Serve by several processes until SIGTERM or Ctrl-C.

    Args:
        work: what each does; it can be pickled.
        count: number of processes.
        listener: the socket that they share.
        grace: seconds to finish what is in flight.
        started: called once all serve.

    Raises:
        UsageError: processes cannot share a socket here.
        Exception: that a worker met while it started for the first time.
    """
    if not _CAN_SHARE:
        raise UsageError(
            f"--workers {count}: processes cannot share a port on Windows; start several servers "
            "on ports of their own, behind a proxy"
        )
    with tempfile.TemporaryDirectory(prefix="resnets-metrics-") as folder, logging_to_stderr():
        before = os.environ.get(_FOLDER)
        os.environ[_FOLDER] = folder  # the workers inherit it
        try:
            _Workers(work, count, listener, grace).run(started)
        finally:
            os.environ.pop(_FOLDER)
            if before is not None:
                os.environ[_FOLDER] = before


@dataclass(eq=False)
class _Worker:
    """A process.

    Attributes:
        process: it.
        news: on which it says that it serves (None), or why it cannot.
        serves: whether it has said so.
    """

    process: BaseProcess
    news: Any  # a Connection, which has another type on Windows
    serves: bool = False


@dataclass
class _Workers:
    """The processes, watched by their parent; arguments as of `serve_by_workers`."""

    work: Work
    count: int
    listener: socket
    grace: float
    running: list[_Worker] = field(default_factory=list)
    stopping: bool = False
    complete: bool = False  # whether all have served at once
    failures: int = 0  # of workers in a row that died before they served
    retry: float = 0.0  # when the next one may be started
    spoken: bool = False  # whether one was started, which tells what all would tell

    def run(self, started: Callable[[], None]) -> None:
        """Keep the workers running until told to stop."""
        with self._signals():
            try:
                while not self.stopping:
                    self._start_missing()
                    wait([each.process.sentinel for each in self.running], timeout=_TICK)
                    self._take_note(started)
            finally:
                self._stop()

    def _take_note(self, started: Callable[[], None]) -> None:
        """Learn what has become of the workers."""
        if self.stopping:  # those that start may have ended by the same signal
            return
        self._read_news()
        self._bury()
        if not self.complete and self._all_serve():
            self.complete = True
            started()

    def _all_serve(self) -> bool:
        """Whether as many as wanted serve."""
        return sum(each.serves for each in self.running) == self.count

    def _start_missing(self) -> None:
        """Start as many workers as are missing, not too often where they die at once."""
        while len(self.running) < self.count and time.monotonic() >= self.retry:
            self.running.append(self._start())

    def _start(self) -> _Worker:
        """A new worker."""
        context = multiprocessing.get_context("spawn")  # torch and its threads survive no fork
        ours, theirs = context.Pipe(duplex=False)
        speaks, self.spoken = not self.spoken, True
        process = context.Process(target=_work, args=(self.work, self.listener, theirs, speaks))
        process.start()
        theirs.close()
        log("worker started", pid=process.pid)
        return _Worker(process, ours)

    def _read_news(self) -> None:
        """Learn which workers serve.

        Raises:
            Exception: why one cannot, while the workers start for the first time.
        """
        for worker in self.running:
            try:
                if worker.serves or not worker.news.poll():
                    continue
                error = worker.news.recv()
            except (EOFError, OSError):  # it has died
                continue
            except Exception as unreadable:  # such as an error that cannot be made anew
                error = ContentError(f"a worker cannot start; its reason is lost ({unreadable})")
            if error is None:
                worker.serves, self.failures = True, 0
            elif not self.complete:
                raise error
            else:
                log("worker cannot start", pid=worker.process.pid, reason=str(error))

    def _bury(self) -> None:
        """Take note of the workers that have died.

        Raises:
            ContentError: one has while the workers started for the first time.
        """
        for worker in [each for each in self.running if not each.process.is_alive()]:
            self.running.remove(worker)
            code = worker.process.exitcode
            log("worker died", pid=worker.process.pid, exit_code=code)
            _forget_metrics(worker.process.pid or 0)
            worker.news.close()
            if not self.complete:
                raise ContentError(f"a worker ended with exit code {code} while it started")
            if not worker.serves:
                self.failures += 1
                self.retry = time.monotonic() + min(2.0**self.failures, _LONGEST)

    def _stop(self) -> None:
        """Have all workers finish what is in flight; those that do not are killed."""
        for worker in self.running:
            worker.process.terminate()
        self.listener.close()  # else who connects once the workers have closed theirs would wait
        ends = time.monotonic() + self.grace + _MARGIN
        for worker in self.running:
            worker.process.join(max(0.0, ends - time.monotonic()))
            worker.process.kill()
            worker.process.join()

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Stop on the first signal, at once on a second Ctrl-C; SIGHUP is passed on."""
        before = {number: signal.signal(number, self._told_to_stop) for number in _STOP}
        if hasattr(signal, "SIGHUP"):
            before[signal.SIGHUP] = signal.signal(signal.SIGHUP, self._pass_on)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _told_to_stop(self, number: int, _frame: FrameType | None) -> None:
        """Begin to stop; end at once on a second Ctrl-C."""
        if self.stopping and number == signal.SIGINT:
            for worker in self.running:
                worker.process.kill()
            os._exit(_INTERRUPTED)
        self.stopping = True

    def _pass_on(self, number: int, _frame: FrameType | None) -> None:
        """Send a signal to the workers that serve; it would end the others."""
        for worker in self.running:
            if worker.serves and worker.process.is_alive() and worker.process.pid is not None:
                os.kill(worker.process.pid, number)


def _work(work: Work, listener: socket, news: Any, speaks: bool) -> None:
    """What a worker does. Why it cannot start is told to the parent.

    Only the first one tells of the models and warns of them, as the others open the same.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which says SIGTERM
    if hasattr(signal, "SIGHUP"):  # handled once it serves, which it says a moment earlier
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    serves = False
    silence = ExitStack()
    if not speaks:
        # it stays open, as libraries keep what is standard error while they are imported
        nowhere = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
        silence.enter_context(redirect_stderr(nowhere))

    def begun() -> None:
        nonlocal serves
        serves = True
        silence.close()
        news.send(None)

    try:
        with silence, closing(listener):
            work(listener, begun)
    except Exception as error:
        if serves:
            raise
        news.send(_sendable(error))
        sys.exit(1)


def _sendable(error: Exception) -> Exception:
    """An error that another process can read: itself, or its words."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 (bytes of our own)
    except Exception:  # whatever its class does
        return ContentError(f"{type(error).__name__}: {error}")
    return error


def _end_with_parent() -> None:
    """Stop in order when the parent has died."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)


def _forget_metrics(pid: int) -> None:
    """Take the gauges of a worker that has died out of the metrics of all."""
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(pid)  # type: ignore[no-untyped-call]
