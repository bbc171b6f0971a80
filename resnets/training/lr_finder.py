"""The learning-rate range test (Smith 2015, arXiv:1506.01186, section 3.3).

Train with a learning rate that grows exponentially from tiny to far too large, and record the
loss: it falls fastest a little below the largest rate that still trains.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from resnets.errors import UsageError
from resnets.files.writing import replacing
from resnets.format import plural

_SMOOTHING = 0.9  # decay of the exponential moving average of the loss
_DIVERGED = 4.0  # times the smallest smoothed loss
_RISEN = 1.1  # times the smallest smoothed loss so far: more than batches differ from each other
_LASTING = 0.1  # share of the rates: a rise that lasts so long is not due to a few batches


@dataclass(frozen=True)
class RangeTest:
    """The learning rates tried, one a step, the loss at each, and the suggested rate."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    """As measured, in nats."""
    smoothed: tuple[float, ...]
    """Their exponential moving average, bias-corrected."""
    suggestion: float
    """The rate at which the smoothed loss falls fastest, before its first lasting rise."""
    diverged: bool
    """Whether the test ended because the loss diverged; if not, larger rates may work too."""


def range_test(
    train_step: Callable[[float], float],
    smallest: float = 1e-5,
    largest: float = 10.0,
    steps: int = 100,
) -> RangeTest:
    """Try rates from the smallest to the largest, until the loss diverges.

    Args:
        train_step: makes one training step with a rate; returns the loss before it.
        smallest: first rate, > 0.
        largest: last rate.
        steps: number of rates, evenly spaced in their logarithm; at least 10.

    Raises:
        UsageError: the rates or the number of steps are not allowed, or the loss is not finite
            within the first three steps.
    """
    if not 0 < smallest < largest < math.inf or steps < 10:
        raise UsageError(
            f"rates from {smallest:g} to {largest:g} in {plural(steps, 'step')}; they must grow "
            "from above 0 in at least 10 steps"
        )
    rates = np.geomspace(smallest, largest, steps).tolist()
    losses: list[float] = []
    smoothed: list[float] = []
    mean, diverged = 0.0, False
    for count, rate in enumerate(rates, 1):
        loss = train_step(rate)
        if not math.isfinite(loss):
            diverged = True
            break
        mean = _SMOOTHING * mean + (1 - _SMOOTHING) * loss
        losses.append(loss)
        smoothed.append(mean / (1 - _SMOOTHING**count))
        diverged = smoothed[-1] > _DIVERGED * min(smoothed)
        if diverged:
            break
    if len(losses) < 3:
        raise UsageError(f"the loss is not finite at a rate of {rate:g}; start with a lower rate")
    tried = rates[: len(losses)]
    suggestion = _steepest_rate(tried, smoothed, steps)
    return RangeTest(tuple(tried), tuple(losses), tuple(smoothed), suggestion, diverged)


def _steepest_rate(rates: list[float], smoothed: list[float], steps: int) -> float:
    """The rate at which the loss falls fastest over the logarithm of the rate.

    Only rates before the first lasting rise count: after too large a rate has raised the loss, it
    falls fast at any rate.

    Args:
        rates: the rates tried.
        smoothed: the smoothed loss at each.
        steps: the number of rates planned.
    """
    end = _count_before_rise(smoothed, lasting=round(_LASTING * steps))
    if end < 2:
        return rates[0]
    slopes = np.gradient(np.array(smoothed[:end]), np.log(rates[:end]))
    return rates[int(np.argmin(slopes))]


def _count_before_rise(smoothed: list[float], lasting: int) -> int:
    """The number of losses up to the smallest one before the first lasting rise.

    All of them if the loss never stays risen for ``lasting`` steps.
    """
    lowest = 0
    for place, loss in enumerate(smoothed):
        if loss < smoothed[lowest]:
            lowest = place
        recent = smoothed[lowest + 1 : place + 1][-lasting:]
        if len(recent) == lasting and min(recent) > _RISEN * smoothed[lowest]:
            return lowest + 1
    return len(smoothed)


def plot(result: RangeTest, path: Path) -> None:
    """Plot the loss over the rate; the suffix of ``path`` (png, svg, pdf) is the format."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot(xscale="log", xlabel="learning rate", ylabel="loss (nats)")
    axes.plot(result.rates, result.losses, color="0.8", label="loss of each step")
    axes.plot(result.rates, result.smoothed, label="smoothed")
    axes.axvline(result.suggestion, color="C1", label=f"steepest: {result.suggestion:.2g}")
    low, high = min(result.smoothed), max(result.smoothed[0], min(result.smoothed) * 1.05)
    axes.set_ylim(low - 0.1 * (high - low), high + 0.3 * (high - low))
    axes.legend()
    with replacing(path) as file:
        figure.savefig(file, format=path.suffix.lower().lstrip("."))
