"""The tables of docs/benchmarks.md, from the JSON files of the benchmarks.

For a benchmark whose file is missing, the page shows the command instead of a table.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

from over_seeds import accuracies, apart, on_average

from resnets.errors import ContentError
from resnets.evaluation.proportion import Proportion
from resnets.format import percent, percent_interval, significant

CIFAR10 = "FOLDER_OF_CIFAR10"


def rows(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def where(machine: dict[str, Any]) -> str:
    """A description of a machine."""
    parts = [f"{machine.get('processor')}, {machine.get('cores')} cores"]
    parts += [f"torch {machine['torch']}"] if "torch" in machine else []
    load = machine.get("load_before")
    parts += [] if load is None else [f"load before: {load:.1f}"]
    return "; ".join(parts)


def training(results: dict[str, Any]) -> str:
    """The table of benchmarks/training.py."""
    cells = []
    for name, speeds in results["networks"].items():
        per_second, ratios = speeds["images_per_second"], speeds["ratios"]
        cells.append(
            [
                name,
                *(f"{per_second[who]:,.0f}" for who in ("plain_loop", "trainer", "convolutions")),
                f"{speeds['ratio']:.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
                str(len(ratios)),
                f"{speeds['undisturbed_ratio']:.2f}",
            ]
        )
    columns = ("network", "plain loop", "this trainer", "convolutions alone", "ratio (range)")
    what = f"Images/s by the recipe `{results['recipe']}`, batch {results['batch_size']}"
    head = f"{what}, {results['images']}. {where(results['machine'])}.\n\n"
    return head + rows((*columns, "rounds", "ratio, undisturbed"), cells)


def inference(results: dict[str, Any]) -> str:
    """The tables of benchmarks/inference.py."""
    parts = [f"Images/s. {where(results['machine'])}.\n"]
    for name, model in results["models"].items():
        speeds = model["images_per_second"]
        sizes = list(next(iter(speeds.values())))
        cells = [[who, *(f"{of[size]:,.1f}" for size in sizes)] for who, of in speeds.items()]
        parts.append(rows((name, *(f"batch {size}" for size in sizes)), cells))
    aims = [aim for model in results["models"].values() for aim in model["aims"]]
    judged = [
        [aim["name"], f"{aim['aim']:g}", f"{aim['ratio']:.2f}", yes_or_no(aim)] for aim in aims
    ]
    return "\n".join([*parts, rows(("ratio", "aim", "found", "reached"), judged)])


def yes_or_no(aim: dict[str, Any]) -> str:
    """Whether a target was reached."""
    return "yes" if aim["ratio"] >= aim["aim"] else "no"


def decoding(results: dict[str, Any]) -> str:
    """The table of benchmarks/decode.py."""
    cells = [
        [
            way["name"],
            f"{way['images_per_second']:,.0f}",
            f"{way['ratio']:.2f} ({min(way['ratios']):.2f} to {max(way['ratios']):.2f})",
            f"{way['mean_difference']:.3f}",
        ]
        for way in results["ways"]
    ]
    columns = ("way", "images/s", "ratio (range)", "mean difference of 255")
    head = f"{results['photos']} photos, {results['rounds']} rounds, one core. "
    return f"{head}{where(results['machine'])}.\n\n{rows(columns, cells)}"


def small_png(results: dict[str, Any]) -> str:
    """The table of benchmarks/small_png.py."""
    cells = [
        [
            f"{row['side']} x {row['side']}",
            f"{row['short']:,.0f}",
            f"{row['pillow']:,.0f}",
            f"{median(row['ratios']):.2f} ({min(row['ratios']):.2f} to {max(row['ratios']):.2f})",
        ]
        for row in results["sizes"]
    ]
    head = f"Microseconds an image, of {results['images']} images, one core. "
    columns = ("pixels", "short way", "Pillow", "ratio (range)")
    return f"{head}{where(results['machine'])}.\n\n{rows(columns, cells)}"


def worker_batches(results: dict[str, Any]) -> str:
    """The table of benchmarks/worker_batches.py."""
    cells = [
        [way["name"], *(spread(way[name]) for name in ("computing", "waiting"))]
        for way in results["ways"]
    ]
    what = "{batch_size} images of {side} x {side} pixels, {workers} workers".format(**results)
    columns = ("way", "ms of computing in the main process (range)", "ms a batch (range)")
    return f"{what}. {where(results['machine'])}.\n\n{rows(columns, cells)}"


def loading(results: dict[str, Any]) -> str:
    """The table of benchmarks/loading.py."""
    cells = []
    for each in results["loaders"]:
        ratios = each["ratios"]
        spread_of_ratios = f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        cells.append([each["name"], f"{median(each['images_per_second']):,.0f}", spread_of_ratios])
    what = "Each photo {copies} times, batches of {batch_size} random crops, {workers} workers, "
    head = (what + "{rounds} rounds").format(**results)
    table = rows(("loader", "images/s", "of the folder's (range)"), cells)
    return f"{head}. {where(results['machine'])}.\n\n{table}"


def ray_predict(results: dict[str, Any]) -> str:
    """The table of benchmarks/ray_predict.py."""
    seconds, images = results["seconds"], results["images"]
    cells = []
    for way, values in seconds.items():
        ratios = [other / one for one, other in zip(values, seconds["processes"], strict=True)]
        spread = f"{median(values):.1f} ({min(values):.1f} to {max(values):.1f})"
        of_processes = f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        cells.append([way, spread, f"{images / median(values):,.0f}", of_processes])
    what = "{images:,} photos of {side} x {side} pixels, {processes} processes or workers".format(
        **results
    )
    rounds = f"{len(seconds['processes'])} rounds"
    columns = (
        "way",
        "seconds of the whole command (range)",
        "images/s",
        "of the processes' (range)",
    )
    return f"{what}, {rounds}. {where(results['machine'])}.\n\n{rows(columns, cells)}"


def small_sets(results: dict[str, Any]) -> str:
    """The table of benchmarks/small_sets.py."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for run in results["runs"]:
        start = run["from"] or "from scratch"
        key = (
            run["data"],
            run["network"],
            start,
            *(str(run[k]) for k in ("size", "batch", "steps")),
        )
        groups.setdefault(key, []).append(run)
    cells = []
    for key, runs in groups.items():
        shares = [run["right"] / run["of"] for run in runs]
        better = sum(
            Proportion(run["right"], run["of"]).interval[0] > run["largest_class"] / run["of"]
            for run in runs
        )
        accuracy = f"{percent(mean(shares))} ({percent_interval(min(shares), max(shares), 1)})"
        cells.append([*key, accuracy, f"{better} of {len(runs)}"])
    columns = ("data", "network", "start", "pixels", "batch", "steps")
    return rows((*columns, "validation accuracy (range)", "shown better than chance"), cells)


_Ways = dict[str, list[dict[str, Any]]]  # runs by the way in which they were trained


def transfer(results: dict[str, Any]) -> str:
    """The table of benchmarks/transfer.py."""
    groups: dict[tuple[Any, ...], _Ways] = {}
    for run in results["runs"]:
        changes = ", ".join(f"{name} = {value}" for name, value in run["changes"].items())
        ways = groups.setdefault(_case(run), {})
        ways.setdefault(f"{run['way']} {changes}".strip(), []).append(run)
    cells = []
    for case, ways in groups.items():
        for line, runs in zip(_beside(ways, ways.get("transfer", [])), ways.values(), strict=True):
            cells.append([*case, *line, f"{mean(run['seconds'] for run in runs):.0f}"])
    scored = ("validation accuracy", "minus transfer", "test accuracy", "minus transfer")
    return rows((*_CASE, "way", "n", *scored, "seconds"), cells)


def transfer_epochs(results: dict[str, Any]) -> str:
    """The table of benchmarks/transfer.py with other epochs, beside those of each case's first."""
    groups: dict[tuple[Any, ...], _Ways] = {}
    for run in results["runs"]:
        way = f"{run['epochs']} epochs" if run["way"] == "transfer" else str(run["way"])
        groups.setdefault(_case(run), {}).setdefault(way, []).append(run)
    cells = [
        [*case, *line]
        for case, ways in groups.items()
        for line in _beside(ways, next(iter(ways.values())))
    ]
    scored = ("validation accuracy", "minus before", "test accuracy", "minus before")
    return rows((*_CASE, "way", "n", *scored), cells)


_CASE = ("data", "network", "pixels", "images a class")


def _case(run: dict[str, Any]) -> tuple[str, ...]:
    """What a run of benchmarks/transfer.py was trained on."""
    return (run["data"], run["network"], str(run["size"]), str(run["per_class"] or "all"))


def _beside(ways: _Ways, usual: list[dict[str, Any]]) -> list[list[str]]:
    """A line for each way: its accuracies, and how far they are from those of the usual one."""
    lines = []
    for way, runs in ways.items():
        line = [way, str(len(runs))]
        for score in ("validation", "test"):
            ours = accuracies(runs, score)
            ahead = "–" if runs is usual else apart(ours, accuracies(usual, score))
            line += [f"{mean(ours.values()):.1f} %", ahead]
        lines.append(line)
    return lines


def transfer_settings(results: dict[str, Any]) -> str:
    """Two tables of benchmarks/transfer.py: what settings change, by the images of a class."""
    counts = sorted({run["per_class"] for run in results["runs"]})
    usual = {run["per_class"]: run for run in results["runs"] if _setting(run, run) == "transfer"}
    groups: dict[str, dict[int, list[dict[str, Any]]]] = {}
    for run in results["runs"]:
        by_count = groups.setdefault(_setting(run, usual[run["per_class"]]), {})
        by_count.setdefault(run["per_class"], []).append(run)
    parts = []
    for score in ("validation", "test"):
        cells = []
        for setting, by_count in groups.items():
            line = [setting]
            for count in counts:
                ours = accuracies(by_count.get(count, []), score)
                base = accuracies(groups["transfer"][count], score)
                shown = on_average(ours) if setting == "transfer" else apart(ours, base)
                line.append(f"{shown}, n = {len(ours.keys() & base.keys())}" if ours else "")
            cells.append(line)
        parts.append(rows((f"{score} images", *(f"{count} a class" for count in counts)), cells))
    return "\n".join(parts)


def _setting(run: dict[str, Any], usual: dict[str, Any]) -> str:
    """What differs from transfer; epochs and rates, which follow from the images, as multiples."""
    if run["way"] != "transfer":
        return str(run["way"])
    changes = run["changes"]
    if changes.get("fit_head_first") is False:  # what would change with it is given as it was
        changes = {"fit_head_first": False}
    scaled = ("epochs", "learning_rate")
    return (
        ", ".join(
            f"{name} × {round(4 * value / usual[name]) / 4:g}"
            if name in scaled
            else f"{name} = {value}"
            for name, value in changes.items()
        )
        or "transfer"
    )


def quick_photos(results: dict[str, Any]) -> str:
    """The table of benchmarks/quick_photos.py: each setting beside quick as it was before."""
    groups: dict[tuple[tuple[Any, ...], str], list[dict[str, Any]]] = {}
    for run in results["runs"]:
        case = (run["full"], run["images"], run["size"], run["measured"][1])
        groups.setdefault((case, run["setting"]), []).append(run)
    cells = []
    for (case, name), runs in sorted(groups.items(), key=lambda group: group[0][0], reverse=True):
        ours = accuracies(runs, "measured")
        usual = accuracies(groups.get((case, "before"), []), "measured")
        ahead = "–" if name == "before" else apart(ours, usual)
        split = "validation" if case[0] else "training"
        means = [mean(run[key] for run in runs) for key in ("loss", "cpu_seconds")]
        fastest = max(run.get("images_per_second", 0) for run in runs)
        figures = [f"{means[0]:.2f}", f"{means[1]:,.0f}", f"{fastest:.0f}"]
        scores = [on_average(ours), ahead, *figures]
        images = [f"{case[1]:,}", str(case[2]), f"{case[3]:,} of {split}"]
        cells.append([*images, name, str(len(runs)), *scores])
    columns = (
        "images",
        "pixels",
        "measured on",
        "setting",
        "n",
        "accuracy",
        "minus before",
        "loss",
    )
    return rows((*columns, "CPU seconds", "images/s, fastest run"), cells)


def spread(values: list[float]) -> str:
    """A median with the range around it."""
    return f"{median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def exchange(results: dict[str, Any]) -> str:
    """The tables of benchmarks/exchange.py, one a network."""
    what = "{batch_size} images of {size} x {size} pixels for each process".format(**results)
    parts = [f"{what}. {where(results['machine'])}.\n"]
    for network in dict.fromkeys(row["network"] for row in results["rows"]):
        groups: dict[str, dict[int, list[dict[str, Any]]]] = {}
        for row in results["rows"]:
            if row["network"] == network:
                groups.setdefault(row["way"], {}).setdefault(row["processes"], []).append(row)
        columns = [network]
        for number in next(iter(groups.values())):
            columns += [f"{number} processes: ms a step (range)", "MB that each sends"]
        cells = [
            [way, *(cell for runs in of.values() for cell in _exchange_cells(runs))]
            for way, of in groups.items()
        ]
        parts.append(rows(columns, cells))
    return "\n".join(parts)


def _exchange_cells(runs: list[dict[str, Any]]) -> tuple[str, str]:
    """Milliseconds of a step, and megabytes, of a way."""
    milliseconds = [1000 * seconds for run in runs for seconds in run["seconds"]]
    low, high = min(milliseconds), max(milliseconds)
    sent = median(run["megabytes"] for run in runs)
    return f"{median(milliseconds):,.0f} ({low:,.0f} to {high:,.0f})", f"{sent:,.1f}"


def saving(results: dict[str, Any]) -> str:
    """The tables of benchmarks/saving.py."""
    cells = []
    for row in results["compared"]:
        alone = median(row["ways"]["none"]["whole"])
        for way in list(row["ways"])[1:]:
            call, whole = (row["ways"][way][name] for name in ("call", "whole"))
            longer = [1000 * (seconds - alone) for seconds in whole]
            waits = [1000 * seconds for seconds in call]
            step = f"{1000 * row['seconds_of_a_step']:.0f}"
            cells.append(
                [row["network"], str(row["threads"]), step, way, *map(spread, (waits, longer))]
            )
    columns = ("network", "threads of steps", "ms a step", "written by")
    timed = ("ms until the next step (range)", "ms that all steps take longer (range)")
    names = ("copy", "serialised", "digest", "read_again")
    of_parts = [
        [
            part["network"],
            f"{part['megabytes']:.0f}",
            *(f"{1000 * part[f'seconds_{name}']:.0f}" for name in names),
        ]
        for part in results["parts"]
    ]
    head = ("network", "MB", "ms: copy", "serialised", "digest", "read again, digest")
    tables = [rows((*columns, *timed), cells), rows(head, of_parts)]
    return "\n".join([f"{where(results['machine'])}.\n", *tables])


def promises(results: dict[str, Any]) -> str:
    """The table of benchmarks/false_promises.py."""
    cells = []
    for case in results["cases"]:
        shares = []
        for way in ("earlier", "now"):
            low, high = case["false"][way]["interval"]
            value = case["false"][way]["value"]
            shares += [f"{percent(value)} ({percent_interval(low, high, 1)})"]
            shares += [percent(case["promised"][way] / case["trials"])]
        target = f"{100 * case['max_error']:g} %"
        counts = [f"{case[name]:,}" for name in ("epochs", "images", "trials")]
        cells.append([case["what"], target, *counts, *shares])
    columns = ("network", "target", "epochs", "images", "trials")
    return rows((*columns, "false, earlier", "promised", "false, now", "promised"), cells)


def frozen(results: dict[str, Any]) -> str:
    """The table of benchmarks/frozen.py."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for run in results["runs"]:
        groups.setdefault(run["way"], []).append(run)
    cells = [
        [
            way,
            *(spread([run[name] for run in runs]) for name in ("seconds", "cpu_seconds")),
            spread([run["load_before"] for run in runs]),
            str(len(runs)),
        ]
        for way, runs in groups.items()
    ]
    what = "{images} photos ({data}), {weights}, {size} pixels".format(**results)
    columns = ("begun", "seconds (range)", "CPU seconds (range)", "load before (range)", "n")
    return f"{what}. {where(results['machine'])}.\n\n{rows(columns, cells)}"


def serving(results: dict[str, Any]) -> str:
    """The table of benchmarks/serving.py."""
    names = list(dict.fromkeys(row["model"] for row in results["rounds"]))
    kept = [
        key for key in results["rounds"][0] if key not in ("model", "round", "load", "max_batch")
    ]
    cells = []
    for key in kept:
        values = [[row[key] for row in results["rounds"] if row["model"] == name] for name in names]
        spreads = [map(significant, (median(v), min(v), max(v))) for v in values]
        cells.append([key, *("{} ({} to {})".format(*each) for each in spreads)])
    rounds = len(results["rounds"]) // len(names)
    what = f"{results['machine']}, {results['photos']} photos"
    return f"{what}; medians and ranges of {rounds} rounds.\n\n{rows(('', *names), cells)}"


def serving_others(results: dict[str, Any]) -> str:
    """The tables of benchmarks/serving_others.py, one a network."""
    versions = [f"{name} {number}" for name, number in results["versions"].items()]
    chosen = [f"{name}: {words}" for name, words in results["settings"].items()]
    parts = [
        f"{results['machine']}, {results['photos']} photos; "
        f"{', '.join(versions)}. {'; '.join(chosen)}."
    ]
    for name, about in results["models"].items():
        mine = [row for row in results["rounds"] if row["model"] == name]
        rounds = len({row["round"] for row in mine})
        same = percent(about["same class"])
        head = f"{name}, {about['side']} pixels, batches of up to {about['max_batch']} in ours"
        both = f"both decoders lead to the same class for {same} of the photos"
        ends = f"medians and ranges of {rounds} rounds; counts are sums"
        asked = list(dict.fromkeys((row["server"], row["way"]) for row in mine))
        cells = [_server_cells([row for row in mine if _asked(row) == each]) for each in asked]
        parts.append(f"{head}; {both}; {ends}.\n\n{rows(_SERVER_COLUMNS, cells)}")
        parts.append(f"{_RATIOS}\n\n{rows(_RATIO_COLUMNS, [*_ratio_cells(mine)])}")
    return "\n\n".join(part.strip() for part in parts) + "\n"


_SPREADS = ("images/s", "half load p99 ms", "memory MiB", "overload p50 ms", "overload p99 ms")
_COUNTS = ("overload answered", "overload refused", "overload lost")
_SERVER_COLUMNS = ("server", "asked by", *_SPREADS[:3], *_COUNTS, *_SPREADS[3:])


_RATIOS = "Images/s of resnets divided by those of the other, in the same round:"
_RATIO_COLUMNS = ("beside", "asked by", "median (range)", "n")


def _ratio_cells(mine: Sequence[dict[str, Any]]) -> Iterator[list[str]]:
    """The rows of a network's ratios; base64 stands beside base64, a form beside raw bytes."""
    rates = {(row["round"], *_asked(row)): row["images/s"] for row in mine}
    for server, way in dict.fromkeys(map(_asked, mine)):
        if server == "resnets" or way == "alone":
            continue
        own = "base64" if way == "base64" else "raw"
        ratios = [
            rates[number, "resnets", own] / rate
            for (number, *asked), rate in rates.items()
            if asked == [server, way] and (number, "resnets", own) in rates
        ]
        shown = map(significant, (median(ratios), min(ratios), max(ratios)))
        yield [server, way, "{} ({} to {})".format(*shown), str(len(ratios))]


def _asked(row: dict[str, Any]) -> tuple[str, str]:
    """The server of a row and how it was asked."""
    return row["server"], row["way"]


def _server_cells(rounds: Sequence[dict[str, Any]]) -> list[str]:
    """The cells of a server over the rounds; empty for what was not measured."""
    cells = []
    for key in _SERVER_COLUMNS[2:]:
        values = [row[key] for row in rounds if key in row and row[key] == row[key]]
        spread = [significant(each(values)) for each in (median, min, max)] if values else []
        if key in _COUNTS:
            cells.append(f"{sum(values):,}" if values else "")
        else:
            cells.append("{} ({} to {})".format(*spread) if values else "")
    return [*_asked(rounds[0]), *cells]


Table = Callable[[Path], str]


def table_of(file: str, made: Callable[[dict[str, Any]], str], command: str) -> Table:
    """A function that makes a table from the folder of results."""

    def table(root: Path) -> str:
        if not (root / file).is_file():
            text = f"No measurement is committed. `python benchmarks/{command} --json-file"
            return f"{text} results/{file}` makes one.\n"
        try:
            return made(json.loads((root / file).read_text(encoding="utf-8")))
        except (ValueError, KeyError, TypeError) as error:  # JSON's errors are ValueErrors
            raise ContentError(f"{root / file}: not what {command} writes ({error!r})") from None

    return table


BOTH = f"training.py --networks resnet20 resnet14 --data {CIFAR10}"
QUICK = "--recipe results/quick-resnet20-seed0/config.toml"
TABLES: dict[str, Table] = {
    "quick": table_of(
        "speed.json", training, f"training.py --networks resnet20 --data {CIFAR10} {QUICK}"
    ),
    "paper": table_of("training.json", training, BOTH),
    "inference": table_of("inference.json", inference, "inference.py"),
    "promises": table_of("false_promises.json", promises, "false_promises.py"),
    "decoding": table_of("decoding.json", decoding, "decode.py"),
    "ray_predict": table_of("ray_predict.json", ray_predict, "ray_predict.py"),
    "loading": table_of("loading.json", loading, "loading.py PHOTOS"),
    "worker_batches": table_of("worker_batches.json", worker_batches, "worker_batches.py"),
    "exchange": table_of("exchange.json", exchange, "exchange.py"),
    "saving": table_of("saving.json", saving, "saving.py"),
    "small_sets": table_of("small_sets.json", small_sets, "small_sets.py"),
    "transfer": table_of("transfer.json", transfer, "transfer.py DATA --name NAME"),
    "transfer_settings": table_of(
        "transfer_settings.json", transfer_settings, "transfer.py DATA --name NAME"
    ),
    "transfer_epochs": table_of(
        "transfer_epochs.json", transfer_epochs, "transfer.py DATA --name NAME"
    ),
    "quick_photos": table_of("quick_photos.json", quick_photos, "quick_photos.py DATA"),
    "frozen": table_of("frozen.json", frozen, "frozen.py"),
    "serving": table_of("serving.json", serving, "serving.py PHOTOS"),
    "serving_others": table_of(
        "serving_others.json",
        serving_others,
        "serving_others.py PHOTOS --others-python others/bin/python",
    ),
    "small_png": table_of("small_png.json", small_png, "small_png.py"),
}
