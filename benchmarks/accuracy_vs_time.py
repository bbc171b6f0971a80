"""Test accuracy by wall-clock time: this project's recipe `quick` against the reference.

The reference is the common recipe: SGD with the learning rates of He et al. 2015
(arXiv:1512.03385), 0.1 and divided by 10 at half and at three quarters of 200 epochs, crops and
flips. Both recipes train the same network from random weights by this project's trainer, in turns,
each run in a process of its own. ``resnets train --budget`` fits the length of a run, and so its
schedule, to the budget. Neither has a validation split, and the test images are evaluated once, at
the end. The time that a run took is printed and plotted, not its budget: they differ on a machine
whose speed changes.

    python benchmarks/accuracy_vs_time.py CIFAR10 --budgets 1m 2m 5m

If it is stopped and started again, it keeps the finished runs. With ``--json-file
results/accuracy_vs_time.json``, `results/table.py` makes a section of its page from the file.
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
from resnets.files.outputs import writable, writable_folder
from resnets.files.writing import write_atomically
from resnets.format import duration, parse_duration
from resnets.machine import machine
from resnets.run_files import LOG
from resnets.training.named_recipes import named_recipe
from resnets.training.recipe import Recipe

EPOCHS = 200  # of the reference, before it is scaled to the budget
COLOURS = {"quick": BLUE, "reference": ORANGE}


@dataclass(frozen=True)
class Race:
    """The comparison of two recipes.

    Attributes:
        data: as for `resnets train`.
        network: its name.
        output: where the runs go.
        threads: number of threads that compute; 0: one per core.
    """

    data: str
    network: str
    output: Path
    threads: int = 0

    def recipe(self, name: str) -> Recipe:
        """One of the two recipes, without a validation split."""
        quick = name == "quick"
        recipe = named_recipe("quick" if quick else "paper", self.network)
        recipe = recipe if quick else replace(recipe, epochs=EPOCHS, steps=0)
        return replace(recipe, network=self.network, validation=0.0, threads=self.threads)

    def run(self, name: str, limit: str, seed: int) -> dict[str, Any]:
        """Train by a recipe for a time, unless the run has finished already; its results."""
        folder = self.output / f"{name}-{limit}-seed{seed}"
        if not finished(folder):
            file = self.output / f"{name}.toml"
            file.write_text(self.recipe(name).to_toml(), encoding="utf-8")
            command = [sys.executable, "-m", "resnets", "train", self.data, "--recipe", str(file)]
            command += ["--seed", str(seed), "--budget", limit, "--no-report"]
            subprocess.run([*command, "--output", str(folder), "--overwrite"], check=True)
        history = History.read(folder / LOG)
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
    """Whether a run has finished."""
    try:
        return History.read(folder / LOG).finished
    except ContentError:
        return False


def plot(runs: list[dict[str, Any]], title: str, path: Path) -> None:
    """Plot accuracy against the time taken as SVG: a dot for each run, a line through the means."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6, 4), layout="constrained")
        axes = figure.subplots()
        for name, colour in COLOURS.items():
            own_runs = [run for run in runs if run["recipe"] == name]
            budgets = sorted({run["budget"] for run in own_runs})
            means = [mean(own_runs, seconds) for seconds in budgets]
            took = [mean_of(own_runs, seconds, "seconds") / 60 for seconds in budgets]
            axes.plot(took, means, color=colour, label=name)
            minutes = [run["seconds"] / 60 for run in own_runs]
            axes.plot(minutes, [100 * run["test"]["value"] for run in own_runs], "o", color=colour)
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
    """Mean of a key of the runs at a budget."""
    return statistics.mean(float(run[key]) for run in runs if run["budget"] == seconds)


def show(runs: list[dict[str, Any]]) -> None:
    for seconds in sorted({run["budget"] for run in runs}):
        runs_at_budget = [run for run in runs if run["budget"] == seconds]
        for name in COLOURS:
            own_runs = [run for run in runs_at_budget if run["recipe"] == name]
            values = [100 * run["test"]["value"] for run in own_runs]
            spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
            took, images = (mean_of(own_runs, seconds, key) for key in ("seconds", "images"))
            print(
                f"{duration(seconds):>12}  {name:9}  {mean(own_runs, seconds):.2f}{spread} % "
                f"(n = {len(own_runs)}; took {duration(took)}, {images:,.0f} images)"
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
        seeds: number of runs of each recipe at each budget.
        network: the network that both train.
        threads: number of threads that compute; 0: one per core.
        output: folder for the runs.
        json_file: where to write all figures, and beside it the plot (.svg); accuracy.json in the
            output folder by default.
    """
    writable_folder(output)
    if json_file:
        writable(json_file)
    output.mkdir(parents=True, exist_ok=True)
    race, machine_info = Race(data, network, output, threads), machine()
    runs = [
        race.run(name, limit, seed)
        for seed in range(seeds)
        for number, limit in enumerate(budgets)
        for name in list(COLOURS)[:: (1, -1)[(seed + number) % 2]]
    ]
    show(runs)
    machine_text = f"{machine_info['processor']}, {machine_info['cores']} cores"
    results = {"machine": machine_info, "data": Path(data).name, "network": network, "runs": runs}
    file = json_file or output / "accuracy.json"
    write_atomically(file, json.dumps(results, indent=2).encode() + b"\n")
    plot(runs, f"{network} on {Path(data).name}, {machine_text}", file.with_suffix(".svg"))


if __name__ == "__main__":
    tyro.cli(main)
