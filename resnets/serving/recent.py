"""How long the latest requests of a model took."""

import time
from collections import deque
from collections.abc import Callable
from typing import Any

_WINDOW = 60.0  # seconds over which latencies are told
_REQUESTS = 10_000  # kept of each model; more in a minute push the oldest out


class Recent:
    """The latest requests that a model answered, each from its headers to its answer.

    Args:
        clock: in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._requests: deque[tuple[float, float]] = deque(maxlen=_REQUESTS)

    def add(self, seconds: float) -> None:
        """Note how long a request took that was answered."""
        self._requests.append((self._clock(), seconds))

    def latency(self) -> dict[str, Any]:
        """Requests of the last minute, and their median and 99th percentile in seconds.

        >>> recent = Recent(clock=lambda: 0.0)
        >>> recent.latency()
        {'requests': 0, 'p50': None, 'p99': None}
        >>> for seconds in (0.25, 0.5, 0.75):
        ...     recent.add(seconds)
        >>> recent.latency()
        {'requests': 3, 'p50': 0.5, 'p99': 0.75}
        """
        since = self._clock() - _WINDOW
        seconds = sorted(took for end, took in self._requests if end >= since)
        return {
            "requests": len(seconds),
            "p50": _percentile(seconds, 0.5),
            "p99": _percentile(seconds, 0.99),
        }


def _percentile(ordered: list[float], share: float) -> float | None:
    """The least value that at least a share of the values do not exceed; None of no values."""
    if not ordered:
        return None
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
