"""The optimizer Muon, which orthogonalises the update of every matrix."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


def _adam_updates(
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
    updates = torch._foreach_div(means, roots)
    torch._foreach_div_(updates, [1 - betas[0] ** s["step"] for s in states])
    return list(updates)


_QUINTIC = (3.4445, -4.7750, 2.0315)
"""Coefficients of the iteration: https://kellerjordan.github.io/posts/muon/"""


class Muon(Optimizer):
    """Momentum whose update of a matrix is replaced by the nearest semi-orthogonal matrix.

    A convolution (out, in, k, k) is the matrix (out, in * k * k). The update is scaled to the
    typical size of Adam's, 0.2 per entry (arXiv:2502.16982, section 2.2), so that one learning
    rate suits both: groups with ``orthogonal=False`` (norms, biases, the classifier) are updated
    by AdamW. Weight decay is decoupled in both.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        momentum: float = 0.95,
        nesterov: bool = True,
        weight_decay: float = 0.1,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
    ):
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "nesterov": nesterov,
            "weight_decay": weight_decay,
            "betas": betas,
            "eps": eps,
            "orthogonal": True,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if parameters:
                self.update(parameters, group)
        return loss

    def update(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        """Update parameters that share their settings."""
        if group["orthogonal"]:
            updates = self.orthogonal_updates(parameters, group)
        else:
            updates = _adam_updates(self.state, parameters, group["betas"], group["eps"])
        torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(parameters, updates, alpha=-group["lr"])

    def orthogonal_updates(self, parameters: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
        """The orthogonalised momentum of each parameter, in the parameter's shape."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter]["momentum"] = torch.zeros_like(parameter)
        momenta = [self.state[parameter]["momentum"] for parameter in parameters]
        torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
        updates = momenta
        if group["nesterov"]:
            updates = list(torch._foreach_lerp(gradients, momenta, group["momentum"]))
        return _orthogonal_all(updates)


def _orthogonal_all(tensors: list[Tensor]) -> list[Tensor]:
    """:func:`_orthogonal` of each tensor as a matrix, scaled to entries of 0.2 root mean square.

    The first axis is the matrix's rows, all others are its columns.
    """
    shapes = defaultdict(list)
    for index, tensor in enumerate(tensors):
        shapes[tensor.shape].append(index)
    results = list(tensors)
    for shape, indices in shapes.items():
        stack = torch.stack([tensors[index].flatten(1) for index in indices])
        scale = 0.2 * max(stack.shape[1:]) ** 0.5
        for index, matrix in zip(indices, _orthogonal(stack) * scale, strict=True):
            results[index] = matrix.view(shape)
    return results


def _orthogonal(matrices: Tensor, steps: int = 5) -> Tensor:
    """Approximately the nearest semi-orthogonal matrix, by Newton–Schulz iterations.

    Its singular values are between about 0.7 and 1.2, which serves an update as well as 1. Every
    iteration multiplies x by a polynomial of its Gram matrix x x'. All these polynomials commute:
    so they are multiplied with each other, since they are small, and only once with x.

    Args:
        matrices: (..., rows, columns).
        steps: iterations of the quintic polynomial.
    """
    if matrices.shape[-2] > matrices.shape[-1]:
        return _orthogonal(matrices.mT, steps).mT
    a, b, c = _QUINTIC
    x = matrices / matrices.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    identity = torch.eye(x.shape[-2], dtype=x.dtype, device=x.device)

    def polynomial(gram: Tensor) -> Tensor:
        return a * identity + b * gram + c * gram @ gram

    gram = x @ x.mT
    product = factor = polynomial(gram)
    for _ in range(steps - 1):
        gram = factor @ gram @ factor
        factor = polynomial(gram)
        product = factor @ product
    result: Tensor = product @ x
    return result
