"""An architecture: the choices that define a residual network, as plain values, without torch."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self, get_args

from resnets.errors import UsageError, WrongSetting
from resnets.fields import as_flag, from_table, short

Block = Literal["residual", "bottleneck", "preact_residual", "preact_bottleneck"]
Stem = Literal["cifar", "imagenet", "deep", "tiered", "deep_strided", "padded", "linear"]
Shortcut = Literal[
    "projection",
    "padding",
    "padding_after",
    "projection_everywhere",
    "projection3x3",
    "pooled",
    "none",
]
Norm = Literal["batch", "group", "frozen"]
Attention = Literal["none", "se", "eca"]
Filter = bool | Literal["average"]

_NAMES = {"block": Block, "stem": Stem, "shortcut": Shortcut, "norm": Norm, "attention": Attention}
_COUNTS = (
    *("width", "groups", "base_width", "strided_conv"),
    *("reduction", "num_classes", "in_channels"),
)
_RATES = ("dropout", "stochastic_depth")
_LONGEST = 1000  # blocks in a stage; keeps a description from elsewhere from filling the memory
_LARGEST = 1 << 20  # of any count; the widest network published has 8,192 channels
_SWITCHES = ("activated_start", "weight_standardisation", "zero_init")
_ADDED_LATER = ("activated_start", "weight_standardisation")  # earlier versions know no such field


@dataclass(frozen=True)
class Architecture:
    """The choices that define a residual network.

    Attributes:
        block: ``residual`` (two 3x3 convolutions) or ``bottleneck`` (1x1, 3x3, 1x1), from
            arXiv:1512.03385; with ``preact_`` before it, norm and ReLU come before each
            convolution (arXiv:1603.05027).
        depths: how many blocks each stage has.
        width: of the blocks in the first stage; it doubles with every stage. A residual block has
            as many output channels, a bottleneck four times as many.
        stem: ``cifar`` (3x3, keeps H x W; ``linear`` is the same without a ReLU) or ``imagenet``
            (7x7 and max pooling, H/4 x W/4; ``padded`` is the same with zeros around what is
            pooled, as in BiT, arXiv:1912.11370); ``deep`` has three 3x3 convolutions for the 7x7
            (arXiv:1812.01187), in ``tiered`` the first of them is narrower (timm's -T), in
            ``deep_strided`` a convolution with stride 2 replaces the max pooling
            (arXiv:2103.07579).
        stem_width: output channels of the stem; None means ``width``.
        shortcut: where a block changes shape, ``padding`` is option A of arXiv:1512.03385 (no
            parameters) with zeros on both sides of the channels, ``padding_after`` with all of
            them after, ``projection`` option B (1x1); ``projection_everywhere`` is option C,
            ``projection3x3`` is B with a 3x3 convolution, ``pooled`` averages before a 1x1
            (arXiv:1812.01187, ResNet-D), ``none`` makes a plain network without any shortcut.
        activated_start: with pre-activation, the first block activates before its two paths split
            (arXiv:1603.05027, appendix); timm's takes the stem's output as its shortcut. True
            where it makes no difference: without pre-activation, or if that block projects.
        norm: ``batch``, ``group`` (arXiv:1803.08494) or ``frozen`` batch normalisation.
        groups: of a bottleneck's 3x3 convolution (arXiv:1611.05431).
        base_width: a bottleneck is ``width * base_width / 64 * groups`` wide inside.
        strided_conv: which convolution of a bottleneck has the stride: 1 as in the paper (v1) or
            2, the 3x3 (v1.5).
        attention: ``se`` (arXiv:1709.01507) or ``eca`` (arXiv:1910.03151) at the branch's end.
        reduction: how many times narrower ``se`` is inside.
        blur: strides preceded by a 3x3 binomial filter (arXiv:1904.11486), except in shortcuts;
            ``average`` has the mean of 2x2 pixels in place of a stride, in the stem's pooling too
            (timm's -aa).
        dropout: probability of dropping a value before the last convolution of a block.
        stochastic_depth: probability of dropping the last block; that of the others grows
            linearly with depth up to it (arXiv:1603.09382).
        output_stride: pixels of the images per pixel of the last stage, if less than by default;
            later stages then dilate their convolutions instead of striding (arXiv:1706.05587).
        weight_standardisation: each filter of a convolution is used with mean 0 and variance 1
            (arXiv:1903.10520).
        zero_init: blocks begin as the identity, their last norm scaling by zero
            (arXiv:1706.02677); with pre-activation their last convolution is zero.
        num_classes: how many logits come out.
        in_channels: of the images: 3 for RGB, 1 for grey.

    Raises:
        UsageError: for a value that no network has.

    >>> Architecture("residual", (2, 2, 2), width=16, stem="cifar", num_classes=10).depth
    14
    """

    block: Block
    depths: tuple[int, ...]
    width: int = 64
    stem: Stem = "imagenet"
    stem_width: int | None = None
    shortcut: Shortcut = "projection"
    activated_start: bool = True
    norm: Norm = "batch"
    groups: int = 1
    base_width: int = 64
    strided_conv: int = 2
    attention: Attention = "none"
    reduction: int = 16
    blur: Filter = False
    dropout: float = 0.0
    stochastic_depth: float = 0.0
    output_stride: int | None = None
    weight_standardisation: bool = False
    zero_init: bool = False
    num_classes: int = 1000
    in_channels: int = 3

    def __post_init__(self) -> None:
        object.__setattr__(self, "depths", _depths(self.depths))
        for name, kind in _NAMES.items():
            _check_name(name, getattr(self, name), get_args(kind))
        for name in _COUNTS:
            _check_count(name, getattr(self, name))
        for name in _RATES:
            object.__setattr__(self, name, _rate(name, getattr(self, name)))
        for name in _SWITCHES:
            if not isinstance(getattr(self, name), bool):
                raise UsageError(f"{name} is {short(getattr(self, name))}; it is True or False")
        if not (isinstance(self.blur, bool) or self.blur == "average"):
            raise UsageError(f"blur is {short(self.blur)}; it is True or False or 'average'")
        if self.stem_width is not None:
            _check_count("stem_width", self.stem_width)
        if not self.is_preact or self.stem_channels != self.channels[0]:
            object.__setattr__(self, "activated_start", True)
        if self.is_preact and self.stem == "linear":  # which activates nothing before its blocks
            object.__setattr__(self, "stem", "cifar")
        self._check_together()

    def check_stage(self, stage: object) -> None:
        """Refuse what is no stage up to which the network can be frozen; see `ResNet.freeze`.

        Raises:
            UsageError: it names those that there are.
        """
        number = len(self.depths)
        if stage not in (None, "all", *range(number + 1)):
            stages = f"give a stage from 0 (the stem) to {number}"
            raise WrongSetting(
                f"freeze is {stage!r}; {stages}, 'all' (all but the classifier), or None",
                as_flag("freeze", str(stage), f"{stages}, or all (all but the classifier)"),
            )

    def _check_together(self) -> None:
        """Refuse values that are allowed alone but not with each other."""
        if not self.is_bottleneck and (self.groups, self.base_width) != (1, 64):
            raise UsageError(
                f"groups is {self.groups} and base_width {self.base_width}; only bottlenecks have "
                f"them (block is {self.block!r}: leave them at 1 and 64)"
            )
        if self.width * self.base_width % 64:
            raise UsageError(
                f"width {self.width} times base_width {self.base_width} is "
                f"{self.width * self.base_width}; it must be a multiple of 64 so that the groups "
                "divide the inner width"
            )
        if self.strided_conv > 2 or (self.blur and self.strided_conv == 1):
            raise UsageError(
                f"strided_conv is {self.strided_conv}; it is 1 (the 1x1: v1) or 2 (the 3x3: v1.5), "
                "and with blur it is 2"
            )
        if self.stem in ("deep", "tiered", "deep_strided") and self.stem_channels % 8:
            raise UsageError(
                f"the {self.stem} stem is {self.stem_channels} wide; a multiple of 8 is needed"
            )
        if self.zero_init and (self.shortcut == "none" or self.norm == "frozen"):
            raise UsageError(
                "zero_init would leave nothing to learn from: it needs shortcuts and a norm that "
                f"trains (shortcut is {self.shortcut!r}, norm is {self.norm!r})"
            )
        if self.output_stride is not None and self.output_stride not in self._output_strides():
            raise UsageError(
                f"output_stride is {self.output_stride!r}; this network can have "
                f"{', '.join(map(str, self._output_strides()))}"
            )

    def _output_strides(self) -> list[int]:
        return [self.stem_stride * 2**stage for stage in range(len(self.depths))]

    @property
    def is_bottleneck(self) -> bool:
        """Whether its blocks widen their output fourfold."""
        return self.block.endswith("bottleneck")

    @property
    def is_preact(self) -> bool:
        """Whether its blocks activate before their convolutions."""
        return self.block.startswith("preact")

    @property
    def depth(self) -> int:
        """Layers with weights on the longest path, as the papers count them for the plain stem."""
        return 2 + sum(self.depths) * (3 if self.is_bottleneck else 2)

    @property
    def is_for_small_images(self) -> bool:
        """Whether its stem keeps H x W."""
        return self.stem in ("cifar", "linear")

    @property
    def stem_channels(self) -> int:
        """Channels that the stem hands to the first stage."""
        return self.width if self.stem_width is None else self.stem_width

    @property
    def stem_stride(self) -> int:
        """Pixels of the images per pixel of the first stage."""
        return 1 if self.is_for_small_images else 4

    @property
    def stride(self) -> int:
        """Pixels of the images per pixel of the last stage."""
        return self.output_stride or self._output_strides()[-1]

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels of the images per pixel of each stage."""
        return tuple(min(stride, self.stride) for stride in self._output_strides())

    @property
    def channels(self) -> tuple[int, ...]:
        """Output channels of each stage."""
        expansion = 4 if self.is_bottleneck else 1
        return tuple(self.width * 2**stage * expansion for stage in range(len(self.depths)))

    def to_dict(self) -> dict[str, Any]:
        """Every field, as JSON has it.

        A field that earlier versions do not know is left out while it has its default, so that
        they read the description of a network that they know.
        """
        values = {**asdict(self), "depths": list(self.depths)}
        usual = {field.name: field.default for field in fields(self)}
        return {k: v for k, v in values.items() if k not in _ADDED_LATER or v != usual[k]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The architecture that `to_dict` described; fields left out have their defaults.

        Raises:
            ContentError: if a field is unknown or missing or its value is not allowed.
        """
        return from_table(cls, values, "architecture.")


def _check_name(field: str, value: object, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise UsageError(f"{field} is {short(value)}; it is one of {', '.join(allowed)}")


def _check_count(field: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _LARGEST:
        raise UsageError(
            f"{field} is {short(value)}; it is a whole number from 1 up to {_LARGEST:,}"
        )


def _rate(field: str, value: object) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not 0 <= value < 1:  # type: ignore[arg-type,operator]
        raise UsageError(
            f"{field} is {short(value)}; it is a probability: 0 or more, and less than 1"
        )
    return float(value)  # type: ignore[arg-type]


def _depths(depths: object) -> tuple[int, ...]:
    if not isinstance(depths, Sequence) or isinstance(depths, str) or not 1 <= len(depths) <= 8:
        raise UsageError(
            f"depths is {short(depths)}; it has 1 to 8 numbers of blocks, one per stage"
        )
    for depth in depths:
        _check_count("each of depths", depth)
        if depth > _LONGEST:
            raise UsageError(f"a stage of depths has {depth} blocks; {_LONGEST} at most")
    return tuple(depths)
