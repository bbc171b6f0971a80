"""What the optimizers that are written here share: the way of a step, and Adam's direction."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class Stepping(Optimizer, ABC):
    """An optimizer whose step moves the parameters of one group after the other."""

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

    @abstractmethod
    def move(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        """One step of parameters that have gradients and share their settings."""


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
