"""Dynamic batching: what waits while a batch is computed makes up the next one.

No request waits for others to come. Under light load each image is computed alone, at the latency
of one image; under heavy load batches grow by themselves, up to the largest allowed.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Generic, TypeVar

from resnets.serving.threads import Threads

if TYPE_CHECKING:
    from asyncio import Future

Item = TypeVar("Item")
Result = TypeVar("Result")


class QueueFull(Exception):  # noqa: N818  (what happened, not a fault)
    """As many images as allowed are in the server already."""


class DeadlinePassed(Exception):  # noqa: N818
    """The deadline of a request passed before its images were computed."""


class Places:
    """The places in the server: each image takes one from when it has arrived to its answer.

    Args:
        total: how many there are.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.taken = 0

    @property
    def free(self) -> int:
        """How many are free."""
        return self.total - self.taken

    def take(self, count: int = 1) -> None:
        """Take places, without waiting.

        Raises:
            QueueFull: so many are not free.
        """
        if count > self.free:
            raise QueueFull
        self.taken += count

    def give_back(self, count: int = 1) -> None:
        """Give places back."""
        self.taken -= count


@dataclass(eq=False)
class _Waiting(Generic[Item, Result]):
    """An item that waits to be computed, since a moment of `time.perf_counter`."""

    item: Item
    since: float
    result: "Future[Result]" = field(repr=False)


class Batcher(Generic[Item, Result]):
    """Computes items in batches, one batch at a time, in the order of their arrival.

    Items come from any thread. One whose future was cancelled, as nobody waits for it any more, is
    left out of the batch. The event loop is woken once a batch.

    Args:
        compute: a function of a batch of items that gives their results in the same order; in
            place of a result stands an exception where one item alone failed.
        threads: one, which computes; what else it is told to do comes between two batches.
        max_batch: the largest number of items in a batch.
        observe: called in the event loop after each batch with how long each item had waited for
            it and its computation took, in seconds.
    """

    def __init__(
        self,
        compute: Callable[[Sequence[Item]], Sequence[Result | Exception]],
        threads: Threads,
        max_batch: int,
        observe: Callable[[Sequence[float], float], None] = lambda *_: None,
    ) -> None:
        self.max_batch = max_batch
        self._compute = compute
        self._threads = threads
        self._observe = observe
        self._queue: deque[_Waiting[Item, Result]] = deque()
        self._lock = Lock()  # of the next line
        self._at_work = False  # whether a batch is computed, or about to be

    @property
    def waiting(self) -> int:
        """Number of items that wait to be computed."""
        return len(self._queue)

    def put(self, item: Item, result: "Future[Result]") -> None:
        """Have an item computed.

        Args:
            item: to compute.
            result: gets the result, or the exception that `compute` raised or gave for this item.
        """
        self._queue.append(_Waiting(item, time.perf_counter(), result))
        with self._lock:
            if self._at_work:
                return
            self._at_work = True
        self._work_again()

    def _work_again(self) -> None:
        """Compute a batch when the thread is free."""
        try:
            self._threads.put(self._work)
        except RuntimeError as error:  # it has ended
            self._fail_all(error)

    def _work(self) -> None:
        """Compute a batch. In the thread that computes."""
        if batch := self._next_batch():
            self._answer(batch)
        with self._lock:
            self._at_work = bool(self._queue)
            if not self._at_work:
                return
        self._work_again()

    def _next_batch(self) -> list[_Waiting[Item, Result]]:
        """The items that have waited longest and are still wanted."""
        batch: list[_Waiting[Item, Result]] = []
        while self._queue and len(batch) < self.max_batch:
            waiting = self._queue.popleft()
            if not waiting.result.done():
                batch.append(waiting)
        return batch

    def _answer(self, batch: Sequence[_Waiting[Item, Result]]) -> None:
        """Compute a batch, and have the event loop hand out its results."""
        begin = time.perf_counter()
        waits = [begin - waiting.since for waiting in batch]
        results: Sequence[Result | Exception]
        try:
            results = self._compute([waiting.item for waiting in batch])
        except Exception as error:  # each caller gets it; the next batch is computed all the same
            results = [error] * len(batch)
        except BaseException as error:  # as some native libraries raise where they have a fault
            results = [RuntimeError(f"{type(error).__name__}: {error}")] * len(batch)
        seconds = time.perf_counter() - begin
        loop = batch[0].result.get_loop()
        loop.call_soon_threadsafe(self._hand_out, batch, results, waits, seconds)

    def _hand_out(
        self,
        batch: Sequence[_Waiting[Item, Result]],
        results: Sequence[Result | Exception],
        waits: Sequence[float],
        seconds: float,
    ) -> None:
        """Give each caller its result. In the event loop."""
        for waiting, result in zip(batch, results, strict=True):
            if waiting.result.done():
                continue
            if isinstance(result, Exception):
                waiting.result.set_exception(result)
            else:
                waiting.result.set_result(result)
        self._observe(waits, seconds)

    def _fail_all(self, error: Exception) -> None:
        """Let everything that waits fail, and what comes later try the thread again."""
        with self._lock:
            self._at_work = False
            while self._queue:
                waiting = self._queue.popleft()
                waiting.result.get_loop().call_soon_threadsafe(fail, waiting.result, error)


def fail(result: "Future[Result]", error: Exception) -> None:
    """Let what waits for a future fail, if anything does. In its event loop."""
    if not result.done():
        result.set_exception(error)
