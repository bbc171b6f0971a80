"""LAMB, an optimizer for very large batches."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class Lamb(Optimizer):
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

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Move every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if parameters:
                self.move(parameters, group)
        return loss

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


def adam_moves(
    state: Any, parameters: list[Tensor], betas: tuple[float, float], eps: float
) -> list[Tensor]:
    """Adam's direction ``m / (sqrt(v) + eps)`` for each parameter, both means bias-corrected.

    Keeps ``step``, ``mean`` and ``square`` in ``state[parameter]``.
    """
    for parameter in parameters:
        if not state[parameter]:
            zero = torch.zeros_like(parameter)
            state[parameter] = {"step": 0, "mean": zero, "square": zero.clone()}
        state[parameter]["step"] += 1
    states = [state[parameter] for parameter in parameters]
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    means, squares = [s["mean"] for s in states], [s["square"] for s in states]
    torch._foreach_lerp_(means, gradients, 1 - betas[0])
    torch._foreach_mul_(squares, betas[1])
    torch._foreach_addcmul_(squares, gradients, gradients, 1 - betas[1])
    roots = torch._foreach_sqrt(squares)
    torch._foreach_div_(roots, [(1 - betas[1] ** s["step"]) ** 0.5 for s in states])
    torch._foreach_add_(roots, eps)
    moves = torch._foreach_div(means, roots)
    torch._foreach_div_(moves, [1 - betas[0] ** s["step"] for s in states])
    return list(moves)
