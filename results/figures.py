"""Write the measured figures in README, CHANGELOG and docs from the committed logs.

``python results/figures.py`` updates them; with ``--check`` it only reports those that differ from
the logs, and exits with code 1. In the pages, a figure stands between two comments, the first of
which names it: ``<!-- figure: quick-resnet20-seed0.accuracy -->91.44 %<!-- end -->``. These exist:

- ``RESULT.NAME``: of a run in this folder, from its log (`of_run`);
- ``speed.NAME``, ``budget300.NAME``: from the benchmarks' files, speed.json and
  accuracy_vs_time.json;
- ``unfamiliar.NAME``: of the score of familiarity, from unfamiliar.json;
- ``frozen.in_words``: how long `--freeze all` takes on photos, from frozen.json;
- ``benchmark.NAME``: a table of docs/benchmarks.md, from a benchmark's file;
- ``example.NAME``: what a command printed, docs/examples/NAME.txt, which docs/examples.py writes;
- ``foreign.NAME``: another project's network, measured by docs/examples.py.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import tyro
from benchmark_tables import TABLES
from entries import HERE, Entry, read_all
from equal_time import Budget, read_budgets
from time_to_accuracy import BY_LOG, ESTIMATE, Speed, Time, read_speed
from unfamiliar import figures as of_pairs
from unfamiliar import read_pairs

from resnets.errors import ContentError
from resnets.format import fraction, percent, percent_interval

ROOT = HERE.parent
PAGES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")  # and every page of docs
EXAMPLES = ROOT / "docs" / "examples"
MARKED = re.compile(r"(<!-- figure: (\S+) -->)(.*?)(<!-- end -->)", re.DOTALL)


def of_run(entry: Entry, speed: Speed | None) -> dict[str, str]:
    """The figures of a run."""
    test, recipe, history = entry.history.test, entry.job.recipe, entry.history
    by_name = {
        "accuracy": percent(test.value, 2),
        "error": percent(1 - test.value, 2),
        "interval": percent_interval(*test.interval),
        "count": fraction(test.count, test.total),
        "epochs": str(len(history.epochs)),
        "minutes": f"{history.seconds / 60:.1f}",
        "validation": f"{recipe.validation:g}",
    }
    if speed is not None and history.images_per_second:
        time = Time(entry, speed, history.images_per_second, BY_LOG)
        by_name["updates_minutes"] = f"{time.seconds / 60:.1f}"
        by_name["ratio"] = f"{time.ratio:.1f}"
        by_name["paper_ratio"] = f"{time.paper_ratio:.1f}"
    return by_name


def of_speed(speed: Speed, entry: Entry) -> dict[str, str]:
    """The figures of the training benchmark, and its estimate for a run."""
    estimate = Time(entry, speed, speed.ours, ESTIMATE)
    low, high = min(speed.ratios), max(speed.ratios)
    return {
        "hours": f"{speed.seconds / 3600:.1f}",
        "reference": f"{speed.reference:,.0f}",
        "ours": f"{speed.ours:,.0f}",
        "speedup": f"{speed.ratio:.2f}",
        "range": f"{low:.2f} to {high:.2f}",
        "minutes": f"{estimate.seconds / 60:.1f}",
        "ratio": f"{estimate.ratio:.1f}",
        "paper_ratio": f"{estimate.paper_ratio:.1f}",
    }


def of_budget(budget: Budget) -> dict[str, str]:
    """The figures of both recipes for a time budget."""
    names = ("quick", "reference")
    return {
        "minutes": f"{budget.seconds / 60:g}",
        "n": str(len(budget.quick)),
        **{f"{n}_accuracy": f"{sum(v) / len(v):.1f} %" for n, v in budget.accuracies.items()},
        **{f"{n}_seconds": f"{s:.0f}" for n, s in zip(names, budget.took, strict=True)},
        **{f"{n}_images": f"{i:,.0f}" for n, i in zip(names, budget.images, strict=True)},
    }


def examples() -> Iterator[tuple[str, str]]:
    """The output of commands, as code blocks."""
    for path in sorted(EXAMPLES.glob("*.txt")):
        yield f"example.{path.stem}", f"\n```\n{path.read_text(encoding='utf-8').rstrip()}\n```\n"


def of_foreign() -> dict[str, str]:
    """The accuracy of another project's network."""
    path = EXAMPLES / "foreign.json"
    if not path.is_file():
        return {}
    top1 = json.loads(path.read_text(encoding="utf-8"))["top1"]
    count, total = top1["count"], top1["total"]
    return {"accuracy": percent(count / total, 2), "count": fraction(count, total)}


def of_frozen(root: Path) -> dict[str, str]:
    """How long `--freeze all` takes; how to find out where that is not measured."""
    if not (root / "frozen.json").is_file():
        return {"in_words": "how long that takes here, `python benchmarks/frozen.py` measures"}
    results = json.loads((root / "frozen.json").read_text(encoding="utf-8"))
    groups: dict[str, list[float]] = {}
    for run in results["runs"]:
        groups.setdefault(run["way"], []).append(run["seconds"])
    took = [f"{median(seconds):.0f} s {way}" for way, seconds in groups.items()]
    return {
        "in_words": f"for {results['images']} photos, the whole command took {', '.join(took)} "
        f"(medians of {len(results['runs']) // len(took)} on {results['machine']['cores']} cores)"
    }


def figures(root: Path = HERE) -> dict[str, str]:
    """Every figure that a page may show, by name."""
    entries, speed, equal = read_all(root), read_speed(root), read_budgets(root)
    by_name = {
        f"{entry.name}.{name}": value
        for entry in entries
        for name, value in of_run(entry, speed).items()
    }
    if speed is not None:
        measured = Path(speed.recipe).parent.name
        (entry,) = (entry for entry in entries if entry.name == measured)
        by_name |= {f"speed.{name}": value for name, value in of_speed(speed, entry).items()}
    for budget in equal[1] if equal else []:
        by_name |= {f"budget{budget.seconds:g}.{n}": v for n, v in of_budget(budget).items()}
    by_name |= {f"foreign.{name}": value for name, value in of_foreign().items()}
    by_name |= {f"frozen.{name}": value for name, value in of_frozen(root).items()}
    pairs = read_pairs(root)
    by_name |= {f"unfamiliar.{n}": v for n, v in of_pairs(pairs).items()} if pairs else {}
    by_name |= {f"benchmark.{name}": f"\n\n{table(root)}\n" for name, table in TABLES.items()}
    return by_name | dict(examples())


def filled(text: str, known: dict[str, str], where: str) -> str:
    """A page with its figures from the logs.

    Raises:
        ContentError: the page names an unknown figure.
    """

    def replaced(match: re.Match[str]) -> str:
        begin, name, _, end = match.groups()
        if name not in known:
            raise ContentError(f"{where}: no log has the figure {name}; see results/figures.py")
        return f"{begin}{known[name]}{end}"

    return MARKED.sub(replaced, text)


def main(check: bool = False) -> None:
    """Write the figures into the pages, or only compare them.

    Args:
        check: compare them with the logs.
    """
    known = figures()
    for path in [*(ROOT / page for page in PAGES), *sorted(ROOT.glob("docs/**/*.md"))]:
        page = str(path.relative_to(ROOT))
        text = path.read_text(encoding="utf-8")
        right = filled(text, known, page)
        if right == text:
            continue
        if check:
            sys.exit(f"{page}: figures differ from the logs; run python results/figures.py")
        path.write_text(right, encoding="utf-8")


if __name__ == "__main__":
    try:
        tyro.cli(main)
    except ContentError as error:
        sys.exit(str(error))
