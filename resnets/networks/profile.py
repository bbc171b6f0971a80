"""What a network costs: measured on a network without storage, so that its size does not matter."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from resnets.errors import UsageError
from resnets.networks.architecture import Architecture
from resnets.networks.layers import Blur, DilatedAverage
from resnets.networks.resnet import ResNet, build

_IMAGES = 2  # in the batch that is measured: batch normalisation cannot train on a single value


@dataclass
class Part:
    """The stem, a stage or the head.

    Attributes:
        name: ``stem``, ``layer1`` ... or ``head``.
        shape: of its output for one image: (C, H, W), or (K,) after the classifier.
        blocks: how many there are in a stage.
        parameters: how many numbers it learns.
        multiply_adds: of its convolutions and fully connected layers.
        receptive_field: side, in pixels of the image, of the square that one output pixel sees
            along the longest path.
        activation_bytes: bytes saved per image for the backward pass.
    """

    name: str
    shape: tuple[int, ...] = ()
    blocks: int = 0
    parameters: int = 0
    multiply_adds: int = 0
    receptive_field: int = 1
    activation_bytes: int = 0


@dataclass(frozen=True)
class Profile:
    """What a network costs for one image of ``size`` x ``size`` pixels, in float32."""

    size: int
    parts: tuple[Part, ...]

    @property
    def parameters(self) -> int:
        """How many numbers the network learns."""
        return sum(part.parameters for part in self.parts)

    @property
    def multiply_adds(self) -> int:
        """Of convolutions and fully connected layers, which is what the papers count."""
        return sum(part.multiply_adds for part in self.parts)

    @property
    def activation_bytes(self) -> int:
        """Bytes saved per image for the backward pass."""
        return sum(part.activation_bytes for part in self.parts)


def profile(architecture: Architecture, size: int) -> Profile:
    """Measure a network.

    Args:
        architecture: of the network, which is built without storage.
        size: height and width of the images, in pixels.

    Raises:
        UsageError: if the images are too small for the network.

    >>> from resnets.networks import CATALOG
    >>> profile(CATALOG["resnet18"].architecture, 224).multiply_adds
    1814073344
    """
    if size < 1:
        raise UsageError(f"size is {size}; it is a number of pixels from 1 up")
    with torch.device("meta"):
        network = build(architecture).train()
        images = torch.zeros(_IMAGES, architecture.in_channels, size, size)
        meter = _Meter(network)
        with saved_tensors_hooks(meter.keep, lambda tensor: tensor):
            network(images)
    return Profile(size, tuple(meter.parts.values()))


class _Meter:
    """Sums up, part by part, what happens while a network runs once."""

    def __init__(self, network: ResNet):
        self.parts: dict[str, Part] = {}
        self.field, self.jump = 1, 1  # side of what a pixel sees; distance of pixels, in the image
        self.saved: dict[int, Tensor] = {}  # by storage; held, so that no storage is used again
        self.learned = {_storage(parameter) for parameter in network.parameters()}
        depths = network.architecture.depths
        for name, child in network.named_children():
            home = _home(name, after_stages=f"layer{len(depths)}" in self.parts)
            part = self.parts.setdefault(home, Part(home))
            part.blocks = depths[int(name[5:]) - 1] if name.startswith("layer") else 0
            part.parameters += sum(parameter.numel() for parameter in child.parameters())
            child.register_forward_pre_hook(partial(self.enter, part))
            for inner, module in child.named_modules():
                module.register_forward_hook(partial(self.count, part))
                if not {"downsample", "se"} & set(inner.split(".")):
                    module.register_forward_hook(self.widen)
            child.register_forward_hook(partial(self.leave, part))
        self.part = self.parts["stem"]

    def enter(self, part: Part, *_: object) -> None:
        """A child of the network starts."""
        self.part = part

    def leave(self, part: Part, _module: nn.Module, _inputs: object, output: Tensor) -> None:
        """A child of the network has run."""
        part.shape, part.receptive_field = tuple(output.shape[1:]), self.field

    def count(self, part: Part, module: nn.Module, _inputs: object, output: Tensor) -> None:
        """Multiply-adds: what each output is the sum of."""
        if isinstance(module, nn.Conv2d | nn.Conv1d | nn.Linear):
            terms = module.weight.numel() // module.weight.shape[0]
            part.multiply_adds += output.numel() // _IMAGES * terms

    def widen(self, module: nn.Module, *_: object) -> None:
        """Receptive field, of a module on the longest path."""
        size, stride, dilation = _window(module)
        self.field += (size - 1) * dilation * self.jump
        self.jump *= stride

    def keep(self, tensor: Tensor) -> Tensor:
        """Autograd saves ``tensor``; only what grows with the batch counts, and only once."""
        storage = _storage(tensor)
        grows = tensor.ndim > 1 and tensor.shape[0] == _IMAGES and storage not in self.learned
        if grows and storage not in self.saved:
            self.saved[storage] = tensor
            self.part.activation_bytes += tensor.untyped_storage().nbytes() // _IMAGES
        return tensor


def _home(child: str, after_stages: bool) -> str:
    if child.startswith("layer"):
        return child
    return "head" if after_stages else "stem"


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _window(module: nn.Module) -> tuple[int, int, int]:
    """Side, stride and dilation of the square of pixels that one output pixel is made from."""
    if isinstance(module, Blur):
        return 3, module.stride, module.dilation
    if isinstance(module, DilatedAverage):
        return 2, 1, module.dilation
    if isinstance(module, nn.Conv2d):
        return module.kernel_size[0], module.stride[0], module.dilation[0]
    if isinstance(module, nn.AvgPool2d):
        return int(module.kernel_size), int(module.stride), 1  # type: ignore[arg-type]
    if isinstance(module, nn.MaxPool2d):
        return int(module.kernel_size), int(module.stride), int(module.dilation)  # type: ignore[arg-type]
    return 1, 1, 1
