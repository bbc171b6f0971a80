"""The module that is exported: from raw images to calibrated probabilities, in one graph.

Shapes: B images of a batch, H x W pixels of any size, C channels, S the side of the network's
input, K classes, F features.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from resnets.images import Preprocessing
from resnets.images.vectorised import cubic, triangle
from resnets.model_file import Model
from resnets.networks import ResNet
from resnets.networks.layers import StandardisedConv2d
from resnets.networks.norms import FrozenBatchNorm2d

_NORMS = (nn.BatchNorm2d, FrozenBatchNorm2d)


def _folded(network: ResNet) -> ResNet:
    """A copy in evaluation mode with each batch norm folded into the convolution before it.

    Norms that do not directly follow a convolution stay, such as the first of a pre-activation
    block. Computed in float64, stored in the network's type.
    """
    result = _with_plain_convolutions(copy.deepcopy(network).eval())
    for convolution, norm in _norms_after_convolutions(result):
        _fold(result.get_submodule(convolution), result.get_submodule(norm))
        owner, _, name = norm.rpartition(".")
        setattr(result.get_submodule(owner), name, nn.Identity())
    return result


def _with_plain_convolutions(network: ResNet) -> ResNet:
    """The network with the weights that standardised convolutions use. In place."""
    for name, module in list(network.named_modules()):
        if isinstance(module, StandardisedConv2d):
            plain = nn.Conv2d(
                module.in_channels,
                module.out_channels,
                module.kernel_size,  # type: ignore[arg-type]
                module.stride,  # type: ignore[arg-type]
                module.padding,  # type: ignore[arg-type]
                module.dilation,  # type: ignore[arg-type]
                module.groups,
                bias=False,
            )
            kind = module.weight.dtype
            weight = copy.deepcopy(module).double().standardised().to(kind).detach()
            plain.weight = nn.Parameter(weight, requires_grad=False)
            owner, _, part = name.rpartition(".")
            setattr(network.get_submodule(owner), part, plain)
    return network


def _norms_after_convolutions(network: ResNet) -> list[tuple[str, str]]:
    """Names of each convolution and of the batch norm whose input is its output."""
    # the list keeps the tensors alive, so that no two have the same address
    convolution_outputs: list[tuple[Tensor, str]] = []
    pairs: list[tuple[str, str]] = []

    def hook_for(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], result: Tensor) -> None:
            if isinstance(module, nn.Conv2d):
                convolution_outputs.append((result, name))
            else:
                pairs.extend(
                    (conv, name) for tensor, conv in convolution_outputs if tensor is inputs[0]
                )

        return hook

    layers = [
        (name, module)
        for name, module in network.named_modules()
        if isinstance(module, (nn.Conv2d, *_NORMS))
    ]
    handles = [module.register_forward_hook(hook_for(name)) for name, module in layers]
    architecture = network.architecture
    side = architecture.stem_stride * 2 ** (len(architecture.depths) - 1)
    like = next(network.parameters())
    with torch.no_grad():
        network(like.new_zeros((1, architecture.in_channels, 2 * side, 2 * side)))
    for handle in handles:
        handle.remove()
    return pairs


def _fold(convolution: Any, norm: Any) -> None:
    """Fold a batch norm into the weights of the convolution before it. In place."""
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
        pixels = _resized_and_cropped(images, self.preprocessing).permute(0, 3, 1, 2)
        features = self.network.embed(pixels * self.scale - self.shift)
        return self.network.fc(features).softmax(1), features


def deployed(model: Model) -> _Deployed:
    """The module that is exported, on the CPU."""
    description = model.description
    temperature = float(description.calibration.get("temperature", 1.0))
    return _Deployed(model.network, description.preprocessing, temperature).cpu().eval()


def _resized_and_cropped(images: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Resize and crop as `Preprocessing.pixels`: (B, H, W, C) uint8 -> (B, S, S, C) float32.

    By two matrix multiplications, since no two runtimes resize alike. Without resizing, the
    matrices are those of a crop, bit for bit. Otherwise they hold Pillow's weights, except that
    Pillow rounds the corners of boxes to float32.
    """
    _, height, width, channels = images.shape
    side = preprocessing.size
    resized_height, resized_width = _resized_shape(height, width, preprocessing)
    columns = _weights(width, resized_width, preprocessing)
    rows = _weights(height, resized_height, preprocessing)
    means = _clipped_means if preprocessing.interpolation == "bicubic" else _weighted_means
    across = means(columns, images.float())  # horizontally first, as in Pillow
    pixels = means(rows, across.flatten(2)).reshape(-1, side, side, channels)
    if preprocessing.crop_mode != "border":
        return pixels
    inside = _inside(resized_height, preprocessing)[:, None] * _inside(resized_width, preprocessing)
    return _with_border(pixels, inside[..., None], preprocessing.fill)


def _resized_shape(height: Any, width: Any, preprocessing: Preprocessing) -> tuple[Any, Any]:
    """`Preprocessing.resized` of symbolic sizes."""
    resize = preprocessing.resize
    if preprocessing.crop_mode == "squash":
        return resize, resize
    if preprocessing.crop_mode == "border":
        longer = torch.sym_max(height, width)  # type: ignore[no-untyped-call]
        return _rounded(resize * height, longer), _rounded(resize * width, longer)
    shorter = torch.sym_min(height, width)  # type: ignore[no-untyped-call]
    return resize * height // shorter, resize * width // shorter


def _rounded(numerator: Any, denominator: Any) -> Any:
    """A symbolic quotient, rounded, halves to even; at least 1. See `resizing.bordered_shape`."""
    doubled = 2 * numerator + denominator
    quotient = doubled // (2 * denominator)
    rest = doubled - quotient * 2 * denominator
    is_tie = 1 - torch.sym_min(rest, 1)  # type: ignore[no-untyped-call]
    is_odd = quotient - quotient // 2 * 2
    return torch.sym_max(quotient - is_tie * is_odd, 1)  # type: ignore[no-untyped-call]


def _places(resized: Any, preprocessing: Preprocessing) -> Tensor:
    """The places (S,) of the network's pixels on a side of the resized image; outside in borders.

    As `resizing.crop_start` of a symbolic length.
    """
    side = preprocessing.size
    excess, start = resized - side, 0
    if preprocessing.crop_mode == "border":
        missing = torch.sym_max(-excess, 0)  # type: ignore[no-untyped-call]
        excess = torch.sym_max(excess, 0)  # type: ignore[no-untyped-call]
        start = -(missing // 2)
    start = start + excess // 2
    if preprocessing.crop_rounding == "even":
        start = start + (excess - excess // 4 * 4) // 3  # 1 where the excess is 3, 7, 11 ...
    places: Tensor = start + torch.arange(side)
    return places


def _inside(resized: Any, preprocessing: Preprocessing) -> Tensor:
    """1 where the image is, 0 in a border: (S,) float32."""
    places = _places(resized, preprocessing)
    inside: Tensor = (places + 1).clamp(0, 1) * (resized - places).clamp(0, 1)
    return inside.float()


def _with_border(pixels: Tensor, inside: Tensor, fill: tuple[int, ...]) -> Tensor:
    """Pixels (B, S, S, C) with a colour where `inside` (S, S, 1) is 0."""
    return pixels * inside + torch.tensor(fill, dtype=torch.float32) * (1 - inside)


def _weights(length: Any, resized: Any, preprocessing: Preprocessing) -> tuple[Tensor, Tensor]:
    """The weight of each of `length` pixels in each of the S that the network sees.

    Coordinates are split into integers and fractions, so that float32 is precise enough on runtimes
    without float64.

    Args:
        length: of a side of the image, in pixels.
        resized: of that side after resizing.
        preprocessing: which of these the network sees, and which filter computes them.

    Returns:
        Two matrices (S, length) of integers: upper and lower half of weights of 22 bits.
    """
    places = _places(resized, preprocessing)
    if preprocessing.crop_mode == "border":  # weights of the border are not used, but finite
        places = places.clamp(min=0)
        places = places - (places - (resized - 1)).clamp(min=0)
    kernel = cubic if preprocessing.interpolation == "bicubic" else triangle
    centres = (2 * places + 1) * length  # / (2 resized)
    integers = torch.div(centres, 2 * resized, rounding_mode="floor")
    fractions = (centres - integers * (2 * resized)).float() / (2 * resized)
    distance = (torch.arange(length) - integers[:, None]).float() + (0.5 - fractions[:, None])
    scale = torch.clamp(torch.tensor(1.0) * resized / length, max=1.0)
    values = kernel((distance * scale).abs())
    share = values / values.sum(1, keepdim=True)
    bits = torch.floor(share * 2**_WEIGHT_BITS + 0.5)
    upper = torch.floor(bits / _HALF)
    return upper, bits - upper * _HALF


def _weighted_means(halves: tuple[Tensor, Tensor], values: Tensor) -> Tensor:
    """Weighted means of 8-bit values, rounded as Pillow rounds: (side, L), (..., L, M) -> (..., M).

    In float32, in which integers up to 2**24 are exact; Pillow uses integers of 32 bits.
    """
    upper, lower = halves
    carry = torch.floor(lower @ values / _HALF)
    return torch.floor((upper @ values + carry + _HALF / 2) / _HALF)


def _clipped_means(halves: tuple[Tensor, Tensor], values: Tensor) -> Tensor:
    """The same of a filter with negative weights, which overshoots at edges."""
    return _weighted_means(halves, values).clamp(0, 255)
