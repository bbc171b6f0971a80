"""The layers of residual blocks that torch lacks or prints otherwise.

Shapes: N images, C channels, H x W pixels.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from torch import Tensor, nn
from torch.fx import Proxy
from torch.nn import functional as F

from resnets.networks.architecture import Attention, Filter

Layer = Callable[[Tensor], Tensor]


def same(x: Tensor) -> Tensor:
    """No layer: a plain function, which a module neither prints nor stores."""
    return x


def is_symbolic(x: object) -> bool:
    """Whether x stands for a tensor while torch.fx traces a graph."""
    return isinstance(x, Proxy)


def single_node(module: nn.Module, x: Any) -> Tensor:
    """A call of ``module`` as one node of the graph that torch.fx traces.

    Torch's own layers are such nodes, too. What depends on the mode, training or evaluation, must
    be: otherwise the graph would stay for ever in the mode of the moment in which it was traced.
    """
    path = x.tracer.path_of_module(module)
    return cast("Tensor", x.tracer.create_proxy("call_module", path, (x,), {}))


def conv(
    in_channels: int,
    out_channels: int,
    size: int,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    kind: type[nn.Conv2d] = nn.Conv2d,
) -> nn.Conv2d:
    """A convolution without bias (a norm follows) that changes H x W only by its stride."""
    padding = dilation * (size // 2)
    return kind(
        in_channels, out_channels, size, stride, padding, dilation, groups=groups, bias=False
    )


class StandardisedConv2d(nn.Conv2d):
    """A convolution whose filters are used with mean 0 and variance 1 (arXiv:1903.10520).

    Equations 6 to 8, with BiT's epsilon; the weights are stored as they are learned.
    """

    eps = 1e-8

    def standardised(self) -> Tensor:
        """The weights that the convolution uses."""
        centred = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        variance = centred.square().mean((1, 2, 3), keepdim=True)
        return centred * (variance + self.eps).rsqrt()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, out_channels, H/stride, W/stride)."""
        weight, bias = self.standardised(), self.bias
        return F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)


MakeConv = Callable[..., nn.Conv2d]

CONVOLUTIONS: dict[bool, MakeConv] = {  # with weight standardisation or without
    False: conv,
    True: partial(conv, kind=StandardisedConv2d),
}


def relu() -> nn.ReLU:
    """max(x, 0), in place: what comes before is a norm, which does not need its output."""
    return nn.ReLU(inplace=True)


class SqueezeExcitation(nn.Module):
    """Scales each channel by a gate made from the means of all channels.

    arXiv:1709.01507, equations 2 to 4.

    The inner width is a multiple of 8, and the parameters have the same names, as in timm.
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
        p: probability of dropping: 0 or more, and less than 1.
    """

    def __init__(self, p: float):
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        if is_symbolic(x):
            return single_node(self, x)
        if not self.training:
            return x
        keep = 1 - self.p
        mask = x.new_empty((x.shape[0], 1, 1, 1)).bernoulli_(keep)
        return x * (mask / keep)

    def extra_repr(self) -> str:
        """The probability of dropping."""
        return f"p={self.p}"


def _neighbours_mean(x: Tensor, dilation: int) -> Tensor:
    """Mean of each pixel and those ``dilation`` to the right, below and diagonally below it.

    (N, C, H, W) -> (N, C, H - dilation, W - dilation)
    """
    rows = (x[:, :, :-dilation] + x[:, :, dilation:]) / 2
    return (rows[..., :-dilation] + rows[..., dilation:]) / 2


class DilatedAverage(nn.Module):
    """2x2 average pooling without its stride, dilated for the strides removed before it."""

    def __init__(self, dilation: int):
        super().__init__()
        self.dilation = dilation

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        return _neighbours_mean(
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
            return _neighbours_mean(_neighbours_mean(padded, self.dilation), self.dilation)
        return F.avg_pool2d(F.avg_pool2d(padded, 2, 1), 2, self.stride)

    def extra_repr(self) -> str:
        """Stride, and dilation if any."""
        dilation = f", dilation={self.dilation}" if self.dilation > 1 else ""
        return f"stride={self.stride}{dilation}"


def _average(stride: int = 2, dilation: int = 1) -> nn.Module:
    """The mean of 2x2 pixels in the place of a stride of 2, or of a removed one."""
    return nn.AvgPool2d(2, stride, ceil_mode=True) if stride > 1 else DilatedAverage(dilation)


MakeFilter = Callable[[int, int], nn.Module]

FILTERS: dict[Filter, MakeFilter | None] = {False: None, True: Blur, "average": _average}
