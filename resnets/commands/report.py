"""``resnets report``: one HTML file that says whether to rely on a network, and why."""

from pathlib import Path
from typing import Annotated, Literal

import tyro

from resnets.commands import run
from resnets.commands.notices import print_notices
from resnets.errors import UsageError
from resnets.escaping import say
from resnets.files import writable

_ENDINGS = ("", ".html", ".htm")

_Split = Literal["auto", "train", "validation", "test", "all"]


def main(argv: list[str]) -> int:
    """Run ``resnets report`` with ``argv``."""
    return run(report, argv, config=(tyro.conf.FlagCreatePairsOff,))


def report(
    model: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN_OR_MODEL")],
    data: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DATA")],
    /,
    output: Path | None = None,
    split: _Split = "auto",
    compared: int | None = None,
    batch_size: int = 256,
    device: str = "auto",
    skip_unreadable: bool = False,
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
    """
    from resnets import model_file, model_path
    from resnets.data.sources.opening import files_of, refuse_missing
    from resnets.deployment.engines.swapped import refuse_swapped
    from resnets.deployment.exported.reading import refuse_exported
    from resnets.evaluation.history import LOG, History

    refuse_swapped([model], [data])
    if compared is not None and compared < 0:
        raise UsageError(f"--compared {compared}: a number of images, 0 or more")
    file, folder = model_path.find_model(model), model if model.is_dir() else None
    refuse_exported(file, "report looks into its training and its mistakes")
    refuse_missing(data)
    target = output or (folder / "report.html" if folder else Path(f"{file.stem}-report.html"))
    if target.suffix.lower() not in _ENDINGS:
        raise UsageError(f"--output {target}: a report is a web page, which ends in .html")
    writable(target, [*model_path.files_of(file), *files_of(data)], kind=".html")
    history = History.read(folder / LOG) if folder and (folder / LOG).is_file() else None
    description = model_file.read_description(file)

    from resnets.deployment.engines import open_network
    from resnets.evaluation.evaluate import outputs_on
    from resnets.evaluation.outputs import choose_images, without_near_duplicates
    from resnets.evaluation.report.page import REPORT_COMPARED, Subject, make_report, write_report
    from resnets.runs.command_line import (
        command_by_default,
        command_to_change,
        training_command,
    )
    from resnets.training.devices import choose_device
    from resnets.training.parallel import processes

    where, among = choose_device(device), REPORT_COMPARED if compared is None else compared
    loaded = open_network(file, device=device)
    with processes(where) as process:
        chosen = choose_images(data, description, split, file=file, skip_unreadable=skip_unreadable)
        chosen = without_near_duplicates(chosen, among)
        outputs = outputs_on(loaded, chosen.images, batch_size, process)
        if process.rank:
            return
        print_notices(chosen.warnings, chosen.skipped)
        subject = Subject(
            model=loaded,
            images=chosen.images,
            what=chosen.part,
            logits=outputs.logits,
            familiar=outputs.familiar,
            exposure=chosen.exposure,
            seen_images=chosen.seen,
            history=history,
            repeat=training_command(description, folder),
            again=command_to_change(description, folder),
            by_default=command_by_default(description, folder),
        )
        report = make_report(subject, among)
    write_report(report, target)
    say(chosen.what)
    say(f"{report.verdict.headline}. See {target}")
