"""A logger in a thread of its own, so that a service that is slow or away delays and stops nothing.

What does not get through is counted and told; the run's own log has all of it.
"""

import queue
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

from resnets.format import plural

LogRecord = Mapping[str, Any]
Outcome = Literal["finished", "stopped", "failed"]

_PENDING = 1000  # records that may wait; a record has about twenty numbers
_PATIENCE = {"finished": 30.0, "stopped": 5.0, "failed": 5.0}  # seconds without progress


class Logger(Protocol):
    """What draws the records of a run and keeps its files: a service."""

    def write(self, record: LogRecord) -> None:
        """Take the next record."""

    def store(self, files: Sequence[Path]) -> None:
        """Take files of the run: its model, its report."""

    def close(self, outcome: Outcome = "finished") -> None:
        """Nothing comes any more, because the run has finished, was stopped, or has failed."""


class Background:
    """Hands records to a logger in a thread.

    Args:
        name: of the service, for what is told.
        logger: takes the records, in the thread.
        pending: how many may wait; those after them are left out.
    """

    def __init__(self, name: str, logger: Logger, pending: int = _PENDING) -> None:
        self.name, self.logger = name, logger
        self.lost, self.done = 0, 0
        self.failing = False
        self.news: deque[str] = deque()
        self.queue: queue.Queue[Callable[[], None] | None] = queue.Queue(pending)
        self.thread = threading.Thread(target=self._work, name=f"log to {name}", daemon=True)
        self.thread.start()

    def write(self, record: LogRecord) -> None:
        """Let a record follow those that wait."""
        self._add(partial(self.logger.write, record))

    def store(self, files: Sequence[Path]) -> None:
        """Let files of the run follow."""
        self._add(partial(self.logger.store, files))

    def messages(self) -> list[str]:
        """What the user should know and was not told yet."""
        return [self.news.popleft() for _ in range(len(self.news))]

    def close(self, outcome: Outcome = "finished") -> None:
        """Wait for what is on its way, as long as something gets through; then end."""
        patience, unsent = _PATIENCE[outcome], 0
        self._add(partial(self.logger.close, outcome), patience)
        self._add(None, patience)
        while self.thread.is_alive():
            before = self.done
            self.thread.join(patience)
            if self.thread.is_alive() and self.done == before:
                unsent = self.queue.qsize()
                break
        if self.lost or unsent:
            self.news.append(
                f"{self.name} did not get {plural(self.lost + unsent, 'record')} of this run; "
                "log.jsonl has them all"
            )

    def _add(self, work: Callable[[], None] | None, patience: float = 0.0) -> None:
        """Let work follow, if there is room for it within some seconds."""
        try:
            self.queue.put(work, block=patience > 0, timeout=patience or None)
        except queue.Full:
            self.lost += 1
            self._fail("it does not keep up")

    def _work(self) -> None:
        """Do one thing after the other until None comes."""
        while (work := self.queue.get()) is not None:
            try:
                work()
            except Exception as error:  # each service has errors of its own
                self.lost += 1
                self._fail(f"{type(error).__name__}: {error}")
            else:
                self.failing = False
            self.done += 1

    def _fail(self, reason: str) -> None:
        """Tell the first of several failures in a row."""
        if not self.failing:
            self.failing = True
            first = reason.strip().splitlines()[0][:300]
            self.news.append(f"{self.name} does not take records ({first}); training goes on")
