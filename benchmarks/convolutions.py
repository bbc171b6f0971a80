"""How fast torch's convolutions are: the bound for a trainer that is made of them.

Each is timed for itself in channels_last, as the least of several times.
"""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

PARTS = ("forward", "data gradient", "weight gradient")


@dataclass(frozen=True)
class Convolution:
    """A layer of a network: its weight (out, in, k, k), its input's shape, its stride."""

    weight: tuple[int, ...]
    images: tuple[int, ...]
    stride: int

    def times(self, repeats: int) -> tuple[float, float, float, float]:
        """Least seconds of forward, data gradient and weight gradient; operations of each."""
        images = torch.randn(self.images).contiguous(memory_format=torch.channels_last)
        weight = torch.randn(self.weight).contiguous(memory_format=torch.channels_last)
        stride, padding = [self.stride] * 2, [self.weight[2] // 2] * 2
        output = torch.conv2d(images, weight, None, stride, padding)
        gradient = torch.randn_like(output)

        def backward(*of: bool) -> Callable[[], Any]:
            fixed = ([1, 1], False, [0, 0], 1)  # dilation, transposed, output padding, groups
            return lambda: torch.ops.aten.convolution_backward(
                gradient, images, weight, None, stride, padding, *fixed, of
            )

        forward = lambda: torch.conv2d(images, weight, None, stride, padding)  # noqa: E731
        parts = (forward, backward(True, False, False), backward(False, True, False))
        seconds = (least(part, repeats) for part in parts)
        return *seconds, 2 * output.numel() * weight[0].numel()


def least(part: Callable[[], Any], repeats: int) -> float:
    """Least seconds that a call took."""
    seconds = []
    for _ in range(repeats + 2):
        start = time.perf_counter()
        part()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def convolutions_of(network: nn.Module, batch_size: int) -> list[Convolution]:
    """The convolutions of a network in the order in which they run."""
    found = []

    def note(layer: nn.Conv2d, inputs: tuple[Tensor], _: Tensor) -> None:
        shape = tuple(inputs[0].shape)
        found.append(Convolution(tuple(layer.weight.shape), shape, layer.stride[0]))

    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(note)
    network(torch.zeros(batch_size, 3, 32, 32))
    return found


@dataclass(frozen=True)
class Bound:
    """What the convolutions of one training step take.

    Attributes:
        seconds: of all of them.
        shares: of it, seconds of each of ``PARTS``.
        rates: operations per second of each of them.
    """

    seconds: float
    shares: tuple[float, ...]
    rates: tuple[float, ...]


def bound(network: nn.Module, batch_size: int, repeats: int) -> Bound:
    """Time the convolutions of a step on images (batch_size, 3, 32, 32)."""
    totals = np.zeros((2, 3))
    for number, (layer, count) in enumerate(Counter(convolutions_of(network, batch_size)).items()):
        *seconds, operations = layer.times(repeats)
        needed = np.array([1, number > 0, 1])  # nobody asks for the gradient of the images
        totals += count * needed * np.stack([seconds, np.full(3, operations)])
    seconds, operations = totals
    return Bound(seconds.sum(), tuple(seconds), tuple(operations / seconds))
