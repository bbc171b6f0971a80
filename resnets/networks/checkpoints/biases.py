"""Biases of convolutions before a batch norm, moved into the norm's running mean.

This project's convolutions have none, because a norm takes off any constant: norm(x + b) with the
running mean m is norm(x) with m - b, exactly. Names are this project's.
"""

import math
import re
from typing import TYPE_CHECKING

from resnets.networks.architecture import Architecture

if TYPE_CHECKING:
    from torch import Tensor

    Tensors = dict[str, Tensor]

_EPSILON = 1e-5  # of torch's norms


def without_biases(weights: "Tensors", architecture: Architecture) -> "Tensors":
    """The weights, with the biases of convolutions moved into the norms that follow them.

    A bias that no batch norm takes up stays in the result under its name: that of a convolution
    before a group norm, whose mean is over several channels, or before another convolution.

    Args:
        weights: of a network in this project's names, and biases of its convolutions.
        architecture: of the network.
    """
    biases = {
        name.removesuffix(".bias"): value
        for name, value in weights.items()
        if name.endswith(".bias") and _is_convolution(name.removesuffix("bias"), weights)
    }
    if not biases or architecture.norm == "group":
        return weights
    sums = _before_norms(biases, weights, architecture)
    folded = {bias for norm, bias in sums if f"{norm}.running_mean" in weights}
    means = {f"{norm}.running_mean" for norm, bias in sums if bias in folded}
    totals = {mean: weights[mean].double() for mean in means}
    for norm, bias in sums:
        if bias in folded:
            mean = f"{norm}.running_mean"
            totals[mean] = totals[mean] - biases[bias].double()
    remaining = {n: v for n, v in weights.items() if n.removesuffix(".bias") not in folded}
    return remaining | {mean: total.to(weights[mean].dtype) for mean, total in totals.items()}


def with_plain_norms(weights: "Tensors", convolutions: str) -> "Tensors":
    """The weights, with norms that change nothing behind convolutions that have none.

    Args:
        weights: of a network, in this project's names.
        convolutions: which have none, as a regular expression.
    """
    import torch

    added: Tensors = {}
    for name, value in weights.items():
        convolution = name.removesuffix(".weight")
        if convolution != name and re.fullmatch(convolutions, convolution):
            norm = "bn" if convolution == "conv" else f"{convolution.rpartition('.')[0]}.1"
            one = torch.ones(len(value), dtype=value.dtype)
            added |= {
                f"{norm}.weight": one * math.sqrt(1 + _EPSILON),
                f"{norm}.bias": one * 0,
                f"{norm}.running_mean": one * 0,
                f"{norm}.running_var": one,
            }
    return weights | added


def _is_convolution(stem: str, weights: "Tensors") -> bool:
    """Whether a norm follows what has these weights: not so in attention and classifier."""
    weight = weights.get(f"{stem}weight")
    return weight is not None and weight.ndim == 4 and ".se." not in stem and stem != "fc."


def _before_norms(
    biases: "Tensors", weights: "Tensors", architecture: Architecture
) -> list[tuple[str, str]]:
    """Each norm with each of the biases that its input contains."""
    if architecture.is_preact:
        return _before_norms_preact(biases, weights, architecture)
    return [(norm, bias) for bias in biases if (norm := _next_norm(bias, weights))]


def _next_norm(convolution: str, weights: "Tensors") -> str | None:
    """The norm right behind a convolution, where the convolution comes first."""
    owner, _, part = convolution.rpartition(".")
    before = f"{owner}." if owner else ""
    if not part.isdigit():
        return f"{before}{part.replace('conv', 'bn')}"
    later = (f"{before}{index}" for index in range(int(part) + 1, int(part) + 3))  # past a filter
    inside = next((norm for norm in later if f"{norm}.running_mean" in weights), None)
    return inside or ("bn1" if convolution == "conv1.6" else None)


def _before_norms_preact(
    biases: "Tensors", weights: "Tensors", architecture: Architecture
) -> list[tuple[str, str]]:
    """The same where norms come first: a block's last bias goes on along the shortcuts."""
    pairs = []
    carried = [stem for stem in _stem_ends(architecture) if stem in biases]
    inner = [bias for bias in biases if not bias.startswith("layer") and bias not in carried]
    pairs += [(norm, bias) for bias in inner if (norm := _next_norm(bias, weights))]
    last = 3 if architecture.is_bottleneck else 2
    for stage, depth in enumerate(architecture.depths, 1):
        for block in range(depth):
            name = f"layer{stage}.{block}"
            pairs += [(f"{name}.bn1", bias) for bias in carried]
            pairs += [
                (f"{name}.bn{n + 1}", f"{name}.conv{n}")
                for n in range(1, last)
                if f"{name}.conv{n}" in biases
            ]
            if not _carries(architecture, stage, block):
                carried = []
            ends = [bias for bias in biases if re.fullmatch(rf"{name}\.downsample\.\d", bias)]
            carried = carried + ends + [n for n in [f"{name}.conv{last}"] if n in biases]
    return pairs + [("bn", bias) for bias in carried]


def _stem_ends(architecture: Architecture) -> tuple[str, ...]:
    """The convolution whose output, or whose maxima, a network with pre-activation starts from."""
    ends = {
        "cifar": ("conv",),
        "imagenet": ("conv1",),
        "deep": ("conv1.6",),
        "tiered": ("conv1.6",),
    }
    return ends.get(architecture.stem, ())


def _carries(architecture: Architecture, stage: int, block: int) -> bool:
    """Whether a block with pre-activation passes its input on as it is."""
    if architecture.shortcut in ("none", "projection_everywhere"):
        return False
    if stage == 1 and block == 0:
        same = architecture.stem_channels == architecture.channels[0]
        return same and not architecture.activated_start
    return block > 0
