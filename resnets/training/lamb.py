"""LAMB, an optimizer for very large batches."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from resnets.training.stepping import Stepping, adam_moves


class Lamb(Stepping):
    """Adam whose step for each parameter is as long as the parameter (arXiv:1904.00962, alg. 2).

    With m and v the bias-corrected means of gradient and squared gradient, and
    ``r = m / (sqrt(v) + eps) + weight_decay * x``, a parameter x moves by
    ``lr * norm(x) / norm(r) * r``; where either norm is 0 it moves by ``lr * r``. Groups without
    weight decay move by ``lr * r`` too, as in the authors' code: norms and biases start at 0 or 1,
    so their length says nothing.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
    ):
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults)

    def move(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        """One step of parameters that share their settings."""
        moves = adam_moves(self.state, parameters, group["betas"], group["eps"])
        if not group["weight_decay"]:
            torch._foreach_add_(parameters, moves, alpha=-group["lr"])
            return
        torch._foreach_add_(moves, parameters, alpha=group["weight_decay"])
        lengths = torch._foreach_norm(parameters)
        strides = torch._foreach_norm(moves)
        for stride, length in zip(strides, lengths, strict=True):
            ratio = length / stride
            stride.copy_(torch.where((length > 0) & (stride > 0), ratio, 1.0))
        torch._foreach_mul_(moves, strides)
        torch._foreach_add_(parameters, moves, alpha=-group["lr"])
