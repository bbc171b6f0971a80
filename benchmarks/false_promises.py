"""How often a promised threshold does not hold, where the true error rate is known.

Networks are made up so that the true share of wrong predictions beyond any threshold is known in
closed form, and mostly so that every promise is false. Of several epochs the one with the fewest
mistakes on the validation images is kept, as with `--patience`, and calibrated on these images.
At most 5 % of the trials may end with a false promise.

- earlier: selection with guaranteed risk (Geifman and El-Yaniv 2017) on all the images, which knows
  nothing of what else they have chosen; so it was done here before;
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
from resnets.files import write_atomically
from resnets.json_text import to_json

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Network:
    """What a network says of a few kinds of images, and how often it is wrong on each kind.

    Attributes:
        logits: (kinds, 3), the first class being the predicted one.
        shares: (kinds,), of all images.
        wrong: (kinds,), of the kind.
    """

    logits: Floats
    shares: Floats
    wrong: Floats

    def beyond(self, temperature: float, threshold: float) -> float:
        """The true share of wrong ones among the predictions that are at least so sure."""
        confidence, _ = confidence_and_correctness(
            self.logits / temperature, np.zeros(len(self.logits), int)
        )
        taken = self.shares * (confidence >= threshold - 1e-12)
        return float((taken * self.wrong).sum() / taken.sum())


@dataclass(frozen=True)
class Case:
    """What is tried.

    Attributes:
        what: in words.
        network: of every epoch.
        max_error: the target.
        epochs: among how many the validation images choose.
        images: to validate on.
        shared: share of the images whose right or wrong does not change from epoch to epoch.
        trials: how often it is tried.
    """

    what: str
    network: Network
    max_error: float
    epochs: int
    images: int
    shared: float = 0.0
    trials: int = 1000


def equal(wrong: float) -> Network:
    """Equally sure of every image."""
    return Network(np.array([[2.0, 0.0, 0.0]]), np.ones(1), np.array([wrong]))


def spread(wrong: Callable[[Floats], Floats], kinds: int = 400) -> Network:
    """So many kinds of images, by falling confidence; how often each is wrong depends on it."""
    places = (np.arange(kinds) + 0.5) / kinds
    logits = np.stack([6 - 5 * places, places, np.zeros(kinds)], axis=1)
    return Network(logits, np.full(kinds, 1 / kinds), wrong(places))


ODD = Network(  # at other temperatures its kinds come in another order
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


def drawn(case: Case, generator: np.random.Generator) -> tuple[Floats, NDArray[np.int64]]:
    """Logits (N, 3) and labels (N,) of the epoch with the fewest mistakes."""
    network = case.network
    kinds = generator.choice(len(network.shares), case.images, p=network.shares)
    first = generator.random(case.images)
    changing = generator.random(case.images) >= case.shared
    chances = np.where(changing, generator.random((case.epochs, case.images)), first)
    wrong = chances < network.wrong[kinds]
    kept = wrong[wrong.sum(axis=1).argmin()]
    return network.logits[kinds], kept.astype(np.int64)


def earlier(logits: Floats, labels: NDArray[np.int64], max_error: float) -> tuple[float, Any]:
    """Temperature and promised threshold, or None, as they were found before."""
    temperature = fit_temperature(logits, labels)
    values, accepted, wrong = selections(*confidence_and_correctness(logits / temperature, labels))
    share = 0.05 / math.ceil(math.log2(len(accepted) + 1))
    passed = int(np.searchsorted(accepted, math.log(share) / math.log1p(-max_error))) - 1
    refused, found = len(accepted), None
    while refused - passed > 1:
        middle = (passed + refused) // 2
        errors = Proportion(int(wrong[middle]), int(accepted[middle]))
        if errors.upper_bound(1 - share) <= max_error:
            found = passed = middle
        else:
            refused = middle
    return temperature, None if found is None else float(values[found])


def now(logits: Floats, labels: NDArray[np.int64], case: Case) -> tuple[float, Any]:
    """The same as they are found now."""
    made = calibrate(logits, labels, case.max_error, case.epochs)
    return made.temperature, made.threshold if made.promised else None


def tried(case: Case, trials: int) -> dict[str, Any]:
    """How often something was promised, and falsely."""
    generator = np.random.default_rng(0)
    ways = ("earlier", "now")
    promised, false = dict.fromkeys(ways, 0), dict.fromkeys(ways, 0)
    for _ in range(trials):
        logits, labels = drawn(case, generator)
        found = {
            "earlier": earlier(logits, labels, case.max_error),
            "now": now(logits, labels, case),
        }
        for way, (temperature, threshold) in found.items():
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
    """Try every case.

    Args:
        trials: of each case; by default as many as the case says.
        json_file: write what was found into this file.
    """
    found = []
    for case in CASES:
        found.append(tried(case, trials or case.trials))
        print(to_json(found[-1]), file=sys.stderr, flush=True)
    text = to_json({"cases": found}, indent=2)
    if json_file is None:
        print(text)
    else:
        write_atomically(json_file, text.encode() + b"\n")


if __name__ == "__main__":
    tyro.cli(main)
