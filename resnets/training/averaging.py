"""A running mean of a network's weights, which often predicts better than the last of them."""

import copy
from typing import Any

import torch
from torch import nn

from resnets.training.recipe import Recipe


class Average:
    """Exponentially weighted mean of a network's parameters and buffers.

    After n updates the mean of a value is ``sum(decay**(n-i) * value_i) / sum(decay**(n-i))``
    over i = 1..n: without a trace of what was there before the first, and the plain mean
    (stochastic weight averaging, arXiv:1803.05407) where ``decay`` is 1. Counters are copied.
    """

    def __init__(self, network: nn.Module, decay: float):
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        """The network with the mean's weights, ready to evaluate after the first update."""
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take in the present weights of ``network``."""
        self.updates += 1
        mean, newest = self.network.state_dict(), network.state_dict()
        averaged = [name for name, value in mean.items() if value.is_floating_point()]
        torch._foreach_lerp_(
            [mean[name] for name in averaged],
            [newest[name] for name in averaged],
            newest_share(self.decay, self.updates),
        )
        for name in mean.keys() - set(averaged):
            mean[name].copy_(newest[name])

    def state_dict(self) -> dict[str, Any]:
        """All that :meth:`load_state_dict` needs to go on from here, bit for bit."""
        return {"updates": self.updates, "network": self.network.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from the state of an average of the same network."""
        self.updates = state["updates"]
        self.network.load_state_dict(state["network"])


def newest_share(decay: float, updates: int) -> float:
    """Weight of the newest of ``updates`` values in their mean: 1 / (1 + d + d² + ...).

    >>> [newest_share(1.0, n) for n in (1, 2, 4)]
    [1.0, 0.5, 0.25]
    """
    return 1 / updates if decay == 1 else (1 - decay) / (1 - decay**updates)


def due(recipe: Recipe, done: int, steps_per_epoch: int) -> bool:
    """Whether the weights enter the mean when ``done`` weight updates are made."""
    begins = recipe.average_from * recipe.planned_steps(steps_per_epoch)
    if not recipe.average_decay or recipe.position(done, steps_per_epoch) <= begins:
        return False
    return done % recipe.average_every == 0 or done == recipe.total_steps(steps_per_epoch)
