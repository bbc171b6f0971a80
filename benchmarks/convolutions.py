"""The speed of torch's convolutions: an upper bound for the speed of a trainer.

Each convolution is timed on its own in channels_last; the shortest of several times counts.
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
        """Shortest seconds of forward, data gradient and weight gradient; operations of each."""
        images = torch.randn(self.images).contiguous(memory_format=torch.channels_last)
        weight = torch.randn(self.weight).contiguous(memory_format=torch.channels_last)
        stride, padding = [self.stride] * 2, [self.weight[2] // 2] * 2
        output = torch.conv2d(images, weight, None, stride, padding)
        gradient = torch.randn_like(output)

        def backward(*mask: bool) -> Callable[[], Any]:
            fixed = ([1, 1], False, [0, 0], 1)  # dilation, transposed, output padding, groups
            return lambda: torch.ops.aten.convolution_backward(
                gradient, images, weight, None, stride, padding, *fixed, mask
            )

        forward = lambda: torch.conv2d(images, weight, None, stride, padding)  # noqa: E731
        parts = (forward, backward(True, False, False), backward(False, True, False))
        seconds = (least(part, repeats) for part in parts)
        return *seconds, 2 * output.numel() * weight[0].numel()


def least(part: Callable[[], Any], repeats: int) -> float:
    """The shortest time of several calls in seconds."""
    seconds = []
    for _ in range(repeats + 2):
        start = time.perf_counter()
        part()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def convolutions_of(network: nn.Module, batch_size: int) -> list[Convolution]:
    """The convolutions of a network in the order in which they run."""
    convolutions = []

    def hook(layer: nn.Conv2d, inputs: tuple[Tensor], _: Tensor) -> None:
        shape = tuple(inputs[0].shape)
        convolutions.append(Convolution(tuple(layer.weight.shape), shape, layer.stride[0]))

    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(hook)
    network(torch.zeros(batch_size, 3, 32, 32))
    return convolutions


@dataclass(frozen=True)
class Bound:
    """Time of the convolutions of one training step.

    Attributes:
        seconds: in total.
        shares: seconds of each of ``PARTS``.
        rates: operations per second of each of ``PARTS``.
    """

    seconds: float
    shares: tuple[float, ...]
    rates: tuple[float, ...]


def bound(network: nn.Module, batch_size: int, repeats: int) -> Bound:
    """Time the convolutions of a step on images (batch_size, 3, 32, 32)."""
    totals = np.zeros((2, 3))
    for number, (layer, count) in enumerate(Counter(convolutions_of(network, batch_size)).items()):
        *seconds, operations = layer.times(repeats)
        needed = np.array([1, number > 0, 1])  # training does not need the gradient of the images
        totals += count * needed * np.stack([seconds, np.full(3, operations)])
    seconds, operations = totals
    return Bound(seconds.sum(), tuple(seconds), tuple(operations / seconds))
