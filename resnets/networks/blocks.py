"""The residual blocks, and what is added to their branch: a forward is the paper's equation.

Shapes: N images, C channels, H x W pixels, s the stride.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from resnets.networks.architecture import Block, Shortcut
from resnets.networks.layers import (
    DilatedAverage,
    Layer,
    MakeConv,
    MakeFilter,
    StochasticDepth,
    conv,
    no_attention,
    relu,
    same,
)
from resnets.networks.norms import BatchNorm2d, MakeNorm


class Step(NamedTuple):
    """How a block changes the shape.

    Attributes:
        in_channels: channels that come in.
        out_channels: channels that go out.
        stride: H x W are divided by it.
        dilation: of the convolutions before the stride, or before the place of a removed one.
        removed: whether a stride of 2 was removed, so that what follows is dilated.
    """

    in_channels: int
    out_channels: int
    stride: int = 1
    dilation: int = 1
    removed: bool = False

    @property
    def later_dilation(self) -> int:
        """Dilation of the convolutions after the stride."""
        return self.dilation * 2 if self.removed else self.dilation

    @property
    def subsamples(self) -> bool:
        """Whether there is a stride, or a removed one."""
        return self.stride > 1 or self.removed

    @property
    def keeps_shape(self) -> bool:
        """Whether the output has the shape of the input."""
        return self.stride == 1 and self.in_channels == self.out_channels


MakeShortcut = Callable[..., nn.Module | None]  # of a step, a norm or None, and a convolution


class ZeroPadding(nn.Module):
    """Option A of arXiv:1512.03385: every other pixel, and channels of zeros.

    Args:
        in_channels: channels that come in.
        out_channels: channels that go out.
        stride: H x W are divided by it.
        after: whether all zeros come after the channels, and not on both sides.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, after: bool = False):
        super().__init__()
        self.in_channels, self.out_channels, self.stride = in_channels, out_channels, stride
        self.after = after

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, H/stride, W/stride)."""
        extra = self.out_channels - self.in_channels
        x = F.avg_pool2d(x, 1, self.stride)  # x[:, :, ::stride, ::stride], with a cheaper gradient
        before = 0 if self.after else extra // 2
        return F.pad(x, (0, 0, 0, 0, before, extra - before))

    def extra_repr(self) -> str:
        """Channels, stride, and where the zeros are."""
        after = ", after=True" if self.after else ""
        return f"{self.in_channels}, {self.out_channels}, stride={self.stride}{after}"


class NoShortcut(nn.Module):
    """Nothing to add: the plain networks of arXiv:1512.03385, section 3.3."""

    def forward(self, x: Tensor) -> Tensor:
        """A zero without dimensions."""
        return x.new_zeros(())


def _sequence(*parts: nn.Module | None) -> nn.Sequential:
    return nn.Sequential(*(part for part in parts if part is not None))


def _projected(step: Step, norm: MakeNorm | None, convolution: nn.Conv2d) -> nn.Sequential:
    """A convolution, and a norm unless the block comes before it."""
    return _sequence(convolution, norm and norm(step.out_channels))


def _projection_everywhere(
    step: Step, norm: MakeNorm | None, make: MakeConv = conv
) -> nn.Sequential:
    """Option C of arXiv:1512.03385: a strided 1x1 convolution in every block."""
    return _projected(step, norm, make(step.in_channels, step.out_channels, 1, step.stride))


def _projection(step: Step, norm: MakeNorm | None, make: MakeConv = conv) -> nn.Sequential | None:
    """Option B of arXiv:1512.03385: a strided 1x1 convolution where the shape changes."""
    return None if step.keeps_shape else _projection_everywhere(step, norm, make)


def _projection3x3(
    step: Step, norm: MakeNorm | None, make: MakeConv = conv
) -> nn.Sequential | None:
    """Option B with a 3x3 convolution, which sees every pixel."""
    if step.keeps_shape:
        return None
    channels = step.in_channels, step.out_channels
    return _projected(step, norm, make(*channels, 3, step.stride, step.dilation))


def _pooled(step: Step, norm: MakeNorm | None, make: MakeConv = conv) -> nn.Sequential | None:
    """Shortcut D of arXiv:1812.01187: average before projecting, so that no pixel is skipped."""
    if step.keeps_shape:
        return None
    pool: nn.Module = nn.Identity()
    if step.removed:
        pool = DilatedAverage(step.dilation)
    elif step.stride > 1:
        pool = nn.AvgPool2d(2, step.stride, ceil_mode=True)
    convolution = make(step.in_channels, step.out_channels, 1)
    return _sequence(pool, convolution, norm and norm(step.out_channels))


def _padding(step: Step, _norm: MakeNorm | None, _make: MakeConv = conv) -> ZeroPadding | None:
    """Option A of arXiv:1512.03385: nothing to learn or to normalise."""
    return None if step.keeps_shape else ZeroPadding(*step[:3])


def _padding_after(
    step: Step, _norm: MakeNorm | None, _make: MakeConv = conv
) -> ZeroPadding | None:
    """Option A with all zeros after the channels, as in the code of arXiv:1512.03385."""
    return None if step.keeps_shape else ZeroPadding(*step[:3], after=True)


def activated(shortcut: MakeShortcut) -> MakeShortcut:
    """The same shortcut, but never None: the identity is a module, which sees activated values."""

    def make_shortcut(step: Step, norm: MakeNorm | None, make: MakeConv = conv) -> nn.Module:
        return shortcut(step, norm, make) or nn.Identity()

    return make_shortcut


def _none(_step: Step, _norm: MakeNorm | None, _make: MakeConv = conv) -> NoShortcut:
    """A plain network: nothing is added to any block's branch."""
    return NoShortcut()


SHORTCUTS: dict[Shortcut, MakeShortcut] = {
    "projection": _projection,
    "padding": _padding,
    "padding_after": _padding_after,
    "projection_everywhere": _projection_everywhere,
    "projection3x3": _projection3x3,
    "pooled": _pooled,
    "none": _none,
}


@dataclass(frozen=True)
class Choices:
    """How a block is made, apart from its convolutions.

    Attributes:
        shortcut: makes what is added to the branch.
        norm: makes a norm for a number of channels.
        conv: makes a convolution, as `layers.conv` does.
        attention: makes the branch's last layer, for a number of channels.
        groups: of a bottleneck's 3x3 convolution.
        base_width: a bottleneck is ``width * base_width / 64 * groups`` wide inside.
        strided_conv: which convolution of a bottleneck has the stride, 1 or 2.
        blur: makes the filter that takes the branch's stride over; None if there is none.
        dropout: probability of dropping a value before the last convolution.
        stochastic_depth: probability of dropping the branch.
    """

    shortcut: MakeShortcut = _projection
    norm: MakeNorm = BatchNorm2d
    conv: MakeConv = conv
    attention: Callable[[int], Layer] = no_attention
    groups: int = 1
    base_width: int = 64
    strided_conv: int = 2
    blur: MakeFilter | None = None
    dropout: float = 0.0
    stochastic_depth: float = 0.0


_PLAIN = Choices()


class Residual(nn.Module, ABC):
    """Activates after the sum (arXiv:1512.03385, equations 1 and 2).

    (N, in_channels, H, W) -> (N, out_channels, H/s, W/s)

    Args:
        in_channels: channels that come in.
        width: of the block; ``expansion`` times as many channels go out.
        stride: H x W are divided by it.
        dilation: of the 3x3 convolutions before the stride, or before the place of a removed one.
        removed: whether a stride of 2 was removed, so that what follows is dilated.
        choices: how it is made.
    """

    expansion = 1
    last: str  # the parameter that makes the branch vanish when it is zero
    bn1: Layer
    relu: Layer
    dropout: Layer
    blur: Layer
    se: Layer  # timm's name for squeeze-and-excitation and its like
    drop_path: Layer  # timm's name for stochastic depth
    downsample: Layer | None

    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: int = 1,
        dilation: int = 1,
        removed: bool = False,
        choices: Choices = _PLAIN,
    ):
        super().__init__()
        self.out_channels = self.expansion * width
        step = Step(in_channels, self.out_channels, stride, dilation, removed)
        self.convolutions(step, width, choices)
        self.blur = choices.blur(stride, dilation) if choices.blur and step.subsamples else same
        self.dropout = nn.Dropout(choices.dropout) if choices.dropout else same
        self.se = choices.attention(self.out_channels)
        rate = choices.stochastic_depth
        self.drop_path = StochasticDepth(rate) if rate else same
        self.downsample = choices.shortcut(step, self.shortcut_norm(choices), choices.conv)

    @abstractmethod
    def convolutions(self, step: Step, width: int, choices: Choices) -> None:
        """Add the convolutions, norms and the ReLU, in the order in which they print."""

    def shortcut_norm(self, choices: Choices) -> MakeNorm | None:
        """What normalises a projection."""
        return choices.norm

    @abstractmethod
    def branch(self, x: Tensor) -> Tensor:
        """What the block learns: all but the shortcut and the last ReLU."""

    def forward(self, x: Tensor) -> Tensor:
        """ReLU(branch(x) + shortcut(x))."""
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.relu(self.drop_path(self.se(self.branch(x))) + shortcut)


class ResidualBlock(Residual):
    """Two 3x3 convolutions."""

    last = "bn2.weight"
    conv1: Layer
    conv2: Layer
    bn2: Layer

    def convolutions(self, step: Step, width: int, choices: Choices) -> None:
        """3x3 with the stride, 3x3."""
        stride = 1 if choices.blur else step.stride
        self.conv1 = choices.conv(step.in_channels, width, 3, stride, step.dilation)
        self.bn1 = choices.norm(width)
        self.relu = relu()
        self.conv2 = choices.conv(width, width, 3, dilation=step.later_dilation)
        self.bn2 = choices.norm(width)

    def branch(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, width, H/s, W/s)."""
        x = self.blur(self.relu(self.bn1(self.conv1(x))))
        return self.bn2(self.conv2(self.dropout(x)))


class Bottleneck(Residual):
    """1x1 to narrow, 3x3 with the stride (v1.5) and the groups (arXiv:1611.05431), 1x1 to widen."""

    expansion = 4
    last = "bn3.weight"
    conv1: Layer
    conv2: Layer
    bn2: Layer
    conv3: Layer
    bn3: Layer

    def convolutions(self, step: Step, width: int, choices: Choices) -> None:
        """1x1, 3x3, 1x1, each with its norm."""
        inner = width * choices.base_width // 64 * choices.groups
        first, second = _strides(step, choices)
        self.conv1 = choices.conv(step.in_channels, inner, 1, first)
        self.bn1 = choices.norm(inner)
        self.conv2 = choices.conv(inner, inner, 3, second, _dilation(step, choices), choices.groups)
        self.bn2 = choices.norm(inner)
        self.conv3 = choices.conv(inner, step.out_channels, 1)
        self.bn3 = choices.norm(step.out_channels)
        self.relu = relu()

    def branch(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, 4 * width, H/s, W/s)."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.blur(self.relu(self.bn2(self.conv2(x))))
        return self.bn3(self.conv3(self.dropout(x)))


def _strides(step: Step, choices: Choices) -> tuple[int, int]:
    """Of a bottleneck's first and second convolution; a `Blur` takes the stride over."""
    if choices.blur:
        return 1, 1
    return (step.stride, 1) if choices.strided_conv == 1 else (1, step.stride)


def _dilation(step: Step, choices: Choices) -> int:
    """Of a bottleneck's 3x3 convolution, which comes before the stride or after it."""
    return step.later_dilation if choices.strided_conv == 1 else step.dilation


class PreActResidual(Residual):
    """Activates before the branch (arXiv:1603.05027), which leaves the identity path clean."""

    def shortcut_norm(self, choices: Choices) -> None:
        """None: a projection sees what is normalised already."""

    def forward(self, x: Tensor) -> Tensor:
        """branch(a) + shortcut, a = ReLU(norm(x)); the shortcut is x, or made from a."""
        active = self.relu(self.bn1(x))
        shortcut = x if self.downsample is None else self.downsample(active)
        return self.drop_path(self.se(self.branch(active))) + shortcut


class PreActBlock(PreActResidual):
    """ResidualBlock with every norm and ReLU ahead of its convolution."""

    last = "conv2.weight"
    conv1: Layer
    bn2: Layer
    conv2: Layer

    def convolutions(self, step: Step, width: int, choices: Choices) -> None:
        """3x3 with the stride, 3x3, each after its norm."""
        stride = 1 if choices.blur else step.stride
        self.bn1 = choices.norm(step.in_channels)
        self.relu = relu()
        self.conv1 = choices.conv(step.in_channels, width, 3, stride, step.dilation)
        self.bn2 = choices.norm(width)
        self.conv2 = choices.conv(width, width, 3, dilation=step.later_dilation)

    def branch(self, active: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, width, H/s, W/s)."""
        x = self.blur(self.relu(self.bn2(self.conv1(active))))
        return self.conv2(self.dropout(x))


class PreActBottleneck(PreActResidual):
    """Bottleneck with every norm and ReLU ahead of its convolution."""

    expansion = 4
    last = "conv3.weight"
    conv1: Layer
    bn2: Layer
    conv2: Layer
    bn3: Layer
    conv3: Layer

    def convolutions(self, step: Step, width: int, choices: Choices) -> None:
        """1x1, 3x3, 1x1, each after its norm."""
        inner = width * choices.base_width // 64 * choices.groups
        first, second = _strides(step, choices)
        self.bn1 = choices.norm(step.in_channels)
        self.relu = relu()
        self.conv1 = choices.conv(step.in_channels, inner, 1, first)
        self.bn2 = choices.norm(inner)
        self.conv2 = choices.conv(inner, inner, 3, second, _dilation(step, choices), choices.groups)
        self.bn3 = choices.norm(inner)
        self.conv3 = choices.conv(inner, step.out_channels, 1)

    def branch(self, active: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, 4 * width, H/s, W/s)."""
        x = self.conv2(self.relu(self.bn2(self.conv1(active))))
        x = self.blur(self.relu(self.bn3(x)))
        return self.conv3(self.dropout(x))


BottleneckBlock = Bottleneck

BLOCKS: dict[Block, type[Residual]] = {
    "residual": ResidualBlock,
    "bottleneck": Bottleneck,
    "preact_residual": PreActBlock,
    "preact_bottleneck": PreActBottleneck,
}
