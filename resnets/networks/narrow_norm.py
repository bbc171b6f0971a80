"""Batch normalisation of few channels, faster on a CPU than torch's own.

In channels_last memory torch's kernels go over the channels in their innermost loop, which is too
short to be fast where there are 16 or 32 of them. Several neighbouring pixels, taken together as
one pixel with so many times the channels, have the same memory: the statistics of those are
combined into the statistics of the channels.

Shapes: N images, C channels, H x W pixels, r pixels taken together.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

WIDE = 128  # channels at which torch's kernels are at their best, on AVX2


def applies(x: Tensor) -> bool:
    """Whether `normalise` takes x (N, C, H, W) and is likely to be faster than torch."""
    channels, pixels = x.shape[1], x.shape[2] * x.shape[3]
    few = channels <= WIDE // 2 and WIDE % channels == 0 and pixels % (WIDE // channels) == 0
    plain = x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_autocast_enabled()
    return few and plain and x.numel() > 0 and x.is_contiguous(memory_format=torch.channels_last)


def normalise(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Batch normalisation (arXiv:1502.03167, algorithm 1) by the statistics of this batch.

    Its gradient cannot be differentiated again.

    Args:
        x: (N, C, H, W), for which `applies`.
        weight: (C,), the scale.
        bias: (C,), the shift.
        eps: added to the variance.

    Returns:
        The normalised images, and the mean and the (biased) variance (C,) that they had.
    """
    found: tuple[Tensor, Tensor, Tensor] = NarrowNorm.apply(x, weight, bias, eps)  # type: ignore[no-untyped-call]
    return found


class NarrowNorm(torch.autograd.Function):
    """`normalise`, with its gradient."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Statistics in one pass, normalisation in another."""
        times = WIDE // x.shape[1]
        means, variances = torch.batch_norm_update_stats(together(x), None, None, 0.0)
        means, variances = means.view(times, -1), variances.view(times, -1)
        between, mean = torch.var_mean(means, 0, correction=0)
        variance = variances.mean(0) + between
        inverse = torch.rsqrt(variance + eps)
        scale = weight * inverse
        shift = torch.addcmul(bias, mean, scale, value=-1)
        out = torch.empty_like(x)
        torch.addcmul(tiled(shift, times), rows(x), tiled(scale, times), out=rows(out))
        ctx.save_for_backward(x, weight, mean, inverse)
        ctx.mark_non_differentiable(mean, variance)
        return out, mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of x, weight and bias: arXiv:1502.03167, section 3."""
        x, weight, mean, inverse = ctx.saved_tensors
        times, count = WIDE // x.shape[1], x.numel() / x.shape[1]
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        _, by_weight, by_bias = torch.ops.aten.native_batch_norm_backward(
            together(gradient),
            together(x),
            *(None, None, None),  # scale and running statistics, of no effect here
            *(tiled(mean, times), tiled(inverse, times)),
            *(True, 0.0, [False, True, True]),
        )
        by_weight = by_weight.view(times, -1).sum(0)
        by_bias = by_bias.view(times, -1).sum(0)
        scale = weight * inverse
        slope = scale * inverse * by_weight / -count
        shift = -(scale * by_bias / count + slope * mean)
        out = torch.empty_like(x)
        wide = torch.addcmul(tiled(shift, times), rows(x), tiled(slope, times), out=rows(out))
        wide.addcmul_(rows(gradient), tiled(scale, times))
        return out, by_weight, by_bias, None


def tiled(values: Tensor, times: int) -> Tensor:
    """(C,) -> (times * C,), as `repeat` does in ten times the time."""
    return values.expand(times, -1).contiguous().view(-1)


def rows(x: Tensor) -> Tensor:
    """(N, C, H, W) in channels_last -> (N * H * W / r, r * C), the same memory."""
    return x.permute(0, 2, 3, 1).view(-1, WIDE)


def together(x: Tensor) -> Tensor:
    """(N, C, H, W) in channels_last -> (N, r * C, H * W / r, 1) in channels_last."""
    return x.permute(0, 2, 3, 1).view(len(x), -1, 1, WIDE).permute(0, 3, 1, 2)
