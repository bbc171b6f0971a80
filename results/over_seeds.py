"""Means of runs over their seeds, and how far two ways are apart on the same seeds."""

from collections.abc import Iterable, Mapping
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
    half = 0.0
    if len(ahead) > 1:
        half = student.ppf(0.975, len(ahead) - 1) * stdev(ahead) / len(ahead) ** 0.5
    middle = mean(ahead)
    interval = f" ({middle - half:+z.1f} to {middle + half:+z.1f})" if len(ahead) > 1 else ""
    return f"{middle:+z.1f} points{interval}"  # z: no minus before zero
