"""Write results/README.md from the folders of results.

``python results/table.py`` writes the page; with ``--check`` it only compares the page with the
folders, and exits with code 1 if they differ.
"""

import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import tyro
from entries import HERE, Entry, read_all
from equal_time import FILE as EQUAL_TIME
from equal_time import Budget, read_budgets
from time_to_accuracy import Time, read_speed, times
from unfamiliar import FILE as UNFAMILIAR
from unfamiliar import (
    PAIR_COLUMNS,
    SCORE_COLUMNS,
    by_mean,
    pair_cells,
    read_pairs,
    score_cells,
)

from resnets.errors import ContentError
from resnets.evaluation.report.curves import Curve, save
from resnets.format import byte_size, duration, fraction, percent, percent_interval, plural
from resnets.runs.experiments import EXPERIMENTS, Experiment, Row
from resnets.runs.reproduction import Comparison, different
from resnets.training.named_recipes import named_recipe
from resnets.training.recipe import Recipe

README = "README.md"
PANELS = ("plain", "residual")
TOP = """# Results

`python results/table.py` writes this page from the folders beside it; a test holds that it is what
they make, and that every figure is in the log of its run. `python results/add.py RUN NAME` makes
such a folder of a finished run, which is the only way into the tables.

A folder has the run's `config.toml` (all that it was asked), its `log.jsonl` (of a long one, the
intervals are thinned out; every epoch and the end are there) and `metrics.json` (the figures, the
command, versions and machine). Accuracies are of the last network of a run, without test-time
augmentation, with the 95 % interval of Wilson 1927. Seconds are of training with validation and
saving; images/s is the median of the steps in the log alone.

To do any row again, run its command from the top of the repository. In commands, `cifar10` stands
for your folder of CIFAR-10: its parquet files as on the hub (`uoft-cs/cifar10`), or write
`hub:uoft-cs/cifar10`. `digits` is in the package. Runs go to `runs/`; `--output` says otherwise.
"""


def main(root: Path = HERE, check: bool = False) -> None:
    """Write the page, or only compare it.

    Args:
        root: folder of the results.
        check: only compare the page with the folders.
    """
    if not check:
        write(root)
    elif not (root / README).is_file() or (root / README).read_text(encoding="utf-8") != page(root):
        sys.exit(f"{root / README}: differs from the folders; run python results/table.py")


def write(root: Path) -> None:
    """Write the page and its plots of curves from the folders."""
    text, entries = page(root), read_all(root)
    for name, experiment in EXPERIMENTS.items():
        curves = curves_of(experiment, entries)
        if any(curves.values()):
            save(curves, root / name, experiment.what)
    (root / README).write_text(text, encoding="utf-8")


def page(root: Path) -> str:
    """The whole page."""
    entries = read_all(root)
    parts = [
        TOP,
        "## Every run\n",
        table(RUN_COLUMNS, map(run_cells, entries)),
        "## Over seeds\n",
        "Runs that differ in nothing but their seed; ± is the standard deviation (n - 1).\n",
        table(SEED_COLUMNS, map(seed_cells, by_seeds(entries))),
        *(part for name in EXPERIMENTS for part in published(name, entries)),
        *time_part(entries, root),
        *equal_time_part(root),
        *unfamiliar_part(root),
    ]
    return "\n".join(parts)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; a sentence where there are no rows."""
    lines = [f"| {' | '.join(cells)} |" for cells in rows]
    if not lines:
        return "None yet.\n"
    return "\n".join([f"| {' | '.join(columns)} |", "| --- " * len(columns) + "|", *lines]) + "\n"


RUN_COLUMNS = (
    *("result", "network", "data", "recipe", "test accuracy", "seed"),
    *("images/s", "time", "machine", "the same again"),
)


def run_cells(entry: Entry) -> list[str]:
    """The cells of a run."""
    metrics, recipe = entry.metrics, entry.job.recipe
    test = entry.history.test
    speed = metrics["images_per_second"]
    remark = f"; {metrics['remark']}" if metrics["remark"] else ""
    return [
        f"[{entry.name}]({entry.name})",
        metrics["network"],
        metrics["data"],
        in_words(recipe) + remark,
        f"{percent(test.value, 2)} ({fraction(test.count, test.total)}; "
        f"{percent_interval(*test.interval)})",
        str(metrics["seed"]),
        "–" if speed is None else f"{speed:,.0f}",
        duration(metrics["seconds"]),
        machine(metrics),
        f"`{metrics['command']}`",
    ]


def in_words(recipe: Recipe) -> str:
    """A short description of a recipe."""
    length = (
        plural(recipe.epochs, "epoch", "epochs") if recipe.epochs else plural(recipe.steps, "step")
    )
    precision = "" if recipe.precision == "float32" else f", {recipe.precision}"
    return (
        f"{length} of {recipe.batch_size}, {recipe.optimizer} {recipe.learning_rate:g}{precision}"
        f", validation {recipe.validation:g}"
    )


def resumed(times: int) -> str:
    """How often a run was resumed, in words."""
    return "" if times == 0 else ", resumed once" if times == 1 else f", resumed {times} times"


def machine(metrics: dict[str, Any]) -> str:
    """The machine of a run, in words."""
    known = metrics["machine"]
    threads = " and ".join(map(str, metrics["threads"])) + " thread"
    threads += "" if metrics["threads"] == [1] else "s"
    threads += resumed(metrics["resumed"])
    memory = "" if known["memory_gib"] is None else f", {byte_size(known['memory_gib'] * 2**30)}"
    device = known["processor"] if metrics["device"] == "cpu" else metrics["device"]
    return f"{device}, {plural(known['cores'], 'core')}, {threads}{memory}"


SEED_COLUMNS = ("network", "data", "recipe", "test accuracy", "n", "results")


def by_seeds(entries: Iterable[Entry]) -> list[list[Entry]]:
    """Groups of at least two entries that differ only in their seed."""

    def key(entry: Entry) -> str:
        return entry.without_seed.to_toml()

    groups = [list(group) for _, group in groupby(sorted(entries, key=key), key)]
    return [group for group in groups if len({e.job.recipe.seed for e in group}) > 1]


def seed_cells(group: Sequence[Entry]) -> list[str]:
    """The cells of a group."""
    metrics = group[0].metrics
    values = [100 * entry.history.test.value for entry in group]
    links = ", ".join(f"[{entry.name}]({entry.name})" for entry in group)
    mean, spread = statistics.mean(values), statistics.stdev(values)
    words = in_words(group[0].job.recipe)
    accuracy = f"{mean:.2f} ± {spread:.2f} %"
    return [metrics["network"], metrics["data"], words, accuracy, str(len(group)), links]


def published(name: str, entries: Sequence[Entry]) -> list[str]:
    """A paper's table, with the runs here that followed its recipe exactly."""
    experiment = EXPERIMENTS[name]
    rows = []
    for row in experiment.rows:
        runs = {e.job.recipe.seed: e.history for e in entries if follows(e, row)}
        comparison = Comparison(row, runs)
        again = f"resnets reproduce {name} --rows {row.layers} --data cifar10"
        remark = f" ({row.remark})" if row.remark else ""
        paper = f"{'–' if row.error is None else f'{row.error:.2f}'}{remark}"
        rows.append([row.network, paper, comparison.in_words(), str(len(runs)), f"`{again}`"])
    return [
        f"## {experiment.source}\n",
        f"{experiment.what[0].upper()}{experiment.what[1:]}, in percent, by the recipe "
        f"`{experiment.recipe}`: 64,000 steps on all 50,000 training images.\n",
        table(("network", "paper", "here", "n", "the same again"), rows),
        *picture(name, experiment, entries),
    ]


def curves_of(experiment: Experiment, entries: Sequence[Entry]) -> dict[str, list[Curve]]:
    """The curves of an experiment's runs that evaluated the test images, by panel."""
    by_panel: dict[str, list[Curve]] = {panel: [] for panel in PANELS}
    for row in experiment.rows if experiment.curves else ():
        panel = "plain" if row.network.startswith("plain") else "residual"
        own = [entry.history for entry in entries if follows(entry, row)]
        curves = [Curve.of(f"{row.layers} layers", history) for history in own]
        by_panel[panel] += [curve for curve in curves if curve.test]
    return by_panel


def picture(name: str, experiment: Experiment, entries: Sequence[Entry]) -> list[str]:
    """The picture of an experiment's curves, if it has any."""
    if not experiment.curves:
        return []
    if not any(curves_of(experiment, entries).values()):
        return ["No run here followed the test images yet, so there are no curves.\n"]
    return [f"![{experiment.what}]({name}.svg)\n"]


def follows(entry: Entry, row: Row) -> bool:
    """Whether a run is of a row's network, data and recipe."""
    recipe = entry.job.recipe
    asked = replace(named_recipe("paper", row.network), seed=recipe.seed)
    whole = entry.history.test.total == 10_000 and entry.job.data.endswith("cifar10")
    return recipe.network == row.network and whole and not different(recipe, asked)


def time_part(entries: Sequence[Entry], root: Path) -> list[str]:
    """The section on time to the paper's accuracy, or which file is missing."""
    speed = read_speed(root)
    title = "## Time to the paper's accuracy\n"
    if speed is None:
        return [title, "Not measured yet: `results/speed.json` is missing.\n"]
    rows = times(entries, speed)
    return [title, speed.in_words(), table(Time.columns, (time.cells() for time in rows))]


def equal_time_part(root: Path) -> list[str]:
    """The section on two recipes in the same time, or which file is missing."""
    title, where_and_budgets = "## Accuracy by time\n", read_budgets(root)
    if where_and_budgets is None:
        return [title, f"Not measured yet: `results/{EQUAL_TIME}` is missing.\n"]
    where, budgets = where_and_budgets
    return [
        title,
        "The recipe `quick` against the reference (rate 0.1, divided at half and three quarters, "
        "its 200 epochs scaled to the time), each in a process of its own, with nothing set "
        f"aside; test accuracy once, at the end: {where}. ± is the standard deviation over seeds "
        "(n - 1). Both were allowed the same time, but did not take the same: when they ran, "
        "`--budget` planned a run once, before its first step, and the machine's speed changed "
        "afterwards. What they took and how many images they saw stands beside the accuracies "
        "(means); compare rows of unequal time with care.\n",
        table(Budget.columns, (budget.cells() for budget in budgets)),
        f"![test accuracy by the minutes that training took]({Path(EQUAL_TIME).stem}.svg)\n",
        "The same again: `python benchmarks/accuracy_vs_time.py cifar10 --json-file "
        f"results/{EQUAL_TIME}`\n",
    ]


def unfamiliar_part(root: Path) -> list[str]:
    """The section on scores for unfamiliar images, or which file is missing."""
    title, pairs = "## Images of other things\n", read_pairs(root)
    if not pairs:
        return [title, f"Not measured yet: `results/{UNFAMILIAR}` is missing.\n"]
    return [
        title,
        "How well a score ranks images of none of a network's classes above images of its classes "
        "that it was not trained on: AUROC (0.5 is chance), and the share of the others that pass "
        "where 95 or 99 % of its own images do (FPR95, FPR99). Scores are fitted on training "
        "images alone. Near pairs are classes of the same data set that the network never saw. "
        "The score in bold is the one that `resnets` uses.\n",
        table(SCORE_COLUMNS, (score_cells(name, pairs) for name in by_mean(pairs))),
        "By pair:\n",
        table(PAIR_COLUMNS, map(pair_cells, pairs)),
        "The same again: `python benchmarks/unfamiliar.py SHARED --json-file "
        f"results/{UNFAMILIAR}`\n",
    ]


if __name__ == "__main__":
    try:
        tyro.cli(main)
    except ContentError as error:
        sys.exit(str(error))
