"""How long networks take to answer one image, measured side by side."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

WARM_UP = 3  # calls that are not counted


@dataclass(frozen=True)
class Latency:
    """Seconds that one call takes: the median of `calls`, and the middle half of them."""

    median: float
    quartiles: tuple[float, float]
    calls: int


def latencies(
    contenders: Sequence[Callable[[], object]], seconds: float = 2.0, least: int = 5
) -> list[Latency]:
    """Time contenders that take turns, call by call, so that what slows the machine slows all.

    Args:
        contenders: each does its work when it is called.
        seconds: how long to go on.
        least: calls of each, however long they take.
    """
    for contender in contenders:
        for _ in range(WARM_UP):
            contender()
    found: list[list[float]] = [[] for _ in contenders]
    end = time.perf_counter() + seconds
    while len(found[0]) < least or time.perf_counter() < end:
        for contender, times in zip(contenders, found, strict=True):
            start = time.perf_counter()
            contender()
            times.append(time.perf_counter() - start)
    return [summary(times) for times in found]


def summary(times: Sequence[float]) -> Latency:
    """Median and quartiles.

    >>> summary([3.0, 1.0, 2.0, 5.0, 4.0])
    Latency(median=3.0, quartiles=(2.0, 4.0), calls=5)
    """
    low, median, high = statistics.quantiles(times, n=4, method="inclusive")
    return Latency(median, (low, high), len(times))
