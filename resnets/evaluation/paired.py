"""McNemar's test and Tango's interval for two networks on the same images.

Images on which both are right or both wrong say nothing about which is better; the rest decide
(McNemar 1947). B's advantage is positive where B is the better one.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from resnets.errors import UsageError
from resnets.evaluation.proportion import Proportion
from resnets.format import percent_interval, plural, points

LEVEL = 0.05  # a difference with a smaller p-value is called real
NORMAL = 1.959964  # half a 95 % interval of the normal distribution


@dataclass(frozen=True)
class Pairs:
    """Counts of the images by which of two networks is right.

    Attributes:
        both: images that both classify correctly.
        only_a: images that only the first classifies correctly.
        only_b: images that only the second classifies correctly.
        neither: the others.
    """

    both: int
    only_a: int
    only_b: int
    neither: int

    @property
    def total(self) -> int:
        """Number of images."""
        return self.both + self.only_a + self.only_b + self.neither

    @property
    def difference(self) -> float:
        """B's accuracy minus A's, -1 to 1."""
        return (self.only_b - self.only_a) / self.total

    @property
    def p_value(self) -> float:
        """Probability of a split at least this uneven between two equally good networks.

        McNemar's exact test, two-sided; 1 where the two are right on the same images.
        """
        from scipy.stats import binomtest

        decided = self.only_a + self.only_b
        return float(binomtest(self.only_b, decided, 0.5).pvalue) if decided else 1.0

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the difference, -1 to 1: Tango's score interval.

        Tango 1998, Statistics in Medicine 17:891. Differences in it are those that a score test
        would not refuse; the test at 0 is McNemar's without correction, which is less strict than
        the exact one, so rarely the interval leaves out 0 although `p_value` is above 0.05.
        """
        from scipy.optimize import brentq

        excess = self.excess()
        middle = self.difference
        tiny = 1e-12  # the excess is 0 at the difference itself if all images agree
        low = brentq(excess, -1, middle - tiny) if middle > -1 else -1.0
        high = brentq(excess, middle + tiny, 1) if middle < 1 else 1.0
        return float(low), float(high)

    def excess(self) -> Callable[[float], float]:
        """By how much the squared score of a supposed difference exceeds the 95 % point, scaled."""
        total, wins, losses = self.total, self.only_b, self.only_a

        def excess(difference: float) -> float:
            # probability that only A is right, most likely under the supposed difference
            spread = difference * (1 - difference)
            linear = (2 * total - wins + losses) * difference - wins - losses
            root = math.sqrt(max(linear**2 + 8 * total * losses * spread, 0.0))
            variance = total * ((root - linear) / (2 * total) + spread)
            distance = float(wins - losses - total * difference)
            return distance**2 - NORMAL**2 * variance

        return excess


@dataclass(frozen=True)
class ClassDifference:
    """Two networks on the images of one class.

    Attributes:
        name: of the class.
        pairs: the counts; None if no image has this label.
        adjusted: p-value times a factor for looking at many classes (Benjamini and Hochberg 1995):
            of the classes below 0.05 at most one in twenty is expected to be there by chance.
    """

    name: str
    pairs: Pairs | None
    adjusted: float


@dataclass(frozen=True)
class Comparison:
    """Two networks, A and B, on the same images.

    Attributes:
        pairs: the counts, with `p_value`, `difference` and `interval`.
        classes: one row per class, in label order.
        decisive: indices of the images that only one classifies correctly.
        otherwise_wrong: indices of the images that both classify wrongly, but differently.
    """

    pairs: Pairs
    classes: tuple[ClassDifference, ...]
    decisive: tuple[int, ...]
    otherwise_wrong: tuple[int, ...]

    @property
    def accuracies(self) -> tuple[Proportion, Proportion]:
        """Of A and of B."""
        right, total = self.pairs.both, self.pairs.total
        return (
            Proportion(right + self.pairs.only_a, total),
            Proportion(right + self.pairs.only_b, total),
        )

    @property
    def real(self) -> bool:
        """Whether chance alone makes such a difference in less than one case of twenty."""
        return self.pairs.p_value < LEVEL

    def verdict(self, name_a: str = "A", name_b: str = "B") -> str:
        """One sentence: which network is better, or that the images do not show it."""
        pairs, lead = self.pairs, points(abs(self.pairs.difference))
        low, high = sorted(end * (1 if pairs.difference >= 0 else -1) for end in pairs.interval)
        shown = f"95 % interval {percent_interval(low, high)}; p = {pairs.p_value:.2g}"
        better = name_b if pairs.difference > 0 else name_a
        if self.real:
            return f"{better} is better by {lead} points ({shown})."
        if pairs.difference == 0:
            return f"{name_a} and {name_b} are right equally often ({shown})."
        return (
            f"A test on {plural(pairs.total, 'image')} does not show which is better: {better} is "
            f"ahead by {lead} points, which may be chance ({shown})."
        )

    def to_dict(self) -> dict[str, Any]:
        """For JSON: plain values only."""
        accuracy_a, accuracy_b = self.accuracies
        return asdict(self) | {
            "accuracy_a": accuracy_a.to_dict(),
            "accuracy_b": accuracy_b.to_dict(),
            "difference": self.pairs.difference,
            "interval": list(self.pairs.interval),
            "p_value": self.pairs.p_value,
            "real": self.real,
        }


def compare(
    predicted_a: ArrayLike,
    predicted_b: ArrayLike,
    labels: ArrayLike,
    class_names: Sequence[str],
) -> Comparison:
    """Compare two networks by their predictions for the same images.

    Args:
        predicted_a: (N,), the classes that A predicts.
        predicted_b: (N,), the classes that B predicts.
        labels: (N,), the true ones, 0 ... K-1.
        class_names: K of them.

    Raises:
        UsageError: if the shapes differ, there is no image, or a label has no name.

    >>> comparison = compare([0, 0, 1, 1], [0, 1, 1, 1], [0, 1, 1, 1], ["cat", "dog"])
    >>> comparison.pairs, comparison.decisive
    (Pairs(both=3, only_a=0, only_b=1, neither=0), (1,))
    """
    classes_a, classes_b, truth = (
        np.asarray(array) for array in (predicted_a, predicted_b, labels)
    )
    if not classes_a.shape == classes_b.shape == truth.shape or truth.ndim != 1 or not truth.size:
        shapes = f"{classes_a.shape} and {classes_b.shape}, labels {truth.shape}"
        raise UsageError(f"predictions {shapes}: must all be (N,)")
    if truth.min() < 0 or truth.max() >= len(class_names):
        raise UsageError(f"label {truth.max()}: there are {len(class_names)} class names")
    right_a, right_b = classes_a == truth, classes_b == truth
    of_class = [truth == label for label in range(len(class_names))]
    return Comparison(
        pairs=_tally(right_a, right_b),
        classes=_class_differences(
            class_names,
            [_tally(right_a[mask], right_b[mask]) if mask.any() else None for mask in of_class],
        ),
        decisive=_indices(right_a != right_b),
        otherwise_wrong=_indices(~right_a & ~right_b & (classes_a != classes_b)),
    )


def _tally(right_a: Any, right_b: Any) -> Pairs:
    """Count the images by who is right. Takes (N,), (N,) of bool."""
    counts = (right_a & right_b, right_a & ~right_b, ~right_a & right_b, ~right_a & ~right_b)
    return Pairs(*(int(which.sum()) for which in counts))


def _indices(chosen: Any) -> tuple[int, ...]:
    """Where an array of bool is true."""
    return tuple(np.flatnonzero(chosen).tolist())


def _class_differences(
    names: Sequence[str], pairs: Sequence[Pairs | None]
) -> tuple[ClassDifference, ...]:
    """Rows per class, with p-values adjusted for their number. A class without images has 1."""
    from scipy.stats import false_discovery_control

    p_values = [1.0 if pair is None else pair.p_value for pair in pairs]
    adjusted = false_discovery_control(p_values).tolist()
    return tuple(map(ClassDifference, names, pairs, adjusted))
