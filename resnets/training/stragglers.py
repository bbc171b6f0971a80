"""Which of several processes is the slowest, and how long the others wait for it."""

import contextlib
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

_MATTERS = 0.1  # of the time of an epoch


class WaitClock:
    """Counts the seconds for which this process waits for the others.

    While gradients are exchanged that is the time from the last one that was computed until all
    are there. A GPU works on while the host goes ahead; of it only what the host waits for counts,
    such as for a process whose images come late.

    Attributes:
        seconds: since `restart`.
    """

    def __init__(self, network: nn.Module) -> None:
        self.computed: float | None = None
        self.restart()
        trained = [weight for weight in network.parameters() if weight.requires_grad]
        for weight in trained[:1]:  # whose gradient comes last
            weight.register_hook(self._note)  # type: ignore[no-untyped-call]

    def _note(self, _: Tensor) -> None:
        self.computed = time.perf_counter()

    def restart(self) -> None:
        """Begin to count anew."""
        self.seconds, self.began = 0.0, time.perf_counter()

    def exchanged(self) -> None:
        """The gradients of all processes are there."""
        if self.computed is not None:
            self.seconds += time.perf_counter() - self.computed
        self.computed = None

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """A context in which this process does nothing but wait for the others."""
        began = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - began

    def so_far(self) -> "Waits":
        """What this process has waited."""
        elapsed = time.perf_counter() - self.began
        return Waits(self.seconds, elapsed, socket.gethostname())


@dataclass(frozen=True)
class Waits:
    """How long a process has waited for the others.

    Attributes:
        seconds: waited.
        elapsed: seconds in which it did.
        machine: where it runs.
    """

    seconds: float
    elapsed: float
    machine: str


@dataclass(frozen=True)
class Straggler:
    """The process for which the others wait.

    Attributes:
        rank: of the slowest process.
        machine: where it runs.
        waited: seconds that it waited for the others.
        others_waited: seconds that each of the others waited, on average.
        elapsed: seconds in which they did.
    """

    rank: int
    machine: str
    waited: float
    others_waited: float
    elapsed: float

    @property
    def matters(self) -> bool:
        """Whether much time is lost by it."""
        return self.others_waited - self.waited > _MATTERS * self.elapsed


def straggler(waits: Sequence[Waits]) -> Straggler:
    """The process that has waited least.

    Args:
        waits: of two or more processes, by rank.

    >>> straggler([Waits(9.0, 60.0, "a"), Waits(0.5, 60.0, "b"), Waits(10.0, 60.0, "c")])
    Straggler(rank=1, machine='b', waited=0.5, others_waited=9.5, elapsed=60.0)
    """
    rank = min(range(len(waits)), key=lambda rank: waits[rank].seconds)
    others = [wait.seconds for wait in (*waits[:rank], *waits[rank + 1 :])]
    slowest = waits[rank]
    mean = sum(others) / len(others)
    values = (round(value, 2) for value in (slowest.seconds, mean, slowest.elapsed))
    return Straggler(rank, slowest.machine, *values)
