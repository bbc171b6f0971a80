"""What a client notices of its server over many requests: that it is away, and another model."""

import time
from collections import Counter
from collections.abc import Callable
from threading import Lock

from resnets.format import duration, plural

Notify = Callable[[str], None]
_SHOWN = 12  # characters of a digest


class Outages:
    """Whether a server that answered before is away, for all requests of a client together.

    Args:
        url: of the server.
        patience: seconds that an outage may last; after them, no request waits for its end.
        notify: is called with a line once in an outage, from any thread.
    """

    def __init__(self, url: str, patience: float, notify: Notify) -> None:
        self._url, self._patience, self._notify = url, patience, notify
        self._lock = Lock()
        self._since: float | None = None  # when the outage was noticed; None outside of one
        self.answers = 0

    def end(self, sent: float) -> None:
        """Take note of an answer.

        Args:
            sent: when its request was; a server that stops answers those that it has.
        """
        with self._lock:
            self.answers += 1
            if self._since is not None and sent >= self._since:
                self._since = None

    def is_to_wait(self) -> bool:
        """Whether a request that met no server is to wait for it: not where none ever answered."""
        now = time.monotonic()
        with self._lock:
            if not self.answers:
                return False
            is_new = self._since is None
            self._since = now if self._since is None else self._since
            lasted = now - self._since
        if is_new:
            waiting = duration(self._patience)
            self._notify(f"{self._url} does not answer; waiting up to {waiting} for it")
        return lasted < self._patience


class AnsweredBy:
    """Which files of a model answered the images of one call."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._images: Counter[str] = Counter()  # by digest, in the order of first answers

    def add(self, digest: str) -> None:
        """Count an image."""
        with self._lock:
            self._images[digest] += 1

    def change(self) -> str | None:
        """What to say where the model changed between the first image and the last; else None."""
        if len(self._images) < 2:
            return None
        total = plural(self._images.total(), "image")
        parts = [f"{count:,} by {digest[:_SHOWN]}" for digest, count in self._images.items()]
        return f"the model changed meanwhile: of {total}, {', '.join(parts)}"
