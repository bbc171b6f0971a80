"""Shortcuts: what is added to a block's branch where the identity will not do.

Each function takes a `Step` and returns a module, or None for the identity.
"""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from resnets.networks.architecture import Shortcut
from resnets.networks.layers import DilatedAverage, conv


class Step(NamedTuple):
    """How a block changes the shape.

    Attributes:
        in_channels: channels that come in.
        out_channels: channels that go out.
        stride: H x W are divided by it.
        dilation: of what comes before the stride, or before where it was taken out.
        removed: whether a stride of 2 was taken out, so that what comes after it is dilated.
    """

    in_channels: int
    out_channels: int
    stride: int = 1
    dilation: int = 1
    removed: bool = False

    @property
    def later_dilation(self) -> int:
        """Dilation of what comes after the stride."""
        return self.dilation * 2 if self.removed else self.dilation

    @property
    def subsamples(self) -> bool:
        """Whether there is a stride, or was."""
        return self.stride > 1 or self.removed

    @property
    def keeps_shape(self) -> bool:
        """Whether what comes out has the shape of what comes in."""
        return self.stride == 1 and self.in_channels == self.out_channels


MakeNorm = Callable[[int], nn.Module]
MakeShortcut = Callable[[Step, MakeNorm | None], nn.Module | None]


class ZeroPadding(nn.Module):
    """Option A of arXiv:1512.03385: every other pixel, and channels of zeros on both sides."""

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        self.in_channels, self.out_channels, self.stride = in_channels, out_channels, stride

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, H/stride, W/stride)."""
        extra = self.out_channels - self.in_channels
        x = F.avg_pool2d(x, 1, self.stride)  # x[:, :, ::stride, ::stride], with a cheaper gradient
        return F.pad(x, (0, 0, 0, 0, extra // 2, extra - extra // 2))

    def extra_repr(self) -> str:
        """Channels and stride."""
        return f"{self.in_channels}, {self.out_channels}, stride={self.stride}"


class NoShortcut(nn.Module):
    """Nothing to add: the plain networks of arXiv:1512.03385, section 3.3."""

    def forward(self, x: Tensor) -> Tensor:
        """A zero without dimensions."""
        return x.new_zeros(())


def _sequence(*parts: nn.Module | None) -> nn.Sequential:
    return nn.Sequential(*(part for part in parts if part is not None))


def projection_everywhere(step: Step, norm: MakeNorm | None, size: int = 1) -> nn.Sequential:
    """Option C of arXiv:1512.03385: a convolution, and a norm unless the block comes before it."""
    convolution = conv(step.in_channels, step.out_channels, size, step.stride, step.dilation)
    return _sequence(convolution, norm and norm(step.out_channels))


def projection(step: Step, norm: MakeNorm | None) -> nn.Sequential | None:
    """Option B of arXiv:1512.03385: a strided 1x1 convolution where the shape changes."""
    narrow = step._replace(dilation=1)  # a single tap has no dilation
    return None if step.keeps_shape else projection_everywhere(narrow, norm)


def projection3x3(step: Step, norm: MakeNorm | None) -> nn.Sequential | None:
    """Option B with a 3x3 convolution, which sees every pixel."""
    return None if step.keeps_shape else projection_everywhere(step, norm, size=3)


def pooled(step: Step, norm: MakeNorm | None) -> nn.Sequential | None:
    """Shortcut D of arXiv:1812.01187: average before projecting, so that no pixel is skipped."""
    if step.keeps_shape:
        return None
    pool: nn.Module = nn.Identity()
    if step.removed:
        pool = DilatedAverage(step.dilation)
    elif step.stride > 1:
        pool = nn.AvgPool2d(2, step.stride, ceil_mode=True)
    convolution = conv(step.in_channels, step.out_channels, 1)
    return _sequence(pool, convolution, norm and norm(step.out_channels))


def padding(step: Step, _norm: MakeNorm | None) -> ZeroPadding | None:
    """Option A of arXiv:1512.03385: nothing to learn or to normalise."""
    return None if step.keeps_shape else ZeroPadding(*step[:3])


def activated(shortcut: MakeShortcut) -> MakeShortcut:
    """The same, but a module where ``shortcut`` gives None, so that it sees what is activated."""

    def make(step: Step, norm: MakeNorm | None) -> nn.Module:
        return shortcut(step, norm) or nn.Identity()

    return make


def none(_step: Step, _norm: MakeNorm | None) -> NoShortcut:
    """A plain network: nothing is added to any block's branch."""
    return NoShortcut()


SHORTCUTS: dict[Shortcut, MakeShortcut] = {
    "projection": projection,
    "padding": padding,
    "projection_everywhere": lambda step, norm: projection_everywhere(
        step._replace(dilation=1), norm
    ),
    "projection3x3": projection3x3,
    "pooled": pooled,
    "none": none,
}
