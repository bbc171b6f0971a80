"""Opening a network in an engine: PyTorch, ONNX Runtime or OpenVINO.

Shapes: B images of a batch, H x W pixels, C channels, K classes, F features. Importing this module
imports no runtime, and only the engine named "torch" imports torch.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias, cast

from resnets.deployment.engines.accelerators import FOR_DEVICE, runtime_of, worth_measuring
from resnets.deployment.engines.selection import digest, fastest, installed
from resnets.deployment.exported.reading import (
    is_exported,
    precision_of,
    read_onnx,
    read_openvino,
    refuse_exported,
    report_of,
)
from resnets.errors import ContentError, UsageError, install_hint
from resnets.escaping import shell_line
from resnets.evaluation.engine import Engine
from resnets.machine import check_threads
from resnets.model_file import Model, load
from resnets.model_path import find_model, folder_beside

__all__ = ["AnyModel", "EngineChoice", "EngineName", "open_engine", "open_network"]

AnyModel: TypeAlias = "Model | Engine | str | os.PathLike[str]"

EngineChoice = Literal[
    "onnxruntime",
    "openvino",
    "torch",
    "onnxruntime-cuda",
    "onnxruntime-tensorrt",
    "onnxruntime-directml",
    "onnxruntime-coreml",
    "openvino-gpu",
    "openvino-npu",
]
EngineName = Literal["auto", EngineChoice]

RUNS: dict[str, tuple[str, ...]] = {  # file suffix: the runtimes that run such a file
    ".onnx": ("onnxruntime", "openvino"),
    ".xml": ("openvino",),
    ".safetensors": ("torch",),
}

_CHECKED_BY = "onnxruntime"  # runs .onnx files in 8 and 16 bits when they are checked at export


def open_engine(
    model: AnyModel,
    engine: EngineName = "auto",
    threads: int = 0,
    *,
    device: str | None = None,
    measure: bool = True,
    usual: str = "",
) -> Engine:
    """Open a network for predictions and features.

    Args:
        model: MODEL, as `find_model` takes it; a loaded network, which torch runs on its device;
            or an engine, which is returned. Where `resnets export` wrote an .onnx in float32
            beside a model file, that is run instead: it computes the same. A file in 8 or 16 bits
            runs only if it is MODEL itself.
        engine: the runtime, and where it runs: on the CPU, or such as onnxruntime-cuda (see
            `accelerators`); auto takes the fastest on this machine: see `selection.fastest`.
        threads: number of threads that compute; 0 is the runtime's own choice.
        device: on which torch runs a model file: auto (a GPU if there is one), cpu, cuda, mps or
            xpu; of an exported file, the runtime for such a device. None leaves the runtime to
            `engine`; with another engine than auto it has no effect.
        measure: whether auto may take some seconds to measure a file for the first time.
        usual: what auto takes where it may not, if that can run the file.

    Raises:
        UsageError: the file, engine or device does not exist, or they do not go together.
        ContentError: the file is damaged, hostile, or not this package's.
        MissingExtra: the runtime is not installed.
    """
    check_threads(threads)
    if not isinstance(model, str | os.PathLike):
        return _of_loaded(model)
    path = find_model(Path(model))
    if device is not None and engine == "auto" and not is_exported(path):
        return _of_loaded(open_network(path, device=device))
    if device not in (None, "auto", "cpu") and engine == "auto":
        if device not in FOR_DEVICE:
            raise UsageError(
                f"--device {device}: of an exported file it must be auto, cpu, "
                f"{', '.join(FOR_DEVICE)}"
            )
        engine = cast("EngineName", FOR_DEVICE[device])
    return _open_file(path, engine, threads, measure, usual)


def open_network(
    model: AnyModel, why: str = "its weights are needed", *, device: str = "cpu"
) -> Model:
    """Open the network itself, for gradients, or to change or write it.

    Args:
        model: MODEL, as `find_model` takes it, but not an exported file; or a loaded network.
        why: the reason that the network itself is needed, for the message.
        device: auto (a GPU if there is one), cpu, cuda, mps or xpu.

    Raises:
        UsageError: the file or device does not exist, or the file is exported.
        ContentError: it is damaged or not this package's.
    """
    if isinstance(model, Model):
        return model
    if not isinstance(model, str | os.PathLike):
        raise UsageError(
            f"an engine does not give access to the network, but {why}: give the model file"
        )
    file = find_model(Path(model))
    refuse_exported(file, why)
    from resnets.training.devices import choose_device

    return load(file, str(choose_device(device)))


def _of_loaded(model: "Model | Engine") -> Engine:
    """The engine itself, or torch on a loaded network."""
    if not isinstance(model, Model):
        return model
    from resnets.evaluation.eager import Eager

    return Eager(model)


def _open_file(path: Path, engine: EngineName, threads: int, measure: bool, usual: str) -> Engine:
    """The engine for an existing file."""
    if path.suffix.lower() == ".pt2":
        raise UsageError(
            f"{path}: torch.export's files can run any code while they are loaded, so this package "
            "does not load them; give the model file or its .onnx"
        )
    if engine != "torch" and not is_exported(path):
        path = own_export(path) or path
    supported = _supported_engines(path)
    if engine != "auto" and runtime_of(engine) not in supported:
        export = shell_line("resnets", "export", path, "--to", "onnx")
        hint = "" if is_exported(path) else f" (`{export}` first)"
        raise UsageError(f"{path}: {' or '.join(supported)} can run it, {engine} cannot{hint}")
    name: str = engine
    if engine == "auto":
        name = fastest(path, _engines_for_auto(path, supported), threads, measure, usual)
    if runtime_of(name) == "onnxruntime":
        from resnets.deployment.engines.onnx import OnnxRuntime

        return OnnxRuntime(path, threads, name)
    if runtime_of(name) == "openvino":
        from resnets.deployment.engines.openvino import OpenVino

        return OpenVino(path, threads, name)
    from resnets.deployment.engines.torch import open_torch

    return open_torch(path, threads)


def _supported_engines(path: Path) -> tuple[str, ...]:
    """The engines that can run a file."""
    return RUNS[path.suffix.lower() if is_exported(path) else ".safetensors"]


def _engines_for_auto(path: Path, supported: Sequence[str]) -> Sequence[str]:
    """The engines that `auto` may choose for a file: in float32 all, else the one of its export.

    Engines round 8 and 16 bits differently, so the accuracy that was measured at the export holds
    only for the engine that ran it there. Of accelerators, only those that compute in float32
    compute the same, too.

    Raises:
        ContentError: the file is damaged, hostile, or not this package's. So no engine, and no
            process that measures one, opens such a file.
    """
    if not is_exported(path):
        return supported
    of_openvino = path.suffix.lower() == ".xml"
    header = read_openvino(path)[-1] if of_openvino else read_onnx(path)[-1]
    if precision_of(header) == "float32":
        return [*supported, *worth_measuring(supported)]
    return [name for name in supported if name == _CHECKED_BY] or supported


def own_export(path: Path) -> Path | None:
    """The .onnx in float32 beside a model file, if it was made from it and can be run here."""
    file = path.with_suffix(".onnx")
    return None if _why_not(file, path) else file


def _why_not(file: Path, path: Path) -> str:
    """Why an .onnx does not compute in place of a model file; empty where it does."""
    if not file.is_file():
        return f"there is no {file.name} beside it"
    if not any(map(installed, RUNS[".onnx"])):
        return f"neither onnxruntime nor openvino is installed ({install_hint('onnx')})"
    try:
        _, header = read_onnx(file)
    except (ContentError, OSError):
        return f"{file.name} beside it is damaged or not of this package"
    if (precision := precision_of(header)) != "float32":
        return f"{file.name} beside it is in {precision} and computes only where MODEL names it"
    if report_of(header).get("origin") != digest(path):
        return f"{file.name} beside it was not made from this file as it is now"
    return ""


def why_torch(model: Path) -> str:
    """Why `auto` has torch compute a model file and how another engine does, in words.

    Empty where another engine computes it already, and of an exported file.

    Args:
        model: MODEL, as `find_model` takes it.
    """
    path = find_model(model)
    file = path.with_suffix(".onnx")
    if is_exported(path) or not (reason := _why_not(file, path)):
        return ""
    words = ["resnets", "export", path, "--to", "onnx"]
    beside = folder_beside(path) == path.parent
    command = shell_line(*words, *(["--overwrite"] if beside and file.is_file() else []))
    how = "computes in its place" if beside else "computes where MODEL names it"
    return (
        f"torch, as {reason}; `{command}` writes one that onnxruntime or openvino {how}, often "
        "faster on CPUs"
    )
