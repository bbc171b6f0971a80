"""``resnets evaluate``: how good a network is, with its uncertainty."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from resnets.commands import refuse_closed_output, run
from resnets.commands.flags import Cache, Split, check_compared
from resnets.commands.notices import print_notices, tell_assumed, tell_of_reading
from resnets.commands.tables import Cell, print_table
from resnets.deployment.engines import EngineName
from resnets.errors import UsageError
from resnets.escaping import say, write_csv
from resnets.files.outputs import writable
from resnets.files.writing import write_atomically
from resnets.format import exact_percent, fraction, percent, plural
from resnets.json_text import to_json
from resnets.machine import check_threads, settle_threads

if TYPE_CHECKING:
    from resnets.evaluation.engine import Computation, Engine
    from resnets.evaluation.evaluate import Evaluation
    from resnets.evaluation.metrics import ClassScores, Metrics
    from resnets.evaluation.statuses import Statuses

_MOST_CLASSES = 30  # in the table; --csv has all of them
_WIDEST = 12  # classes in the confusion matrix; --json has it whatever their number


def main(argv: list[str]) -> int:
    """Run ``resnets evaluate`` with ``argv``."""
    return run(evaluate, argv, config=(tyro.conf.FlagCreatePairsOff,))


def evaluate(
    model: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MODEL")],
    data: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DATA")],
    /,
    split: Split = "auto",
    max_error: float | None = None,
    batch_size: int = 256,
    device: str = "auto",
    engine: Annotated[EngineName, tyro.conf.arg(metavar="ENGINE")] = "auto",
    threads: int = 0,
    tta: bool = False,
    skip_unreadable: bool = False,
    cache: Cache = None,
    compared: int | None = None,
    other: str | None = None,
    diagram: Path | None = None,
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
    as_csv: Annotated[bool, tyro.conf.arg(name="csv")] = False,
) -> None:
    """Measure a network on labelled images.

    Args:
        model: a model file, an exported file (.onnx, .xml), the folder of a run, published weights
            by id, such as timm/resnet50.a1_in1k, or a network of the package by name.
        data: as for `resnets train`: digits, a folder of class folders, parquet files, ...
        split: which images. auto: the test split where the data has one or the network was trained
            on this data, else the validation split of the data, else all images; those that the
            network was trained or validated on are left out. A split that is named (all: every
            image) is measured whole. Of exact copies one is measured: each image counts once.
        max_error: target for the share of wrong predictions among those that are ok, such as 0.01;
            by default what the model file was calibrated for. A stricter one than the file has is
            refused (`resnets calibrate` fits it).
        batch_size: images computed at once; the figures do not depend on it.
        device: auto (a GPU if there is one), cpu, cuda, mps or xpu; for a model file.
        engine: what computes an exported file: onnxruntime, openvino, on a GPU onnxruntime-cuda
            and others; auto takes the fastest. A model file is computed by torch on `device`,
            unless an engine is named.
        threads: number of threads of an engine; 0: its own choice.
        tta: test-time augmentation: average the probabilities of each image and its mirror image.
            Thresholds were fitted without it, so no error rate is promised.
        skip_unreadable: leave out images that cannot be read, instead of ending with an error.
        cache: for shards at an address, how much of them to keep on the local disk, such as 50GB.
        compared: how many training and validation images to compare with the measured ones, to find
            near-duplicates; with 0, none. Unset: 2,000. Of the measured images, at most half as
            many are compared.
        other: a folder of images of none of the classes, to count how many of them get the status
            ok, unsure or unfamiliar.
        diagram: draw the reliability diagram, accuracy against confidence before and after the
            temperature, into this new SVG file.
        as_json: print every figure as JSON.
        as_csv: print the figures of each class as CSV; texts as for `resnets predict --csv`.
    """
    from resnets.data.sources.opening import refuse_missing, with_cache
    from resnets.deployment.engines.swapped import refuse_swapped
    from resnets.evaluation.doctor.duplicates import COMPARED
    from resnets.evaluation.engine import computation_of
    from resnets.evaluation.enlarging import images_enlarged
    from resnets.evaluation.evaluate import evaluate_selection, outputs_of
    from resnets.evaluation.other_images import Others, open_others
    from resnets.evaluation.outputs import choose_images, without_near_duplicates
    from resnets.evaluation.tta import in_words, with_tta
    from resnets.model_path import find_model
    from resnets.training.devices import choose_device
    from resnets.training.parallel import processes

    if as_json and as_csv:
        raise UsageError("--json and --csv: choose one")
    refuse_closed_output("open it, or redirect it to a file")
    check_compared(compared)
    refuse_swapped([model], [data])
    file = find_model(model)
    refuse_missing(data)
    if diagram is not None:
        _refuse(diagram)
    compared = COMPARED if compared is None else compared
    others = open_others(other) if other else []
    predictor = with_tta(_opened(file, engine, threads, device, max_error), tta)
    description = predictor.description
    with processes(choose_device(device)) as process:
        chosen = choose_images(
            with_cache(data, cache), description, split, file=file, skip_unreadable=skip_unreadable
        )
        if not process.rank:
            tell_of_reading(chosen, compared)
        chosen = without_near_duplicates(chosen, compared)
        enlarged = images_enlarged(chosen.images, description.preprocessing.size)
        if enlarged and not process.rank:
            say(enlarged, file=sys.stderr)
        outputs = outputs_of(predictor, chosen.images, batch_size, process)
    if process.rank:
        return
    if tta:
        say(in_words(description), file=sys.stderr)
    tell_assumed(description)
    evaluation = evaluate_selection(description, outputs, chosen, compared)
    if other:
        counted = Others.of(predictor, others, other, (chosen.seen, chosen.images), compared)
        evaluation = replace(evaluation, others=counted)
    if diagram is not None:
        _draw(evaluation, diagram)
    _show(evaluation, computation_of(predictor, file), as_json, as_csv)


def _opened(
    file: Path, engine: EngineName, threads: int, device: str, max_error: float | None
) -> "Engine":
    """The engine that computes a file, with as many threads and the error rate that are wanted."""
    from resnets.deployment.engines import open_engine
    from resnets.evaluation.statuses import engine_with_target

    check_threads(threads)
    if threads and engine == "auto":  # then torch computes a model file
        settle_threads(threads)
    return engine_with_target(open_engine(file, engine, threads, device=device), max_error)


def _refuse(diagram: Path) -> None:
    """Refuse a file that is there already, or cannot be written.

    Raises:
        UsageError: either.
    """
    if diagram.is_file():
        raise UsageError(f"{diagram} exists; give another --diagram, or delete it")
    if diagram.suffix.lower() != ".svg":
        raise UsageError(f"--diagram {diagram}: the ending of a diagram is .svg")
    writable(diagram)


def _draw(evaluation: "Evaluation", diagram: Path) -> None:
    """Write the reliability diagram."""
    from resnets.evaluation.report import reliability_diagram

    after = evaluation.after if evaluation.temperature != 1 else None
    write_atomically(diagram, reliability_diagram(evaluation.before, after).encode())


def _show(evaluation: "Evaluation", how: "Computation", as_json: bool, as_csv: bool) -> None:
    """Print the figures in the form that was asked for, and what computed."""
    print_notices(evaluation.warnings, evaluation.skipped, machine=as_json or as_csv)
    if as_json:
        print(to_json(evaluation.to_dict() | {"computed": how.to_dict()}, indent=2))
    elif as_csv:
        rows = evaluation.metrics.rows()
        write_csv(sys.stdout, rows, list(rows[0]))
        say(evaluation.images, file=sys.stderr)
    else:
        _show_figures(evaluation)
        print()
        _show_classes(evaluation.metrics)
        _show_confusions(evaluation.metrics)
    if not as_json:
        say(how, file=sys.stderr)


def _show_figures(evaluation: "Evaluation") -> None:
    """Print the figures about all images as text."""
    from resnets.evaluation.calibration import NOT_LOWERED
    from resnets.evaluation.next_steps import wide_interval

    metrics = evaluation.metrics
    say(evaluation.images)
    say(f"  top-1 accuracy     {metrics.top1}")
    if wide := wide_interval(metrics.top1):
        say(f"                     {wide}")
    if whole := evaluation.with_copies:
        share = f"{percent(whole.value, 2)} ({fraction(whole.count, whole.total)})"
        say(f"  with the copies    {share}, as published figures count")
    if not metrics.better_than_chance:
        say("                     not shown to be better than always predicting the largest class")
        say(f"  largest class      {metrics.largest_class}")
    if len(metrics.classes) > 5:
        say(f"  top-5 accuracy     {metrics.top5}")
    if evaluation.near is not None:
        say(f"  near-duplicates    {evaluation.near.in_words()}")
        if dependent := evaluation.near.dependent:
            say(f"                     {dependent}")
    say(f"  loss               {evaluation.loss_in_words}")
    say(f"  calibration error  {_calibration_error(evaluation)}")
    if evaluation.error_not_lowered:
        say(f"                     {NOT_LOWERED}")
    say(f"  Brier score        {metrics.brier:.4f}")
    _show_statuses(evaluation.statuses, evaluation.threshold)
    say(f"  target             {_target(evaluation)}")
    if evaluation.others:
        lines = evaluation.others.in_words().splitlines()  # a break inside one would be escaped
        for line in lines:
            say(line)


def _show_classes(metrics: "Metrics") -> None:
    """Print a table of the classes."""
    shown = _first_classes(metrics.classes)
    rows = [
        (row.name, percent(row.precision), percent(row.recall), percent(row.f1), row.support)
        for row in shown
    ]
    print_table(("class", "precision", "recall", "F1", "images"), rows)
    if more := len(metrics.classes) - len(shown):
        with_images = sum(c.support > 0 for c in metrics.classes)
        which = " without images" if with_images <= len(shown) else ""
        say(f"... and {plural(more, 'more class')}{which} (--csv)")


def _show_confusions(metrics: "Metrics") -> None:
    """Print which classes are taken for which."""
    pairs = metrics.most_confused(5) if metrics.better_than_chance else []
    if pairs:
        print("\nMost confused:")
        print_table(
            ("true class", "predicted as", "images", "of the class"),
            [(pair.true, pair.predicted, pair.count, percent(pair.share)) for pair in pairs],
        )
    if len(metrics.classes) <= _WIDEST:
        print("\nConfusion matrix (rows: true class, columns: predicted class):")
        names = [row.name for row in metrics.classes]
        counts = zip(names, metrics.confusion, strict=True)
        print_table(("", *names), [(name, *map(_dotted, row)) for name, row in counts])


def _first_classes(classes: Sequence["ClassScores"]) -> Sequence["ClassScores"]:
    """Those that the table shows: of too many, the first ones that have images."""
    if len(classes) <= _MOST_CLASSES:
        return classes
    return [row for row in classes if row.support > 0][:_MOST_CLASSES]


def _calibration_error(evaluation: "Evaluation") -> str:
    """In percent, with what it was before the temperature, if there is one."""
    after = percent(evaluation.after.error, 2)
    if evaluation.temperature == 1:
        return after
    before = percent(evaluation.before.error, 2)
    return f"{after} at temperature {evaluation.temperature:.2f}, {before} before"


def _show_statuses(statuses: "Statuses", threshold: float | None) -> None:
    """How many images have which status, and how many predictions of the ok ones are wrong."""
    if not statuses.calibrated:
        say(f"  not calibrated     {statuses.not_calibrated}")
        if statuses.unfamiliar.count:
            say(f"  status unfamiliar  {statuses.unfamiliar}")
        return
    below = "" if threshold is None else f", with a probability below {percent(threshold)}"
    say(f"  status ok          {statuses.ok}")
    if statuses.wrong is not None:
        say(f"  wrong of these     {statuses.wrong}")
    say(f"  status unsure      {statuses.unsure}{below}")
    say(f"  status unfamiliar  {statuses.unfamiliar}")


def _target(evaluation: "Evaluation") -> str:
    """What the threshold was fitted for, apart from what was measured here."""
    if evaluation.max_error is None:
        return "none: `resnets calibrate MODEL DATA` fits a threshold for one"
    aim = f"at most {exact_percent(evaluation.max_error)} of the ok ones wrong"
    if evaluation.threshold is None:
        return f"{aim}: no probability was high enough for that, so none is ok"
    wrong = evaluation.wrong
    if wrong is not None and wrong.interval[0] > evaluation.max_error:
        return f"{aim}: not kept on these images"
    return f"{aim} ({'promised' if evaluation.promised else 'not promised'} for new images)"


def _dotted(count: int) -> Cell:
    """A count; a dot for zero, so that the others stand out."""
    return count or "·"
