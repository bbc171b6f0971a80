"""Threads do what they are told in its order, and end with whoever told them."""

import gc
import threading
import time
from concurrent.futures import CancelledError
from queue import SimpleQueue
from typing import Any
from unittest.mock import patch
from weakref import ref

import pytest

from resnets.serving.threads import Threads


def test_calls_come_in_order_and_one_that_fails_stops_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    done: list[int] = []
    with Threads(1) as threads:
        for number in range(100):
            threads.put(done.append, number)
        threads.put(lambda: 1 // 0)
        assert threads.submit(divmod, 7, 2).result(10) == (3, 1)
        with pytest.raises(ZeroDivisionError):
            threads.submit(divmod, 7, 0).result(10)
        assert threads.submit(sorted, "ba", reverse=True).result(10) == ["b", "a"]
    assert done == list(range(100))
    assert "ZeroDivisionError" in caplog.text
    with pytest.raises(RuntimeError):
        threads.put(done.append, 1)


def test_as_many_calls_run_at_once_as_there_are_threads() -> None:
    together = threading.Barrier(3)
    with Threads(3) as threads:
        waits = [threads.submit(together.wait, 10) for _ in range(3)]
        assert sorted(each.result(10) for each in waits) == [0, 1, 2]


def test_what_waits_is_dropped_where_the_threads_shall_end_at_once() -> None:
    begun, go, done = threading.Event(), threading.Event(), list[int]()
    threads = Threads(1)
    threads.put(begun.set)
    threads.put(go.wait, 10)
    threads.put(done.append, 1)
    waits = threads.submit(done.append, 2)
    begun.wait(10)
    threads.shutdown(wait=False, cancel_futures=True)
    go.set()
    with pytest.raises(CancelledError):
        waits.result(10)
    threads.shutdown()
    assert not done


class Late(SimpleQueue[Any]):
    """A queue into which each call comes late: somebody ends the threads just before."""

    threads: Threads

    def put(self, item: Any, *arguments: Any) -> None:
        if item is not None:
            end = threading.Thread(target=self.threads.shutdown)
            end.start()
            end.join(0.1)  # it waits for this call where it must
        super().put(item, *arguments)


def test_a_call_that_was_taken_is_made_also_where_the_threads_are_ending() -> None:
    late = Late()
    with patch("resnets.serving.threads.SimpleQueue", lambda: late):
        late.threads = Threads(2)
    assert late.threads.submit(divmod, 7, 2).result(5) == (3, 1)
    with pytest.raises(RuntimeError):
        late.threads.submit(divmod, 7, 2)


def test_threads_end_when_nobody_uses_them_and_keep_nothing_alive() -> None:
    class Model:
        def __init__(self) -> None:
            self.threads = Threads(2, "of a model")
            self.threads.submit(self.compute).result(10)

        def compute(self) -> None:
            """Do nothing."""

    model = ref(Model())
    end = time.monotonic() + 30
    while time.monotonic() < end:
        gc.collect()
        names = [thread.name for thread in threading.enumerate()]
        if model() is None and "of a model" not in names:
            break
        time.sleep(0.01)
    assert model() is None
    assert "of a model" not in names
