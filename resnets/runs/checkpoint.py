"""Checkpoints: training states in files, written completely or not at all, verified when read.

A checkpoint's file name holds the step and the start of the content's SHA-256, so that one rename
puts both the content and its digest in place: `step-00001200-9f86d081884c7d65.pt`.
"""

import contextlib
import errno
import hashlib
import io
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from resnets.errors import ContentError, UsageError
from resnets.files.reading import read_input
from resnets.files.writing import replacing, sync_folder
from resnets.networks.checkpoints.torch_file import read_torch
from resnets.training.devices import is_out_of_memory

State = dict[str, Any]  # tensors, numbers, texts, and lists and dicts of them

_CPU = torch.device("cpu")
_LARGEST = 1 << 36  # bytes of one
_UNFITTING = (  # errors from a state of another format
    *(KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError, RuntimeError),
)
NAME = re.compile(r"step-(\d{8,})-([0-9a-f]{16})\.pt")


class Checkpoints:
    """A folder of training states.

    Args:
        folder: where they lie; made when the first is saved.
        keep: how many of the newest stay. The best one stays besides.
    """

    def __init__(self, folder: str | Path, keep: int = 2) -> None:
        self.folder = Path(folder)
        self.keep = max(1, keep)

    def paths(self) -> list[Path]:
        """The checkpoints' files, oldest first."""
        paths = [path for path in self.folder.glob("step-*.pt") if NAME.fullmatch(path.name)]
        return sorted(paths, key=lambda path: (_step_of(path), path.stat().st_mtime_ns))

    def save(self, state: State, step: int, best_step: int | None = None) -> Path:
        """Write a state, then remove those that are neither among the newest nor the best.

        Args:
            state: what `torch.save` and a `weights_only` load can carry.
            step: optimizer steps done, which orders the checkpoints.
            best_step: the step whose checkpoint is never removed.

        Raises:
            OSError: if it cannot be written, or is read back otherwise than it was written. What
                was saved before is then untouched.
        """
        return self.write(serialised(state), step, best_step)

    def write(self, content: memoryview, step: int, best_step: int | None = None) -> Path:
        """`save` for a state that is bytes already. Another thread may do it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"step-{step:08d}-{_digest(content)}.pt"
        with replacing(path) as file:
            file.write(content)
        _verify(path)
        self.prune(best_step)
        return path

    def prune(self, best_step: int | None) -> None:
        """Remove checkpoints that are neither new nor the best, and older ones of the same step."""
        newest = {_step_of(path): path for path in self.paths()}
        keep_steps = {*sorted(newest)[-self.keep :], best_step}
        for path in self.paths():
            if _step_of(path) not in keep_steps or path != newest[_step_of(path)]:
                path.unlink()
        sync_folder(self.folder)

    def newest(self) -> tuple[State, list[str]] | None:
        """The newest state that is whole, and a sentence about each damaged one passed over.

        Returns:
            None if nothing was ever saved.

        Raises:
            ContentError: if there are checkpoints and every one of them is damaged.
        """
        damaged: list[str] = []
        for path in reversed(self.paths()):
            try:
                return read(path), damaged
            except ContentError as error:
                damaged.append(str(error))
        if damaged:
            raise ContentError("; ".join(damaged) + "; none is left to resume from")
        return None

    def at(self, step: int) -> State:
        """The state that was saved at a step.

        Raises:
            ContentError: if there is none, or it is damaged.
        """
        for path in reversed(self.paths()):
            if _step_of(path) == step:
                return read(path)
        raise ContentError(f"{self.folder}: no checkpoint of step {step}")

    def clear_unfinished(self) -> None:
        """Remove what a process that was killed while saving left behind."""
        for path in self.folder.glob(".step-*"):
            path.unlink()


def serialised(state: State) -> memoryview:
    """A state as the bytes of a file, which no later step changes."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getbuffer()


def _verify(path: Path) -> None:
    """Read a checkpoint back, and remove it if it is not what its name says.

    Raises:
        OSError: it is not.
    """
    if _digest(bytearray(read_input(path, _LARGEST))) not in path.name:
        path.unlink()
        raise OSError(errno.EIO, "what is read back is not what was written", str(path))


def _step_of(path: Path) -> int:
    """The step that a checkpoint's name tells.

    >>> _step_of(Path("checkpoints/step-00001200-9f86d081884c7d65.pt"))
    1200
    """
    match = NAME.fullmatch(path.name)
    if match is None:
        raise ContentError(f"{path}: not the name of a checkpoint (step-STEP-SHA256.pt)")
    return int(match[1])


def _digest(content: bytes | bytearray | memoryview) -> str:
    """The first 16 hexadecimal digits of the SHA-256."""
    return hashlib.sha256(content).hexdigest()[:16]


def read(path: str | Path) -> State:
    """Read one checkpoint and verify it against its name.

    Raises:
        OSError: if the file cannot be read.
        ContentError: if it is damaged, or holds anything but tensors and plain values.
    """
    path = Path(path)
    _step_of(path)
    content = bytearray(read_input(path, _LARGEST))
    if _digest(content) not in path.name:
        raise ContentError(f"{path}: damaged (its content does not match the digest in its name)")
    try:
        state = read_torch(content).values()
    except ContentError as error:
        raise ContentError(f"{path}: not a training state ({error})") from None
    if not isinstance(state, dict):
        raise ContentError(f"{path}: not a training state ({type(state).__name__})")
    return state


@contextlib.contextmanager
def fitting(source: object) -> Iterator[None]:
    """Turn errors in reading the parts of a state into a ContentError.

    Args:
        source: the origin of the state, for the message.
    """
    try:
        yield
    except (ContentError, UsageError):
        raise
    except _UNFITTING as error:
        if is_out_of_memory(error):
            raise
        reason = " ".join(str(error).split())[:200]
        raise ContentError(
            f"{source}: its training state is not as this version writes it "
            f"({type(error).__name__}: {reason}); start a new run"
        ) from None


def random_state(device: torch.device = _CPU) -> State:
    """The state of every generator that a training step may draw from, in this process.

    Args:
        device: where it computes. Other devices are not asked, since asking one starts it.
    """
    version, numbers, gauss = random.getstate()
    legacy = np.random.get_state(legacy=False)  # noqa: NPY002  (its state is what we keep)
    assert isinstance(legacy, Mapping)
    keys: Sequence[int] = legacy["state"]["key"].tolist()
    return {
        "python": [version, list(numbers), gauss],
        "numpy": [keys, legacy["state"]["pos"], legacy["has_gauss"], legacy["gauss"]],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    } | _other_gpu_state(device)


def _other_gpu_state(device: torch.device) -> State:
    """The state of the generator of an Apple or Intel GPU; empty for other devices."""
    if device.type == "mps":
        return {"mps": torch.mps.get_rng_state()}
    return {"xpu": torch.xpu.get_rng_state(device)} if device.type == "xpu" else {}


def set_random_state(state: State, device: torch.device = _CPU) -> None:
    """Put every generator back to where `random_state` found it.

    Args:
        state: of a run that may have computed elsewhere; then the generator of `device` is left.
        device: where the run goes on.
    """
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    keys, position, has_gauss, cached = state["numpy"]
    key = np.array(keys, dtype=np.uint32)
    np.random.set_state(("MT19937", key, position, has_gauss, cached))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    on_device = state.get(device.type)
    if on_device is None:
        return
    if device.type == "mps":
        torch.mps.set_rng_state(on_device)
    elif device.type in ("cuda", "xpu"):
        (torch.cuda if device.type == "cuda" else torch.xpu).set_rng_state(on_device, device)
