"""Arrays on the device that computes, without waiting for it."""

from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_BEHIND = ("cuda",)  # devices to which page-locked memory is copied behind what they compute


def on_device(values: NDArray[Any] | Tensor, device: torch.device) -> Tensor:
    """Values of the host as a tensor on a device.

    A copy from ordinary memory to a GPU waits until that has done all it was given before; one
    from page-locked memory is done when its turn comes, while the host goes on.

    >>> on_device(np.arange(3), torch.device("cpu")).tolist()
    [0, 1, 2]
    """
    tensor = torch.from_numpy(values) if isinstance(values, np.ndarray) else values
    if device.type not in _BEHIND:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def copied_beside(values: Tensor, device: torch.device) -> Tensor:
    """As `on_device`, for whole batches: the copy runs beside what the device computes.

    It has a stream of its own. What is given to the device after this waits for the copy, and the
    copy's memory is not used again before that is done.
    """
    if device.type not in _BEHIND:
        return on_device(values, device)
    copying, computing = _copying_stream(device), torch.cuda.current_stream(device)
    with torch.cuda.stream(copying):
        copy = on_device(values, device)
    computing.wait_stream(copying)
    copy.record_stream(computing)
    return copy


@cache
def _copying_stream(device: torch.device) -> torch.cuda.Stream:
    """The stream of a device for copies."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
