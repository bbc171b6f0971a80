"""Residual networks: blocks, networks, the catalog, printed and foreign forms.

A whole ResNet in plain torch, to learn from, is on one page in examples/resnet_on_one_page.py: the
same names, the same logits. Then read blocks.py and resnet.py. The names here are loaded on use, so
that the catalog can be read without torch.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resnets.networks.architecture import Architecture
    from resnets.networks.blocks import Bottleneck, BottleneckBlock, ResidualBlock
    from resnets.networks.catalog import CATALOG, Entry
    from resnets.networks.checkpoints.foreign import load_checkpoint
    from resnets.networks.printed.reading import from_printed
    from resnets.networks.resnet import ResNet, ResNetBottleneck, build

__all__ = [
    "CATALOG",
    "Architecture",
    "Bottleneck",
    "BottleneckBlock",
    "Entry",
    "ResNet",
    "ResNetBottleneck",
    "ResidualBlock",
    "build",
    "from_printed",
    "load_checkpoint",
]

_HOMES = {
    "Architecture": "architecture",
    "Bottleneck": "blocks",
    "BottleneckBlock": "blocks",
    "CATALOG": "catalog",
    "Entry": "catalog",
    "ResNet": "resnet",
    "ResNetBottleneck": "resnet",
    "ResidualBlock": "blocks",
    "build": "resnet",
    "from_printed": "printed.reading",
    "load_checkpoint": "checkpoints.foreign",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
