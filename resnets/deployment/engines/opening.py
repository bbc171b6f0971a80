"""Engines: one small interface over PyTorch, ONNX Runtime and OpenVINO.

Shapes: B images of a batch, H x W pixels, C channels, K classes, F features. Importing this module
imports no runtime, and only the engine named "torch" imports torch.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from resnets.deployment.engines.choosing import digest, fastest, installed
from resnets.deployment.exported.reading import (
    is_exported,
    precision_of,
    read_onnx,
    read_openvino,
    report_of,
)
from resnets.errors import ContentError, UsageError
from resnets.evaluation.engine import Engine

__all__ = ["EngineName", "open_engine"]

EngineName = Literal["auto", "onnxruntime", "openvino", "torch"]

RUNS: dict[str, tuple[str, ...]] = {  # ending: the engines that run such a file
    ".onnx": ("onnxruntime", "openvino"),
    ".xml": ("openvino",),
    ".safetensors": ("torch",),
}

CHECKED_BY = "onnxruntime"  # .onnx files in 8 and 16 bits, when they are written


def open_engine(
    path: str | Path, engine: EngineName = "auto", threads: int = 0, *, measure: bool = True
) -> Engine:
    """Open a network for inference.

    Args:
        path: an exported file (.onnx, or OpenVINO's .xml) or a model file. Where a model file
            has its own .onnx in float32 beside it, as `resnets export` writes it, that is run: it
            computes the same. Files in 8 or 16 bits only run where they are named.
        engine: which runtime; auto takes the one that is fastest here: see `choosing.fastest`.
        threads: that compute; 0 is the runtime's own choice.
        measure: whether auto may take seconds to measure what it has not measured before.

    Raises:
        UsageError: there is no such file or engine, or this engine does not run such a file.
        ContentError: the file is damaged, hostile, or not this package's.
        MissingExtra: the runtime is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    if threads < 0:
        raise UsageError(f"threads is {threads}; it must be 0 (the runtime chooses) or more")
    if path.suffix.lower() == ".pt2":
        raise UsageError(
            f"{path}: torch.export's files can run any code while they are loaded, so this package "
            "does not load them; give the model file or its .onnx"
        )
    if engine != "torch" and not is_exported(path):
        path = own_export(path) or path
    able = able_for(path)
    if engine != "auto" and engine not in able:
        hint = "" if is_exported(path) else f" (`resnets export {path} --to onnx` first)"
        raise UsageError(f"{path}: run by {' or '.join(able)}, not by {engine}{hint}")
    name = engine if engine != "auto" else fastest(path, checked(path, able), threads, measure)
    if name == "onnxruntime":
        from resnets.deployment.engines.onnx import OnnxRuntime

        return OnnxRuntime(path, threads)
    if name == "openvino":
        from resnets.deployment.engines.openvino import OpenVino

        return OpenVino(path, threads)
    from resnets.deployment.engines.torch import open_torch

    return open_torch(path, threads)


def able_for(path: Path) -> tuple[str, ...]:
    """The engines that run a file."""
    return RUNS[path.suffix.lower() if is_exported(path) else ".safetensors"]


def checked(path: Path, able: Sequence[str]) -> Sequence[str]:
    """The engines that may run a file unasked: any in float32, else those it was checked by.

    Engines round 8 and 16 bits in ways of their own; what was measured of such a file at its export
    is true for the engine that ran it there.

    Raises:
        ContentError: the file is damaged, hostile, or not this package's. So no engine, and no
            process that measures one, meets such a file.
    """
    if path.suffix.lower() == ".xml":
        read_openvino(path)
    if path.suffix.lower() != ".onnx" or precision_of(read_onnx(path)[1]) == "float32":
        return able
    return [name for name in able if name == CHECKED_BY] or able


def own_export(path: Path) -> Path | None:
    """The .onnx in float32 beside a model file, made from just this file, if it can be run here."""
    beside = path.with_suffix(".onnx")
    if not beside.is_file() or not any(map(installed, RUNS[".onnx"])):
        return None
    try:
        _, header = read_onnx(beside)
    except (ContentError, OSError):
        return None
    in_float = precision_of(header) == "float32"
    return beside if in_float and report_of(header).get("origin") == digest(path) else None
