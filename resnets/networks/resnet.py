"""Residual networks: named parts that run in order.

    images -> conv, bn, relu -> layer1 -> layer2 -> layer3 -> avg_pool -> fc -> logits

That is a network for small images; those for ImageNet begin with conv1, bn1, relu, maxpool and have
a layer4. The names are the keys under which checkpoints, torchvision's too, store the weights.

Shapes: N images, C channels, H x W pixels, K classes.
"""

from collections.abc import Collection, Sequence
from dataclasses import fields, replace
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from resnets.errors import UsageError
from resnets.networks.architecture import Architecture
from resnets.networks.blocks import BLOCKS, SHORTCUTS, Choices, Residual, activated
from resnets.networks.catalog import select
from resnets.networks.layers import ATTENTIONS, CONVOLUTIONS, FILTERS, Layer, is_symbolic, relu
from resnets.networks.norms import NORMS
from resnets.networks.stems import Parts, stem


class ResNet(nn.Module):
    """A stem, stages ``layer1``, ``layer2`` ... of blocks, a pool and the classifier ``fc``.

    By default it is the network for small images that arXiv:1512.03385 calls ResNet-14 when
    ``depths`` is (2, 2, 2), with 3x3 projections.

    Args:
        block: `ResidualBlock` or another class of blocks, or its name in an `Architecture`; may be
            left out: `ResidualBlock`, or `BottleneckBlock` in a `ResNetBottleneck`.
        depths: how many blocks each stage has.
        choices: other fields of the `Architecture`.

    Raises:
        UsageError: if no network is like that.

    >>> ResNet("residual", (3, 3, 3), shortcut="padding").architecture.depth
    20
    >>> ResNetBottleneck([3, 4, 6, 3], num_classes=5).architecture.depth
    50
    """

    defaults: ClassVar[dict[str, Any]] = {
        "block": "residual",
        "width": 16,
        "stem": "cifar",
        "shortcut": "projection3x3",
        "num_classes": 10,
    }
    fc: Layer

    def __init__(
        self,
        block: type[Residual] | str | Sequence[int],
        depths: Sequence[int] | None = None,
        **choices: Any,
    ):
        super().__init__()
        architecture = _architecture(block, depths, {**self.defaults, **choices})
        self.architecture = architecture
        self.frozen: int | Literal["all"] | None = None
        self.frozen_statistics = False
        parts = {
            **stem(architecture),  # conv, bn, relu
            **_stages(architecture),  # layer1, layer2, layer3 ...
            **_pool(architecture),  # avg_pool
            "fc": nn.Linear(self.num_features, architecture.num_classes),
        }
        for name, part in parts.items():
            self.add_module(name, part)
        _initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """Logits. (N, in_channels, H, W) -> (N, K).

        Raises:
            TypeError: if ``images`` is no floating-point tensor of the network's type.
            ValueError: if its shape is not allowed, or it is smaller than the network's stride.
        """
        return self.forward_head(self.forward_features(images))

    def forward_features(self, images: Tensor) -> Tensor:
        """The last feature map, before pooling. (N, in_channels, H, W) -> (N, C, H/s, W/s).

        C is `num_features`; s is 32 in networks for ImageNet, 4 in those for small images.
        """
        _check_images(images, self)
        *trunk, _pool, _fc = self.children()
        x = images
        for part in trunk:
            x = part(x)
        return x

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits of a last feature map: the mean over its pixels, classified.

        Args:
            features: (N, C, H, W), what `forward_features` returns.
            pre_logits: stop before the classifier: (N, C).

        Returns:
            (N, K).
        """
        *_trunk, pool, _fc = self.children()
        x: Tensor = pool(features).flatten(1)
        return x if pre_logits else self.fc(x)

    def embed(self, images: Tensor) -> Tensor:
        """What the classifier sees. (N, in_channels, H, W) -> (N, C)."""
        return self.forward_head(self.forward_features(images), pre_logits=True)

    def features(self, images: Tensor, stages: Sequence[int] | None = None) -> list[Tensor]:
        """The feature maps of stages, for use as a backbone.

        Args:
            images: (N, in_channels, H, W).
            stages: which, counted from 1 and in any order; every one by default.

        Returns:
            One tensor (N, C, H/s, W/s) a stage, in the order of ``stages``.

        Raises:
            UsageError: if there is no such stage.
        """
        number = len(self.architecture.depths)
        chosen = range(1, number + 1) if stages is None else stages
        for stage in chosen:
            if stage not in range(1, number + 1):
                raise UsageError(f"stage {stage!r} of {number}; stages count from 1 to {number}")
        outputs = self._outputs(images, {f"layer{stage}" for stage in chosen})
        return [outputs[f"layer{stage}"] for stage in chosen]

    def forward_intermediates(
        self,
        images: Tensor,
        indices: int | Sequence[int] | None = None,
        *,
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """The feature maps of the stem and the stages, counted as in `feature_info`.

        Args:
            images: (N, in_channels, H, W).
            indices: 0 is the stem, 1 the first stage, -1 the last one; a number n means the last n;
                None means all.
            intermediates_only: return only the feature maps.

        Returns:
            What `forward_features` returns, and the feature maps (N, num_chs, H/reduction,
            W/reduction) in the order in which they are computed.

        Raises:
            UsageError: if there is no such index.
        """
        names = [info["module"] for info in self.feature_info]
        chosen = [names[index] for index in _indices(indices, len(names))]
        *trunk, _pool, _fc = dict(self.named_children())
        outputs = self._outputs(images, {*chosen, *([] if intermediates_only else trunk[-1:])})
        maps = [outputs[name] for name in chosen]
        return maps if intermediates_only else (outputs[trunk[-1]], maps)

    def _outputs(self, images: Tensor, names: Collection[str]) -> dict[str, Tensor]:
        """What the parts with these names put out; no later part runs."""
        _check_images(images, self)
        x, outputs = images, dict[str, Tensor]()
        for name, part in self.named_children():
            if len(outputs) == len(names):
                break
            x = part(x)
            if name in names:
                outputs[name] = x
        return outputs

    @property
    def num_features(self) -> int:
        """Channels of the last feature map and of the embedding, C."""
        return self.architecture.channels[-1]

    @property
    def feature_info(self) -> list[dict[str, Any]]:
        """The feature maps that a backbone offers: the stem's, then that of each stage.

        Each has ``num_chs`` (channels), ``reduction`` (pixels of the images per pixel of the map)
        and ``module`` (the name of the part that puts it out), as in timm.
        """
        architecture = self.architecture
        names = [name for name, _ in self.named_children() if name != "maxpool"]
        first = names.index("layer1") - 1  # the last part of the stem
        modules = names[first : first + 1 + len(architecture.depths)]
        channels = (architecture.stem_channels, *architecture.channels)
        before_pooling = max(1, architecture.stem_stride // 2)
        reductions = (before_pooling, *architecture.strides)
        return [
            {"num_chs": number, "reduction": reduction, "module": module}
            for number, reduction, module in zip(channels, reductions, modules, strict=True)
        ]

    def get_classifier(self) -> nn.Module:
        """The classifier: (N, C) -> (N, K)."""
        return self.get_submodule("fc")

    def reset_classifier(self, num_classes: int) -> None:
        """`replace_head`, in timm's words; 0 takes the classifier away.

        Without a classifier the network returns embeddings (N, C) in place of logits. It cannot be
        saved as a model file.
        """
        if num_classes == 0:
            self.fc = nn.Identity()
        else:
            self.replace_head(num_classes)

    def replace_head(self, num_classes: int) -> Self:
        """Put a freshly initialised classifier in place, for ``num_classes`` classes.

        Raises:
            UsageError: if ``num_classes`` is not a whole number from 1 up.
        """
        self.architecture = replace(self.architecture, num_classes=num_classes)
        *_, like = self.parameters()
        self.fc = nn.Linear(self.num_features, num_classes, device=like.device, dtype=like.dtype)
        return self

    def adapt_channels(self, in_channels: int) -> Self:
        """Let the first convolution take images of another number of channels, as timm does.

        Its weights are summed for one channel, so that grey images are to it what they were as
        RGB; else they are repeated, or cut, and scaled so that their sum keeps its size. See
        timm's `adapt_input_conv`.

        Raises:
            UsageError: if ``in_channels`` is not a whole number from 1 up.
        """
        self.architecture = replace(self.architecture, in_channels=in_channels)
        first = next(part for part in self.modules() if isinstance(part, nn.Conv2d))
        first.weight = nn.Parameter(
            _for_channels(first.weight.detach(), in_channels),
            requires_grad=first.weight.requires_grad,
        )
        first.in_channels = in_channels
        return self

    def freeze(self, stage: int | Literal["all"] | None, *, statistics: bool = False) -> Self:
        """Stop training the stem and the stages up to ``stage``, statistics of norms included.

        All that comes after it trains. Frozen parts stay in evaluation mode until the next call.

        Args:
            stage: 0 for the stem alone; "all" for all but the classifier; None freezes nothing.
            statistics: whether all batch norms stay in evaluation mode; their scale and shift train
                where they are not frozen.

        Raises:
            UsageError: if there is no such stage.
        """
        self.architecture.check_stage(stage)
        self.requires_grad_(True)
        self.frozen, self.frozen_statistics = stage, statistics
        for part in self._frozen_parts():
            part.requires_grad_(False)
        return self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """As in torch, except that frozen parts stay in evaluation mode."""
        super().train(mode)
        for part in self._frozen_parts():
            part.eval()
        if self.frozen_statistics:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def _frozen_parts(self) -> list[nn.Module]:
        if self.frozen is None:
            return []
        if self.frozen == "all":
            return [part for name, part in self.named_children() if name != "fc"]
        names = [name for name, _ in self.named_children()]
        return list(self.children())[: names.index("layer1") + self.frozen]

    def _get_name(self) -> str:
        return "ResNetBottleneck" if self.architecture.is_bottleneck else "ResNet"


class ResNetBottleneck(ResNet):
    """A `ResNet` of bottlenecks: by default the one for ImageNet, with 10 classes."""

    defaults: ClassVar[dict[str, Any]] = {"block": "bottleneck", "num_classes": 10}


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
    block: type[Residual] | str | Sequence[int],
    depths: Sequence[int] | None,
    choices: dict[str, Any],
) -> Architecture:
    names: dict[Any, str] = {block_class: name for name, block_class in BLOCKS.items()}
    if depths is None:  # ResNetBottleneck([3, 4, 6, 3])
        block, depths = choices["block"], block  # type: ignore[assignment]
    allowed = [field.name for field in fields(Architecture)]
    for field in choices:
        if field not in allowed:
            raise UsageError(f"no choice {field!r}; there are {', '.join(allowed)}")
    name = names.get(block, block) if isinstance(block, type) else block
    return Architecture(**{**choices, "block": name, "depths": depths})


def _indices(indices: int | Sequence[int] | None, number: int) -> list[int]:
    """Indices of feature maps, of which there are ``number``, as positions in ascending order."""
    if indices is None:
        return list(range(number))
    chosen = range(-indices, 0) if isinstance(indices, int) else indices
    for index in chosen:
        if index not in range(-number, number):
            raise UsageError(f"feature map {index!r}; there are 0 (the stem) to {number - 1}")
    return sorted({index % number for index in chosen})


def _for_channels(weight: Tensor, channels: int) -> Tensor:
    """A convolution's weights (O, I, H, W) for other channels: (O, channels, H, W)."""
    count = weight.shape[1]
    if channels == 1:
        return weight.sum(1, keepdim=True)
    repeats = -(-channels // count)
    return weight.repeat(1, repeats, 1, 1)[:, :channels] * (count / channels)


def _stages(architecture: Architecture) -> Parts:
    number = len(architecture.depths)
    return {f"layer{stage + 1}": _stage(architecture, stage) for stage in range(number)}


def _stage(architecture: Architecture, stage: int) -> nn.Sequential:
    """The blocks of a stage, counted from 0; the first block changes the shape.

    Where ``output_stride`` removes its stride, what follows is dilated (arXiv:1706.05587).
    """
    block, width = BLOCKS[architecture.block], architecture.width * 2**stage
    in_channels = (architecture.stem_channels, *architecture.channels)[stage]
    before = (architecture.stem_stride, *architecture.strides)[stage]
    after = architecture.strides[stage]
    dilation = architecture.stem_stride * 2**stage // after  # a factor of 2 for each removed stride
    removed = stage > 0 and before == after
    position = 1 + sum(architecture.depths[:stage])  # of the stage's first block in the network
    first = block(
        in_channels,
        width,
        stride=after // before,
        dilation=dilation // 2 if removed else dilation,
        removed=removed,
        choices=_choices(architecture, position),
    )
    channels = architecture.channels[stage]
    identical_blocks = (
        block(channels, width, dilation=dilation, choices=_choices(architecture, position + index))
        for index in range(1, architecture.depths[stage])
    )
    return nn.Sequential(first, *identical_blocks)


def _choices(architecture: Architecture, position: int) -> Choices:
    """What the block at ``position``, counted from 1 over all stages, is made of.

    Stochastic depth's linear rule is arXiv:1603.09382, equation 4. The first pre-activation block
    activates before its two paths split (arXiv:1603.05027, appendix).
    """
    shortcut = SHORTCUTS[architecture.shortcut]
    activates = architecture.is_preact and architecture.activated_start and position == 1
    attention, reduction = ATTENTIONS[architecture.attention], architecture.reduction
    return Choices(
        shortcut=activated(shortcut) if activates else shortcut,
        norm=NORMS[architecture.norm],
        conv=CONVOLUTIONS[architecture.weight_standardisation],
        attention=lambda channels: attention(channels, reduction),
        groups=architecture.groups,
        base_width=architecture.base_width,
        strided_conv=architecture.strided_conv,
        blur=FILTERS[architecture.blur],
        dropout=architecture.dropout,
        stochastic_depth=architecture.stochastic_depth * (position / sum(architecture.depths)),
    )


def _pool(architecture: Architecture) -> Parts:
    """The mean over all pixels; after pre-activation blocks a norm and a ReLU come first.

    Networks for small images call it ``avg_pool``, those for ImageNet ``avgpool``, and they print
    its size differently: both are formats that are read back.
    """
    channels, norm = architecture.channels[-1], NORMS[architecture.norm]
    last: Parts = {"bn": norm(channels), "relu": relu()} if architecture.is_preact else {}
    small = architecture.is_for_small_images
    pool = nn.AdaptiveAvgPool2d(1 if small else (1, 1))
    return last | {"avg_pool" if small else "avgpool": pool}


def _initialise(network: ResNet) -> None:
    """Convolutions as in arXiv:1502.01852, equation 14; the classifier as in torch."""
    if network.get_parameter("fc.weight").is_meta:
        return  # meta tensors hold no values, yet torch spends most of a second on 152 layers
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    if network.architecture.zero_init:
        for module in network.modules():
            if isinstance(module, Residual):
                nn.init.zeros_(module.get_parameter(module.last))


def least_side(architecture: Architecture) -> int:
    """The side of the smallest images that a network takes, in pixels: one is left of it."""
    side: int = architecture.stem_stride * 2 ** (len(architecture.depths) - 1)
    return side


def refuse_small(architecture: Architecture, height: int, width: int) -> None:
    """Refuse images of which the network would leave less than one pixel.

    Raises:
        UsageError: they are so small.
    """
    side = least_side(architecture)
    if min(height, width) < side:
        raise UsageError(
            f"images are {height} x {width} pixels; this network halves them "
            f"down to 1/{side}, so it needs at least {side} x {side}"
            + ("" if architecture.is_for_small_images else " (or a network with the cifar stem)")
        )


def _check_images(images: Tensor, network: ResNet) -> None:
    """Refuse what the network cannot take, before any tensor maths. Traced code skips it."""
    if _is_traced(images):
        return
    if not isinstance(images, Tensor):
        raise TypeError(f"images is {type(images).__name__}; it is a tensor (N, C, H, W)")
    parameter = next(network.parameters(), None)
    architecture = network.architecture
    expected = f"(N, {architecture.in_channels}, H, W)"
    if images.ndim != 4 or images.shape[1] != architecture.in_channels:
        raise UsageError(f"images have the shape {tuple(images.shape)}; it must be {expected}")
    refuse_small(architecture, *images.shape[2:])
    if not images.is_floating_point():
        raise TypeError(
            f"images are {images.dtype}; they must be floating point, scaled and normalised"
        )
    if parameter is not None and images.dtype != parameter.dtype and not _casts(images.device):
        raise TypeError(
            f"images are {images.dtype} and the network is {parameter.dtype}; "
            f"convert one of them: images.to({parameter.dtype})"
        )


def _is_traced(images: Tensor) -> bool:
    """Whether torch.fx, torch.jit, torch.compile or torch.export records what is computed."""
    recorded = torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
    return recorded or is_symbolic(images)


def _casts(device: torch.device) -> bool:
    kind = device.type
    return torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
