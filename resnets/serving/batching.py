"""Dynamic batching: what waits while a batch is computed makes up the next one.

No request waits for others to come. Under light load each image is computed alone, at the latency
of one image; under heavy load batches grow by themselves, up to the largest allowed.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from resnets.serving.logs import log

Item = TypeVar("Item")
Result = TypeVar("Result")


class QueueFull(Exception):  # noqa: N818  (what happened, not a fault)
    """As many images as allowed are in the server already."""


class DeadlinePassed(Exception):  # noqa: N818
    """The deadline of a request passed before its images were computed."""


class Places:
    """The places in the server: each image takes one from its arrival to its answer.

    Args:
        total: how many there are.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.taken = 0

    def take(self, count: int = 1) -> None:
        """Take places, without waiting.

        Raises:
            QueueFull: so many are not free.
        """
        if self.taken + count > self.total:
            raise QueueFull
        self.taken += count

    def give_back(self, count: int = 1) -> None:
        """Give places back."""
        self.taken -= count


@dataclass(eq=False)
class _Waiting(Generic[Item, Result]):
    """An item that waits to be computed."""

    item: Item
    since: float
    result: "asyncio.Future[Result]" = field(repr=False)


class Batcher(Generic[Item, Result]):
    """Computes items in batches, one batch at a time, in the order of their arrival.

    An item whose caller was cancelled, or whose deadline has passed, is left out of the batch.
    All methods are called in one event loop.

    Args:
        compute: a function of a batch of items that gives their results in the same order; in
            place of a result stands an exception where one item alone failed.
        executor: its one thread computes.
        max_batch: the largest number of items in a batch.
        observe: called after each batch with the number of items and how long each had waited
            for it and its computation took, in seconds.
    """

    def __init__(
        self,
        compute: Callable[[Sequence[Item]], Sequence[Result | Exception]],
        executor: Executor,
        max_batch: int,
        observe: Callable[[int, Sequence[float], float], None] | None = None,
    ) -> None:
        self.max_batch = max_batch
        self._compute = compute
        self._executor = executor
        self._observe = observe
        self._queue: deque[_Waiting[Item, Result]] = deque()
        self._task: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Number of items that wait to be computed."""
        return len(self._queue)

    async def submit(self, item: Item, deadline: float) -> Result:
        """The result for an item.

        Args:
            item: to compute.
            deadline: by the event loop's clock, in seconds.

        Raises:
            DeadlinePassed: it passed before the item was computed.
            Exception: which `compute` raised, or gave for this item.
        """
        loop = asyncio.get_running_loop()
        result: asyncio.Future[Result] = loop.create_future()
        waiting = _Waiting(item, loop.time(), result)
        self._queue.append(waiting)
        if self._task is None:
            self._task = loop.create_task(self._run())
        try:
            async with asyncio.timeout_at(deadline):
                return await result
        except TimeoutError:
            raise DeadlinePassed from None
        finally:  # where nobody waits for it any more, it need not be computed
            result.cancel()

    async def _run(self) -> None:
        """Compute batches until none waits."""
        try:
            while batch := self._next_batch():
                await self._answer(batch)
        finally:
            self._task = None

    def _next_batch(self) -> list[_Waiting[Item, Result]]:
        """The items that have waited longest and are still wanted."""
        batch: list[_Waiting[Item, Result]] = []
        while self._queue and len(batch) < self.max_batch:
            waiting = self._queue.popleft()
            if not waiting.result.done():
                batch.append(waiting)
        return batch

    async def _answer(self, batch: Sequence[_Waiting[Item, Result]]) -> None:
        """Compute a batch, and hand out its results."""
        loop = asyncio.get_running_loop()
        begin = loop.time()
        items = [waiting.item for waiting in batch]
        results: Sequence[Result | Exception]
        try:
            results = await loop.run_in_executor(self._executor, self._compute, items)
        except Exception as error:  # each caller gets it; the next batch is computed all the same
            results = [error] * len(batch)
        for waiting, result in zip(batch, results, strict=True):
            if waiting.result.done():
                continue
            if isinstance(result, Exception):
                waiting.result.set_exception(result)
            else:
                waiting.result.set_result(result)
        if self._observe is not None:
            waits = [begin - waiting.since for waiting in batch]
            try:
                self._observe(len(batch), waits, loop.time() - begin)
            except Exception as error:  # such as a full disk; those that wait are computed still
                log("fault", error=error)
