"""Outages of servers: since when one lasts, and a line about it that is not repeated."""

import math
import time
from collections.abc import Callable
from threading import Lock

_APART = 120.0  # seconds between two failures, or two lines, beyond which they are of two outages


class Outage:
    """Whether a server fails, for all requests to it together; for any thread.

    Args:
        tell: prints a line about it, or has one printed; called with what `Outage.tell` was.

    Attributes:
        answers: number of requests that were answered.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell, self._lock = tell, Lock()
        self._since: float | None = None  # when the first request began that failed
        self._last = self._told = -math.inf  # when one failed, or a line was printed
        self.answers = 0

    def begin(self, began: float) -> float:
        """Take note that a request failed; returns for how many seconds requests have.

        Args:
            began: when it did, by `time.monotonic`.
        """
        now = time.monotonic()
        with self._lock:
            since = self._since
            if since is None or now - self._last > _APART:
                since = began
            self._since, self._last = min(since, began), now
            return now - self._since

    def end(self, sent: float) -> None:
        """Take note of an answer.

        Args:
            sent: when its request was; a server that stops answers those that it has.
        """
        with self._lock:
            self.answers += 1
            if self._since is not None and sent >= self._since:
                self._since = None

    def tell(self, text: str = "") -> None:
        """Print a line, unless one was asked for not long ago.

        Args:
            text: what went wrong, and what is done about it.
        """
        now = time.monotonic()
        with self._lock:
            is_new, self._told = now - self._told > _APART, now
        if is_new:
            self._tell(text)
