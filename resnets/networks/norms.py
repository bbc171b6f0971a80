"""The norms of residual networks: batch (faster on a CPU than torch's own), group and frozen.

Shapes: N images, C channels, H x W pixels; r pixels are taken together.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from resnets.networks.architecture import Norm
from resnets.networks.layers import is_symbolic, single_node

MakeNorm = Callable[[int], nn.Module]  # for a number of channels


class BatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation (arXiv:1502.03167) that prints the same on every torch.

    Attributes:
        fast_training: train faster on a CPU; its gradients cannot be differentiated again.
    """

    fast_training = False

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        if is_symbolic(x):
            return single_node(self, x)
        fast = self.fast_training and self.training and not torch.compiler.is_compiling()
        if not fast or self.momentum is None or not _narrow_norm_applies(x):
            return super().forward(x)
        out, mean, variance = _narrow_norm(x, self.weight, self.bias, self.eps)
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


def _group_norm(channels: int) -> nn.GroupNorm:
    """Group normalisation (arXiv:1803.08494) in 32 groups, or fewer so that each has 2 channels."""
    return nn.GroupNorm(max(1, math.gcd(64, channels) // 2), channels)


NORMS: dict[Norm, MakeNorm] = {
    "batch": BatchNorm2d,
    "group": _group_norm,
    "frozen": FrozenBatchNorm2d,
}


_WIDE = 128  # channels at which torch's kernels are at their best, on AVX2


def _narrow_norm_applies(x: Tensor) -> bool:
    """Whether `_narrow_norm` takes x (N, C, H, W) and is likely to be faster than torch."""
    channels, pixels = x.shape[1], x.shape[2] * x.shape[3]
    few = channels <= _WIDE // 2 and _WIDE % channels == 0 and pixels % (_WIDE // channels) == 0
    plain = x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_autocast_enabled()
    return few and plain and x.numel() > 0 and x.is_contiguous(memory_format=torch.channels_last)


def _narrow_norm(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Batch normalisation (arXiv:1502.03167, algorithm 1) of few channels by their statistics.

    In channels_last memory torch's kernels go over the channels in their innermost loop, which is
    too short to be fast where there are 16 or 32 of them. Several neighbouring pixels, taken
    together as one pixel with r times the channels, have the same memory: the statistics of those
    are combined into the statistics of the channels.

    The gradient cannot be differentiated again.

    Args:
        x: (N, C, H, W), for which `_narrow_norm_applies`.
        weight: (C,), the scale.
        bias: (C,), the shift.
        eps: added to the variance.

    Returns:
        The normalised images, and the mean and the (biased) variance (C,) that they had.
    """
    result: tuple[Tensor, Tensor, Tensor] = _NarrowNorm.apply(x, weight, bias, eps)  # type: ignore[no-untyped-call]
    return result


class _NarrowNorm(torch.autograd.Function):
    """`_narrow_norm`, with its gradient."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Statistics in one pass, normalisation in another."""
        times = _WIDE // x.shape[1]
        means, variances = torch.batch_norm_update_stats(_together(x), None, None, 0.0)
        means, variances = means.view(times, -1), variances.view(times, -1)
        between, mean = torch.var_mean(means, 0, correction=0)
        variance = variances.mean(0) + between
        inverse = torch.rsqrt(variance + eps)
        scale = weight * inverse
        shift = torch.addcmul(bias, mean, scale, value=-1)
        out = torch.empty_like(x)
        torch.addcmul(_tiled(shift, times), _rows(x), _tiled(scale, times), out=_rows(out))
        ctx.save_for_backward(x, weight, mean, inverse)
        ctx.mark_non_differentiable(mean, variance)
        return out, mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of x, weight and bias: arXiv:1502.03167, section 3."""
        x, weight, mean, inverse = ctx.saved_tensors
        times, count = _WIDE // x.shape[1], x.numel() / x.shape[1]
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        _, by_weight, by_bias = torch.ops.aten.native_batch_norm_backward(
            _together(gradient),
            _together(x),
            *(None, None, None),  # scale and running statistics, of no effect here
            *(_tiled(mean, times), _tiled(inverse, times)),
            *(True, 0.0, [False, True, True]),
        )
        by_weight = by_weight.view(times, -1).sum(0)
        by_bias = by_bias.view(times, -1).sum(0)
        scale = weight * inverse
        slope = scale * inverse * by_weight / -count
        shift = -(scale * by_bias / count + slope * mean)
        out = torch.empty_like(x)
        wide = torch.addcmul(_tiled(shift, times), _rows(x), _tiled(slope, times), out=_rows(out))
        wide.addcmul_(_rows(gradient), _tiled(scale, times))
        return out, by_weight, by_bias, None


def _tiled(values: Tensor, times: int) -> Tensor:
    """(C,) -> (times * C,), as `repeat` does in ten times the time."""
    return values.expand(times, -1).contiguous().view(-1)


def _rows(x: Tensor) -> Tensor:
    """(N, C, H, W) in channels_last -> (N * H * W / r, r * C), the same memory."""
    return x.permute(0, 2, 3, 1).view(-1, _WIDE)


def _together(x: Tensor) -> Tensor:
    """(N, C, H, W) in channels_last -> (N, r * C, H * W / r, 1) in channels_last."""
    return x.permute(0, 2, 3, 1).view(len(x), -1, 1, _WIDE).permute(0, 3, 1, 2)
