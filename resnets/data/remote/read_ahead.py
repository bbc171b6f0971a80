"""Reading ahead: what will be read soon is fetched in the background, several requests at once.

All changes happen in the event loop of the process, one step at a time, so nothing is locked.
"""

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from resnets.data.remote.connections import Connections
from resnets.data.remote.direct import DirectReader
from resnets.data.remote.failures import Patience
from resnets.data.remote.fetching import fetch, joined
from resnets.data.remote.ranges import Place, Request, planned

_LARGEST = 8 << 20  # bytes of a request
_GAP = 64 << 10  # bytes between images that are fetched with them: less than a round trip's worth
_AHEAD = 64 << 20  # bytes in each process that are on their way, or here and not read yet
_LONG = 1.0  # seconds that an answer is waited for in vain, which count for the outage
_REMEMBERED = 8192  # places that are expected; the oldest are forgotten first


@dataclass(eq=False)
class _Order:
    """A request that waits, runs or is done."""

    request: Request
    open: set[Place]  # places that nobody has read yet
    task: "asyncio.Task[dict[Place, bytes]] | None" = None

    @property
    def length(self) -> int:
        """The bytes that it takes."""
        return self.request.stop - self.request.start

    @property
    def has_failed(self) -> bool:
        """Whether the request is over, and brought nothing."""
        task = self.task
        return task is not None and task.done() and not task.cancelled() and bool(task.exception())


@dataclass
class ReadAhead:
    """What one process reads ahead of a folder.

    Attributes:
        own: the connections of the process.
        address: of the folder.
        patience: of each request.
        most: bytes on their way or unread, beyond which no further request starts by itself.
        expected: the request that fetches each place.
        queue: requests that were not started yet.
        held: bytes of the requests that were started and are not read yet.
        direct: reads single places that are small; None where there is no such way.
    """

    own: Connections
    address: str
    patience: Patience
    most: int = _AHEAD
    expected: dict[Place, _Order] = field(default_factory=dict)
    queue: deque[_Order] = field(default_factory=deque)
    held: int = 0
    direct: DirectReader | None = None

    def announce(self, places: Sequence[Place]) -> None:
        """Say that places will be read in this order. For any thread."""
        if self.direct is not None:
            alone = {
                request.places[0]
                for request in planned(places, _LARGEST, _GAP)
                if len(request.places) == 1 and request.places[0] not in self.expected
            }
            others = {*self.direct.expect([place for place in places if place in alone])}
            places = [place for place in places if place in others or place not in alone]
        if places:
            self.own.loop.call_soon_threadsafe(self.expect, places)

    def expect(self, places: Sequence[Place]) -> None:
        """Plan requests for places that will be read in this order, and start some."""
        new = [place for place in places if place not in self.expected]
        for request in planned(new, _LARGEST, _GAP):
            order = _Order(request, set(request.places))
            self.queue.append(order)
            self.expected |= dict.fromkeys(request.places, order)
        self.forget([*self.expected][:-_REMEMBERED])
        self.start_some()

    async def take(self, place: Place) -> bytes:
        """The bytes of a place, which is then no longer expected.

        Raises:
            RemoteError: all attempts failed.
        """
        order = self.expected.get(place)
        if order is not None and order.has_failed:  # before this was needed, perhaps long ago
            self.forget([place])
            order = None
        if order is None:
            return await self.fetch(place)
        if order.task is None:  # needed before its turn
            self.start(order)
        assert order.task is not None
        try:
            await asyncio.wait([order.task])
            return await self.fetch(place) if order.task.cancelled() else order.task.result()[place]
        finally:
            self.dismiss(place)

    def close(self) -> None:
        """Close what is not the event loop's."""
        if self.direct is not None:
            self.direct.close()

    def taken(self, place: Place) -> bytes | None:
        """The bytes of a place if they are here already; else None. For any thread.

        It spares the loop and the thread that reads a hand-over each, which together take about as
        long as a request (see docs/decisions.md).
        """
        if self.direct is not None:
            began = time.monotonic()
            if (data := self.direct.take(place)) is not None:
                if place in self.expected:
                    self.own.loop.call_soon_threadsafe(self.dismiss, place)
                return data
            if time.monotonic() - began > _LONG:
                self.own.outage(self.address).begin(began)
        order = self.expected.get(place)
        task = order.task if order is not None else None
        if task is None or not task.done() or task.cancelled() or task.exception() is not None:
            return None
        self.own.loop.call_soon_threadsafe(self.dismiss, place)
        return task.result()[place]

    def drop(self, place: Place) -> None:
        """Expect a place no longer: its bytes came otherwise. For any thread."""
        if self.direct is not None:
            self.direct.drop(place)
        if place in self.expected:
            self.own.loop.call_soon_threadsafe(self.dismiss, place)

    def dismiss(self, place: Place) -> None:
        """Expect a place no longer, and start what has room now."""
        self.forget([place])
        self.start_some()

    async def fetch(self, place: Place) -> bytes:
        """The bytes of a place by a request of its own."""
        file = joined(self.address, place.file)
        return await fetch(self.own, file, place.offset, place.stop, self.patience)

    def start_some(self) -> None:
        """Start requests as long as their bytes are few enough; a single one always."""
        while self.queue:
            order = self.queue[0]
            if order.task is None and order.open:
                if self.held and self.held + order.length > self.most:
                    return
                self.start(order)
            self.queue.popleft()

    def start(self, order: _Order) -> None:
        """Start a request."""
        self.held += order.length
        order.task = self.own.loop.create_task(self.carry_out(order.request))
        order.task.add_done_callback(_look_at)

    async def carry_out(self, request: Request) -> dict[Place, bytes]:
        """Fetch a request's range, and cut it."""
        file = joined(self.address, request.file)
        data = await fetch(self.own, file, request.start, request.stop, self.patience)
        return request.cut(data)

    def forget(self, places: Iterable[Place]) -> None:
        """Expect some places no longer; a request of which none is left gives its bytes back."""
        for place in places:
            order = self.expected.pop(place, None)
            if order is None:
                continue
            order.open.discard(place)
            if order.open:
                continue
            if order.task is not None:
                self.held -= order.length
                order.task.cancel()  # nothing, if it is done


def _look_at(task: "asyncio.Task[dict[Place, bytes]]") -> None:
    """Look at the error of a request that nobody may wait for, so that asyncio does not log it."""
    if not task.cancelled():
        task.exception()
