"""The learning-rate range test (Smith 2015, arXiv:1506.01186, section 3.3).

Train with a rate that grows exponentially from tiny to far too large, and watch the loss: it falls
fastest a little below the largest rate that still trains.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from resnets.errors import UsageError
from resnets.files import replacing

_SMOOTHING = 0.9  # share of the running mean that each new loss leaves in place
_DIVERGED = 4.0  # times the smallest smoothed loss
_RISEN = 1.1  # times the smallest smoothed loss so far: above what one batch differs from another
_LASTING = 0.1  # of the rates: a rise so long is no accident of a few batches


@dataclass(frozen=True)
class RangeTest:
    """The rates that were tried, one a step, the loss at each, and what they suggest."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    """As measured, in nats."""
    smoothed: tuple[float, ...]
    """Their exponential mean, without the bias of its first values."""
    suggestion: float
    """The rate at which the smoothed loss falls fastest, before it first rises for long."""
    diverged: bool
    """Whether the test ended because the loss grew; if not, larger rates may work too."""


def range_test(
    train_step: Callable[[float], float],
    smallest: float = 1e-5,
    largest: float = 10.0,
    steps: int = 100,
) -> RangeTest:
    """Try rates from the smallest to the largest, until the loss diverges.

    Args:
        train_step: updates the weights once with a rate, and returns the loss before.
        smallest: first rate, > 0.
        largest: last rate.
        steps: how many rates, evenly spaced in their logarithm; at least 10.

    Raises:
        UsageError: if the rates or steps are not allowed, or the loss is not finite before there
            is anything to suggest from.
    """
    if not 0 < smallest < largest < math.inf or steps < 10:
        raise UsageError(
            f"rates from {smallest:g} to {largest:g} in {steps} steps; they must grow from above 0 "
            "in at least 10 steps"
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
        raise UsageError(f"the loss is not finite at a rate of {rate:g} already; start lower")
    tried = rates[: len(losses)]
    suggestion = _steepest(tried, smoothed, steps)
    return RangeTest(tuple(tried), tuple(losses), tuple(smoothed), suggestion, diverged)


def _steepest(rates: list[float], smoothed: list[float], steps: int) -> float:
    """The rate at which the loss falls fastest over the logarithm of the rate.

    Only rates up to the first lasting rise count: a loss that was thrown up by too large a rate
    falls fast afterwards, whatever the rate.

    Args:
        rates: that were tried.
        smoothed: the loss at each.
        steps: how many rates were to be tried.
    """
    end = _before_the_rise(smoothed, lasting=round(_LASTING * steps))
    if end < 2:
        return rates[0]
    slopes = np.gradient(np.array(smoothed[:end]), np.log(rates[:end]))
    return rates[int(np.argmin(slopes))]


def _before_the_rise(smoothed: list[float], lasting: int) -> int:
    """How many losses there are up to the smallest before the first lasting rise.

    All of them, if the loss never stays risen for so many steps.
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
    """Draw the loss over the rate; the suffix of ``path`` (png, svg, pdf) is the format."""
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
