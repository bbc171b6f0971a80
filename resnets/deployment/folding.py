"""Batch norms folded into the convolutions before them: the same function in fewer steps."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from resnets.networks import ResNet
from resnets.networks.layers import FrozenBatchNorm2d

NORMS = (nn.BatchNorm2d, FrozenBatchNorm2d)


def folded(network: ResNet) -> ResNet:
    """A copy in evaluation mode in which no batch norm follows a convolution directly.

    Norms that stand before a convolution with a ReLU between, as the first of a pre-activation
    block does, stay. Computed in float64, kept in the network's type.
    """
    result = copy.deepcopy(network).eval()
    for convolution, norm in norms_after_convolutions(result):
        fold(result.get_submodule(convolution), result.get_submodule(norm))
        owner, _, name = norm.rpartition(".")
        setattr(result.get_submodule(owner), name, nn.Identity())
    return result


def norms_after_convolutions(network: ResNet) -> list[tuple[str, str]]:
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

    watched = [(n, m) for n, m in network.named_modules() if isinstance(m, (nn.Conv2d, *NORMS))]
    handles = [module.register_forward_hook(watch(name)) for name, module in watched]
    architecture = network.architecture
    side = architecture.stem_stride * 2 ** (len(architecture.depths) - 1)
    like = next(network.parameters())
    with torch.no_grad():
        network(like.new_zeros((1, architecture.in_channels, 2 * side, 2 * side)))
    for handle in handles:
        handle.remove()
    return pairs


def fold(convolution: Any, norm: Any) -> None:
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
