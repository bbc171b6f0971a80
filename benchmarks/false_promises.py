"""How often a guaranteed confidence threshold does not hold, where the true error rate is known.

The networks are synthetic: the true error rate above any threshold is known in closed form, and
mostly every guarantee would be false. Of several epochs, the one with the fewest errors on the
validation images is kept, as with `--patience`, and calibrated on the same images. At most 5 % of
the trials may end with a false guarantee.

- earlier: selection with guaranteed risk (Geifman and El-Yaniv 2017) on all the images, which
  ignores that they also selected the epoch; this project's earlier method;
- now: `resnets.evaluation.calibration.calibrate`.

    python benchmarks/false_promises.py --json-file results/false_promises.json
"""

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from numpy.typing import NDArray

from resnets.evaluation.calibration import (
    calibrate,
    confidence_and_correctness,
    fit_temperature,
    selections,
)
from resnets.evaluation.proportion import Proportion
from resnets.files.writing import write_atomically
from resnets.json_text import to_json

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Network:
    """Logits of a network for a few kinds of images, and its error rate on each kind.

    Attributes:
        logits: (kinds, 3), the first class being the predicted one.
        shares: (kinds,), share of each kind among all images.
        wrong: (kinds,), error rate of each kind.
    """

    logits: Floats
    shares: Floats
    wrong: Floats

    def beyond(self, temperature: float, threshold: float) -> float:
        """The true error rate of predictions with at least this confidence."""
        confidence, _ = confidence_and_correctness(
            self.logits / temperature, np.zeros(len(self.logits), int)
        )
        taken = self.shares * (confidence >= threshold - 1e-12)
        return float((taken * self.wrong).sum() / taken.sum())


@dataclass(frozen=True)
class Case:
    """A simulated case.

    Attributes:
        what: description.
        network: of every epoch.
        max_error: the target error rate.
        epochs: number of epochs from which the validation images select one.
        images: number of validation images.
        shared: share of the images whose prediction does not change from epoch to epoch.
        trials: number of trials.
    """

    what: str
    network: Network
    max_error: float
    epochs: int
    images: int
    shared: float = 0.0
    trials: int = 1000


def equal(wrong: float) -> Network:
    """A network with the same confidence for every image."""
    return Network(np.array([[2.0, 0.0, 0.0]]), np.ones(1), np.array([wrong]))


def spread(wrong: Callable[[Floats], Floats], kinds: int = 400) -> Network:
    """A network with kinds of images of falling confidence; `wrong` gives error rates."""
    positions = (np.arange(kinds) + 0.5) / kinds
    logits = np.stack([6 - 5 * positions, positions, np.zeros(kinds)], axis=1)
    return Network(logits, np.full(kinds, 1 / kinds), wrong(positions))


ODD = Network(  # the order of its kinds by confidence depends on the temperature
    np.array([[4.0, 0, 0], [2.2, 2.0, -3], [3.0, 2.0, 2.0], [1.0, 0.9, -9]]),
    np.array([0.4, 0.3, 0.2, 0.1]),
    np.array([0.11, 0.098, 0.106, 0.13]),
)
CASES = (
    Case("10.1 % wrong, all equally sure", equal(0.101), 0.1, 1, 600),
    Case("10.1 % wrong, all equally sure", equal(0.101), 0.1, 30, 600),
    Case("the same, mistakes mostly shared by the epochs", equal(0.101), 0.1, 30, 600, 0.8),
    Case("2.02 % wrong, all equally sure", equal(0.0202), 0.02, 30, 5000),
    Case("10.1 % wrong at every confidence", spread(lambda p: 0 * p + 0.101), 0.1, 30, 2000),
    Case("order by confidence depends on the temperature", ODD, 0.1, 10, 600),
    Case(
        "good: 0 to 16 % wrong, by confidence",
        spread(lambda p: 0.16 * p**2),
        0.02,
        1,
        5000,
        0,
        1000,
    ),
    Case("good: 0 to 16 % wrong, by confidence", spread(lambda p: 0.16 * p**2), 0.02, 30, 5000),
)


def simulate(case: Case, generator: np.random.Generator) -> tuple[Floats, NDArray[np.int64]]:
    """Logits (N, 3) and labels (N,) of the epoch with the fewest errors."""
    network = case.network
    kinds = generator.choice(len(network.shares), case.images, p=network.shares)
    first = generator.random(case.images)
    changing = generator.random(case.images) >= case.shared
    chances = np.where(changing, generator.random((case.epochs, case.images)), first)
    wrong = chances < network.wrong[kinds]
    best = wrong[wrong.sum(axis=1).argmin()]
    return network.logits[kinds], best.astype(np.int64)


def earlier(logits: Floats, labels: NDArray[np.int64], max_error: float) -> tuple[float, Any]:
    """Temperature and guaranteed threshold, or None, by the earlier method."""
    temperature = fit_temperature(logits, labels)
    values, accepted, wrong = selections(*confidence_and_correctness(logits / temperature, labels))
    share = 0.05 / math.ceil(math.log2(len(accepted) + 1))
    passed = int(np.searchsorted(accepted, math.log(share) / math.log1p(-max_error))) - 1
    refused, best = len(accepted), None
    while refused - passed > 1:
        index = (passed + refused) // 2
        errors = Proportion(int(wrong[index]), int(accepted[index]))
        if errors.upper_bound(1 - share) <= max_error:
            best = passed = index
        else:
            refused = index
    return temperature, None if best is None else float(values[best])


def now(logits: Floats, labels: NDArray[np.int64], case: Case) -> tuple[float, Any]:
    """Temperature and guaranteed threshold, or None, by today's method."""
    calibration = calibrate(logits, labels, case.max_error, case.epochs)
    return calibration.temperature, calibration.threshold if calibration.promised else None


def run_case(case: Case, trials: int) -> dict[str, Any]:
    """Counts of guarantees and of false ones."""
    generator = np.random.default_rng(0)
    ways = ("earlier", "now")
    promised, false = dict.fromkeys(ways, 0), dict.fromkeys(ways, 0)
    for _ in range(trials):
        logits, labels = simulate(case, generator)
        thresholds = {
            "earlier": earlier(logits, labels, case.max_error),
            "now": now(logits, labels, case),
        }
        for way, (temperature, threshold) in thresholds.items():
            if threshold is not None:
                promised[way] += 1
                false[way] += case.network.beyond(temperature, threshold) > case.max_error
    return {
        "what": case.what,
        "max_error": case.max_error,
        "epochs": case.epochs,
        "images": case.images,
        "trials": trials,
        "promised": promised,
        "false": {way: Proportion(count, trials).to_dict() for way, count in false.items()},
    }


def main(trials: int | None = None, json_file: Path | None = None) -> None:
    """Simulate every case.

    Args:
        trials: number per case; by default that of the case.
        json_file: where to write the results.
    """
    results = []
    for case in CASES:
        results.append(run_case(case, trials or case.trials))
        print(to_json(results[-1]), file=sys.stderr, flush=True)
    text = to_json({"cases": results}, indent=2)
    if json_file is None:
        print(text)
    else:
        write_atomically(json_file, text.encode() + b"\n")


if __name__ == "__main__":
    tyro.cli(main)
