"""How other projects' printed networks differ from this one's: class names, part names, extras."""

import re
from collections.abc import Iterable
from dataclasses import replace

from resnets.errors import ContentError
from resnets.networks.module_text import Node

WRAPPERS = {"module", "_orig_mod", "model", "network", "backbone", "0"}

KINDS = {  # other projects' class name: this project's
    "BasicBlock": "ResidualBlock",  # torchvision, timm
    "PreActBasic": "PreActBlock",  # timm
    "BatchNormAct2d": "BatchNorm2d",  # timm; its ReLU is a child
    "SEModule": "SqueezeExcitation",
    "EcaModule": "EfficientAttention",
    "BlurPool2d": "Blur",
    "DropPath": "StochasticDepth",
    "SelectAdaptivePool2d": "AdaptiveAvgPool2d",
}
NAMES = {  # timm's name for a part: this project's
    "act1": "relu",
    "act": "relu",
    "aa": "blur",
    "global_pool": "avgpool",
    "norm1": "bn1",
    "norm2": "bn2",
    "norm3": "bn3",
}
ABSENT = {"drop_block", "act2", "act3", "gate"}  # timm: activations in place, or nothing


def translate(root: Node) -> Node:
    """The same network in this project's names; this project's own text stays as it is.

    Arguments that cannot be compared become empty.
    """
    while (
        len(root.children) == 1 and root.children[0].name in WRAPPERS and root.children[0].children
    ):
        root = replace(root.children[0], name="")
    if root.child("stages") and root.child("stem"):
        root = _flat(root)
    return _node(root)


def _node(node: Node) -> Node:
    kind = KINDS.get(node.kind, node.kind)
    arguments = node.arguments
    if kind == "BatchNorm2d":
        arguments = arguments.replace(", bias=True", "").rstrip(",")  # torch since 2.13
    if node.kind == "SelectAdaptivePool2d":
        arguments = _only_averages(node)
    activated = node.kind == "BatchNormAct2d"
    children = () if activated else tuple(_parts(node.children))
    return replace(node, kind=kind, arguments=arguments, children=children)


def _parts(children: Iterable[Node]) -> Iterable[Node]:
    for child in children:
        empty = child.kind == "Identity" and child.name not in ("0", "downsample")
        if not empty and child.name not in ABSENT:
            yield _node(replace(child, name=NAMES.get(child.name, child.name)))


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
    parts = []
    for name, ours in (("conv", "conv1"), ("pool", "maxpool")):
        part = stem.child(name)
        if part is not None:
            parts.append(replace(part, name=ours))
    for number, stage in enumerate(stages.children, 1):
        blocks = stage.child("blocks") or stage
        flat = [_shortcut_unwrapped(block) for block in blocks.children]
        parts.append(Node(f"layer{number}", "Sequential", "", stage.line, tuple(flat)))
    parts.append(replace(norm, name="bn"))
    parts += [part for part in head.children if part.name == "global_pool"]
    parts += [_as_linear(part) for part in head.children if part.name == "fc"]
    return replace(root, children=tuple(parts))


def _shortcut_unwrapped(block: Node) -> Node:
    """Its DownsampleConv as the sequence of one convolution that it is."""
    return replace(block, children=tuple(map(_sequence, block.children)))


def _sequence(part: Node) -> Node:
    convolution = part.child("conv")
    if part.name != "downsample" or convolution is None:
        return part
    children = (replace(convolution, name="0"),)
    return replace(part, kind="Sequential", arguments="", children=children)


def _as_linear(classifier: Node) -> Node:
    """A 1x1 convolution after pooling is a linear layer."""
    sizes = re.match(r"(\d+), (\d+), kernel_size=\(1, 1\)", classifier.arguments)
    if classifier.kind != "Conv2d" or sizes is None:
        return classifier
    arguments = f"in_features={sizes[1]}, out_features={sizes[2]}, bias=True"
    return replace(classifier, kind="Linear", arguments=arguments)
