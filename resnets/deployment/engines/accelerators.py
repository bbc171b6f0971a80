"""Engines on GPUs and neural processors: parts of ONNX Runtime and OpenVINO that run elsewhere.

Importing this module imports no runtime. Nothing here has run on such a device yet: tests replace
the runtimes' answers (docs/decisions.md, Deployment).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from resnets.errors import UsageError

_CUDA = "pip install onnxruntime-gpu, in place of onnxruntime, and NVIDIA's CUDA and cuDNN"
_GPUS_OF_LINUX = Path("/dev/dri")


@dataclass(frozen=True)
class Accelerator:
    """A device other than the CPU, as a runtime names it.

    Attributes:
        runtime: "onnxruntime" or "openvino".
        name: of ONNX Runtime's execution provider, or of OpenVINO's device.
        options: settings by which it computes in float32, as far as it can.
        comes_with: what brings it, for users.
        packages: of which one has it; where none is named, it depends on the machine.
        in_float32: whether it computes in float32, so that `auto` may choose it.
    """

    runtime: str
    name: str
    comes_with: str
    options: Mapping[str, str] = field(default_factory=dict)
    packages: tuple[str, ...] = ()
    in_float32: bool = False


ACCELERATORS: dict[str, Accelerator] = {  # by the names of the engines
    "onnxruntime-cuda": Accelerator(
        *("onnxruntime", "CUDAExecutionProvider", _CUDA, {"use_tf32": "0"}),
        packages=("onnxruntime-gpu",),
        in_float32=True,
    ),
    "onnxruntime-tensorrt": Accelerator(  # has no switch for TF32
        *("onnxruntime", "TensorrtExecutionProvider", f"{_CUDA}, and TensorRT"),
    ),
    "onnxruntime-directml": Accelerator(
        *("onnxruntime", "DmlExecutionProvider"),
        "pip install onnxruntime-directml, in place of onnxruntime, on Windows",
        packages=("onnxruntime-directml",),
        in_float32=True,
    ),
    "onnxruntime-coreml": Accelerator(  # may compute in float16
        *("onnxruntime", "CoreMLExecutionProvider", "onnxruntime on a Mac"),
    ),
    "openvino-gpu": Accelerator(
        *("openvino", "GPU", "Intel's driver for its GPUs (OpenCL)"),
        {"INFERENCE_PRECISION_HINT": "f32"},
        in_float32=True,
    ),
    "openvino-npu": Accelerator(  # computes in float16
        *("openvino", "NPU", "Intel's driver for its neural processors"),
    ),
}
FOR_DEVICE = {"cuda": "onnxruntime-cuda", "mps": "onnxruntime-coreml", "xpu": "openvino-gpu"}


def runtime_of(engine: str) -> str:
    """The runtime of an engine.

    >>> runtime_of("onnxruntime-cuda"), runtime_of("openvino")
    ('onnxruntime', 'openvino')
    """
    return ACCELERATORS[engine].runtime if engine in ACCELERATORS else engine


def worth_measuring(runtimes: Sequence[str]) -> list[str]:
    """Engines of these runtimes that compute in float32 and may be on this machine.

    Whether they are is seen when they are measured: one that cannot start is not chosen.
    """
    return [
        engine
        for engine, accelerator in ACCELERATORS.items()
        if accelerator.runtime in runtimes and accelerator.in_float32 and _may_be_here(accelerator)
    ]


def _may_be_here(accelerator: Accelerator) -> bool:
    """Whether one of its packages is installed, or Linux has GPUs that are not only NVIDIA's."""
    if not accelerator.packages:
        return _GPUS_OF_LINUX.is_dir()
    for name in accelerator.packages:
        try:
            distribution(name)
        except PackageNotFoundError:
            continue
        return True
    return False


def refuse_missing(engine: str, available: Sequence[str]) -> None:
    """Refuse an engine whose device the runtime does not have.

    Args:
        engine: a key of `ACCELERATORS`.
        available: the providers or devices that the installed runtime names.

    Raises:
        UsageError: it says what there is, and what brings the missing one.
    """
    accelerator = ACCELERATORS[engine]
    if not any(name.partition(".")[0] == accelerator.name for name in available):  # "GPU.0"
        raise UsageError(
            f"{engine}: the installed {accelerator.runtime} has no {accelerator.name} here, only "
            f"{', '.join(available) or 'nothing'}; it comes with {accelerator.comes_with}"
        )


def refuse_fallback(engine: str, used: Sequence[str]) -> None:
    """Refuse a session that ONNX Runtime moved to the CPU, as it does where libraries are missing.

    Args:
        engine: a key of `ACCELERATORS`.
        used: the providers of the session, first the preferred one.

    Raises:
        UsageError: it runs elsewhere.
    """
    accelerator = ACCELERATORS[engine]
    if accelerator.name not in used:
        raise UsageError(
            f"{engine}: {accelerator.name} is installed but could not start, and ONNX Runtime went "
            f"on with {', '.join(used)}; it comes with {accelerator.comes_with}"
        )
