"""Results of benchmarks/unfamiliar.py: how well scores detect images of other classes."""

import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resnets.errors import ContentError
from resnets.format import percent

FILE = "unfamiliar.json"
CHOSEN = "cosine"  # what `resnets.evaluation.familiarity` computes
NEAR = (
    "the other five classes",
    "digits 5 to 9",
)  # out images of the same data set as the in images


@dataclass(frozen=True)
class Pair:
    """Images of a network's classes and of other classes, with the figures of each score.

    Attributes:
        network: its name.
        inside: number of images of its classes.
        name: of the other images.
        outside: number of the other images.
        auroc: by score, 0 to 1; 0.5 is chance.
        fpr95: by score, the share of other images accepted at the threshold that accepts 95 % of
            the images of its classes.
        fpr99: the same for 99 %.
    """

    network: str
    inside: int
    name: str
    outside: int
    auroc: dict[str, float]
    fpr95: dict[str, float]
    fpr99: dict[str, float]

    @property
    def near(self) -> bool:
        """Whether the other images are of the same data set."""
        return self.name in NEAR

    def ranks(self) -> dict[str, float]:
        """The rank of each score by AUROC, 1 for the best; equal scores share a rank."""
        values = list(self.auroc.values())
        return {
            name: 1 + sum(other > value for other in values) + (values.count(value) - 1) / 2
            for name, value in self.auroc.items()
        }


def read_pairs(root: Path) -> list[Pair] | None:
    """The pairs in the benchmark's file; None if it is missing.

    Raises:
        ContentError: the benchmark did not write the file.
    """
    path = root / FILE
    if not path.is_file():
        return None
    try:
        cases = json.loads(path.read_text(encoding="utf-8"))["cases"]
        return [pair_of(case, pair) for case in cases for pair in case["pairs"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ContentError(
            f"{path}: not what benchmarks/unfamiliar.py writes ({error!r})"
        ) from None


def pair_of(case: dict[str, Any], pair: dict[str, Any]) -> Pair:
    """A pair from the benchmark's file."""
    columns = [
        {name: float(row[figure]) for name, row in pair["scores"].items()}
        for figure in ("auroc", "fpr95", "fpr99")
    ]
    return Pair(case["network"], int(case["in"]), pair["out"], int(pair["count"]), *columns)


SCORE_COLUMNS = (
    *("score", "mean AUROC", "worst", "mean rank", "mean FPR95", "mean FPR99"),
    "AUROC, near pairs alone",
)


def score_cells(name: str, pairs: list[Pair]) -> list[str]:
    """The cells of a score over all pairs."""
    areas = [pair.auroc[name] for pair in pairs]
    near = [pair.auroc[name] for pair in pairs if pair.near]
    figures = [
        f"{statistics.mean(areas):.3f}",
        f"{min(areas):.3f}",
        f"{statistics.mean(pair.ranks()[name] for pair in pairs):.1f}",
        percent(statistics.mean(pair.fpr95[name] for pair in pairs)),
        percent(statistics.mean(pair.fpr99[name] for pair in pairs)),
        f"{statistics.mean(near):.3f}" if near else "–",
    ]
    return [f"**{name}**" if name == CHOSEN else name, *figures]


PAIR_COLUMNS = (
    *("network", "in", "out", "AUROC of probability", "of energy", f"of {CHOSEN}"),
    *(f"FPR95 of {CHOSEN}", "of probability"),
)


def pair_cells(pair: Pair) -> list[str]:
    """The cells of a pair."""
    return [
        pair.network,
        f"{pair.inside:,}",
        f"{pair.name} ({pair.outside:,}){', near' if pair.near else ''}",
        *(f"{pair.auroc[name]:.3f}" for name in ("probability", "energy", CHOSEN)),
        *(percent(pair.fpr95[name]) for name in (CHOSEN, "probability")),
    ]


def by_mean(pairs: list[Pair]) -> list[str]:
    """The scores, the best mean AUROC first."""
    return sorted(pairs[0].auroc, key=lambda name: -statistics.mean(p.auroc[name] for p in pairs))


def figures(pairs: list[Pair]) -> dict[str, str]:
    """The figures of the chosen score."""
    areas = [pair.auroc[CHOSEN] for pair in pairs]
    passed = [pair.fpr95[CHOSEN] for pair in pairs]
    return {
        "pairs": str(len(pairs)),
        "mean": f"{statistics.mean(areas):.3f}",
        "least": f"{min(areas):.3f}",
        "most": f"{max(areas):.3f}",
        "fpr95": percent(statistics.mean(passed)),
        "fpr95_most": percent(max(passed)),
        "fpr99": percent(statistics.mean(pair.fpr99[CHOSEN] for pair in pairs)),
        "probability": f"{statistics.mean(pair.auroc['probability'] for pair in pairs):.3f}",
        "energy": f"{statistics.mean(pair.auroc['energy'] for pair in pairs):.3f}",
    }
