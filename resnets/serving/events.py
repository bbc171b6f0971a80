"""What happens in a server. Each event is told once, to everything that counts it."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, NamedTuple, TypeAlias, TypeVar

from resnets.serving.answers import Answer
from resnets.serving.logs import log

_Event = TypeVar("_Event")

_TOGETHER = 0.1  # seconds in which events come together before they are counted


class Computed(NamedTuple):
    """A batch was computed.

    Attributes:
        model: the name of the model.
        waits: seconds that each image had waited for the batch.
        seconds: that its computation took.
    """

    model: str
    waits: Sequence[float]
    seconds: float

    @property
    def size(self) -> int:
        """Images of the batch."""
        return len(self.waits)


class Answered(NamedTuple):
    """The images of a request were answered, or were given up.

    Attributes:
        model: the name of the model.
        seconds: from the arrival of the images to their answers.
        answers: one an image; empty where the deadline passed, or the client went away, before.
        decoding: seconds of each image that was decoded, with waiting for a thread.
        repeated: whether the images were sent before, and come again for a label or a heat map:
            they say nothing new of what images users have.
    """

    model: str
    seconds: float
    answers: Sequence[Answer]
    decoding: Sequence[float] = ()
    repeated: bool = False


class Responded(NamedTuple):
    """A request was answered, or given up.

    Attributes:
        path: of its route, or other.
        status: of the response.
        seconds: that it took.
        moment: when it ended, in seconds since 1970.
        line: of the log, beside these.
        fault: of this program; None: there was none.
        model: name of the one that answered its images; None: none did.
    """

    path: str
    status: int
    seconds: float
    moment: float
    line: Mapping[str, str | None]
    fault: Exception | None = None
    model: str | None = None


Event: TypeAlias = Computed | Answered
_Observer: TypeAlias = Callable[[_Event], None]


class Events(Generic[_Event]):
    """Events that wait to be counted, several together.

    Between two images, what counts them is in no cache of the processor any more, and counting one
    by one takes several times as long: see docs/decisions.md.

    Args:
        observers: that count; a fault of one, such as of a full disk, is logged.
    """

    def __init__(self, *observers: _Observer[_Event]) -> None:
        self.observers = list(observers)
        self._waiting: list[_Event] = []

    def tell(self, event: _Event) -> None:
        """Have an event counted soon. In the event loop."""
        if not self._waiting:  # the timer first: where that fails, the next event sets one
            asyncio.get_running_loop().call_later(_TOGETHER, self.count)
        self._waiting.append(event)

    def count(self) -> None:
        """Have everything counted that waits."""
        events, self._waiting = self._waiting, []
        for event in events:
            for observe in self.observers:
                try:
                    observe(event)
                except Exception as error:
                    log("fault", error=error)
