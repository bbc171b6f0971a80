"""Networks whose names are unknown, recognised by the shapes of their weights and the order.

`torch.save` keeps the order in which a network's layers were made, and a layer's parts have torch's
own order: weight and bias, then running mean and variance. A network fits if every layer in the
file is one of its layers, one by one, and nothing remains. What has no weights stays open: that it
activates after the sum, and which shortcuts are meant where there are none.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

from resnets.errors import ContentError, UsageError
from resnets.networks.architecture import Architecture
from resnets.networks.checkpoints.left_over import COUNTERS

if TYPE_CHECKING:
    from torch import Tensor

_Shape = tuple[int, ...]
_NORM = ("weight", "bias", "running_mean", "running_var")  # torch's order
_BLOCKS = ("residual", "bottleneck", "preact_residual", "preact_bottleneck")  # most likely first
_SHORTCUTS = ("padding", "projection", "projection3x3", "projection_everywhere")


@dataclass(frozen=True)
class _Layer:
    """A convolution, a norm or a linear layer, with the full names of its parts."""

    kind: str
    shape: _Shape  # of its weight
    parts: dict[str, str]  # weight, bias ...: name in the file

    @property
    def scope(self) -> str:
        """What its names begin with, without the layer's own name."""
        return self.parts["weight"].rpartition(".")[0].rpartition(".")[0]


def guess(weights: "Mapping[str, Tensor]") -> tuple[Architecture, dict[str, str]]:
    """The network that these weights fit, and the name in the file of each of its weights.

    Args:
        weights: all tensors of a network, in the order of the file.

    Raises:
        ContentError: none fits, or the order means nothing.
    """
    names = [name for name in weights if not name.endswith(COUNTERS) and weights[name].ndim]
    if names == sorted(names):
        raise ContentError("its names are unknown, and sorted, so that their order tells nothing")
    layers = list(_layers(names, weights))
    fits = [
        (architecture, assignment)
        for architecture in _candidates(layers)
        for assignment in _assigned(architecture, layers)
    ]
    if not fits:
        raise ContentError(
            "its names are unknown, and no residual network has these shapes in this order"
        )
    # of equals, the first
    architecture, assignment = max(fits, key=lambda fit: _keeps_scopes(fit[1]))
    parts = {
        f"{ours}.{part}": full
        for ours, layer in assignment.items()
        for part, full in layer.parts.items()
    }
    return architecture, parts


def _layers(names: Sequence[str], weights: "Mapping[str, Tensor]") -> Iterator[_Layer]:
    """The layers, in the order of the file.

    Raises:
        ContentError: some tensors make no layer.
    """
    rest = list(names)
    while rest:
        first = weights[rest[0]]
        vectors = _vectors_after(rest, weights, 0 if first.ndim == 1 else 1)
        if first.ndim == 4:
            has_bias = len(vectors) % len(_NORM) == 1 and _is(vectors[0], first.shape[0], weights)
            layer_names = rest[: 1 + has_bias]
            yield _Layer("conv", tuple(first.shape), dict(zip(_NORM, layer_names, strict=False)))
        elif first.ndim == 2 and len(vectors) == 1:
            layer_names = rest[:2]
            yield _Layer("linear", tuple(first.shape), dict(zip(_NORM, layer_names, strict=False)))
        elif first.ndim == 1 and len(vectors) >= len(_NORM):
            layer_names = rest[: len(_NORM)]
            yield _norm(layer_names, weights)
        else:
            raise ContentError(f"its names are unknown, and {rest[0]} is no part of a known layer")
        rest = rest[len(layer_names) :]


def _vectors_after(
    names: Sequence[str], weights: "Mapping[str, Tensor]", start: int
) -> Sequence[str]:
    """The names of the vectors that follow one another from ``start`` on."""
    end = start
    while end < len(names) and weights[names[end]].ndim == 1:
        end += 1
    return names[start:end]


def _is(name: str, length: int, weights: "Mapping[str, Tensor]") -> bool:
    return len(weights[name]) == length


def _norm(names: Sequence[str], weights: "Mapping[str, Tensor]") -> _Layer:
    """A batch norm of four vectors, whose parts are in torch's order unless their names say so.

    Raises:
        ContentError: they are of several lengths, or their variance is negative.
    """
    last = [name.rpartition(".")[2] for name in names]
    parts = dict(zip(last if set(last) == set(_NORM) else _NORM, names, strict=True))
    lengths = {len(weights[name]) for name in names}
    if len(lengths) > 1 or (weights[parts["running_var"]] < 0).any():
        raise ContentError(f"its names are unknown, and {names[0]} begins no batch norm")
    return _Layer("norm", tuple(weights[names[0]].shape), parts)


def _candidates(layers: Sequence[_Layer]) -> Iterator[Architecture]:
    """The networks with these numbers of layers of each width, most likely first."""
    convolutions = [layer.shape for layer in layers if layer.kind == "conv"]
    if len(convolutions) < 3 or layers[-1].kind != "linear":
        return
    for block, shortcut in product(_BLOCKS, _SHORTCUTS):
        choices = _choices(convolutions, block, shortcut)
        if choices is None:
            continue
        try:
            yield Architecture(num_classes=layers[-1].shape[0], **choices)
        except UsageError:
            continue


def _choices(convolutions: Sequence[_Shape], block: str, shortcut: str) -> dict[str, Any] | None:
    """The fields of an architecture with as many 3x3 convolutions of each width; None if none."""
    stem, first, *_ = convolutions
    stems = {3: "cifar", 7: "imagenet"}
    bottleneck = block.endswith("bottleneck")
    if stem[2] not in stems or first[2] != (1 if bottleneck else 3):
        return None
    blocks = [shape for shape in convolutions[1:] if shape[2] == 3]
    if shortcut == "projection3x3" and not bottleneck:
        blocks = [shape for shape in blocks if shape[0] == shape[1]]
        odd = 1  # the first convolution of a stage is left out with the shortcut's
    else:
        odd = 0
    depths: list[int] = []
    width = first[0]
    while count := sum(shape[0] == width << len(depths) for shape in blocks):
        more = odd if depths else 0
        depths.append(count if bottleneck else (count + more) // 2)
    return {
        "block": block,
        "depths": tuple(depths),
        "width": width,
        "stem": stems[stem[2]],
        "stem_width": None if stem[0] == width else stem[0],
        "in_channels": stem[1],
        "shortcut": shortcut,
    }


def _assigned(architecture: Architecture, layers: Sequence[_Layer]) -> Iterator[dict[str, _Layer]]:
    """The layers by this project's names, in the first order of a block's layers that fits."""
    expected = _wanted(architecture)
    for order in _ORDERS:
        names = order(list(expected))
        if len(names) == len(layers) and all(
            (layer.kind, layer.shape) == expected[name]
            for name, layer in zip(names, layers, strict=True)
        ):
            yield dict(zip(names, layers, strict=True))
            return


def _wanted(architecture: Architecture) -> dict[str, tuple[str, _Shape]]:
    """Kind and shape of each layer of a network, in its own order."""
    import torch

    from resnets.networks.resnet import build

    with torch.device("meta"):
        state = build(architecture).state_dict()
    kinds = {4: "conv", 2: "linear", 1: "norm"}
    return {
        name.removesuffix(".weight"): (kinds[value.ndim], tuple(value.shape))
        for name, value in state.items()
        if name.endswith(".weight")
    }


def _blockwise(names: list[str], key: Callable[[str], int]) -> list[str]:
    """The names with the layers of each block sorted by a key, and else in their order."""
    blocks = list(dict.fromkeys(map(_block_of, names)))
    return sorted(names, key=lambda name: (blocks.index(_block_of(name)), key(name)))


def _block_of(name: str) -> str:
    parts = name.split(".")
    return ".".join(parts[:2]) if parts[0].startswith("layer") else name


_ORDERS: tuple[Callable[[list[str]], list[str]], ...] = (
    lambda names: names,  # convolution, norm, convolution, norm, shortcut
    lambda names: _blockwise(names, lambda name: "downsample" not in name),  # the shortcut first
    lambda names: _blockwise(  # convolutions, norms, shortcut
        names, lambda name: 2 if "downsample" in name else int(".bn" in name)
    ),
)


def _keeps_scopes(assignment: Mapping[str, _Layer]) -> bool:
    """Whether layers of one block, and of no two blocks, have names that begin alike."""
    scopes: dict[str, set[str]] = {}
    for ours, layer in assignment.items():
        if ours.startswith("layer") and "downsample" not in ours:
            scopes.setdefault(_block_of(ours), set()).add(layer.scope)
    single = [next(iter(scope)) for scope in scopes.values() if len(scope) == 1]
    return len(single) == len(scopes) and len(set(single)) == len(single)
