"""Batches take what waits, in order, up to a size; what nobody wants is not computed."""

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resnets.serving.batching import Batcher, Places, QueueFull
from resnets.serving.threads import Threads


class Gate:
    """Computes n -> n + 1 once it is opened, and remembers the batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.open = threading.Event()
        self.begun = threading.Event()

    def __call__(self, items: Sequence[int]) -> list[int | Exception]:
        self.begun.set()
        self.open.wait(10)
        self.batches.append(list(items))
        return [ValueError(f"{item} fails") if item < 0 else item + 1 for item in items]


async def settle() -> None:
    """Let everything that can happen without the gate happen."""
    for _ in range(20):
        await asyncio.sleep(0)


async def computed(batcher: Batcher[int, int], item: int) -> int:
    """The result for an item."""
    result: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    batcher.put(item, result)
    return await result


@given(items=st.lists(st.integers(-3, 9), min_size=1, max_size=30), size=st.integers(1, 7))
@settings(max_examples=25, deadline=None)
def test_each_gets_its_own_result_and_no_batch_is_too_large(items: list[int], size: int) -> None:
    gate = Gate()
    gate.open.set()
    seen: list[int] = []

    async def main() -> list[int | BaseException]:
        with Threads(1) as executor:
            batcher: Batcher[int, int] = Batcher(
                gate, executor, size, lambda waits, _: seen.append(len(waits))
            )
            return await asyncio.gather(
                *(computed(batcher, item) for item in items), return_exceptions=True
            )

    results = asyncio.run(main())
    for item, result in zip(items, results, strict=True):
        assert result == item + 1 if item >= 0 else isinstance(result, ValueError)
    assert max(map(len, gate.batches)) <= size
    assert seen == [len(batch) for batch in gate.batches]
    assert [item for batch in gate.batches for item in batch] == items


def test_what_waits_while_a_batch_is_computed_is_the_next_batch() -> None:
    gate = Gate()

    async def main() -> None:
        with Threads(1) as executor:
            batcher: Batcher[int, int] = Batcher(gate, executor, 8)
            first = asyncio.ensure_future(computed(batcher, 0))
            await asyncio.to_thread(gate.begun.wait, 10)
            others = [asyncio.ensure_future(computed(batcher, n)) for n in (1, 2, 3)]
            await settle()
            assert batcher.waiting == 3
            gate.open.set()
            assert await asyncio.gather(first, *others) == [1, 2, 3, 4]
            assert batcher.waiting == 0

    asyncio.run(main())
    assert gate.batches == [[0], [1, 2, 3]]


def test_what_is_cancelled_leaves_the_queue_before_it_is_computed() -> None:
    gate = Gate()

    async def main() -> None:
        with Threads(1) as executor:
            batcher: Batcher[int, int] = Batcher(gate, executor, 8)
            first = asyncio.ensure_future(computed(batcher, 0))
            await asyncio.to_thread(gate.begun.wait, 10)
            gone = asyncio.ensure_future(computed(batcher, 1))
            last = asyncio.ensure_future(computed(batcher, 2))
            await settle()
            gone.cancel()
            await settle()
            gate.open.set()
            assert (await first, await last) == (1, 3)

    asyncio.run(main())
    assert gate.batches == [[0], [2]]


def test_a_batch_that_fails_fails_its_callers_only() -> None:
    calls: list[int] = []

    def compute(items: Sequence[int]) -> list[int | Exception]:
        calls.append(len(items))
        if len(calls) == 1:
            raise RuntimeError("no memory")
        return list(items)

    async def main() -> None:
        with Threads(1) as executor:
            batcher: Batcher[int, int] = Batcher(compute, executor, 1)
            results = await asyncio.gather(
                computed(batcher, 1), computed(batcher, 2), return_exceptions=True
            )
            assert isinstance(results[0], RuntimeError)
            assert results[1] == 2

    asyncio.run(main())


def test_items_from_many_threads_are_all_computed_and_other_work_gets_its_turn() -> None:
    gate = Gate()
    gate.open.set()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        results: list[asyncio.Future[int]] = [loop.create_future() for _ in range(400)]
        with Threads(1) as executor, ThreadPoolExecutor(8) as threads:
            batcher: Batcher[int, int] = Batcher(gate, executor, 3)
            for item, result in enumerate(results):
                threads.submit(batcher.put, item, result)
            assert await loop.run_in_executor(executor, lambda: "done") == "done"
            async with asyncio.timeout(30):
                assert await asyncio.gather(*results) == list(range(1, 401))
        assert not batcher.waiting

    asyncio.run(main())


def test_nothing_waits_for_a_thread_that_was_shut_down() -> None:
    async def main() -> None:
        executor = Threads(1)
        executor.shutdown()
        batcher: Batcher[int, int] = Batcher(Gate(), executor, 3)
        for item in (1, 2):
            with pytest.raises(RuntimeError):
                await asyncio.wait_for(computed(batcher, item), 5)

    asyncio.run(main())


def test_places_are_refused_beyond_their_number() -> None:
    places = Places(3)
    places.take(2)
    with pytest.raises(QueueFull):
        places.take(2)
    places.take()
    places.give_back(3)
    assert places.taken == 0
