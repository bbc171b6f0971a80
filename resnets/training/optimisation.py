"""The optimizer, parameter groups, loss and gradient clipping of a recipe."""

import re
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from resnets.errors import UsageError
from resnets.format import plural
from resnets.training.optimizers import Muon
from resnets.training.recipe import Recipe

Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]


def make_optimizer(network: nn.Module, recipe: Recipe) -> Optimizer:
    """The recipe's optimizer over the network's trainable parameters, at the highest rate."""
    groups = _parameter_groups(network, recipe)
    rate, momentum, betas = recipe.rate, recipe.momentum, (recipe.momentum, 0.999)
    nesterov = recipe.nesterov and momentum > 0
    # torch's fused CPU kernels ignore that a gradient's memory layout may differ from its parameter
    fused = all(parameter.is_cuda for parameter in network.parameters())
    kernel: dict[str, bool] = {"fused": fused, "foreach": not fused}
    optimizer: Optimizer
    if recipe.optimizer == "sgd":
        optimizer = SGD(groups, rate, momentum, nesterov=nesterov, **kernel)
    elif recipe.optimizer == "adamw":
        optimizer = AdamW(groups, rate, betas, **kernel)
    else:
        optimizer = Muon(groups, rate, momentum, nesterov)
    set_rate(optimizer, rate)
    return optimizer


_KERNELS = ("fused", "foreach", "capturable")  # settings of torch's optimizers by device


def load_optimizer(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Load an optimizer's state, which may come from another device.

    torch saves with it which kernels computed, and would use these on the new device too.
    """
    groups = [
        saved | {name: group[name] for name in _KERNELS if name in group}
        for saved, group in zip(state["param_groups"], optimizer.param_groups, strict=True)
    ]
    optimizer.load_state_dict(state | {"param_groups": groups})


def set_rate(optimizer: Optimizer, rate: float) -> None:
    """Set the learning rate of every group to ``rate`` times the group's own ``scale``."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]


def _parameter_groups(network: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """The trainable parameters, grouped by their settings in the optimizer.

    Norms and biases (all parameters of one dimension) have no weight decay, unless the recipe
    asks for it, for all of them or only for biases outside of norms. Muon orthogonalises the
    updates of convolutions only: its authors, too, exclude the classifier. Frozen parameters are
    in no group.

    Returns:
        Groups with ``params``, ``weight_decay``, ``scale`` (a factor on the learning rate) and
        ``orthogonal`` (for Muon).
    """
    groups: dict[tuple[float, float, bool], list[Tensor]] = {}
    distances, norms = _distances_from_head(network), _norm_parameters(network)
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        decays = parameter.ndim > 1 or recipe.decay_norms_and_biases
        decays = decays or (recipe.decay_biases and name not in norms)
        orthogonal = recipe.optimizer == "muon" and parameter.ndim == 4
        scale = recipe.layer_decay ** distances[name]
        if recipe.optimizer == "muon" and not orthogonal:
            scale *= recipe.non_conv_learning_rate_scale
        key = (recipe.weight_decay if decays else 0.0, scale, orthogonal)
        groups.setdefault(key, []).append(parameter)
    return [
        {"params": parameters, "weight_decay": decay, "scale": scale, "orthogonal": orthogonal}
        for (decay, scale, orthogonal), parameters in groups.items()
    ]


def _norm_parameters(network: nn.Module) -> set[str]:
    """The names of the scales and shifts of norms."""
    kinds = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)
    return {
        f"{prefix}.{name}".lstrip(".")
        for prefix, module in network.named_modules()
        if isinstance(module, kinds)
        for name, _ in module.named_parameters(recurse=False)
    }


def _distances_from_head(network: nn.Module) -> dict[str, int]:
    """The distance of each parameter from the classifier, in stages, by the parameter's name.

    All that follows the last stage (the children ``layer1``, ``layer2``...) is the classifier, at
    0; the last stage is at 1; the stem, which precedes the first stage, is the furthest.
    """
    names = [name for name, _ in network.named_parameters()]
    stages = [re.match(r"layer(\d+)\.", name) for name in names]
    numbers = [int(match[1]) for match in stages if match]
    place, places = 0, []
    for match in stages:
        if match:
            place = int(match[1])
        elif place:
            place = max(numbers) + 1
        places.append(place)
    return {name: max(places) - place for name, place in zip(names, places, strict=True)}


def clip_gradients(parameters: Iterable[Tensor], longest: float) -> Tensor:
    """Clip the gradient over all parameters to a 2-norm of ``longest``; 0: no clipping.

    Returns:
        The norm before clipping, a tensor of no dimension.
    """
    clipped = list(parameters)
    norm = nn.utils.get_total_norm([p.grad for p in clipped if p.grad is not None])
    if longest:
        nn.utils.clip_grads_with_norm_(clipped, longest, norm)
    return norm


def _class_weights(labels: np.ndarray, num_classes: int) -> Tensor:
    """Class weights (K,) inverse to the class sizes: N / (K * images of the class).

    A class without images gets 0 and is not counted in K.
    """
    counts = torch.bincount(torch.as_tensor(labels), minlength=num_classes).double()
    present = counts > 0
    weights = counts.sum() / (present.sum() * counts.clamp(min=1)) * present
    return weights.float()


def make_loss(recipe: Recipe, labels: np.ndarray, num_classes: int) -> nn.CrossEntropyLoss:
    """The loss in nats of logits (N, K) for targets (N,) int64 or (N, K) probabilities.

    It is the sum over images, so that the pieces of a batch and the processes add up to the whole.

    Args:
        recipe: its label smoothing and class weights are used.
        labels: (N,) of the training images.
        num_classes: K.
    """
    balanced = recipe.class_weights == "balanced"
    weight = _class_weights(labels, num_classes) if balanced else None
    smoothing = recipe.label_smoothing
    return nn.CrossEntropyLoss(weight, reduction="sum", label_smoothing=smoothing)


class CustomLoss(nn.Module):
    """A user's loss function, converted to the sum over images that the trainer needs.

    The user's function is called with logits (N, K) float32 and with targets as the recipe makes
    them: (N,) int64, or (N, K) probabilities after mixup and cutmix. It returns the mean over the
    images, as torch's losses do by default, or one value for each image.
    """

    def __init__(self, loss: Loss) -> None:
        """Wrap a loss function.

        Raises:
            UsageError: it is not callable, or has weights, which no optimizer would train.
        """
        super().__init__()
        if not callable(loss):
            raise UsageError(
                f"loss is {loss!r:.60}; it must be a function of logits (N, K) and targets (N,)"
            )
        if isinstance(loss, nn.Module) and any(True for _ in loss.parameters()):
            raise UsageError(
                f"the loss {type(loss).__name__} has weights of its own, which are not trained: "
                "make them part of the network"
            )
        self.loss = loss
        self.sums = getattr(loss, "reduction", "mean") == "sum"

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The sum over images, a tensor of no dimension."""
        value = self.loss(logits, targets)
        fits = isinstance(value, Tensor) and value.shape in ((), (len(logits),))
        if not fits or not value.is_floating_point():
            actual = f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else value
            raise UsageError(
                f"the loss of {plural(len(logits), 'image')} is {actual!s:.60}; it must be a "
                "floating-point tensor of no dimension, their mean, or of the shape "
                f"({len(logits)},)"
            )
        return value.sum() if value.ndim or self.sums else value * len(logits)
