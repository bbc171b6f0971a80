"""An ONNX graph whose network, from its first convolution to its classifier, is in 16 bits.

ONNX Runtime's own converter passes what prepares the images through 16 bits too, where places of
pixels overflow.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from resnets.deployment.quantise_onnx import named, network_nodes
from resnets.errors import require

HALF = "_half"  # at the end of a tensor's name


def in_half(content: bytes) -> bytes:
    """The bytes of an ONNX file with its network in 16 bits; all else stays in float32.

    Raises:
        MissingExtra: onnx is not installed.
        ContentError: the graph has no convolution.
    """
    onnx = require("onnx", "onnx")
    model = named(onnx.load_from_string(content))
    graph = model.graph
    names = {node.name for node in network_nodes(graph)}
    inside = [node for node in graph.node if node.name in names]
    outside = [node for node in graph.node if node.name not in names]
    floats = float_tensors(model)
    read, made = tensors(inside, "input") & floats, tensors(inside, "output") & floats
    weights = [item for item in graph.initializer if item.name in read]
    entering = read - made - {item.name for item in weights}
    leaving = made & (tensors(outside, "input") | {value.name for value in graph.output})
    for item in weights:
        array = onnx.numpy_helper.to_array(item).astype(np.float16)
        graph.initializer.append(onnx.numpy_helper.from_array(array, item.name + HALF))
    nodes: list[Any] = []
    for node in graph.node:
        if node.name in names:
            nodes += halved(node, read | made, entering, leaving)
        else:
            nodes.append(node)
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    needed = tensors(nodes, "input")
    kept = [item for item in graph.initializer if item.name in needed]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    onnx.checker.check_model(model, full_check=True)
    written: bytes = model.SerializeToString()
    return written


def halved(node: Any, halves: set[str], entering: set[str], leaving: set[str]) -> list[Any]:
    """A node of the network on 16 bits, with the conversions before and after it.

    Args:
        node: is left as it is.
        halves: tensors that the network has in 16 bits.
        entering: those of them that come from outside and are not converted yet; the ones that
            this node reads are taken out.
        leaving: those that are read outside too.
    """
    import onnx

    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.input[:] = [name + HALF if name in halves else name for name in node.input]
    copy.output[:] = [name + HALF if name in halves else name for name in node.output]
    come = [name for name in node.input if name in entering]
    entering.difference_update(come)
    cast, types = onnx.helper.make_node, onnx.TensorProto
    return [
        *(cast("Cast", [name], [name + HALF], to=types.FLOAT16) for name in dict.fromkeys(come)),
        copy,
        *(
            cast("Cast", [name + HALF], [name], to=types.FLOAT)
            for name in node.output
            if name in leaving
        ),
    ]


def tensors(nodes: Iterable[Any], side: str) -> set[str]:
    """The names of what nodes read ("input") or make ("output")."""
    return {name for node in nodes for name in getattr(node, side) if name}


def float_tensors(model: Any) -> set[str]:
    """The names of all tensors in float32."""
    import onnx

    kind = onnx.TensorProto.FLOAT
    known = onnx.shape_inference.infer_shapes(model).graph
    values = (*known.value_info, *known.input, *known.output)
    found = {value.name for value in values if value.type.tensor_type.elem_type == kind}
    return found | {item.name for item in known.initializer if item.data_type == kind}
