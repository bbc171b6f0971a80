"""Exported files on disk: written with what they say of themselves, all their parts or none."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from resnets.deployment.engine import Engine, open_engine
from resnets.deployment.exported import DESCRIPTION, LARGEST, report_of
from resnets.deployment.exported import read_openvino as read_checked
from resnets.errors import require
from resnets.files import read_input, write_atomically
from resnets.integrity import DIGEST, UNSTAMPED, stamped
from resnets.json_text import to_json

Write = Callable[[Path, dict[str, Any]], None]  # to a path, with that in the report of the export


def save_onnx(model: Any, path: Path, header: Mapping[str, str]) -> None:
    """Write an onnx.ModelProto in one file, with this metadata instead of its own."""
    del model.metadata_props[:]
    for key, value in {**header, DIGEST: UNSTAMPED}.items():
        model.metadata_props.add(key=key, value=value)
    write_atomically(path, stamped(model.SerializeToString()))


def save_openvino(model: Any, path: Path, header: Mapping[str, str], in_half: bool = False) -> None:
    """Write an openvino.Model to an .xml file and its weights, of 16 bits if so, to a .bin."""
    openvino = require("openvino", "openvino")
    model.set_rt_info(to_json({**header, DIGEST: UNSTAMPED}), [DESCRIPTION])
    openvino.save_model(model, path, compress_to_fp16=in_half)
    weights = read_input(path.with_suffix(".bin"), LARGEST)
    write_atomically(path, stamped(read_input(path, LARGEST), weights))


def read_openvino(path: Path) -> tuple[Any, dict[str, str]]:
    """The openvino.Model that `save_openvino` wrote, and its metadata.

    Raises:
        ContentError: it is damaged, or none that `resnets export` wrote.
        MissingExtra: openvino is not installed.
    """
    text, weights, header = read_checked(path)
    return require("openvino", "openvino").Core().read_model(text, weights), header


def with_report(header: Mapping[str, str], report: dict[str, Any]) -> dict[str, str]:
    """The metadata with more in the report of the export."""
    return {**header, "export": to_json(report_of(header) | report, sort=True)}


def opened(file: Path) -> Engine:
    """A file in the runtime that it was written for: OpenVINO, or ONNX Runtime."""
    return open_engine(file, "openvino" if file.suffix == ".xml" else "onnxruntime")


def parts_of(file: Path) -> list[Path]:
    """An exported file and what belongs to it: OpenVINO's .bin, before the .xml that needs it."""
    return [file.with_suffix(".bin"), file] if file.suffix == ".xml" else [file]


def publish(trial: Path, target: Path) -> None:
    """Put a file that was found good, with its parts, in the place of what was there."""
    for part in parts_of(trial):
        write_atomically(target.with_suffix(part.suffix), read_input(part, LARGEST))


def size(file: Path) -> int:
    """Bytes of an exported file, all its parts together."""
    return sum(part.stat().st_size for part in parts_of(file))
