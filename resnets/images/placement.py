"""Arrays on the device that computes, without waiting for it."""

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
