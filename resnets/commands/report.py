"""``resnets report``: one HTML file that says whether to rely on a network, and why."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from resnets.commands import run
from resnets.commands.flags import Cache, Split, check_compared
from resnets.commands.notices import print_notices, tell_of_reading
from resnets.errors import UsageError
from resnets.escaping import say
from resnets.files.outputs import writable
from resnets.run_files import LOG, REPORT

if TYPE_CHECKING:
    from resnets.evaluation.evaluate import Outputs
    from resnets.evaluation.history import History
    from resnets.evaluation.outputs import EvaluationImages
    from resnets.evaluation.report.page import Report, Subject
    from resnets.model_file import Model

_ENDINGS = ("", ".html", ".htm")


def main(argv: list[str]) -> int:
    """Run ``resnets report`` with ``argv``."""
    return run(report, argv, config=(tyro.conf.FlagCreatePairsOff,))


def report(
    model: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN_OR_MODEL")],
    data: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DATA")],
    /,
    output: Path | None = None,
    split: Split = "auto",
    compared: int | None = None,
    batch_size: int = 256,
    device: str = "auto",
    skip_unreadable: bool = False,
    cache: Cache = None,
) -> None:
    """Write a report on a network: one HTML file that opens anywhere, also offline.

    It begins with a verdict and what to look at; then come learning curves, classes, confusions,
    calibration, the worst mistakes, labels that look wrong, duplicates of images it has seen, and
    how to reproduce the training.

    Args:
        model: a model file, the folder of a run, published weights by id, such as
            timm/resnet50.a1_in1k, or a network of the package by name.
        data: as for `resnets train`: digits, a folder of class folders, parquet files, ...
        output: the file to write; unset: report.html in the run's folder, or MODEL-report.html.
        split: which images, as for `resnets evaluate`.
        compared: how many training and validation images to compare with the measured ones, to find
            duplicates; with 0, none. Unset: 20,000. Of the measured images, at most half as many
            are compared.
        batch_size: images computed at once; the figures do not depend on it.
        device: auto (a GPU if there is one), cpu, cuda, mps or xpu.
        skip_unreadable: leave out images that cannot be read, instead of ending with an error.
        cache: for shards at an address, how much of them to keep on the local disk, such as 50GB.
    """
    from resnets import model_file, model_path
    from resnets.data.sources.opening import refuse_missing, with_cache
    from resnets.deployment.engines.swapped import refuse_swapped
    from resnets.deployment.exported.reading import refuse_exported

    refuse_swapped([model], [data])
    check_compared(compared)
    file, folder = model_path.find_model(model), model if model.is_dir() else None
    refuse_exported(file, "report looks into its training and its mistakes")
    refuse_missing(data)
    target = _place(output, file, folder, data)
    history = _history_of(folder)
    description = model_file.read_description(file)

    from resnets.deployment.engines import open_network
    from resnets.evaluation.evaluate import outputs_on
    from resnets.evaluation.outputs import choose_images, without_near_duplicates
    from resnets.evaluation.report.page import REPORT_COMPARED, make_report, write_report
    from resnets.training.devices import choose_device
    from resnets.training.parallel import processes

    where, among = choose_device(device), REPORT_COMPARED if compared is None else compared
    loaded = open_network(file, device=device)
    with processes(where) as process:
        chosen = choose_images(
            with_cache(data, cache), description, split, file=file, skip_unreadable=skip_unreadable
        )
        if not process.rank:
            tell_of_reading(chosen, among)
        chosen = without_near_duplicates(chosen, among)
        outputs = outputs_on(loaded, chosen.images, batch_size, process)
        if process.rank:
            return
        print_notices(chosen.warnings, chosen.skipped)
        subject = _subject(loaded, chosen, outputs, folder, history)
        report = _as_launched(make_report(subject, among), history)
    write_report(report, target)
    say(chosen.what)
    say(f"{report.verdict.headline}. See {target}")


def _place(output: Path | None, file: Path, folder: Path | None, data: str) -> Path:
    """Where the report goes; refused before any work.

    Raises:
        UsageError: it is not for a web page, holds the model or the data, or cannot be written.
    """
    from resnets.data.sources.opening import files_of
    from resnets.model_path import files_of as files_of_model

    target = output or (folder / REPORT if folder else Path(f"{file.stem}-report.html"))
    if target.suffix.lower() not in _ENDINGS:
        raise UsageError(f"--output {target}: a report is a web page, which ends in .html")
    writable(target, [*files_of_model(file), *files_of(data)], kind=".html")
    return target


def _history_of(folder: Path | None) -> "History | None":
    """What the log of a run says; None where there is none."""
    from resnets.evaluation.history import History

    return History.read(folder / LOG) if folder and (folder / LOG).is_file() else None


def _subject(
    model: "Model",
    chosen: "EvaluationImages",
    outputs: "Outputs",
    folder: Path | None,
    history: "History | None",
) -> "Subject":
    """What the report is about."""
    from resnets.evaluation.exposure import seen_kind
    from resnets.evaluation.report.page import Subject
    from resnets.runs.command_line import (
        budget_of,
        command_by_default,
        command_to_change,
        training_command,
    )

    # of the validation split the training images alone, unless those of another source joined them
    alone = chosen.seen is None or (chosen.train and len(chosen.train) == len(chosen.seen))
    return Subject(
        model=model,
        images=chosen.images,
        what=chosen.part,
        logits=outputs.logits,
        familiar=outputs.familiar,
        exposure=chosen.exposure,
        seen_images=chosen.seen,
        seen_kind=seen_kind(model.description, chosen.split if alone else "all"),
        history=history,
        repeat=_launched(training_command(model.description, folder), history),
        again=command_to_change(model.description, folder),
        by_default=command_by_default(model.description, folder),
        budget=budget_of(folder),
    )


def _as_launched(report: "Report", history: "History | None") -> "Report":
    """A report whose next steps train in as many processes as the run did."""
    steps = (replace(step, command=_launched(step.command, history)) for step in report.next_steps)
    return replace(report, next_steps=tuple(steps))


def _launched(command: str, history: "History | None") -> str:
    """A command that trains in as many processes as the run did."""
    from resnets.runs.folder import as_launched

    return as_launched(command, history.processes if history else (0, 1))
