"""A running mean of a network's weights, which generalises better than the last of them."""

import copy
from typing import Any

import torch
from torch import Tensor, nn


class Average:
    """Exponentially weighted mean of a network's weights and statistics.

    After n updates the mean of a value is ``sum(decay**(n-i) * value_i) / sum(decay**(n-i))``
    over i = 1..n: no trace of what was there before the first, and the plain mean (stochastic
    weight averaging, arXiv:1803.05407) where ``decay`` is 1. Integers are copied.
    """

    def __init__(self, network: nn.Module, decay: float):
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        """A network with the mean's weights, ready to evaluate."""
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take in the present weights of ``network``, which is like the first one."""
        self.updates += 1
        share = newest_share(self.decay, self.updates)
        ours, theirs = values(self.network), values(network)
        floats = [name for name, value in ours.items() if value.is_floating_point()]
        mean, new = [ours[name] for name in floats], [theirs[name] for name in floats]
        torch._foreach_lerp_(mean, new, share)
        for name in ours.keys() - set(floats):
            ours[name].copy_(theirs[name])

    def state_dict(self) -> dict[str, Any]:
        """All that :meth:`load_state_dict` needs to go on from here, bit for bit."""
        return {"updates": self.updates, "network": self.network.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state of an average of the same network."""
        self.updates = state["updates"]
        self.network.load_state_dict(state["network"])


def newest_share(decay: float, updates: int) -> float:
    """Weight of the newest value in the mean of ``updates`` values, 1 / (1 + d + d² + ...).

    >>> [newest_share(1.0, n) for n in (1, 2, 4)]
    [1.0, 0.5, 0.25]
    """
    return 1 / updates if decay == 1 else (1 - decay) / (1 - decay**updates)


def values(network: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer that belongs to the network's state, by name."""
    return network.state_dict()
