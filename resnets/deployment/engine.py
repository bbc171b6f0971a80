"""Engines: one small interface over PyTorch, ONNX Runtime and OpenVINO.

Shapes: B images of a batch, H x W pixels, C channels, K classes, F features. Importing this module
imports no runtime, and only the engine named "torch" imports torch.
"""

from pathlib import Path
from typing import Literal

from resnets.deployment.choosing import digest, fastest, installed
from resnets.deployment.exported import is_exported, read_onnx, report_of
from resnets.errors import ContentError, UsageError
from resnets.evaluation.engine import Engine, Floats, check_images, finite, framed

__all__ = [
    "Engine",
    "EngineName",
    "Floats",
    "check_images",
    "finite",
    "framed",
    "installed",
    "open_engine",
]

EngineName = Literal["auto", "onnxruntime", "openvino", "torch"]

RUNS: dict[str, tuple[str, ...]] = {  # ending: the engines that run such a file
    ".onnx": ("onnxruntime", "openvino"),
    ".xml": ("openvino",),
    ".safetensors": ("torch",),
}


def open_engine(
    path: str | Path, engine: EngineName = "auto", threads: int = 0, *, measure: bool = True
) -> Engine:
    """Open a network for inference.

    Args:
        path: an exported file (.onnx, or OpenVINO's .xml) or a model file. Where a model file
            has its own .onnx beside it, as `resnets export` writes it, that is run.
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
    able = RUNS[path.suffix.lower() if is_exported(path) else ".safetensors"]
    if engine != "auto" and engine not in able:
        hint = "" if is_exported(path) else f" (`resnets export {path} --to onnx` first)"
        raise UsageError(f"{path}: run by {' or '.join(able)}, not by {engine}{hint}")
    name = fastest(path, able, threads, measure) if engine == "auto" else engine
    if name == "onnxruntime":
        from resnets.deployment.onnx_runtime import OnnxRuntime

        return OnnxRuntime(path, threads)
    if name == "openvino":
        from resnets.deployment.openvino_runtime import OpenVino

        return OpenVino(path, threads)
    from resnets.deployment.torch_runtime import open_torch

    return open_torch(path, threads)


def own_export(path: Path) -> Path | None:
    """The .onnx beside a model file, if it was made from just this file and can be run here."""
    beside = path.with_suffix(".onnx")
    if not beside.is_file() or not any(map(installed, RUNS[".onnx"])):
        return None
    try:
        _, header = read_onnx(beside)
    except (ContentError, OSError):
        return None
    return beside if report_of(header).get("origin") == digest(path) else None
