"""``resnets compare``: whether one network is better than another, by how much and where."""

import io
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from resnets.commands import run
from resnets.commands.flags import Cache, Split, check_compared
from resnets.commands.notices import print_notices, tell_of_reading
from resnets.commands.tables import print_table
from resnets.errors import UsageError
from resnets.escaping import say, say_text, write_csv
from resnets.evaluation.report.folder import new_folder, refuse_content, save_sheets
from resnets.files.writing import write_atomically
from resnets.format import byte_size, millions, milliseconds, percent, percent_interval, plural
from resnets.json_text import to_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from resnets.data.sources.opening import LabelledImages
    from resnets.evaluation.compare import Cost, Difference, Latency
    from resnets.evaluation.doctor import NearDuplicates
    from resnets.evaluation.outputs import EvaluationImages
    from resnets.evaluation.paired import Comparison
    from resnets.evaluation.proportion import Proportion
    from resnets.evaluation.report.sheets import Tile
    from resnets.evaluation.statuses import Statuses

_MOST_CLASSES = 10  # in the table; --json has all of them
_KINDS = {  # who is right on an image: the file of its contact sheet, and what the sheet shows
    "a": ("only-a-is-right", "only A is right"),
    "b": ("only-b-is-right", "only B is right"),
    "neither": ("both-are-wrong", "both are wrong, but differently"),
}


def main(argv: list[str]) -> int:
    """Run ``resnets compare`` with ``argv``."""
    return run(compare, argv, config=(tyro.conf.FlagCreatePairsOff,))


def compare(
    model_a: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MODEL_A")],
    model_b: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MODEL_B")],
    data: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DATA")],
    /,
    output: Path | None = None,
    split: Split = "auto",
    batch_size: int = 256,
    device: str = "auto",
    latency: float = 2.0,
    skip_unreadable: bool = False,
    cache: Cache = None,
    compared: int | None = None,
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> None:
    """Tell whether one network is better than another, by how much and where.

    Both predict the same images. McNemar's exact test, on the images that only one of them
    predicts correctly, tells whether the difference may be chance.

    Args:
        model_a: a model file, an exported file (.onnx, .xml), the folder of a run, published
            weights by id, such as timm/resnet50.a1_in1k, or a network of the package by name.
        model_b: another one.
        data: as for `resnets train`: digits, a folder of class folders, parquet files, ...
        output: a new or empty folder for contact sheets of the images on which they differ, and a
            table of those images (differences.csv; texts as for `resnets predict --csv`).
        split: which images, as for `resnets evaluate`; auto leaves out those that one of the
            networks was trained or validated on.
        batch_size: images computed at once.
        device: auto (a GPU if there is one), cpu, cuda, mps or xpu; for model files. Exported
            files run on the CPU, by the fastest engine.
        latency: seconds to spend on measuring the latency of one image; 0 skips that.
        skip_unreadable: leave out images that cannot be read, instead of ending with an error.
        cache: for shards at an address, how much of them to keep on the local disk, such as 50GB.
        compared: how many training and validation images to compare with the measured ones, to find
            near-duplicates; with 0, none. Unset: 2,000.
        as_json: print every figure as JSON, and the images on which they differ.
    """
    check_compared(compared)
    if latency < 0:
        raise UsageError(f"--latency {latency}: give a number of seconds, or 0")
    from resnets.data.sources.opening import refuse_missing, with_cache
    from resnets.deployment.engines import open_engine
    from resnets.deployment.engines.swapped import refuse_swapped
    from resnets.evaluation import compare as comparing
    from resnets.evaluation.doctor.duplicates import COMPARED
    from resnets.model_path import find_model

    refuse_swapped([model_a, model_b], [data])
    files = [find_model(path) for path in (model_a, model_b)]
    refuse_missing(data)
    if output is not None:
        refuse_content(output)
    names = [str(path) for path in (model_a, model_b)]
    engines = [open_engine(file, device=device) for file in files]
    among = COMPARED if compared is None else compared
    chosen = comparing.images_for_both(
        engines,
        with_cache(data, cache),
        split,
        files,
        skip_unreadable=skip_unreadable,
        compared=among,
        before_comparing=lambda images: tell_of_reading(images, among),
    )
    print_notices(chosen.warnings, chosen.skipped, machine=as_json)
    result = comparing.compare_networks(engines, names, chosen, batch_size, among)
    folder = None if output is None else new_folder(output)
    measured = _Measured(
        result.near,
        result.comparison,
        comparing.costs_of(engines, files, names, latency),
        result.differences,
        result.statuses,
    )
    if as_json:
        _print_json(chosen, measured)
    else:
        _show(chosen.what, measured)
    if folder is not None:
        who, differing = f"A: {names[0]}, B: {names[1]}", measured.differing
        sheets = _write_sheets(differing, result.images, folder, who)
        written = [_write_table(differing, folder), *sheets]
        if not as_json:
            say_text("\n" + "\n".join(f"written: {path}" for path in written))


@dataclass(frozen=True)
class _Measured:
    """What was measured of two networks, A first.

    Attributes:
        near: how many images look like training or validation images; None if that is unknown.
        comparison: who is right how often.
        costs: of each.
        differing: the images on which they differ.
        counted: the statuses of the predictions of each.
    """

    near: "NearDuplicates | None"
    comparison: "Comparison"
    costs: "Sequence[Cost]"
    differing: "Sequence[Difference]"
    counted: "Sequence[Statuses]"


def _print_json(chosen: "EvaluationImages", measured: _Measured) -> None:
    """Every figure, and every image on which the networks differ."""
    (a, b), near, counted = measured.costs, measured.near, measured.counted
    rows = [asdict(each) | {"right": each.right} for each in measured.differing]
    head = {
        "images": chosen.what,
        "seen": {
            name.lower(): exposure.to_dict()
            for name, exposure in zip(chosen.names, chosen.exposures, strict=True)
        },
        "near_duplicates": None if near is None else near.to_dict(),
        "warnings": list(chosen.warnings),
        "skipped": [list(pair) for pair in chosen.skipped],
        "a": asdict(a) | {"status": counted[0].to_dict()},
        "b": asdict(b) | {"status": counted[1].to_dict()},
    }
    print(to_json(head | measured.comparison.to_dict() | {"differences": rows}, indent=2))


def _show(what: str, measured: _Measured) -> None:
    """Print the figures as text."""
    say(what)
    if measured.near is not None and measured.near.count:
        say(measured.near.in_words())
    if measured.near is not None and measured.near.dependent:
        say(measured.near.dependent)
    comparison, (a, b) = measured.comparison, measured.costs
    say_text(f"{comparison.verdict('A', 'B')}\n")
    pairs = comparison.pairs
    rows: list[tuple[str, str, str]] = [
        ("file", a.name, b.name),
        ("run by", a.engine, b.engine),
        ("network", a.network, b.network),
        ("accuracy", *_percentages(comparison)),
        *_status_rows(*measured.counted),
        ("right alone", f"{pairs.only_a:,}", f"{pairs.only_b:,}"),
        ("size", byte_size(a.file_bytes), byte_size(b.file_bytes)),
        ("parameters", f"{a.parameters:,}", f"{b.parameters:,}"),
        ("multiply-adds", millions(a.multiply_adds), millions(b.multiply_adds)),
        ("image", f"{a.size} x {a.size}", f"{b.size} x {b.size}"),
    ]
    if a.latency and b.latency:
        rows.append(("latency", _median_and_quartiles(a.latency), _median_and_quartiles(b.latency)))
    print_table(("", "A", "B"), rows)
    differing = _class_rows(comparison)
    if differing:
        print("\nClasses on which they differ most:")
        print_table(
            ("class", "images", "only A right", "only B right", "p, adjusted", ""), differing
        )


def _status_rows(a: "Statuses", b: "Statuses") -> list[tuple[str, str, str]]:
    """How many predictions one would rely on, and how many of these are wrong; none if all are."""
    uncalibrated = [_shown(statuses.not_calibrated) for statuses in (a, b)]
    never = ("not calibrated", uncalibrated[0], uncalibrated[1])
    if all(statuses.ok.count == statuses.ok.total for statuses in (a, b)):
        return []
    unfamiliar = ("unfamiliar", _shown(a.unfamiliar), _shown(b.unfamiliar))
    if not any(statuses.calibrated for statuses in (a, b)):
        return [never, unfamiliar]
    wrong = ["–" if statuses.wrong is None else _shown(statuses.wrong) for statuses in (a, b)]
    return [
        ("status ok", _shown(a.ok), _shown(b.ok)),
        ("wrong of these", wrong[0], wrong[1]),
        unfamiliar,
        *([never] if not all(statuses.calibrated for statuses in (a, b)) else []),
    ]


def _percentages(comparison: "Comparison") -> tuple[str, str]:
    """The accuracies of A and of B, each with its own 95 % interval."""
    a, b = comparison.accuracies
    return _shown(a), _shown(b)


def _shown(share: "Proportion") -> str:
    """A proportion in percent, with its interval."""
    return f"{percent(share.value, 2)} ({percent_interval(*share.interval)})"


def _median_and_quartiles(latency: "Latency") -> str:
    """The median and the two quartiles."""
    low, high = latency.quartiles
    ends = " to ".join(milliseconds(end).removesuffix(" ms") for end in (low, high))
    return f"{milliseconds(latency.median)} ({ends})"


def _class_rows(comparison: "Comparison") -> list[tuple[str, int, int, int, str, str]]:
    """The classes on which one network is right more often than the other, the surest first."""
    from resnets.evaluation.paired import LEVEL

    uneven = [
        (row.adjusted, row.name, row.pairs)
        for row in comparison.classes
        if row.pairs is not None and row.pairs.only_a != row.pairs.only_b
    ]
    uneven.sort(key=lambda row: (row[0], -abs(row[2].only_a - row[2].only_b)))
    return [
        (
            name,
            pairs.total,
            pairs.only_a,
            pairs.only_b,
            f"{adjusted:.2g}",
            "real" if adjusted < LEVEL else "may be chance",
        )
        for adjusted, name, pairs in uneven[:_MOST_CLASSES]
    ]


def _write_table(differing: "Sequence[Difference]", folder: Path) -> Path:
    """Every image on which the networks differ, as CSV."""
    text = io.StringIO()
    columns = (
        *("image", "label", "a", "probability_a", "status_a"),
        *("b", "probability_b", "status_b", "right"),
    )
    write_csv(
        text,
        [asdict(difference) | {"right": difference.right} for difference in differing],
        columns,
    )
    path = folder / "differences.csv"
    write_atomically(path, text.getvalue().encode())
    return path


def _write_sheets(
    differing: "Sequence[Difference]", images: "LabelledImages", folder: Path, who: str
) -> list[Path]:
    """A contact sheet for each kind of difference, with the surest mistakes first."""
    from resnets.evaluation.report.sheets import MOST

    paths = []
    for right, (name, what) in _KINDS.items():
        all_of_them = [difference for difference in differing if difference.right == right]
        shown = sorted(all_of_them, key=lambda difference: -difference.surest_mistake)[:MOST]
        tiles = [_tile(difference, images) for difference in shown]
        title = f"{what}: {plural(len(all_of_them), 'image')}"
        if len(shown) < len(all_of_them):
            title += f", the {len(shown)} surest mistakes of them"
        title += f" ({who})"
        paths += save_sheets(tiles, folder, name, title)
    return paths


def _tile(difference: "Difference", images: "LabelledImages") -> "Tile":
    """An image with the prediction of each network."""
    from resnets.evaluation.report.pictures import square_picture
    from resnets.evaluation.report.sheets import TILE, Line, Tile

    pixels = images.image(difference.index, 3)
    side = min(pixels.shape[:2])
    top, left = ((length - side) // 2 for length in pixels.shape[:2])
    label = difference.label
    predictions = [
        Line(f"{who}: {name}", "right" if name == label else "wrong", share=share)
        for who, name, share in (
            ("A", difference.a, difference.probability_a),
            ("B", difference.b, difference.probability_b),
        )
    ]
    picture = square_picture(pixels, (top, left, side, side), TILE)
    return Tile(
        (picture,), (Line(f"is {label}", bold=True), *predictions, Line(difference.image, "faint"))
    )
