"""Graphs of fixed shape, which runtimes compute faster, for the batch sizes that are worth it."""

from collections.abc import Callable
from threading import RLock
from typing import Generic, TypeVar

_Graph = TypeVar("_Graph")

_REPEATED = 8  # batches of one size in a row, after which it gets a graph of its own


class Graphs(Generic[_Graph]):
    """A runtime's graphs of one network.

    For a graph of fixed shape a runtime computes ahead all that depends on the shape, but making
    one takes time and memory. So there are three at most: for one image, for the batch size that
    keeps coming, and for any. Threads may share them.
    """

    def __init__(self, make: Callable[[int | None], _Graph]) -> None:
        """Take what makes a graph for batches of so many images, or, of None, of any number."""
        self.make = make
        self.one = make(1)
        self.any: _Graph | None = None
        self.own: _Graph | None = None
        self.lock = RLock()
        self.size = self.times = 0  # the last batch size above 1, and how often it came in a row

    def for_batch(self, size: int) -> _Graph:
        """What computes a batch of so many images."""
        if size == 1:
            return self.one
        with self.lock:
            if size != self.size:
                self.size, self.times, self.own = size, 0, None
            self.times += 1
            if self.own is None and self.times > _REPEATED:
                self.own = self.make(size)
            return self.for_any() if self.own is None else self.own

    def for_any(self) -> _Graph:
        """What computes batches of any size, made when it is first needed."""
        with self.lock:
            if self.any is None:
                self.any = self.make(None)
            return self.any
