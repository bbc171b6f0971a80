"""Devices: which one computes, what it can do, and what to try where its memory is full."""

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist

from resnets.errors import ContentError, UsageError
from resnets.format import plural
from resnets.training.recipe import Recipe

_NAME = re.compile(r"(cuda|xpu)(:\d+)?|mps|cpu|auto")
_FULL = (  # parts of torch's messages; the last is Windows'
    "out of memory",
    "alloc_failed",
    "can't allocate memory",
    "not enough memory",
)
_LAUNCHERS = {  # variables with the number of processes that a launcher other than torchrun started
    "SLURM_STEP_NUM_TASKS": "srun",
    "OMPI_COMM_WORLD_SIZE": "mpirun",
    "PMI_SIZE": "mpiexec",
}


def choose_device(name: str) -> torch.device:
    """The device to use: this process's GPU, or the CPU.

    Args:
        name: `auto` (a GPU if there is one: NVIDIA's, AMD's or Apple's), `cpu`, `cuda` (AMD's GPUs
            too), `mps` (Apple's GPU), `xpu` (Intel's), or one of several GPUs such as `cuda:1`.

    Raises:
        UsageError: this machine has no such device, or torchrun chooses it.
    """
    shared = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) > 1 and dist.is_torchelastic_launched()
    refuse_device(name, shared)
    kind, _, number = name.partition(":")
    if kind == "auto":  # gloo, by which processes exchange gradients on a Mac, knows no mps
        kind = "cuda" if _count("cuda") else "mps" if _count("mps") and not shared else "cpu"
    if kind == "cpu":
        return torch.device("cpu")
    if not _count(kind):
        raise UsageError(f"--device {name}: torch {torch.__version__} finds no such GPU; use cpu")
    if kind == "mps":
        return torch.device("mps")
    index = int(number or os.environ.get("LOCAL_RANK", "0"))
    if index >= _count(kind):
        raise UsageError(
            f"GPU {index} does not exist; this machine has {_count(kind)}, numbered from 0"
        )
    return torch.device(kind, index)


def refuse_device(name: str, shared: bool) -> None:
    """Refuse a name that is none of a device, or of one that several processes cannot share.

    Args:
        name: as for `choose_device`.
        shared: whether torchrun starts several processes on a machine.

    Raises:
        UsageError: it says which device to give.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"--device {name}: it must be auto, cpu, cuda, mps, xpu, or one GPU such as cuda:1"
        )
    kind, _, number = name.partition(":")
    if shared and (number or kind == "mps"):
        raise UsageError(
            f"--device {name}: torchrun starts several processes on a machine, and all would use "
            f"one GPU; give --device {'cpu' if kind == 'mps' else kind}, of which each takes its "
            "own"
        )


def _count(kind: str) -> int:
    """How many GPUs of a kind torch finds."""
    if kind == "mps":
        return int(torch.backends.mps.is_available())
    library = torch.cuda if kind == "cuda" else torch.xpu
    return library.device_count() if library.is_available() else 0


def refuse_other_launchers(environment: Mapping[str, str] = os.environ) -> None:
    """Refuse several processes that know nothing of each other, so that each would train it all.

    Raises:
        UsageError: srun or mpirun started them, without torchrun.
    """
    if dist.is_torchelastic_launched():
        return
    for variable, launcher in _LAUNCHERS.items():
        count = environment.get(variable, "1")
        if count.isdecimal() and int(count) > 1:
            raise UsageError(
                f"{launcher} started {count} processes, and each would train the whole run by "
                f"itself: start torchrun once per machine (srun --ntasks-per-node 1 torchrun "
                "--nproc-per-node GPUS ... -m resnets train ...), which makes them share it; for "
                f"separate runs, unset {variable}"
            )


def synchronise(device: torch.device) -> None:
    """Wait until a device has done what it was given; a clock read before that shows too little."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def computes_bf16(device: torch.device) -> bool:
    """Whether a device computes in bf16 itself, rather than emulating it, which is slow."""
    if device.type == "cuda":
        if torch.version.hip is not None:  # all of AMD's GPUs that ROCm runs on
            return True
        return torch.cuda.get_device_capability(device) >= (8, 0)  # Ampere
    if device.type == "cpu":  # AMD's since Zen 4, and Intel's for servers since 2020
        return _cpu_has("_is_avx512_bf16_supported") or _cpu_has("_is_amx_tile_supported")
    return device.type == "xpu"


def _cpu_has(name: str) -> bool:
    """Whether a function of torch.cpu finds something; these are not public, and may be missing."""
    return bool(getattr(torch.cpu, name, lambda: False)())


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch says that memory is full, which it does in several ways."""
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(sign in text for sign in _FULL)
    )


@contextlib.contextmanager
def computing(device: torch.device, recipe: Recipe) -> Iterator[None]:
    """A context with the kernels that a recipe asks for; full memory is told with what to try.

    Raises:
        ContentError: memory is full.
    """
    with memory_advice(device, recipe), _kernels(device, recipe):
        yield


@contextlib.contextmanager
def _kernels(device: torch.device, recipe: Recipe) -> Iterator[None]:
    """A context with torch's switches for NVIDIA's GPUs as a recipe asks; then as before."""
    if device.type != "cuda":
        yield
        return
    cudnn: Any = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.conv.fp32_precision
    determined = torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    if recipe.deterministic:  # read when cuBLAS is used first
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    cudnn.benchmark = not recipe.deterministic  # tries kernels and takes the fastest
    cudnn.conv.fp32_precision = "tf32" if recipe.tf32 else "ieee"
    torch.use_deterministic_algorithms(recipe.deterministic, warn_only=True)
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.conv.fp32_precision = before
        torch.use_deterministic_algorithms(determined, warn_only=warns)


@contextlib.contextmanager
def memory_advice(device: torch.device, recipe: Recipe) -> Iterator[None]:
    """A context in which full memory is told with what to try.

    Raises:
        ContentError: memory is full.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        size = recipe.training_size or recipe.image_size
        at = f" at {size} pixels" if size else ""
        pieces = f" in {recipe.accumulate} pieces" if recipe.accumulate > 1 else ""
        raise ContentError(
            f"the memory of {device} is full, with {plural(recipe.batch, 'image')} a step{at}"
            f"{pieces} in {recipe.precision}: try {', or '.join(_savings(device, recipe))}"
        ) from error


def _savings(device: torch.device, recipe: Recipe) -> Iterator[str]:
    """What takes less memory, that which changes the result least first."""
    if recipe.accumulate < recipe.batch:
        pieces = min(2 * recipe.accumulate, recipe.batch)
        yield f"--accumulate {pieces} (the same batch in smaller pieces)"
    if device.type != "cpu" and recipe.precision == "float32":
        yield f"--precision {'bf16' if computes_bf16(device) else 'fp16'}"
    if recipe.batch > 1:
        yield f"--batch-size {recipe.batch // 2}"
    yield "a smaller --image-size or --network"
