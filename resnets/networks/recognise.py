"""From names and shapes alone to the architecture of a residual network."""

import re
from collections.abc import Mapping
from typing import Any

from resnets.errors import ContentError, UsageError
from resnets.networks.architecture import Architecture
from resnets.networks.catalog import CATALOG

Shape = tuple[int, ...]


def architecture_of(shapes: Mapping[str, Shape], **changes: Any) -> Architecture:
    """The architecture whose weights have these names and shapes.

    Names and shapes do not tell all: a bottleneck's stride is taken to be in its 3x3 convolution,
    shortcuts without weights to be option A, and blur or dropout to be absent.

    Args:
        shapes: by this project's names.
        changes: fields of the `Architecture` that are known better.

    Raises:
        ContentError: if no residual network has such weights.
    """
    try:
        choices = _stages(shapes) | _block(shapes) | _stem(shapes) | _classifier(shapes)
        if choices["stem_width"] == choices["width"]:
            choices["stem_width"] = None
        return Architecture(**choices | changes)
    except KeyError as error:
        raise ContentError(f"no residual network: it has no {error.args[0]}") from None
    except (IndexError, ZeroDivisionError) as error:
        raise ContentError(f"no residual network: shapes that make no sense ({error})") from None
    except UsageError as error:
        if changes:
            raise
        raise ContentError(f"no residual network: {error}") from None


def name_of(architecture: Architecture) -> str | None:
    """Its name in the catalog, whatever its classes and image channels."""
    own = ("num_classes", "in_channels", "dropout", "stochastic_depth", "zero_init", "norm")
    wanted = {k: v for k, v in architecture.to_dict().items() if k not in own}
    for name, row in CATALOG.items():
        if {k: v for k, v in row.architecture.to_dict().items() if k not in own} == wanted:
            return name
    return None


def _stages(shapes: Mapping[str, Shape]) -> dict[str, Any]:
    """How many blocks each stage has."""
    found: dict[int, set[int]] = {}
    for name in shapes:
        match = re.match(r"layer(\d{1,2})\.(\d{1,4})\.", name)
        if match:
            found.setdefault(int(match[1]), set()).add(int(match[2]))
    for stage in range(1, len(found) + 1):
        if found.get(stage) != set(range(len(found.get(stage, ())))):
            raise ContentError(f"no residual network: blocks of layer{stage} are missing")
    return {"depths": tuple(len(found[stage]) for stage in sorted(found))}


def _block(shapes: Mapping[str, Shape]) -> dict[str, Any]:
    """What the first block and its likes tell."""
    first = shapes["layer1.0.conv1.weight"]
    bottleneck = "layer1.0.conv3.weight" in shapes
    inner = first[0]
    width = shapes["layer1.0.conv3.weight"][0] // 4 if bottleneck else inner
    kind = "bottleneck" if bottleneck else "residual"
    norm = "batch" if "layer1.0.bn1.running_mean" in shapes else "group"
    choices = {"block": kind, "width": width, "norm": norm, "shortcut": _shortcut(shapes)}
    if _is_preact(shapes):
        choices["block"] = f"preact_{kind}"
    if bottleneck:
        groups = inner // shapes["layer1.0.conv2.weight"][1]
        choices |= {"groups": groups, "base_width": inner * 64 // (width * groups)}
    squeezes = [shape for name, shape in shapes.items() if name.endswith("se.fc1.weight")]
    if squeezes:
        widest = max(squeezes, key=lambda shape: shape[1])
        choices |= {"attention": "se", "reduction": widest[1] // widest[0]}
    elif "layer1.0.se.conv.weight" in shapes:
        choices["attention"] = "eca"
    return choices


def _is_preact(shapes: Mapping[str, Shape]) -> bool:
    """Whether the network ends with a norm, as those do that activate first."""
    if "bn.weight" not in shapes:
        return False
    return "conv.weight" not in shapes or not _last_norm_is_the_stems(shapes)


def _last_norm_is_the_stems(shapes: Mapping[str, Shape]) -> bool:
    """In networks for small images both are called ``bn``; a block's first norm tells them apart.

    It has the channels of the block's input if it comes first, and else of the block's inside.
    """
    for name, shape in shapes.items():
        norm = shapes.get(name.replace("conv1", "bn1"))
        if name.endswith(".conv1.weight") and norm and shape[0] != shape[1]:
            return norm[0] != shape[1]
    return True


def _shortcut(shapes: Mapping[str, Shape]) -> str:
    """Which projection the shortcuts have."""
    projections = {
        name: shape
        for name, shape in shapes.items()
        if "downsample" in name and name.endswith("weight") and len(shape) == 4
    }
    if not projections:
        changes = "layer2.0.conv1.weight" in shapes
        return "padding" if changes else "projection"
    name, shape = next(iter(projections.items()))
    if name.endswith("downsample.1.weight"):
        return "pooled"
    if shape[-1] == 3:
        return "projection3x3"
    everywhere = any(name.split(".")[1] != "0" for name in projections)
    return "projection_everywhere" if everywhere else "projection"


def _stem(shapes: Mapping[str, Shape]) -> dict[str, Any]:
    """What comes before the first stage tells."""
    if "conv.weight" in shapes:
        stem, first, last = "cifar", shapes["conv.weight"], shapes["conv.weight"]
    elif "conv1.0.weight" in shapes:
        first, last = shapes["conv1.0.weight"], shapes["conv1.6.weight"]
        stem = "tiered" if first[0] * 8 == last[0] * 3 else "deep"
        stem = "deep_strided" if "maxpool.0.weight" in shapes else stem
    else:
        stem, first, last = "imagenet", shapes["conv1.weight"], shapes["conv1.weight"]
    return {"stem": stem, "stem_width": last[0], "in_channels": first[1]}


def _classifier(shapes: Mapping[str, Shape]) -> dict[str, Any]:
    classifier = shapes.get("fc.weight")
    return {"num_classes": classifier[0]} if classifier else {}
