"""Results of benchmarks/accuracy_vs_time.py: two recipes with the same time budget."""

import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from resnets.errors import ContentError
from resnets.format import duration

FILE = "accuracy_vs_time.json"
MEANS = {
    "steps": "steps",
    "took": "seconds",
    "images": "images",
}  # field of a Budget: key in the file


@dataclass(frozen=True)
class Budget:
    """The runs with the same time budget, by both recipes from the same seeds.

    Attributes:
        seconds: the time budget.
        quick: test accuracies by this project's default recipe, in percent.
        reference: test accuracies by the reference recipe, in percent.
        steps: mean number of steps, by each recipe.
        took: mean seconds that the runs took, with validation and saving, by each recipe.
        images: mean number of training images seen, by each recipe.
    """

    seconds: float
    quick: list[float]
    reference: list[float]
    steps: tuple[float, float]
    took: tuple[float, float]
    images: tuple[float, float]

    columns: ClassVar[tuple[str, ...]] = (
        *("allowed", "quick", "reference", "n", "quick is ahead by"),
        *("took: quick, reference", "images: quick, reference", "steps: quick, reference"),
    )

    @classmethod
    def of(cls, seconds: float, runs: list[dict[str, Any]]) -> Self:
        """From the benchmark's records of the runs."""
        quick, reference = (
            sorted((run for run in runs if run["recipe"] == name), key=lambda run: run["seed"])
            for name in ("quick", "reference")
        )
        if [run["seed"] for run in quick] != [run["seed"] for run in reference]:
            raise ValueError("the recipes ran from different seeds")
        both = {name: (mean(quick, key), mean(reference, key)) for name, key in MEANS.items()}
        return cls(seconds, accuracies(quick), accuracies(reference), **both)

    @property
    def accuracies(self) -> dict[str, list[float]]:
        """Test accuracies by recipe, in percent."""
        return {"quick": self.quick, "reference": self.reference}

    def cells(self) -> list[str]:
        """The cells of a row of a table."""
        ahead = [ours - theirs for ours, theirs in zip(self.quick, self.reference, strict=True)]
        return [
            duration(self.seconds),
            f"{with_spread(self.quick)} %",
            f"{with_spread(self.reference)} %",
            str(len(self.quick)),
            f"{with_spread(ahead)} points",
            ", ".join(map(duration, self.took)),
            f"{self.images[0]:,.0f}, {self.images[1]:,.0f}",
            f"{self.steps[0]:,.0f}, {self.steps[1]:,.0f}",
        ]


def accuracies(runs: list[dict[str, Any]]) -> list[float]:
    """Test accuracies in percent."""
    return [100 * run["test"]["count"] / run["test"]["total"] for run in runs]


def mean(runs: list[dict[str, Any]], key: str) -> float:
    """The mean of a key over the runs."""
    return statistics.fmean(run[key] for run in runs)


def with_spread(values: list[float]) -> str:
    """Mean and standard deviation (n - 1), where there is one."""
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{spread}"


def read_budgets(root: Path) -> tuple[str, list[Budget]] | None:
    """Network, data and machine in words, and the budgets; None if the file is missing.

    Raises:
        ContentError: the benchmark did not write the file.
    """
    path = root / FILE
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        runs, machine = content["runs"], content["machine"]
        setting = (
            f"{content['network']} on {content['data']}, {machine['processor']}, "
            f"{machine['cores']} cores"
        )
        return setting, [
            Budget.of(seconds, [run for run in runs if run["budget"] == seconds])
            for seconds in sorted({run["budget"] for run in runs})
        ]
    except (ValueError, KeyError, TypeError) as error:  # JSON's errors are ValueErrors
        raise ContentError(
            f"{path}: not what benchmarks/accuracy_vs_time.py writes ({error!r})"
        ) from None
