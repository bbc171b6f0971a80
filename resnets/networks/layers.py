"""The layers of residual blocks that torch lacks or prints otherwise.

Shapes: N images, C channels, H x W pixels.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnets.networks import narrow_norm
from resnets.networks.architecture import Attention, Norm

Layer = Callable[[Tensor], Tensor]


def same(x: Tensor) -> Tensor:
    """No layer: a plain function, which a module neither prints nor stores."""
    return x


def conv(
    in_channels: int,
    out_channels: int,
    size: int,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
) -> nn.Conv2d:
    """A convolution without bias (a norm follows) that changes H x W only by its stride."""
    padding = dilation * (size // 2)
    return nn.Conv2d(
        in_channels, out_channels, size, stride, padding, dilation, groups=groups, bias=False
    )


def relu() -> nn.ReLU:
    """max(x, 0), in place: what comes before is a norm, which does not need its output."""
    return nn.ReLU(inplace=True)


class BatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation (arXiv:1502.03167) that prints the same on every torch.

    Attributes:
        hurried: whether to train faster on a CPU, by gradients that cannot be differentiated again.
    """

    hurried = False

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        hurried = self.hurried and self.training and not torch.compiler.is_compiling()
        if not hurried or self.momentum is None or not narrow_norm.applies(x):
            return super().forward(x)
        out, mean, variance = narrow_norm.normalise(x, self.weight, self.bias, self.eps)
        count = x.numel() / self.num_features
        if self.running_mean is not None and self.running_var is not None:
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
            self.get_buffer("num_batches_tracked").add_(1)
        return out

    def extra_repr(self) -> str:
        """What torch printed until 2.12; since 2.13 it adds ``bias``."""
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, "
            f"affine={self.affine}, track_running_stats={self.track_running_stats}"
        )


class FrozenBatchNorm2d(nn.Module):
    """Batch normalisation with statistics, scale and shift that never change.

    Loads what a `BatchNorm2d` stored.
    """

    def __init__(self, channels: int, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        statistics = self.get_buffer("running_mean"), self.get_buffer("running_var")
        return F.batch_norm(
            x, *statistics, self.get_buffer("weight"), self.get_buffer("bias"), eps=self.eps
        )

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *others: Any) -> None:
        state.pop(prefix + "num_batches_tracked", None)
        super()._load_from_state_dict(state, prefix, *others)

    def extra_repr(self) -> str:
        """Channels and epsilon."""
        return f"{self.get_buffer('weight').numel()}, eps={self.eps}"


def group_norm(channels: int) -> nn.GroupNorm:
    """Group normalisation (arXiv:1803.08494) in 32 groups, or fewer so that each has 2 channels."""
    return nn.GroupNorm(max(1, math.gcd(64, channels) // 2), channels)


NORMS: dict[Norm, Callable[[int], nn.Module]] = {
    "batch": BatchNorm2d,
    "group": group_norm,
    "frozen": FrozenBatchNorm2d,
}


class SqueezeExcitation(nn.Module):
    """Scales each channel by what all channels' means say (arXiv:1709.01507, equations 2 to 4).

    The inner width is a multiple of 8, as in timm, whose names the parameters have.
    """

    def __init__(self, channels: int, reduction: int = 16):
        super().__init__()
        inner = max(8, int(channels / reduction + 4) // 8 * 8)
        self.fc1: Layer = nn.Conv2d(channels, inner, 1)
        self.relu: Layer = relu()
        self.fc2: Layer = nn.Conv2d(inner, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        mean = x.mean((2, 3), keepdim=True)
        return x * self.fc2(self.relu(self.fc1(mean))).sigmoid()


class EfficientAttention(nn.Module):
    """Scales each channel by its own and its neighbours' means (arXiv:1910.03151, equation 9).

    The kernel grows with the logarithm of the channels (equation 12 with gamma 2 and b 1).
    """

    def __init__(self, channels: int, _reduction: int = 16):
        super().__init__()
        size = int((math.log2(channels) + 1) / 2)
        size = max(3, size + 1 - size % 2)
        self.conv: Layer = nn.Conv1d(1, 1, size, padding=size // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        mean = x.mean((2, 3)).unsqueeze(1)
        return x * self.conv(mean).sigmoid().squeeze(1)[:, :, None, None]


def no_attention(_channels: int, _reduction: int = 16) -> Layer:
    """Every channel as it is."""
    return same


ATTENTIONS: dict[Attention, Callable[[int, int], Layer]] = {
    "none": no_attention,
    "se": SqueezeExcitation,
    "eca": EfficientAttention,
}


class StochasticDepth(nn.Module):
    """Drops whole images of a branch in training, and scales the others up (arXiv:1603.09382).

    Args:
        p: probability of dropping, from 0 up to, but not, 1.
    """

    def __init__(self, p: float):
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        if not self.training:
            return x
        keep = 1 - self.p
        kept = x.new_empty((x.shape[0], 1, 1, 1)).bernoulli_(keep)
        return x * (kept / keep)

    def extra_repr(self) -> str:
        """The probability of dropping."""
        return f"p={self.p}"


def neighbours_mean(x: Tensor, dilation: int) -> Tensor:
    """Mean of each pixel and those ``dilation`` to the right, below and diagonally below it.

    (N, C, H, W) -> (N, C, H - dilation, W - dilation)
    """
    rows = (x[:, :, :-dilation] + x[:, :, dilation:]) / 2
    return (rows[..., :-dilation] + rows[..., dilation:]) / 2


class DilatedAverage(nn.Module):
    """What 2x2 average pooling becomes when its stride, and those before it, are taken out."""

    def __init__(self, dilation: int):
        super().__init__()
        self.dilation = dilation

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        return neighbours_mean(
            F.pad(x, (0, self.dilation, 0, self.dilation), "replicate"), self.dilation
        )

    def extra_repr(self) -> str:
        """The dilation."""
        return f"dilation={self.dilation}"


class Blur(nn.Module):
    """Binomial 3x3 filter before subsampling (arXiv:1904.11486): two 2x2 averages.

    Borders reflect. With ``stride`` 1 the filter may be dilated.
    """

    def __init__(self, stride: int = 2, dilation: int = 1):
        super().__init__()
        self.stride = stride
        self.dilation = dilation

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H/stride, W/stride)."""
        padded = F.pad(x, (self.dilation,) * 4, "reflect")
        if self.dilation > 1:
            return neighbours_mean(neighbours_mean(padded, self.dilation), self.dilation)
        return F.avg_pool2d(F.avg_pool2d(padded, 2, 1), 2, self.stride)

    def extra_repr(self) -> str:
        """Stride, and dilation if any."""
        dilation = f", dilation={self.dilation}" if self.dilation > 1 else ""
        return f"stride={self.stride}{dilation}"
