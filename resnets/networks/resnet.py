"""Residual networks: named parts that run in order, as an `Architecture` says.

Shapes: N images, C channels, H x W pixels, K classes.
"""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from resnets.errors import UsageError
from resnets.networks.architecture import Architecture
from resnets.networks.blocks import BLOCKS, Choices, Residual
from resnets.networks.catalog import select
from resnets.networks.layers import ATTENTIONS, NORMS, Layer
from resnets.networks.shortcuts import SHORTCUTS, activated
from resnets.networks.stems import Parts, head, stem


class ResNet(nn.Module):
    """A stem, stages ``layer1``, ``layer2`` ... of blocks, a pool and the classifier ``fc``.

    By default it is the network for small images that arXiv:1512.03385 calls ResNet-14 when
    ``depths`` is (2, 2, 2), with 3x3 projections.

    Args:
        block: `ResidualBlock` or another class of blocks, or its name in an `Architecture`.
        depths: how many blocks each stage has.
        choices: other fields of the `Architecture`.

    Raises:
        UsageError: if no network is like that.

    >>> ResNet("residual", (3, 3, 3), shortcut="padding").architecture.depth
    20
    """

    defaults: ClassVar[dict[str, Any]] = {
        "width": 16,
        "stem": "cifar",
        "shortcut": "projection3x3",
        "num_classes": 10,
    }
    fc: Layer

    def __init__(self, block: type[Residual] | str, depths: Sequence[int], **choices: Any):
        super().__init__()
        self.architecture = _architecture(block, depths, {**self.defaults, **choices})
        self.frozen: int | None = None
        parts = stem(self.architecture) | _stages(self.architecture) | head(self.architecture)
        for name, part in parts.items():
            self.add_module(name, part)
        _initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """Logits. (N, in_channels, H, W) -> (N, K).

        Raises:
            TypeError: if ``images`` is no floating-point tensor of the network's type.
            ValueError: if its shape is not allowed, or it is smaller than the network's stride.
        """
        return self.fc(self.embed(images))

    def embed(self, images: Tensor) -> Tensor:
        """What the classifier sees. (N, in_channels, H, W) -> (N, C)."""
        check_images(images, self)
        x = images
        for part in self._trunk():
            x = part(x)
        return x.flatten(1)

    def features(self, images: Tensor, stages: Sequence[int] | None = None) -> list[Tensor]:
        """What stages put out, for use as a backbone.

        Args:
            images: (N, in_channels, H, W).
            stages: which, counted from 1 and in any order; every one by default.

        Returns:
            One tensor (N, C, H/s, W/s) a stage, in the order of ``stages``.

        Raises:
            UsageError: if there is no such stage.
        """
        number = len(self.architecture.depths)
        wanted = range(1, number + 1) if stages is None else stages
        for stage in wanted:
            if stage not in range(1, number + 1):
                raise UsageError(f"stage {stage!r} of {number}; stages count from 1 to {number}")
        check_images(images, self)
        x, found = images, {}
        for name, part in self.named_children():
            x = part(x)
            found[name] = x
            if name == f"layer{max(wanted, default=0)}":
                break
        return [found[f"layer{stage}"] for stage in wanted]

    def replace_head(self, num_classes: int) -> Self:
        """Put a freshly initialised classifier in place, for ``num_classes`` classes."""
        self.architecture = replace(self.architecture, num_classes=num_classes)
        like = next(self.get_submodule("fc").parameters())
        channels = self.architecture.channels[-1]
        self.fc = nn.Linear(channels, num_classes, device=like.device, dtype=like.dtype)
        return self

    def freeze(self, stage: int | None) -> Self:
        """Stop training the stem and the stages up to ``stage``, statistics of norms included.

        All that comes after it trains. Frozen parts stay in evaluation mode until the next call.

        Args:
            stage: 0 for the stem alone; None freezes nothing.

        Raises:
            UsageError: if there is no such stage.
        """
        number = len(self.architecture.depths)
        if stage is not None and stage not in range(number + 1):
            raise UsageError(f"freeze({stage!r}): it takes None or a stage from 0 to {number}")
        self.requires_grad_(True)
        self.frozen = stage
        for part in self._frozen_parts():
            part.requires_grad_(False)
        return self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """As in torch, except that frozen parts stay in evaluation mode."""
        super().train(mode)
        for part in self._frozen_parts():
            part.eval()
        return self

    def _trunk(self) -> list[nn.Module]:
        return [part for name, part in self.named_children() if name != "fc"]

    def _frozen_parts(self) -> list[nn.Module]:
        if self.frozen is None:
            return []
        names = [name for name, _ in self.named_children()]
        return list(self.children())[: names.index("layer1") + self.frozen]

    def _get_name(self) -> str:
        return "ResNetBottleneck" if self.architecture.is_bottleneck else "ResNet"


class ResNetBottleneck(ResNet):
    """A `ResNet` of bottlenecks: by default the one for ImageNet, with 10 classes."""

    defaults: ClassVar[dict[str, Any]] = {"num_classes": 10}


def build(
    name: str | Architecture | None = None,
    *,
    depth: int | None = None,
    num_classes: int | None = None,
    in_channels: int | None = None,
    **changes: Any,
) -> ResNet:
    """A freshly initialised network (arXiv:1502.01852) on torch's default device.

    Args:
        name: a row of the `CATALOG`, or an `Architecture`.
        depth: number of layers, if there is no name. One of ImageNet's (18, 26, 34, 50, 101, 152,
            200) gives that network, unless ``stem="cifar"`` asks for small images. Otherwise it
            is a row for small images (``resnet20`` ..., ``preact_resnet164``), or 6n + 2 layers
            of residual blocks, or 9n + 2 of pre-activation bottlenecks. ``block`` decides where
            both formulas hold.
        num_classes: as in the catalog by default: 10 for small images, 1000 for ImageNet.
        in_channels: of the images; 3 by default.
        changes: other fields of the `Architecture`.

    Raises:
        UsageError: for a name, depth or change that no network has; it names the nearest ones.

    >>> build("resnet20", shortcut="projection").architecture.shortcut
    'projection'
    >>> build(depth=50, num_classes=5, width=8).architecture.block
    'bottleneck'
    >>> build(Architecture("residual", (1, 1), width=8)).architecture.depth
    6
    """
    changes |= {"num_classes": num_classes, "in_channels": in_channels}
    architecture = select(name, depth=depth, **changes)
    network_class = ResNetBottleneck if architecture.is_bottleneck else ResNet
    choices = {field.name: getattr(architecture, field.name) for field in fields(Architecture)}
    return network_class(choices.pop("block"), choices.pop("depths"), **choices)


def _architecture(
    block: type[Residual] | str, depths: Sequence[int], choices: dict[str, Any]
) -> Architecture:
    names = {kind: name for name, kind in BLOCKS.items()}
    name: Any = names.get(block, block) if isinstance(block, type) else block
    allowed = [field.name for field in fields(Architecture)]
    for field in choices:
        if field not in allowed:
            raise UsageError(f"no choice {field!r}; there are {', '.join(allowed)}")
    return Architecture(name, tuple(depths), **choices)


def _stages(architecture: Architecture) -> Parts:
    """The stages. A stride beyond ``output_stride`` is taken out, and dilation doubles."""
    block = BLOCKS[architecture.block]
    channels, reached, dilation = architecture.stem_channels, architecture.stem_stride, 1
    placed = 0
    parts: Parts = {}
    for stage, depth in enumerate(architecture.depths):
        width = architecture.width * 2**stage
        blocks = nn.Sequential()
        for index in range(depth):
            shrinks = stage > 0 and index == 0
            removed = shrinks and reached == architecture.stride
            stride = 2 if shrinks and not removed else 1
            placed += 1
            choices = _choices(architecture, placed)
            blocks.append(block(channels, width, stride, dilation, removed, choices))
            channels, reached = architecture.channels[stage], reached * stride
            dilation *= 2 if removed else 1
        parts[f"layer{stage + 1}"] = blocks
    return parts


def _choices(architecture: Architecture, position: int) -> Choices:
    """Of the block at ``position``, counted from 1.

    Stochastic depth's linear rule is arXiv:1603.09382, equation 4. The first pre-activation block
    activates before its two paths split (arXiv:1603.05027, appendix).
    """
    shortcut = SHORTCUTS[architecture.shortcut]
    attention, reduction = ATTENTIONS[architecture.attention], architecture.reduction
    return Choices(
        shortcut=activated(shortcut) if architecture.is_preact and position == 1 else shortcut,
        norm=NORMS[architecture.norm],
        attention=lambda channels: attention(channels, reduction),
        groups=architecture.groups,
        base_width=architecture.base_width,
        strided_conv=architecture.strided_conv,
        blur=architecture.blur,
        dropout=architecture.dropout,
        stochastic_depth=architecture.stochastic_depth * (position / sum(architecture.depths)),
    )


def _initialise(network: ResNet) -> None:
    """As in arXiv:1502.01852, equation 14, convolutions; the classifier as torch does."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    if network.architecture.zero_init:
        for module in network.modules():
            if isinstance(module, Residual):
                nn.init.zeros_(module.get_parameter(module.last))


def check_images(images: Tensor, network: ResNet) -> None:
    """Refuse what the network cannot take, before any tensor maths. Compiled code skips it."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore[attr-defined,no-untyped-call]
        return
    if not isinstance(images, Tensor):
        raise TypeError(f"images is {type(images).__name__}; it is a tensor (N, C, H, W)")
    parameter = next(network.parameters(), None)
    architecture = network.architecture
    expected = f"(N, {architecture.in_channels}, H, W)"
    if images.ndim != 4 or images.shape[1] != architecture.in_channels:
        raise UsageError(f"images have the shape {tuple(images.shape)}; it must be {expected}")
    side = architecture.stem_stride * 2 ** (len(architecture.depths) - 1)
    if min(images.shape[2:]) < side:
        raise UsageError(
            f"images are {images.shape[2]} x {images.shape[3]} pixels; this network halves them "
            f"down to 1/{side}, so it needs at least {side} x {side}"
            + ("" if architecture.stem == "cifar" else " (or a network with the cifar stem)")
        )
    if not images.is_floating_point():
        raise TypeError(
            f"images are {images.dtype}; they must be floating point, scaled and normalised"
        )
    if parameter is not None and images.dtype != parameter.dtype and not _casts(images.device):
        raise TypeError(
            f"images are {images.dtype} and the network is {parameter.dtype}; "
            f"convert one of them: images.to({parameter.dtype})"
        )


def _casts(device: torch.device) -> bool:
    kind = device.type
    return torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
