"""Batches take what waits, in order, up to a size; what nobody wants is not computed."""

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resnets.serving.batching import Batcher, DeadlinePassed, Places, QueueFull

LATER = 1e9  # a deadline far away, by any clock


class Gate:
    """Computes n -> n + 1 once it is opened, and remembers the batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.open = threading.Event()

    def __call__(self, items: Sequence[int]) -> list[int | Exception]:
        self.open.wait(10)
        self.batches.append(list(items))
        return [ValueError(f"{item} fails") if item < 0 else item + 1 for item in items]


async def settle() -> None:
    """Let everything that can happen without the gate happen."""
    for _ in range(20):
        await asyncio.sleep(0)


@given(items=st.lists(st.integers(-3, 9), min_size=1, max_size=30), size=st.integers(1, 7))
@settings(max_examples=25, deadline=None)
def test_each_gets_its_own_result_and_no_batch_is_too_large(items: list[int], size: int) -> None:
    gate = Gate()
    gate.open.set()

    async def main() -> list[int | BaseException]:
        with ThreadPoolExecutor(1) as executor:
            batcher: Batcher[int, int] = Batcher(gate, executor, size)
            return await asyncio.gather(
                *(batcher.submit(item, LATER) for item in items), return_exceptions=True
            )

    results = asyncio.run(main())
    for item, result in zip(items, results, strict=True):
        assert result == item + 1 if item >= 0 else isinstance(result, ValueError)
    assert max(map(len, gate.batches)) <= size
    assert [item for batch in gate.batches for item in batch] == items


def test_what_waits_while_a_batch_is_computed_is_the_next_batch() -> None:
    gate = Gate()

    async def main() -> None:
        with ThreadPoolExecutor(1) as executor:
            batcher: Batcher[int, int] = Batcher(gate, executor, 8)
            first = asyncio.ensure_future(batcher.submit(0, LATER))
            await settle()
            others = [asyncio.ensure_future(batcher.submit(n, LATER)) for n in (1, 2, 3)]
            await settle()
            assert batcher.waiting == 3
            gate.open.set()
            assert await asyncio.gather(first, *others) == [1, 2, 3, 4]
            assert batcher.waiting == 0

    asyncio.run(main())
    assert gate.batches == [[0], [1, 2, 3]]


def test_what_is_cancelled_or_late_leaves_the_queue_before_it_is_computed() -> None:
    gate = Gate()

    async def main() -> None:
        with ThreadPoolExecutor(1) as executor:
            batcher: Batcher[int, int] = Batcher(gate, executor, 8)
            first = asyncio.ensure_future(batcher.submit(0, LATER))
            await settle()
            gone = asyncio.ensure_future(batcher.submit(1, LATER))
            late = asyncio.ensure_future(batcher.submit(2, asyncio.get_running_loop().time()))
            last = asyncio.ensure_future(batcher.submit(3, LATER))
            await settle()
            gone.cancel()
            with pytest.raises(DeadlinePassed):
                await late
            gate.open.set()
            assert (await first, await last) == (1, 4)

    asyncio.run(main())
    assert gate.batches == [[0], [3]]


def test_a_batch_that_fails_fails_its_callers_only() -> None:
    calls: list[int] = []

    def compute(items: Sequence[int]) -> list[int | Exception]:
        calls.append(len(items))
        if len(calls) == 1:
            raise RuntimeError("no memory")
        return list(items)

    async def main() -> None:
        with ThreadPoolExecutor(1) as executor:
            batcher: Batcher[int, int] = Batcher(compute, executor, 1)
            results = await asyncio.gather(
                batcher.submit(1, LATER), batcher.submit(2, LATER), return_exceptions=True
            )
            assert isinstance(results[0], RuntimeError)
            assert results[1] == 2

    asyncio.run(main())


def test_places_are_refused_beyond_their_number() -> None:
    places = Places(3)
    places.take(2)
    with pytest.raises(QueueFull):
        places.take(2)
    places.take()
    places.give_back(3)
    assert places.taken == 0
