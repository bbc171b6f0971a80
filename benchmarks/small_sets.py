"""How many steps a network from scratch needs on photos until it is better than chance.

    python benchmarks/small_sets.py DATA --name NAME [--steps 15,60,200 --seeds 3]

Trains on DATA with the recipe quick, as chosen for the number of its images, for each number of
steps and each seed, and adds the scores on the validation images to the file, by which
`notices.too_few_steps` was chosen. `--start NAME` trains from a network instead.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

import resnets

RESULTS = Path(__file__).resolve().parent.parent / "results" / "small_sets.json"


@dataclass(frozen=True)
class Trial:
    """What to train.

    Attributes:
        data: as `resnets train` takes it.
        name: of the data in the results.
        network: to train from scratch.
        size: side of the images in pixels.
        steps: lengths of runs, separated by commas.
        seeds: runs of each length, with seeds from 0.
        start: a network to train from instead.
        json_file: to add the results to.
    """

    data: tyro.conf.Positional[str]
    name: str
    network: str = "resnet20"
    size: int = 32
    steps: str = "15,60,200"
    seeds: int = 3
    start: str | None = None
    json_file: Path = RESULTS


def score(trial: Trial, steps: int, seed: int) -> dict[str, Any]:
    """Train once. Returns the row of the results."""
    began = time.monotonic()
    run = resnets.train(
        trial.data,
        "auto" if trial.start else trial.network,
        "quick",  # whose runs the results are
        **{"image_size": trial.size, "resize": trial.size, "steps": steps, "seed": seed},
        **{"from_": trial.start, "report": False, "output": False, "progress": False},
    )
    recipe, top1 = run.description.recipe, run.description.metrics["validation"]["top1"]
    largest = max(run.description.data["counts"]["validation"].values())
    return {
        **{"data": trial.name, "network": recipe["network"], "from": trial.start},
        **{"size": trial.size, "batch": recipe["batch_size"], "rate": recipe["learning_rate"]},
        **{"steps": steps, "seed": seed, "right": top1["count"], "of": top1["total"]},
        "largest_class": largest,
        "seconds": round(time.monotonic() - began, 1),
    }


def main(trial: Trial) -> None:
    """Train for each length and seed, and keep each score at once."""
    for steps in map(int, trial.steps.split(",")):
        for seed in range(trial.seeds):
            row = score(trial, steps, seed)
            file = trial.json_file
            rows = json.loads(file.read_text("utf-8"))["runs"] if file.exists() else []
            text = ",\n ".join(json.dumps(each) for each in [*rows, row])
            file.write_text(f'{{"runs": [\n {text}\n]}}\n', "utf-8")
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main(tyro.cli(Trial))
