"""A published figure beside what runs came to here."""

import statistics
from dataclasses import dataclass
from typing import Any

from resnets.evaluation.history import History
from resnets.evaluation.proportion import Proportion
from resnets.training.experiments import Row


@dataclass(frozen=True)
class Comparison:
    """A row of an experiment and its runs.

    Attributes:
        row: what was published.
        finished: the finished runs, by seed.
    """

    row: Row
    finished: dict[int, History]

    @property
    def tests(self) -> dict[int, Proportion]:
        """What each run got right of the test images, by seed."""
        return {seed: history.test for seed, history in self.finished.items()}

    @property
    def errors(self) -> list[float]:
        """Test errors in percent, in the order of the seeds."""
        return [100 * (1 - test.value) for _, test in sorted(self.tests.items())]

    @property
    def mean(self) -> float | None:
        """Of the test errors, in percent; None if no run has finished."""
        return statistics.mean(self.errors) if self.finished else None

    @property
    def deviation(self) -> float | None:
        """Standard deviation of the test errors (n - 1), in percent; None for fewer than two."""
        return statistics.stdev(self.errors) if len(self.finished) > 1 else None

    @property
    def training(self) -> float | None:
        """Mean error on the training images in the last epoch, as augmented, in percent."""
        last = [history.epochs[-1]["training"]["accuracy"] for history in self.finished.values()]
        return 100 * (1 - statistics.mean(last)) if last else None

    def in_words(self) -> str:
        """Mean and deviation of the test errors."""
        if self.mean is None:
            return "not run"
        spread = "" if self.deviation is None else f" ± {self.deviation:.2f}"
        return f"{self.mean:.2f}{spread}"

    def to_dict(self) -> dict[str, Any]:
        """For JSON; errors in percent."""
        return {
            "network": self.row.network,
            "published": self.row.error,
            "remark": self.row.remark,
            "n": len(self.finished),
            "mean": self.mean,
            "deviation": self.deviation,
            "training": self.training,
            "tests": {str(seed): test.to_dict() for seed, test in sorted(self.tests.items())},
        }
