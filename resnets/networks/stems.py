"""What comes before the stages, and after: named parts that run in order.

The names are the keys under which checkpoints store the weights.
"""

from collections.abc import Callable

from torch import nn

from resnets.networks.architecture import Architecture, Stem
from resnets.networks.layers import NORMS, Blur, conv, relu

Parts = dict[str, nn.Module]


def cifar_stem(a: Architecture) -> Parts:
    """3x3, for small images. H x W stay."""
    width = a.stem_channels
    return {"conv": conv(a.in_channels, width, 3), "bn": NORMS[a.norm](width), "relu": relu()}


def max_pool(a: Architecture) -> nn.Module:
    """Maximum of 3x3 pixels at every second one; with `Blur`, maxima first and then every second.

    H/2 x W/2
    """
    if not a.blur:
        return nn.MaxPool2d(3, stride=2, padding=1)
    return nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), Blur())


def imagenet_stem(a: Architecture) -> Parts:
    """7x7 and max pooling (arXiv:1512.03385, table 1). H/4 x W/4."""
    width = a.stem_channels
    return {
        "conv1": conv(a.in_channels, width, 7, stride=2),
        "bn1": NORMS[a.norm](width),
        "relu": relu(),
        "maxpool": max_pool(a),
    }


def deep_stem(a: Architecture, tiers: tuple[int, int] = (4, 4)) -> Parts:
    """Three 3x3 convolutions in place of the 7x7 (arXiv:1812.01187, ResNet-C). H/4 x W/4.

    Args:
        a: the architecture.
        tiers: eighths of the stem's width that the first and the second convolution have.
    """
    first, second = (a.stem_channels * tier // 8 for tier in tiers)
    norm = NORMS[a.norm]
    convolutions = nn.Sequential(
        conv(a.in_channels, first, 3, stride=2),
        norm(first),
        relu(),
        conv(first, second, 3),
        norm(second),
        relu(),
        conv(second, a.stem_channels, 3),
    )
    return imagenet_stem(a) | {"conv1": convolutions}


def tiered_stem(a: Architecture) -> Parts:
    """`deep_stem` with a narrower first convolution: 24, 32, 64 (timm's -T). H/4 x W/4."""
    return deep_stem(a, tiers=(3, 4))


def deep_strided_stem(a: Architecture) -> Parts:
    """`deep_stem` with a 3x3 convolution for the max pooling (arXiv:2103.07579). H/4 x W/4."""
    width = a.stem_channels
    subsample = [conv(width, width, 3), Blur()] if a.blur else [conv(width, width, 3, stride=2)]
    pool = nn.Sequential(*subsample, NORMS[a.norm](width), relu())
    return deep_stem(a) | {"maxpool": pool}


STEMS: dict[Stem, Callable[[Architecture], Parts]] = {
    "cifar": cifar_stem,
    "imagenet": imagenet_stem,
    "deep": deep_stem,
    "tiered": tiered_stem,
    "deep_strided": deep_strided_stem,
}


def stem(a: Architecture) -> Parts:
    """What comes before the stages; pre-activation blocks bring the norm and the ReLU themselves.

    (N, in_channels, H, W) -> (N, stem_channels, H/stem_stride, W/stem_stride)
    """
    parts = STEMS[a.stem](a)
    left_out = ("bn", "bn1", "relu") if a.is_preact else ()
    return {name: part for name, part in parts.items() if name not in left_out}


def head(a: Architecture) -> Parts:
    """What comes after the stages: pooling and the classifier. (N, C, H, W) -> (N, K)."""
    channels = a.channels[-1]
    activation: Parts = {"bn": NORMS[a.norm](channels), "relu": relu()} if a.is_preact else {}
    pool: Parts = (
        {"avg_pool": nn.AdaptiveAvgPool2d(1)}
        if a.stem == "cifar"
        else {"avgpool": nn.AdaptiveAvgPool2d((1, 1))}
    )
    return activation | pool | {"fc": nn.Linear(channels, a.num_classes)}
