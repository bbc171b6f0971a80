"""Engines: one small interface over PyTorch, ONNX Runtime and OpenVINO.

Shapes: B images of a batch, H x W pixels, C channels, K classes, F features. Importing this module
imports no runtime, and only the engine named "torch" imports torch.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias

from resnets.deployment.engines.choosing import digest, fastest, installed
from resnets.deployment.exported.reading import (
    is_exported,
    precision_of,
    read_onnx,
    read_openvino,
    refuse_exported,
    report_of,
)
from resnets.errors import ContentError, UsageError
from resnets.evaluation.engine import Engine
from resnets.model_file import Model, find_model, load

__all__ = ["AnyModel", "EngineName", "open_engine", "open_network"]

AnyModel: TypeAlias = "Model | Engine | str | os.PathLike[str]"

EngineName = Literal["auto", "onnxruntime", "openvino", "torch"]

RUNS: dict[str, tuple[str, ...]] = {  # ending: the engines that run such a file
    ".onnx": ("onnxruntime", "openvino"),
    ".xml": ("openvino",),
    ".safetensors": ("torch",),
}

_CHECKED_BY = "onnxruntime"  # .onnx files in 8 and 16 bits, when they are written


def open_engine(
    model: AnyModel,
    engine: EngineName = "auto",
    threads: int = 0,
    *,
    device: str | None = None,
    measure: bool = True,
) -> Engine:
    """Open a network for predictions and features: the one way from MODEL to what computes it.

    Args:
        model: MODEL, as `find_model` takes it; a loaded network, which torch runs where it is; or
            an engine, which is returned. Where a model file has its own .onnx in float32 beside
            it, as `resnets export` writes it, that is run: it computes the same. Files in 8 or 16
            bits only run where they are named.
        engine: which runtime; auto takes the one that is fastest here: see `choosing.fastest`.
        threads: that compute; 0 is the runtime's own choice.
        device: where torch shall run a model file: auto (a GPU if there is one), cpu or cuda. None
            leaves the runtime to `engine`; so does any where a runtime is named.
        measure: whether auto may take seconds to measure what it has not measured before.

    Raises:
        UsageError: there is no such file, engine or device, or they do not go together.
        ContentError: the file is damaged, hostile, or not this package's.
        MissingExtra: the runtime is not installed.
    """
    if not isinstance(model, str | os.PathLike):
        return _of_loaded(model)
    path = find_model(Path(model))
    if device is not None and engine == "auto" and not is_exported(path):
        return _of_loaded(open_network(path, device=device))
    if device not in (None, "auto", "cpu"):
        raise UsageError(f"--device {device}: engines and exported files run on the CPU here")
    return _open_file(path, engine, threads, measure)


def open_network(
    model: AnyModel, why: str = "its weights are needed", *, device: str = "cpu"
) -> Model:
    """Open a network itself, for gradients, or to change or write it.

    Args:
        model: MODEL, as `find_model` takes it, but no exported file; or a loaded network.
        why: the network itself is needed, for the message.
        device: auto (a GPU if there is one), cpu or cuda.

    Raises:
        UsageError: there is no such file or device, or the file is exported.
        ContentError: it is damaged or not this package's.
    """
    if isinstance(model, Model):
        return model
    if not isinstance(model, str | os.PathLike):
        raise UsageError(f"an engine cannot be looked into, but {why}: give the model file")
    file = find_model(Path(model))
    refuse_exported(file, why)
    from resnets.training.parallel import choose_device

    return load(file, str(choose_device(device)))


def _of_loaded(model: "Model | Engine") -> Engine:
    """An engine as it is, or torch on a loaded network."""
    if not isinstance(model, Model):
        return model
    from resnets.evaluation.eager import Eager

    return Eager(model)


def _open_file(path: Path, engine: EngineName, threads: int, measure: bool) -> Engine:
    """The engine for a file that is there."""
    if threads < 0:
        raise UsageError(f"threads is {threads}; it must be 0 (the runtime chooses) or more")
    if path.suffix.lower() == ".pt2":
        raise UsageError(
            f"{path}: torch.export's files can run any code while they are loaded, so this package "
            "does not load them; give the model file or its .onnx"
        )
    if engine != "torch" and not is_exported(path):
        path = _own_export(path) or path
    able = _able_for(path)
    if engine != "auto" and engine not in able:
        hint = "" if is_exported(path) else f" (`resnets export {path} --to onnx` first)"
        raise UsageError(f"{path}: run by {' or '.join(able)}, not by {engine}{hint}")
    name = engine if engine != "auto" else fastest(path, _checked(path, able), threads, measure)
    if name == "onnxruntime":
        from resnets.deployment.engines.onnx import OnnxRuntime

        return OnnxRuntime(path, threads)
    if name == "openvino":
        from resnets.deployment.engines.openvino import OpenVino

        return OpenVino(path, threads)
    from resnets.deployment.engines.torch import open_torch

    return open_torch(path, threads)


def _able_for(path: Path) -> tuple[str, ...]:
    """The engines that run a file."""
    return RUNS[path.suffix.lower() if is_exported(path) else ".safetensors"]


def _checked(path: Path, able: Sequence[str]) -> Sequence[str]:
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
    return [name for name in able if name == _CHECKED_BY] or able


def _own_export(path: Path) -> Path | None:
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
