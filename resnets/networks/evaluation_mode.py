"""Evaluation mode for as long as something is computed, whatever mode a network is in.

On NVIDIA's GPUs convolutions compute in full float32 meanwhile, not in TF32, which torch takes by
default: predictions are then those of a CPU up to rounding.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn


@dataclass
class _Use:
    """How many calls compute with a network now, and which of its parts were in training mode."""

    calls: int = 0
    training: list[nn.Module] = field(default_factory=list)


_cudnn: Any = torch.backends.cudnn  # its types do not know `conv`


@dataclass
class _Precision:
    """How many calls compute on a GPU now, and the precision of its convolutions before."""

    calls: int = 0
    before: str = "tf32"

    def begin(self) -> None:
        """Another call begins."""
        if not self.calls:
            self.before = _cudnn.conv.fp32_precision
            _cudnn.conv.fp32_precision = "ieee"
        self.calls += 1

    def end(self) -> None:
        """A call ends."""
        self.calls -= 1
        if not self.calls:
            _cudnn.conv.fp32_precision = self.before


_precision = _Precision()
_uses: "WeakKeyDictionary[nn.Module, _Use]" = WeakKeyDictionary()
_lock = Lock()


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Compute in evaluation mode, and leave every part in the mode that it was in.

    In training mode batch norm uses the statistics of the batch and changes the stored ones, so
    that predictions would depend on the other images and change the network for good. Threads may
    overlap: the first sets the mode, the last restores it, also after an exception. A thread that
    trains the same network meanwhile is not protected.
    """
    with _lock:
        use = _uses.setdefault(network, _Use())
        use.calls += 1
        in_training = [part for part in network.modules() if part.training]
        use.training += in_training
        for part in in_training:
            part.training = False  # not eval(), which a network may extend to other parts
        on_gpu = _is_on_gpu(network)
        if on_gpu:
            _precision.begin()
    try:
        yield
    finally:
        with _lock:
            if on_gpu:
                _precision.end()
            use.calls -= 1
            if not use.calls:
                del _uses[network]
                for part in use.training:
                    part.training = True


def _is_on_gpu(network: nn.Module) -> bool:
    """Whether an NVIDIA GPU computes with a network."""
    return any(parameter.is_cuda for parameter in network.parameters())
