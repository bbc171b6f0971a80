"""Graphs of fixed shape for the batch sizes that come often; runtimes compute them faster."""

from collections.abc import Callable
from threading import RLock
from typing import Generic, TypeVar

_Graph = TypeVar("_Graph")

_MIN_REPEATS = 8  # batches of one size in a row, after which it gets a graph of its own


class Graphs(Generic[_Graph]):
    """A runtime's graphs of one network.

    For a graph of fixed shape, a runtime computes in advance what depends on the shape, but
    creating one takes time and memory. So there are at most three: for one image, for the batch
    size that repeats, and for any batch size. Threads may share them.
    """

    def __init__(self, make: Callable[[int | None], _Graph]) -> None:
        """make: creates a graph for batches of a size; None: of any size."""
        self.make = make
        self.one = make(1)
        self.any: _Graph | None = None
        self.repeated: _Graph | None = None
        self.lock = RLock()
        self.size = self.times = 0  # the last batch size above 1, and its repeats
        self.repeated_size = 0  # of the graph above, which outlives batches of other sizes

    def for_batch(self, size: int) -> _Graph:
        """The graph for batches of `size` images."""
        if size == 1:
            return self.one
        with self.lock:
            if size != self.size:
                self.size, self.times = size, 0
            self.times += 1
            if size != self.repeated_size and self.times > _MIN_REPEATS:
                self.repeated, self.repeated_size = None, 0  # frees its memory before
                self.repeated, self.repeated_size = self.make(size), size
            if self.repeated is not None and size == self.repeated_size:
                return self.repeated
            return self.for_any()

    def for_any(self) -> _Graph:
        """The graph for batches of any size, created when it is first needed."""
        with self.lock:
            if self.any is None:
                self.any = self.make(None)
            return self.any
