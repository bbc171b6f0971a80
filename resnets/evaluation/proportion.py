"""A count out of a total, with confidence intervals for the rate."""

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from resnets.errors import UsageError
from resnets.format import fraction, percent, percent_interval

LEVEL = 0.95  # of every interval


@dataclass(frozen=True)
class Proportion:
    """`count` of `total`, with the 95 % interval of Wilson 1927.

    Raises:
        UsageError: unless 0 <= count <= total and total > 0.

    >>> print(Proportion(9173, 10000))
    91.73 % (9,173/10,000, 95 % interval 91.17 to 92.25)
    """

    count: int
    total: int

    def __post_init__(self) -> None:
        if not 0 <= self.count <= self.total or self.total == 0:
            raise UsageError(f"a proportion of {self.count}/{self.total}: needs 0 <= k <= n, n > 0")

    @property
    def value(self) -> float:
        """Between 0 and 1."""
        return self.count / self.total

    @cached_property
    def interval(self) -> tuple[float, float]:
        """Low and high end, between 0 and 1."""
        from scipy.stats import binomtest

        ends = binomtest(self.count, self.total).proportion_ci(LEVEL, method="wilson")
        return float(ends.low), float(ends.high)

    def upper_bound(self, level: float = LEVEL) -> float:
        """The one-sided upper bound of the rate at this confidence: Clopper and Pearson 1934.

        >>> round(Proportion(0, 149).upper_bound(), 4)  # 1 - 0.05 ** (1 / 149)
        0.0199
        """
        from scipy.special import betaincinv

        if self.count == self.total:
            return 1.0
        return float(betaincinv(self.count + 1, self.total - self.count, level))

    def to_dict(self) -> dict[str, Any]:
        """For JSON: count, total, value and interval."""
        return asdict(self) | {"value": self.value, "interval": list(self.interval)}

    def __str__(self) -> str:
        shown = (
            f"{fraction(self.count, self.total)}, 95 % interval {percent_interval(*self.interval)}"
        )
        return f"{percent(self.value, 2)} ({shown})"
