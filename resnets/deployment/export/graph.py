"""The network as it is exported: from raw images to calibrated probabilities, in one graph.

Shapes: B images of a batch, H x W pixels of any size, C channels, S the side that the network
sees, K classes, F features.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from resnets.images import Preprocessing
from resnets.model_file import Model
from resnets.networks import ResNet
from resnets.networks.norms import FrozenBatchNorm2d

_NORMS = (nn.BatchNorm2d, FrozenBatchNorm2d)


def _folded(network: ResNet) -> ResNet:
    """A copy in evaluation mode in which no batch norm follows a convolution directly.

    Norms that stand before a convolution with a ReLU between, as the first of a pre-activation
    block does, stay. Computed in float64, kept in the network's type.
    """
    result = copy.deepcopy(network).eval()
    for convolution, norm in _norms_after_convolutions(result):
        _fold(result.get_submodule(convolution), result.get_submodule(norm))
        owner, _, name = norm.rpartition(".")
        setattr(result.get_submodule(owner), name, nn.Identity())
    return result


def _norms_after_convolutions(network: ResNet) -> list[tuple[str, str]]:
    """Names of each convolution and of the batch norm that takes just what comes out of it."""
    made: list[tuple[Tensor, str]] = []  # tensors are kept, so that no two have one address
    pairs: list[tuple[str, str]] = []

    def watch(name: str) -> Any:
        def hook(module: nn.Module, given: tuple[Tensor, ...], result: Tensor) -> None:
            if isinstance(module, nn.Conv2d):
                made.append((result, name))
            else:
                pairs.extend((conv, name) for tensor, conv in made if tensor is given[0])

        return hook

    watched = [(n, m) for n, m in network.named_modules() if isinstance(m, (nn.Conv2d, *_NORMS))]
    handles = [module.register_forward_hook(watch(name)) for name, module in watched]
    architecture = network.architecture
    side = architecture.stem_stride * 2 ** (len(architecture.depths) - 1)
    like = next(network.parameters())
    with torch.no_grad():
        network(like.new_zeros((1, architecture.in_channels, 2 * side, 2 * side)))
    for handle in handles:
        handle.remove()
    return pairs


def _fold(convolution: Any, norm: Any) -> None:
    """Scale and shift a convolution as the batch norm after it does. In place."""
    bias = None if convolution.bias is None else convolution.bias.double()
    new_weight, new_bias = fuse_conv_bn_weights(
        convolution.weight.double(),
        bias,
        norm.running_mean.double(),
        norm.running_var.double(),
        norm.eps,
        norm.weight.double(),
        norm.bias.double(),
    )
    kind = convolution.weight.dtype
    convolution.weight = nn.Parameter(new_weight.to(kind), requires_grad=False)
    convolution.bias = nn.Parameter(new_bias.to(kind), requires_grad=False)


_WEIGHT_BITS = 22  # of Pillow's weights when it resizes 8-bit images (its PRECISION_BITS)
_HALF = 2 ** (_WEIGHT_BITS // 2)


class _Deployed(nn.Module):
    """Preprocessing, network with folded batch norms, and softmax at the fitted temperature.

    (B, H, W, C) uint8 -> probabilities (B, K) and features (B, F), float32.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, network: ResNet, preprocessing: Preprocessing, temperature: float) -> None:
        super().__init__()
        self.network = _folded(network).float()
        self.preprocessing = preprocessing
        mean = torch.tensor(preprocessing.mean, dtype=torch.float64)
        std = torch.tensor(preprocessing.std, dtype=torch.float64)
        self.register_buffer("scale", (1 / (255 * std)).float()[:, None, None])
        self.register_buffer("shift", (mean / std).float()[:, None, None])
        with torch.no_grad():
            for parameter in self.network.get_submodule("fc").parameters():
                parameter.div_(temperature)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, H, W, C) uint8 -> (B, K), (B, F)."""
        pixels = _see(images, self.preprocessing).permute(0, 3, 1, 2)
        features = self.network.embed(pixels * self.scale - self.shift)
        return self.network.fc(features).softmax(1), features


def deployed(model: Model) -> _Deployed:
    """A model as it is exported, on the CPU."""
    description = model.description
    temperature = float(description.calibration.get("temperature", 1.0))
    return _Deployed(model.network, description.preprocessing, temperature).cpu().eval()


def _see(images: Tensor, preprocessing: Preprocessing) -> Tensor:
    """What `Preprocessing.pixels` makes of images: (B, H, W, C) uint8 -> (B, S, S, C) float32.

    By two multiplications with matrices, as the resizing of no two runtimes agrees: where no
    resizing is due they are those of a crop, bit for bit. Else they hold Pillow's own weights,
    up to what Pillow loses by keeping corners of boxes as float32.
    """
    _, height, width, channels = images.shape
    shorter = torch.sym_min(height, width)  # type: ignore[no-untyped-call]
    side, resize = preprocessing.size, preprocessing.resize
    columns = _weights(width, resize * width // shorter, side)
    rows = _weights(height, resize * height // shorter, side)
    across = _weighted(columns, images.float())  # first along rows, as Pillow
    return _weighted(rows, across.flatten(2)).reshape(-1, side, side, channels)


def _weights(length: int, resized: int, side: int) -> tuple[Tensor, Tensor]:
    """How much each of `length` pixels counts in each of the `side` in the middle of `resized`.

    A triangle as wide as two pixels of the coarser grid, as in `resnets.images.resizing`. Places
    are kept as whole numbers and fractions, so that float32 is enough on runtimes without float64.

    Returns:
        Two matrices (side, length) of whole numbers, upper and lower half of weights of 22 bits.
    """
    middles = (2 * ((resized - side) // 2 + torch.arange(side)) + 1) * length  # / (2 resized)
    whole = torch.div(middles, 2 * resized, rounding_mode="floor")
    rest = (middles - whole * (2 * resized)).float() / (2 * resized)
    distance = (torch.arange(length) - whole[:, None]).float() + (0.5 - rest[:, None])
    narrow = torch.clamp(torch.tensor(1.0) * resized / length, max=1.0)
    triangle = (1 - (distance * narrow).abs()).clamp(min=0)
    share = triangle / triangle.sum(1, keepdim=True)
    bits = torch.floor(share * 2**_WEIGHT_BITS + 0.5)
    upper = torch.floor(bits / _HALF)
    return upper, bits - upper * _HALF


def _weighted(halves: tuple[Tensor, Tensor], values: Tensor) -> Tensor:
    """Weighted means of 8-bit values, rounded as Pillow rounds: (side, L), (..., L, M) -> (..., M).

    In float32, each of whose whole numbers up to 2**24 is exact; Pillow uses integers of 32 bits.
    """
    upper, lower = halves
    carry = torch.floor(lower @ values / _HALF)
    return torch.floor((upper @ values + carry + _HALF / 2) / _HALF)
