"""Test accuracy by wall-clock time: this project's recipe `quick` against the reference.

The reference is what people run: SGD with the rates of He et al. 2015 (arXiv:1512.03385), 0.1 and
a tenth of it at half and at three quarters of 200 epochs, crops and flips. Both recipes train the
same network from nothing by this project's trainer, in turns, each run in a process of its own; the
length of each, and so its schedule, is fitted to the budget by ``resnets train --budget``. Neither
sets images aside, and the test images are scored once, when the time is over. What a run really
took is printed and drawn, not what it was allowed: on a machine whose speed changes they differ.

    python benchmarks/accuracy_vs_time.py CIFAR10 --budgets 1m 2m 5m

Stopped and started again, it keeps what has finished. Of ``--json-file
results/accuracy_vs_time.json``, `results/table.py` makes a part of its page.
"""

import json
import statistics
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from resnets.errors import ContentError
from resnets.evaluation.history import History
from resnets.evaluation.report.charts import BLUE, ORANGE, STYLE, svg
from resnets.files import writable, writable_folder, write_atomically
from resnets.format import duration, parse_duration
from resnets.machine import machine
from resnets.training.recipe import Recipe, named_recipe

EPOCHS = 200  # of the reference, before it is scaled to the budget
COLOURS = {"quick": BLUE, "reference": ORANGE}


@dataclass(frozen=True)
class Race:
    """What is compared.

    Attributes:
        data: as for `resnets train`.
        network: its name.
        output: where the runs go.
        threads: that compute; 0 for one per core.
    """

    data: str
    network: str
    output: Path
    threads: int = 0

    def recipe(self, name: str) -> Recipe:
        """One of the two, with no images set aside."""
        quick = name == "quick"
        recipe = named_recipe("quick" if quick else "paper", self.network)
        recipe = recipe if quick else replace(recipe, epochs=EPOCHS, steps=0)
        return replace(recipe, network=self.network, validation=0.0, threads=self.threads)

    def run(self, name: str, limit: str, seed: int) -> dict[str, Any]:
        """Train by a recipe for so long, unless that is done; what came out."""
        folder = self.output / f"{name}-{limit}-seed{seed}"
        if not finished(folder):
            file = self.output / f"{name}.toml"
            file.write_text(self.recipe(name).to_toml(), encoding="utf-8")
            command = [sys.executable, "-m", "resnets", "train", self.data, "--recipe", str(file)]
            command += ["--seed", str(seed), "--budget", limit, "--no-report"]
            subprocess.run([*command, "--output", str(folder), "--overwrite"], check=True)
        history = History.read(folder / "log.jsonl")
        return {
            "recipe": name,
            "budget": parse_duration(limit),
            "seed": seed,
            "seconds": history.seconds,
            "images": history.images,
            "steps": history.step,
            "test": history.test.to_dict(),
        }


def finished(folder: Path) -> bool:
    """Whether a run has come to its end."""
    try:
        return History.read(folder / "log.jsonl").finished
    except ContentError:
        return False


def plot(runs: list[dict[str, Any]], title: str, path: Path) -> None:
    """Draw accuracy against the time taken: a dot for each run, a line through the means. SVG."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6, 4), layout="constrained")
        axes = figure.subplots()
        for name, colour in COLOURS.items():
            own = [run for run in runs if run["recipe"] == name]
            budgets = sorted({run["budget"] for run in own})
            means = [mean(own, seconds) for seconds in budgets]
            took = [mean_of(own, seconds, "seconds") / 60 for seconds in budgets]
            axes.plot(took, means, color=colour, label=name)
            minutes = [run["seconds"] / 60 for run in own]
            axes.plot(minutes, [100 * run["test"]["value"] for run in own], "o", color=colour)
        axes.set(
            xlabel="minutes that training took", ylabel="test accuracy in percent", title=title
        )
        axes.legend()
        text = svg(figure, "accuracy", f"Test accuracy by the minutes that training took: {title}")
    write_atomically(path, text.encode() + b"\n")


def mean(runs: list[dict[str, Any]], seconds: float) -> float:
    """Mean test accuracy at a budget, in percent."""
    values = [float(run["test"]["value"]) for run in runs if run["budget"] == seconds]
    return 100 * statistics.mean(values)


def mean_of(runs: list[dict[str, Any]], seconds: float, key: str) -> float:
    """Mean of what runs at a budget say under a key."""
    return statistics.mean(float(run[key]) for run in runs if run["budget"] == seconds)


def show(runs: list[dict[str, Any]]) -> None:
    for seconds in sorted({run["budget"] for run in runs}):
        at = [run for run in runs if run["budget"] == seconds]
        for name in COLOURS:
            own = [run for run in at if run["recipe"] == name]
            values = [100 * run["test"]["value"] for run in own]
            spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
            took, images = (mean_of(own, seconds, key) for key in ("seconds", "images"))
            print(
                f"{duration(seconds):>12}  {name:9}  {mean(own, seconds):.2f}{spread} % "
                f"(n = {len(own)}; took {duration(took)}, {images:,.0f} images)"
            )


def main(
    data: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DATA")],
    /,
    budgets: tuple[str, ...] = ("1m", "2m", "5m"),
    seeds: int = 3,
    network: str = "resnet20",
    threads: int = 0,
    output: Path = Path("runs/accuracy-vs-time"),
    json_file: Path | None = None,
) -> None:
    """Compare the recipes.

    Args:
        data: as for `resnets train`.
        budgets: wall-clock times of training.
        seeds: runs of each recipe at each budget.
        network: which both train.
        threads: that compute; 0 for one per core.
        output: folder for the runs.
        json_file: where to write all figures, and beside it the plot (.svg); accuracy.json in the
            output folder unless told.
    """
    writable_folder(output)
    if json_file:
        writable(json_file)
    output.mkdir(parents=True, exist_ok=True)
    race, before = Race(data, network, output, threads), machine()
    runs = [
        race.run(name, limit, seed)
        for seed in range(seeds)
        for number, limit in enumerate(budgets)
        for name in list(COLOURS)[:: (1, -1)[(seed + number) % 2]]
    ]
    show(runs)
    where = f"{before['processor']}, {before['cores']} cores"
    found = {"machine": before, "data": Path(data).name, "network": network, "runs": runs}
    file = json_file or output / "accuracy.json"
    write_atomically(file, json.dumps(found, indent=2).encode() + b"\n")
    plot(runs, f"{network} on {Path(data).name}, {where}", file.with_suffix(".svg"))


if __name__ == "__main__":
    tyro.cli(main)
