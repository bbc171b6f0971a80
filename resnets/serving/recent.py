"""What a server answered lately: how long requests took, and how many images were unfamiliar."""

import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from resnets.evaluation.proportion import Proportion
from resnets.serving.answering import Answer

if TYPE_CHECKING:
    from resnets.evaluation.predict import Status

_WINDOW = 60.0  # seconds over which latencies are told
_REQUESTS = 10_000  # kept of each model; more in a minute push the oldest out
_IMAGES = 500  # whose statuses are kept of each model


class Recent:
    """The latest requests of each model.

    Args:
        clock: in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._requests: dict[str, deque[tuple[float, float]]] = defaultdict(
            lambda: deque(maxlen=_REQUESTS)
        )
        self._statuses: dict[str, deque[Status]] = defaultdict(lambda: deque(maxlen=_IMAGES))

    def add(self, model: str, seconds: float, answers: Iterable[Answer]) -> None:
        """Note a request that a model answered, and how long that took."""
        self._requests[model].append((self._clock(), seconds))
        statuses = (answer.prediction.status for answer in answers)
        self._statuses[model].extend(status for status in statuses if status != "unreadable")

    def latency(self, model: str) -> dict[str, Any]:
        """Requests of the last minute, and their median and 99th percentile in seconds.

        >>> recent = Recent(clock=lambda: 0.0)
        >>> for seconds in (0.25, 0.5, 0.75):
        ...     recent.add("cats", seconds, [])
        >>> recent.latency("cats")
        {'requests': 3, 'p50': 0.5, 'p99': 0.75}
        >>> recent.latency("dogs")
        {'requests': 0, 'p50': None, 'p99': None}
        """
        since = self._clock() - _WINDOW
        seconds = sorted(took for end, took in self._requests[model] if end >= since)
        return {
            "requests": len(seconds),
            "p50": _percentile(seconds, 0.5),
            "p99": _percentile(seconds, 0.99),
        }

    def unfamiliar(self, model: str) -> Proportion | None:
        """The share of unfamiliar images among the latest ones; None before the first."""
        statuses = self._statuses[model]
        if not statuses:
            return None
        return Proportion(sum(status == "unfamiliar" for status in statuses), len(statuses))


def _percentile(ordered: list[float], share: float) -> float | None:
    """The least value that at least a share of the values do not exceed; None of no values."""
    if not ordered:
        return None
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
