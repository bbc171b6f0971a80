"""The folder of a network to publish: model file, ONNX, report, config.json and a card."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from resnets.deployment.engines.opening import own_export
from resnets.deployment.export.release import ExportOptions, release
from resnets.errors import MissingExtra, UsageError
from resnets.evaluation.report.card import CardSubject, make_card
from resnets.files.reading import read_text
from resnets.files.writing import copy_file, write_atomically
from resnets.json_text import to_json
from resnets.model_file import Model, load
from resnets.networks.checkpoints.hub_export import Contents, timm_config
from resnets.networks.checkpoints.hub_folder import CONFIG
from resnets.run_files import MODEL, REPORT

_CARD, _ONNX = "README.md", "model.onnx"
_COMMAND = re.compile(r"<pre[^>]*>[^<]*[\s;'](?:/|[A-Za-z]:[\\/])")  # with an absolute path


@dataclass(frozen=True)
class Publication:
    """What is to be published.

    Attributes:
        file: the model file.
        repository: OWNER/NAME on the hub.
        report: of the network; None if there is none, or it is not to be published.
        licence: of the weights; empty: that of the weights that they began with, if known.
        revision: the branch; empty is the main one.
    """

    file: Path
    repository: str
    report: Path | None = None
    licence: str = ""
    revision: str = ""


def write_repository(publication: Publication, folder: Path) -> list[str]:
    """Write the files of a network into an empty folder.

    Returns:
        What the user should know, a line each.

    Raises:
        ContentError: the model file is damaged, or its ONNX file does not agree with it.
        MissingExtra: huggingface_hub is not installed.
    """
    model = load(publication.file)
    copy_file(publication.file, folder / MODEL)
    notes, subject = [], _subject(publication, model)
    if publication.report is not None:
        copy_file(publication.report, folder / REPORT)
        subject = replace(subject, report=True)
    try:
        notes += _write_onnx(publication.file, folder)
        subject = replace(subject, onnx=True)
    except MissingExtra as error:
        notes.append(f"without {_ONNX}: {error}")
    notes += _paths_told(subject, publication.report)
    config, for_timm = _config(model)
    write_atomically(folder / CONFIG, to_json(config, indent=2).encode())
    write_atomically(folder / _CARD, make_card(replace(subject, timm=for_timm)).encode())
    return notes


def _paths_told(subject: CardSubject, report: Path | None) -> list[str]:
    """A line on the files that tell where something lies on this machine; empty if none does."""
    names = [MODEL, *([_ONNX] if subject.onnx else [])] if subject.names_folders else []
    if report is not None and (subject.names_folders or _COMMAND.search(read_text(report))):
        names.append(REPORT)
    if not names:
        return []
    return [f"published with paths of folders on your machine: {', '.join(names)}"]


def _write_onnx(file: Path, folder: Path) -> list[str]:
    """Write the .onnx: the one beside the model file if it was made from it, else a new one."""
    if (beside := own_export(file)) is not None:
        copy_file(beside, folder / _ONNX)
        return []
    return [f"{_ONNX}: {release(file, folder / _ONNX, ExportOptions('onnx'))}"]


def _subject(publication: Publication, model: Model) -> CardSubject:
    """What the card is about, before it is known which files there are."""
    count = sum(weight.numel() for weight in model.network.parameters())
    subject = CardSubject(
        model.description, publication.repository, count, revision=publication.revision
    )
    inherited = subject.history.origin.get("licence", "")
    inherited = "" if " " in inherited else inherited  # not stated
    return replace(subject, licence=publication.licence or inherited)


def _config(model: Model) -> tuple[dict[str, Any], bool]:
    """The config.json, and whether timm can read it: what it is of, and which classes it knows."""
    about = model.description
    try:
        return timm_config(Contents(model.network, about.class_names, about.preprocessing)), True
    except UsageError:
        config = {
            "library_name": "resnets",
            "resnets": about.architecture,
            "num_classes": len(about.class_names),
            "label_names": list(about.class_names),
            "preprocessing": about.preprocessing.to_dict(),
        }
        return config, False
