"""`resnets reproduce`: train a published experiment again and compare the figures."""

import contextlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from tyro.conf import Positional, arg

from resnets.commands.arguments import parse
from resnets.commands.tables import print_table
from resnets.escaping import say, say_text
from resnets.files.outputs import writable_folder
from resnets.json_text import to_json
from resnets.runs.experiments import Choices

if TYPE_CHECKING:
    from resnets.runs.reproduction import Comparison, Plan, PlannedRun


@dataclass(frozen=True)
class Arguments(Choices):
    """Train the networks of a published experiment; show the paper's figures beside those here.

    he2015-table6 is the test error on CIFAR-10 by depth, he2015-figure6 plain against residual
    networks, as curves. Each training is a run in a folder of its own: stopped and started again,
    the command continues where it was, and finished runs are not trained again.

        resnets reproduce he2015-table6 --rows 20,32 --data FOLDER_OF_CIFAR10
        resnets reproduce he2015-figure6 --dry-run
    """

    name: Annotated[Positional[str], arg(metavar="EXPERIMENT")] = tyro.MISSING
    """he2015-table6 or he2015-figure6."""
    dry_run: bool = False
    """Train nothing; show which runs are finished and which are missing."""
    as_json: Annotated[bool, arg(name="json")] = False
    """Print the figures as JSON."""


def main(argv: Sequence[str]) -> int:
    """Run `resnets reproduce` with ``argv``. Returns the exit code."""
    config = (tyro.conf.FlagCreatePairsOff,)
    arguments = parse(Arguments, "resnets reproduce", argv, config=config)
    from resnets.runs.reproduction import Plan

    plan = Plan(arguments.name, arguments)
    writable_folder(plan.folder)
    code = 0
    with contextlib.redirect_stdout(sys.stderr if arguments.as_json else sys.stdout):
        for run in [] if arguments.dry_run else plan.wanted:
            code = _train(run)
            if code:
                break
        files = _draw(plan)
    if arguments.as_json:
        print(to_json(_as_dict(plan, files), indent=2))
    else:
        _show(plan, files)
    return code


def _train(run: "PlannedRun") -> int:
    """Train, unless that is done. Returns the exit code."""
    run.check()
    if run.finished:
        return 0
    say(f"{run.folder}: {run.row.network}, seed {run.seed}", flush=True)
    code = _trained(run)
    say(flush=True)
    if run.job.recipe.compile:
        import torch

        torch.compiler.reset()  # the next network is another
    return code


def _trained(run: "PlannedRun") -> int:
    """Train with a progress display; Ctrl-C saves and stops. Returns the exit code."""
    from resnets.runs.progress import open_display
    from resnets.runs.stop_signals import Interrupted

    try:
        with open_display() as display:
            run.train([display])
    except Interrupted as stop:
        say(f"Stopped by {stop.signal.name} and saved; the same command continues.", flush=True)
        return 128 + stop.signal
    return 0


def _show(plan: "Plan", files: Sequence[Path]) -> None:
    """Print the figures as text."""
    here = " ".join(["here", *(f"({name} {n})" for name, n in plan.choices.changes.items())])
    columns = ("network", "paper", here, "n", "in training", "runs", "the same again")
    rows = [
        (
            comparison.row.network,
            _percent(comparison.row.error),
            comparison.in_words(),
            len(comparison.finished),
            _percent(comparison.training),
            _states(plan, comparison),
            plan.repeat(comparison.row),
        )
        for comparison in plan.comparisons
    ]
    experiment = plan.experiment
    say_text(f"{experiment.source}: {experiment.what}\n")
    print_table(columns, rows)
    print("\nErrors in percent; ± is the standard deviation over n seeds.")
    for remark in plan.remarks():
        say(remark)
    for file in files:
        say(f"Curves: {file}")


def _percent(error: float | None) -> str:
    """An error in percent; a dash where there is none.

    >>> _percent(8.75), _percent(None)
    ('8.75', '–')
    """
    return "–" if error is None else f"{error:.2f}"


def _states(plan: "Plan", comparison: "Comparison") -> str:
    """The states of a row's runs, in words."""
    states = [(run.seed, run.state()) for run in plan.of(comparison.row)]
    unfinished = [f"seed {seed} {state}" for seed, state in states if state.startswith("stopped")]
    missing = [str(seed) for seed, state in states if state == "not run"]
    if len(missing) == len(states):
        return "not run"
    if missing:
        unfinished.append(f"seed {' '.join(missing)} not run")
    return ", ".join(unfinished) or "finished"


def _as_dict(plan: "Plan", files: Sequence[Path]) -> dict[str, Any]:
    """The figures for a program; errors in percent."""
    rows = []
    for comparison in plan.comparisons:
        runs = [
            {"seed": run.seed, "folder": str(run.folder), "state": run.state()}
            for run in plan.of(comparison.row)
        ]
        rows.append(comparison.to_dict() | {"runs": runs, "command": plan.repeat(comparison.row)})
    return {
        "experiment": plan.name,
        "source": plan.experiment.source,
        "data": plan.choices.data,
        "trial": plan.choices.changes,
        "remarks": plan.remarks(),
        "rows": rows,
        "files": [str(file) for file in files],
    }


def _draw(plan: "Plan") -> list[Path]:
    """Draw the curves of an experiment that is about them, plain networks beside residual ones."""
    from resnets.evaluation.report.curves import Curve, save

    if not plan.experiment.curves:
        return []
    panels: dict[str, list[Curve]] = {"plain": [], "residual": []}
    for run in plan.runs:
        history = run.history
        if history is not None and history.epochs:
            kind = "plain" if run.row.network.startswith("plain") else "residual"
            panels[kind].append(Curve.of(f"{run.row.layers} layers", history))
    if not any(panels.values()):
        return []
    trial = " (a short trial)" if plan.choices.changes else ""
    described = f"{plan.experiment.what}{trial}: plain networks left, residual ones right"
    return save(panels, plan.folder / f"{plan.name}{plan.suffix}", described)
