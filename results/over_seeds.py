"""Means of runs over their seeds, and how far two ways are apart on the same seeds."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import mean, stdev
from typing import Any

from scipy.stats import t as student

Accuracies = dict[int, float]  # in percent, by seed


def accuracies(runs: Iterable[Mapping[str, Any]], score: str) -> Accuracies:
    """The accuracy of each run, from its count and total under the name of a score.

    >>> accuracies([{"seed": 0, "test": [3, 4]}], "test")
    {0: 75.0}
    """
    return {run["seed"]: 100 * run[score][0] / run[score][1] for run in runs}


def apart(ours: Accuracies, reference: Accuracies) -> str:
    """Mean of ours minus the reference on the seeds of both, with its 95 % interval (Student's t).

    >>> apart({0: 82.0, 1: 84.0, 2: 9.0}, {0: 80.0, 1: 81.0})
    '+2.5 points (-3.9 to +8.9)'
    >>> apart({0: 82.0}, {0: 80.0})  # one seed has no interval
    '+2.0 points'
    """
    ahead = [ours[seed] - reference[seed] for seed in sorted(ours.keys() & reference.keys())]
    if not ahead:
        return "–"
    return f"{mean(ahead):+z.1f} points{_interval(ahead, '+z.1f')}"  # z: no minus before zero


def on_average(ours: Accuracies) -> str:
    """Mean over the seeds, with its 95 % interval (Student's t).

    >>> on_average({0: 82.0, 1: 84.0, 2: 83.0}), on_average({0: 82.0})
    ('83.0 % (80.5 to 85.5)', '82.0 %')
    """
    return f"{mean(ours.values()):.1f} %{_interval(list(ours.values()), '.1f')}"


def _interval(values: Sequence[float], form: str) -> str:
    """The 95 % interval of a mean, behind it in brackets; none for a single value."""
    if len(values) < 2:
        return ""
    half = student.ppf(0.975, len(values) - 1) * stdev(values) / len(values) ** 0.5
    return f" ({mean(values) - half:{form}} to {mean(values) + half:{form}})"
