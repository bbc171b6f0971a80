"""What Apple's GPUs have not: float64."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class WithoutFloat64(TorchDispatchMode):
    """A context in which a device refuses tensors of float64, as `mps` does.

    Args:
        device: which stands for the GPU.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device, self.results = device, 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for each in tree_leaves(result):
            if isinstance(each, Tensor) and each.device == self.device:
                self.results += 1
                if each.dtype in (torch.float64, torch.complex128):
                    raise TypeError(f"{func}: the MPS framework doesn't support float64")
        return result
