"""From printed text to the network that it describes.

The text is parsed to a tree, the tree says which `Architecture` it could be, and what that builds
is compared with the text, part by part: a text that is not understood completely is refused.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any

from resnets.errors import ContentError, UsageError
from resnets.networks.architecture import Architecture
from resnets.networks.limits import LARGEST_PRINTED, least_numbers
from resnets.networks.printed.module_text import Node, parse

if TYPE_CHECKING:
    from resnets.networks.resnet import ResNet

_WRAPPERS = {"module", "_orig_mod", "model", "network", "backbone", "0"}

_KINDS = {  # other projects' class name: this project's
    "BasicBlock": "ResidualBlock",  # torchvision, timm
    "PreActBasic": "PreActBlock",  # timm
    "BatchNormAct2d": "BatchNorm2d",  # timm; its ReLU is a child
    "GroupNormAct": "GroupNorm",  # likewise
    "StdConv2d": "StandardisedConv2d",
    "SEModule": "SqueezeExcitation",
    "EcaModule": "EfficientAttention",
    "BlurPool2d": "Blur",
    "DropPath": "StochasticDepth",
    "SelectAdaptivePool2d": "AdaptiveAvgPool2d",
}
_NAMES = {  # timm's name for a part: this project's
    "act1": "relu",
    "act": "relu",
    "aa": "blur",
    "global_pool": "avgpool",
    "norm1": "bn1",
    "norm2": "bn2",
    "norm3": "bn3",
}
_ABSENT = {"drop_block", "act2", "act3", "gate"}  # timm: activations in place, or nothing


def _translate(root: Node) -> Node:
    """The same network in this project's names; this project's own text stays as it is.

    Arguments that cannot be compared become empty.
    """
    while (
        len(root.children) == 1 and root.children[0].name in _WRAPPERS and root.children[0].children
    ):
        root = replace(root.children[0], name="")
    if root.child("stages") and root.child("stem"):
        root = _flat(root)
    return _node(root)


def _node(node: Node) -> Node:
    kind = _KINDS.get(node.kind, node.kind)
    arguments = _without_bias(kind, node.arguments)
    if node.kind == "SelectAdaptivePool2d":
        arguments = _only_averages(node)
    activated = node.kind in ("BatchNormAct2d", "GroupNormAct")
    children = () if activated else tuple(_parts(node.children))
    return replace(node, kind=kind, arguments=arguments, children=children)


def _without_bias(kind: str, arguments: str) -> str:
    """What torch printed of a norm until 2.12; since 2.13 it adds ``bias``."""
    if kind not in ("BatchNorm2d", "GroupNorm"):
        return arguments
    return arguments.replace(", bias=True", "").rstrip(",")


def _parts(children: Iterable[Node]) -> Iterable[Node]:
    for child in children:
        empty = child.kind == "Identity" and child.name not in ("0", "downsample")
        if not empty and child.name not in _ABSENT:
            yield _node(replace(child, name=_NAMES.get(child.name, child.name)))


def _only_averages(pool: Node) -> str:
    """Nothing to compare, if timm's pooling is the ordinary one."""
    if not re.match(r"pool_type='?avg\b", pool.arguments):
        raise ContentError(f"line {pool.line}: pools by {pool.arguments}; only averages are known")
    return ""


def _flat(root: Node) -> Node:
    """The ResNetV2 of timm keeps stem, stages and head in parts of their own."""
    stem, stages, head = (root.child(name) for name in ("stem", "stages", "head"))
    norm = root.child("norm")
    if stem is None or stages is None or head is None or norm is None:
        raise ContentError(f"line {root.line}: {root.kind} lacks a stem, stages, norm or head")
    parts: list[Node] = []
    parts += _stem_parts(stem)
    for number, stage in enumerate(stages.children, 1):
        blocks = stage.child("blocks") or stage
        flat = [_shortcut_unwrapped(block) for block in blocks.children]
        parts.append(Node(f"layer{number}", "Sequential", "", stage.line, tuple(flat)))
    parts.append(replace(norm, name="bn"))
    parts += [part for part in head.children if part.name == "global_pool"]
    parts += [_as_linear(part) for part in head.children if part.name == "fc"]
    return replace(root, children=tuple(parts))


def _stem_parts(stem: Node) -> Iterator[Node]:
    """conv1 and maxpool, of which timm's stem of pre-activation networks has the single layers."""
    deep = [part for part in stem.children if re.fullmatch(r"(conv|norm)\d", part.name)]
    if deep:
        relu = Node("", "ReLU", "inplace=True", stem.line)
        layers = [n for part in deep for n in ([part] if part.name[0] == "c" else [part, relu])]
        yield _numbered("conv1", layers)
    elif convolution := stem.child("conv"):
        yield replace(convolution, name="conv1")
    pad, pool = stem.child("pad"), stem.child("pool")
    if pool is not None:
        yield _numbered("maxpool", [pad, pool]) if pad else replace(pool, name="maxpool")


def _numbered(name: str, layers: list[Node]) -> Node:
    """The layers as a sequence, whose parts are numbers."""
    children = (replace(layer, name=str(index)) for index, layer in enumerate(layers))
    return Node(name, "Sequential", "", layers[0].line, tuple(children))


def _shortcut_unwrapped(block: Node) -> Node:
    """Its DownsampleConv, or DownsampleAvg, as the sequence that it is."""
    return replace(block, children=tuple(map(_sequence, block.children)))


def _sequence(part: Node) -> Node:
    convolution = part.child("conv")
    if part.name != "downsample" or convolution is None:
        return part
    pool = part.child("pool")
    return replace(_numbered(part.name, [pool, convolution] if pool else [convolution]))


def _as_linear(classifier: Node) -> Node:
    """A 1x1 convolution after pooling is a linear layer."""
    sizes = re.match(r"(\d+), (\d+), kernel_size=\(1, 1\)", classifier.arguments)
    if classifier.kind != "Conv2d" or sizes is None:
        return classifier
    arguments = f"in_features={sizes[1]}, out_features={sizes[2]}, bias=True"
    return replace(classifier, kind="Linear", arguments=arguments)


_BLOCKS = {
    "ResidualBlock": "residual",
    "Bottleneck": "bottleneck",
    "PreActBlock": "preact_residual",
    "PreActBottleneck": "preact_bottleneck",
}
_NORMS = {"BatchNorm2d": "batch", "GroupNorm": "group", "FrozenBatchNorm2d": "frozen"}
_ATTENTIONS = {"SqueezeExcitation": "se", "EfficientAttention": "eca"}
_CONVOLUTIONS = ("Conv2d", "StandardisedConv2d")
_OPTIONAL = ("ReLU", "Identity", "AdaptiveAvgPool2d", "StochasticDepth")  # not printed everywhere


def from_printed(text: str) -> "ResNet":
    """Build the network that a printed module describes, freshly initialised.

    Args:
        text: what `print(network)` wrote for a residual network of this project, torchvision or
            timm, on any version of torch; also in the middle of a log.

    Raises:
        ContentError: if it is no residual network; the message names the line.

    >>> from resnets.networks import build
    >>> text = str(build("resnet20"))
    >>> str(from_printed(text)) == text
    True
    """
    from resnets.networks.resnet import build

    architecture = read_printed(text)
    least = least_numbers(architecture)
    if least > LARGEST_PRINTED:
        raise ContentError(
            f"line 1: a network of {least:,} weights; at most {LARGEST_PRINTED:,} are allowed"
        )
    return build(architecture)


def read_printed(text: str) -> Architecture:
    """The architecture that a printed module describes. See `from_printed`."""
    root = _translate(parse(text))
    errors = []
    for choices in _candidates(root):
        try:
            architecture = Architecture(**choices)
        except UsageError as error:
            raise ContentError(f"line {root.line}: {error}") from None
        difference = _first_difference(root, architecture)
        if difference is None:
            return architecture
        errors.append(difference)
    line, message = max(errors)  # of the candidate that agrees with the text for longest
    raise ContentError(f"line {line}: {message}")


def _candidates(root: Node) -> Iterator[dict[str, Any]]:
    """The architectures that a tree could be; they differ in what the text may leave open."""
    stages = _stages(root)
    block = stages[0].children[0]
    choices = _from_block(block) | _from_stem(root, block) | _from_blocks(stages)
    choices["activated_start"] = block.child("downsample") is not None
    choices["depths"] = tuple(len(stage.children) for stage in stages)
    choices["output_stride"] = _output_stride(stages, choices["stem"])
    choices["num_classes"] = _number(r"out_features=(\d+)", _part(root, "fc"))
    for shortcut, strided in product(_shortcuts(stages), (2, 1)):
        yield choices | {"shortcut": shortcut, "strided_conv": strided}


def _first_difference(root: Node, architecture: Architecture) -> tuple[int, str] | None:
    """The first line that differs from what the architecture prints, and why; None if none."""
    import torch

    with torch.device("meta"):
        built = dict(parse(str(_built(architecture, root.line))).walk())
    printed = {""}
    line = root.line
    for path, node in root.walk():
        line = node.line
        printed.add(path)
        ours = built.get(path)
        if ours is None or (path and ours.kind != node.kind):
            instead = f"; expected {ours.kind}" if ours else ""
            return line, f"{path}: {node.kind} makes no sense in this network{instead}"
        expected = _without_bias(ours.kind, ours.arguments)
        if path and node.arguments != expected and _comparable(node.arguments):
            return line, f"{path}: {node.kind}({node.arguments}); expected ({expected})"
    missing = [path for path in built if path not in printed and built[path].kind not in _OPTIONAL]
    return (line, f"{missing[0]} ({built[missing[0]].kind}) is missing") if missing else None


def _built(architecture: Architecture, line: int) -> "ResNet":
    """The network on the current device; sizes that do not fit each other are the text's error."""
    from resnets.networks.resnet import build

    try:
        return build(architecture)
    except (ValueError, RuntimeError, OverflowError, ZeroDivisionError) as error:
        raise ContentError(f"line {line}: sizes that do not fit each other ({error})") from None


def _comparable(arguments: str) -> bool:
    """Whether this project prints them too. timm's rates of stochastic depth rise differently."""
    return arguments != "" and not arguments.startswith("drop_prob=")


def _stages(root: Node) -> list[Node]:
    """layer1, layer2 ... , each a sequence of blocks."""
    stages = [child for child in root.children if re.fullmatch(r"layer\d+", child.name)]
    if not stages:
        raise ContentError(f"line {root.line}: {root.kind} has no stages layer1, layer2 ...")
    for number, stage in enumerate(stages, 1):
        if stage.name != f"layer{number}" or not stage.children:
            raise ContentError(f"line {stage.line}: {stage.name} is no stage of blocks")
        for block in stage.children:
            if block.kind not in _BLOCKS or block.kind != stages[0].children[0].kind:
                raise ContentError(
                    f"line {block.line}: {stage.name}.{block.name} is {block.kind}; every block is "
                    f"one of {', '.join(_BLOCKS)}, and all are alike"
                )
    return stages


def _part(node: Node, name: str) -> Node:
    part = node.child(name)
    if part is None:
        raise ContentError(f"line {node.line}: {node.kind} has no {name}")
    return part


def _number(pattern: str, node: Node) -> int:
    match = re.search(pattern, node.arguments)
    if match is None or len(match[1]) > 6:
        raise ContentError(f"line {node.line}: {node.kind}({node.arguments}) has no usable size")
    return int(match[1])


def _in_channels(convolution: Node) -> int:
    return _number(r"^(\d+), ", convolution)


def _out_channels(convolution: Node) -> int:
    return _number(r"^\d+, (\d+)", convolution)


def _output_stride(stages: list[Node], stem: str) -> int | None:
    """Pixels of the images per pixel of the last stage, where later stages do not stride."""
    strided = [
        any(re.search(r"stride=\(?2", node.arguments) for _, node in stage.children[0].walk())
        for stage in stages[1:]
    ]
    return None if all(strided) else (1 if stem in ("cifar", "linear") else 4) * 2 ** sum(strided)


def _from_block(block: Node) -> dict[str, Any]:
    """The choices that the first block shows."""
    first, norm = _part(block, "conv1"), _part(block, "bn1")
    choices: dict[str, Any] = {"block": _BLOCKS[block.kind], "width": _out_channels(first)}
    if norm.kind not in _NORMS:
        raise ContentError(f"line {norm.line}: {norm.kind}; norms are {', '.join(_NORMS)}")
    choices["norm"] = _NORMS[norm.kind]
    if block.kind.endswith("Bottleneck"):
        inner, middle = _out_channels(first), _part(block, "conv2")
        choices["width"] = width = max(1, _out_channels(_part(block, "conv3")) // 4)
        groups = re.search(r"groups=(\d{1,6})", middle.arguments)
        choices["groups"] = max(1, int(groups[1])) if groups else 1
        choices["base_width"] = max(1, inner * 64 // (width * choices["groups"]))
    attention = block.child("se")
    if attention is not None:
        if attention.kind not in _ATTENTIONS:
            raise ContentError(f"line {attention.line}: {attention.kind} is no known attention")
        choices["attention"] = _ATTENTIONS[attention.kind]
    return choices


def _from_stem(root: Node, block: Node) -> dict[str, Any]:
    """The choices that the parts before the first stage show."""
    stem = root.child("conv1") or _part(root, "conv")
    convolutions = [node for _, node in stem.walk() if node.kind in _CONVOLUTIONS]
    if not convolutions:
        raise ContentError(f"line {stem.line}: {stem.kind} is no stem")
    first, last = convolutions[0], convolutions[-1]
    pool = root.child("maxpool")
    inside = [node.kind for _, node in pool.walk()] if pool else []
    if stem.name == "conv":
        preact = _BLOCKS[block.kind].startswith("preact")
        kind = "cifar" if preact or root.child("relu") else "linear"
    elif len(convolutions) == 1:
        kind = "padded" if "ConstantPad2d" in inside else "imagenet"
    elif set(_CONVOLUTIONS) & set(inside):
        kind = "deep_strided"
    else:
        kind = "tiered" if _out_channels(first) * 8 == _out_channels(last) * 3 else "deep"
    width = _out_channels(_part(block, "conv3" if block.child("conv3") else "conv1"))
    width = width // 4 if block.child("conv3") else width
    channels = _out_channels(last)
    return {
        "stem": kind,
        "stem_width": None if channels == width else channels,
        "in_channels": _in_channels(first),
        "weight_standardisation": first.kind == "StandardisedConv2d",
    }


def _from_blocks(stages: list[Node]) -> dict[str, Any]:
    """The choices that show only in all blocks together."""
    blocks = [block for stage in stages for block in stage.children]
    filters = {blur.kind for block in blocks if (blur := block.child("blur"))}
    averages = filters and filters <= {"AvgPool2d", "DilatedAverage"}
    choices: dict[str, Any] = {"blur": "average" if averages else bool(filters)}
    for name, part in (("dropout", "dropout"), ("stochastic_depth", "drop_path")):
        node = blocks[-1].child(part)
        rate = re.search(r"p(?:rob)?=([\d.e-]+)", node.arguments) if node else None
        choices[name] = float(rate[1]) if rate else 0.0
    squeeze = (blocks[-1].child("se") or blocks[-1]).child("fc1")
    if squeeze is not None:  # the widest, which rounding changes least
        choices["reduction"] = max(1, _in_channels(squeeze) // max(1, _out_channels(squeeze)))
    return choices


def _shortcuts(stages: list[Node]) -> list[str]:
    """The kinds of shortcut that the downsampling parts could be, most likely first."""
    parts = [block.child("downsample") for stage in stages for block in stage.children]
    projections = [part for part in parts if part is not None and part.kind != "Identity"]
    kinds = [part.kind for part in projections]
    if "NoShortcut" in kinds:
        return ["none"]
    if "ZeroPadding" in kinds:
        after = any("after=True" in part.arguments for part in projections)
        return ["padding_after" if after else "padding"]
    first = [part.children[0] for part in projections if part.children]
    if any(part.kind in ("AvgPool2d", "DilatedAverage", "Identity") for part in first):
        return ["pooled"]
    if any("kernel_size=(3, 3)" in part.arguments for part in first):
        return ["projection3x3"]
    return ["projection", "projection_everywhere", "padding"]
