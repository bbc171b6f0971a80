"""Stems: the parts of a network before its stages.

    images -> conv, bn, relu -> layer1 ...             for small images
    images -> conv1, bn1, relu, maxpool -> layer1 ...  for photos, as on ImageNet

The names are the keys under which checkpoints, torchvision's too, store the weights.

Shapes: N images, H x W pixels.
"""

from collections.abc import Callable

from torch import nn

from resnets.networks.architecture import Architecture, Stem
from resnets.networks.layers import CONVOLUTIONS, FILTERS, MakeConv, relu
from resnets.networks.norms import NORMS

Parts = dict[str, nn.Module]  # by name, in the order in which they run and print


def stem(architecture: Architecture) -> Parts:
    """The parts before the stages; pre-activation blocks have the norm and the ReLU inside.

    (N, in_channels, H, W) -> (N, stem_channels, H/stem_stride, W/stem_stride)
    """
    parts = _STEMS[architecture.stem](architecture)
    left_out = ("bn", "bn1", "relu") if architecture.is_preact else ()
    return {name: part for name, part in parts.items() if name not in left_out}


def _cifar_stem(architecture: Architecture) -> Parts:
    """3x3, for small images. H x W stay."""
    width = architecture.stem_channels
    return {
        "conv": _convolution(architecture)(architecture.in_channels, width, 3),
        "bn": NORMS[architecture.norm](width),
        "relu": relu(),
    }


def _linear_stem(architecture: Architecture) -> Parts:
    """`_cifar_stem` without its ReLU. H x W stay."""
    return {name: part for name, part in _cifar_stem(architecture).items() if name != "relu"}


def _imagenet_stem(architecture: Architecture) -> Parts:
    """7x7 and max pooling (arXiv:1512.03385, table 1). H/4 x W/4."""
    width = architecture.stem_channels
    return {
        "conv1": _convolution(architecture)(architecture.in_channels, width, 7, stride=2),
        "bn1": NORMS[architecture.norm](width),
        "relu": relu(),
        "maxpool": _max_pool(architecture),
    }


def _convolution(architecture: Architecture) -> MakeConv:
    """What makes the network's convolutions."""
    return CONVOLUTIONS[architecture.weight_standardisation]


def _padded_stem(architecture: Architecture) -> Parts:
    """`_imagenet_stem`, pooled with zeros around it, as BiT does (arXiv:1912.11370). H/4 x W/4."""
    pool = _max_pool(architecture, padding=0)
    return _imagenet_stem(architecture) | {"maxpool": nn.Sequential(nn.ConstantPad2d(1, 0.0), pool)}


def _max_pool(architecture: Architecture, padding: int = 1) -> nn.Module:
    """Maximum of 3x3 pixels at every second one; with `Blur`, maxima first and then every second.

    With averages as filters, the mean of 2x2 pixels comes in the place of both (timm's -aa).

    H/2 x W/2
    """
    make = FILTERS[architecture.blur]
    if make is None:
        return nn.MaxPool2d(3, stride=2, padding=padding)
    if architecture.blur == "average":
        return make(2, 1)
    return nn.Sequential(nn.MaxPool2d(3, stride=1, padding=padding), make(2, 1))


def _deep_stem(architecture: Architecture, tiers: tuple[int, int] = (4, 4)) -> Parts:
    """Three 3x3 convolutions in place of the 7x7 (arXiv:1812.01187, ResNet-C). H/4 x W/4.

    Args:
        architecture: of the network.
        tiers: eighths of the stem's width that the first and the second convolution have.
    """
    width, norm = architecture.stem_channels, NORMS[architecture.norm]
    conv = _convolution(architecture)
    first, second = (width * tier // 8 for tier in tiers)
    convolutions = nn.Sequential(
        conv(architecture.in_channels, first, 3, stride=2),
        norm(first),
        relu(),
        conv(first, second, 3),
        norm(second),
        relu(),
        conv(second, width, 3),
    )
    return _imagenet_stem(architecture) | {"conv1": convolutions}


def _tiered_stem(architecture: Architecture) -> Parts:
    """`_deep_stem` with a narrower first convolution: 24, 32, 64 (timm's -T). H/4 x W/4."""
    return _deep_stem(architecture, tiers=(3, 4))


def _deep_strided_stem(architecture: Architecture) -> Parts:
    """`_deep_stem` with a 3x3 convolution for the max pooling (arXiv:2103.07579). H/4 x W/4."""
    width, make = architecture.stem_channels, FILTERS[architecture.blur]
    convolution = _convolution(architecture)(width, width, 3, stride=1 if make else 2)
    subsample = [convolution, *([make(2, 1)] if make else [])]
    pool = nn.Sequential(*subsample, NORMS[architecture.norm](width), relu())
    return _deep_stem(architecture) | {"maxpool": pool}


_STEMS: dict[Stem, Callable[[Architecture], Parts]] = {
    "cifar": _cifar_stem,
    "linear": _linear_stem,
    "imagenet": _imagenet_stem,
    "deep": _deep_stem,
    "tiered": _tiered_stem,
    "deep_strided": _deep_strided_stem,
    "padded": _padded_stem,
}
