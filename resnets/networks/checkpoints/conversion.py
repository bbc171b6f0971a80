"""A network's weights under the names that another project reads, and files of them."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnets.errors import UsageError
from resnets.files.writing import replacing, write_atomically
from resnets.networks.architecture import Architecture
from resnets.networks.checkpoints.layouts import (
    HUGGINGFACE,
    TIMM,
    TIMM_BIT,
    TIMM_V2,
    TIMM_V2_D,
    TORCHVISION,
    Layout,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from resnets.networks.resnet import ResNet

_PROJECTS = ("torchvision", "timm", "huggingface")
_ORDINARY: dict[str, tuple[Any, ...]] = {  # what every project's ResNets can be
    "block": ("residual", "bottleneck"),
    "stem": ("imagenet",),
    "stem_width": (None,),
    "shortcut": ("projection",),
    "norm": ("batch",),
    "strided_conv": (2,),
    "attention": ("none",),
    "blur": (False,),
    "weight_standardisation": (False,),
}
_MORE: dict[str, dict[str, tuple[Any, ...]]] = {
    "torchvision": {"width": (64,)},
    "timm": {
        "block": ("residual", "bottleneck", "preact_residual", "preact_bottleneck"),
        "stem": ("imagenet", "deep", "tiered", "deep_strided", "padded"),
        "stem_width": (None, 128),
        "norm": ("batch", "group"),
        "shortcut": ("projection", "pooled"),
        "attention": ("none", "se", "eca"),
        "blur": (False, True, "average"),
        "weight_standardisation": (False, True),
    },
    "huggingface": {"strided_conv": (1, 2), "groups": (1,), "base_width": (64,)},
}


def _check_convertible(architecture: Architecture, project: str) -> None:
    """Refuse a network that the project's ResNets cannot be.

    Raises:
        UsageError: it names what stands in the way.
    """
    if project not in _PROJECTS:
        raise UsageError(f"no project {project!r}; there are {', '.join(_PROJECTS)}")
    if architecture.is_for_small_images:
        raise UsageError(
            f"{project} has no such network: it has none for small images, as those of CIFAR are. "
            "A model file of resnets holds any: convert to 'resnets', or convert a network for "
            "photos, such as resnet18"
        )
    for field, allowed in (_ORDINARY | _MORE[project]).items():
        value = getattr(architecture, field)
        if value not in allowed:
            raise UsageError(
                f"{project} has no such network: {field} is {value!r}; there it is "
                f"{' or '.join(map(repr, allowed))}. A model file of resnets holds any: convert to "
                "'resnets', or train a network that the project has, such as resnet18 or resnet50"
            )
    if project == "timm":
        _check_together(architecture)


_PREACT: dict[str, dict[str, Any]] = {  # what goes together in timm's pre-activation networks
    "imagenet": {"shortcut": "projection", "norm": "batch", "weight_standardisation": False},
    "deep": {"shortcut": "pooled", "norm": "batch", "weight_standardisation": False},
    "tiered": {"shortcut": "pooled", "norm": "batch", "weight_standardisation": False},
    "padded": {"shortcut": "projection", "norm": "group", "weight_standardisation": True},
}
_NO_PREACT = {"stem": "padded", "weight_standardisation": True}


def _check_together(architecture: Architecture) -> None:
    """Refuse combinations that timm's networks cannot be, or whose names say something else."""
    if not architecture.is_preact:
        for field, alone in _NO_PREACT.items():
            if getattr(architecture, field) == alone:
                raise UsageError(f"timm has no such network: {field} is {alone!r} without preact")
        if architecture.stem_width is not None and architecture.stem != "deep":
            width, stem = architecture.stem_width, architecture.stem
            raise UsageError(
                f"timm has no such network: stem_width is {width} with the stem {stem!r}; there "
                "only the stem 'deep' has that"
            )
        return
    always = {"attention": "none", "blur": False, "stem_width": None}
    if architecture.stem_channels == architecture.channels[0]:
        always |= {"activated_start": False}
    together = _PREACT.get(architecture.stem, {}) | always
    if architecture.stem not in _PREACT:
        raise UsageError(f"timm has no such network: stem is {architecture.stem!r} with preact")
    for field, needed in together.items():
        value = getattr(architecture, field)
        if value != needed:
            raise UsageError(
                f"timm has no such network: {field} is {value!r}; with preact and the stem "
                f"{architecture.stem!r} it is {needed!r}"
            )


def _layout_for(architecture: Architecture, project: str) -> Layout:
    """The names that the project has for such a network."""
    if project == "timm" and architecture.is_preact:
        return {"imagenet": TIMM_V2, "padded": TIMM_BIT}.get(architecture.stem, TIMM_V2_D)
    if project == "timm":
        return TIMM
    return {"torchvision": TORCHVISION, "huggingface": HUGGINGFACE}[project]


def convert(network: "ResNet", project: str) -> "dict[str, Tensor]":
    """The weights by the names that the project's own ``load_state_dict`` takes.

    Args:
        network: whose weights; they are not copied.
        project: torchvision, timm or huggingface (the transformers library).

    Raises:
        UsageError: if the project has no such network.
    """
    _check_convertible(network.architecture, project)
    layout = _layout_for(network.architecture, project)
    weights = dict(network.state_dict())
    if layout.anchor == TIMM_V2.anchor:
        weights["fc.weight"] = weights["fc.weight"][:, :, None, None]  # timm's is a convolution
    return {_their_name(name, layout): value for name, value in weights.items()}


def _their_name(name: str, layout: Layout) -> str:
    if layout is HUGGINGFACE:
        if name.startswith("fc."):
            return name.replace("fc.", "classifier.1.")
        return f"resnet.{layout.theirs(name)}"
    return str(layout.theirs(name))


def write(weights: "Mapping[str, Tensor]", path: Path) -> None:
    """Write weights as safetensors or as ``torch.save`` does, as the file's ending says.

    Raises:
        UsageError: for another ending.
    """
    if path.suffix == ".safetensors":
        from safetensors.torch import save

        write_atomically(path, save({n: v.contiguous().clone() for n, v in weights.items()}))
    elif path.suffix in (".pt", ".pth", ".bin"):
        import torch

        with replacing(path) as file:
            torch.save(dict(weights), file)
    else:
        raise UsageError(f"{path}: the ending must be .safetensors, .pth, .pt or .bin")
