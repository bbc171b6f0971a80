"""Threads that work off what comes, in its order.

`concurrent.futures.ThreadPoolExecutor` makes a future with locks for each call, which takes longer
than much of what is called here. Where a future is wanted, `submit` makes one.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextvars import copy_context
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, ParamSpec, TypeVar
from weakref import finalize

from resnets.serving.logs import log

_P = ParamSpec("_P")
_T = TypeVar("_T")
_Call = tuple[Callable[..., object], tuple[Any, ...]]


class Threads(Executor):
    """Threads that end when nobody refers to this object any more.

    Args:
        count: number of threads.
        name: of each, for debuggers.
    """

    def __init__(self, count: int, name: str = "") -> None:
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._lock = threading.Lock()  # so that no call comes after the end, where none is made
        self._end = finalize(self, _end, self._calls, count, self._lock)
        self._threads = [
            threading.Thread(target=_work_off, args=(self._calls,), name=name, daemon=True)
            for _ in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def put(self, function: Callable[..., object], *arguments: object) -> None:
        """Have a function called, whose result nobody wants.

        Raises:
            RuntimeError: the threads were told to end.
        """
        with self._lock:
            if not self._end.alive:
                raise RuntimeError("the threads have ended")
            self._calls.put((function, arguments))

    def submit(
        self, function: Callable[_P, _T], /, *arguments: _P.args, **keywords: _P.kwargs
    ) -> Future[_T]:
        """Have a function called. Returns the future of its result; raises as `put`."""
        future: Future[_T] = Future()
        self.put(_settle, future, function, arguments, keywords)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let the threads end after what they were told to do, or at once."""
        if cancel_futures:
            self._drop()
        self._end()
        if wait:
            for thread in self._threads:
                thread.join()

    def _drop(self) -> None:
        """Do nothing of what waits."""
        while True:
            try:
                call = self._calls.get_nowait()
            except Empty:
                return
            if call is not None and call[0] is _settle:
                call[1][0].cancel()


async def in_own_thread(
    function: Callable[_P, _T], /, *arguments: _P.args, **keywords: _P.kwargs
) -> _T:
    """The result of a function that may take long, such as one that loads a model.

    As `asyncio.to_thread`, but the end of the process does not wait for it, and it waits for no
    others.
    """
    threads = Threads(1, "long")
    try:
        call = partial(function, *arguments, **keywords)
        return await asyncio.wrap_future(threads.submit(copy_context().run, call))
    finally:
        threads.shutdown(wait=False)


def _end(calls: "SimpleQueue[_Call | None]", count: int, lock: threading.Lock) -> None:
    """Tell threads to end."""
    with lock:
        for _ in range(count):
            calls.put(None)


def _work_off(calls: "SimpleQueue[_Call | None]") -> None:
    """Call one function after the other, until told to end. In a thread."""
    while (call := calls.get()) is not None:
        function, arguments = call
        try:
            function(*arguments)
        except BaseException as error:  # the thread has other calls to make
            log("fault", error=error)
        del call, function, arguments  # they may hold a model that nobody uses any more


def _settle(
    future: "Future[Any]", function: Callable[..., Any], arguments: Any, keywords: Any
) -> None:
    """Give a future the result of a function, or what it raises."""
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = function(*arguments, **keywords)
    except BaseException as error:  # whoever waits gets it
        future.set_exception(error)
    else:
        future.set_result(result)
