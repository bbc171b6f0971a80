"""Exports in floating point of 16 bits, for GPUs, which compute that twice as fast and more.

What goes in and comes out keeps its type, and preparing the images stays in float32, where places
of pixels need it. OpenVINO keeps weights of 16 bits, and computes as the device does it best.
"""

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from resnets.deployment.export.files import (
    Agreement,
    Write,
    compare,
    opened,
    publish,
    read_openvino,
    save_onnx,
    save_openvino,
    with_report,
)
from resnets.deployment.export.int8_onnx import named, network_nodes
from resnets.deployment.exported.reading import read_onnx
from resnets.errors import ContentError, UsageError, require
from resnets.images import Pixels
from resnets.model_file import Model

_HALF = "_half"  # at the end of a tensor's name


def _in_half(content: bytes) -> bytes:
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
    floats = _float_tensors(model)
    read, made = _tensors(inside, "input") & floats, _tensors(inside, "output") & floats
    weights = [item for item in graph.initializer if item.name in read]
    entering = read - made - {item.name for item in weights}
    leaving = made & (_tensors(outside, "input") | {value.name for value in graph.output})
    for item in weights:
        array = onnx.numpy_helper.to_array(item).astype(np.float16)
        graph.initializer.append(onnx.numpy_helper.from_array(array, item.name + _HALF))
    nodes: list[Any] = []
    for node in graph.node:
        if node.name in names:
            nodes += _halved(node, read | made, entering, leaving)
        else:
            nodes.append(node)
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    needed = _tensors(nodes, "input")
    kept = [item for item in graph.initializer if item.name in needed]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    onnx.checker.check_model(model, full_check=True)
    written: bytes = model.SerializeToString()
    return written


def _halved(node: Any, halves: set[str], entering: set[str], leaving: set[str]) -> list[Any]:
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
    copy.input[:] = [name + _HALF if name in halves else name for name in node.input]
    copy.output[:] = [name + _HALF if name in halves else name for name in node.output]
    come = [name for name in node.input if name in entering]
    entering.difference_update(come)
    cast, types = onnx.helper.make_node, onnx.TensorProto
    return [
        *(cast("Cast", [name], [name + _HALF], to=types.FLOAT16) for name in dict.fromkeys(come)),
        copy,
        *(
            cast("Cast", [name + _HALF], [name], to=types.FLOAT)
            for name in node.output
            if name in leaving
        ),
    ]


def _tensors(nodes: Iterable[Any], side: str) -> set[str]:
    """The names of what nodes read ("input") or make ("output")."""
    return {name for node in nodes for name in getattr(node, side) if name}


def _float_tensors(model: Any) -> set[str]:
    """The names of all tensors in float32."""
    import onnx

    kind = onnx.TensorProto.FLOAT
    known = onnx.shape_inference.infer_shapes(model).graph
    values = (*known.value_info, *known.input, *known.output)
    found = {value.name for value in values if value.type.tensor_type.elem_type == kind}
    return found | {item.name for item in known.initializer if item.data_type == kind}


_TOLERANCE = 0.02  # of a probability; float16 has 11 significant bits


def halve(
    model: Model, source: Path, target: Path, images: Sequence[Pixels], words: str
) -> Agreement:
    """Write an exported file in 16 bits, if it then says what the network says.

    Args:
        model: what was exported, for the comparison.
        source: what `export` wrote for ONNX Runtime or OpenVINO.
        target: where to; with the same ending. An existing file is replaced.
        images: (H, W, C) uint8 on which the file is compared with PyTorch.
        words: what these are.

    Raises:
        UsageError: the file is of another runtime.
        ContentError: a probability differs by more than 0.02; nothing is written.
        MissingExtra: the runtime is not installed.
    """
    if source.suffix not in _MAKERS or target.suffix != source.suffix:
        raise UsageError(f"{target}: 16 bits are written to {' or '.join(_MAKERS)}")
    write = _MAKERS[source.suffix](source)
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder) / target.name
        write(trial, {})
        agreement = compare(model, opened(trial), images, words, _TOLERANCE)
        if not agreement.holds:
            raise ContentError(f"{target} is not written in 16 bits: {agreement}")
        write(trial, {"fp16": agreement.to_dict()})
        publish(trial, target)
    return agreement


def _make_onnx(source: Path) -> Write:
    """Writer of an .onnx file in 16 bits, with the metadata of the one in float32."""
    onnx = require("onnx", "onnx")
    content, header = read_onnx(source)
    model = onnx.load_from_string(_in_half(content))
    return lambda path, report: save_onnx(model, path, with_report(header, report))


def _make_openvino(source: Path) -> Write:
    """Writer of an .xml file and a .bin with weights in 16 bits."""
    model, header = read_openvino(source)
    return lambda path, report: save_openvino(model, path, with_report(header, report), True)


_MAKERS = {".onnx": _make_onnx, ".xml": _make_openvino}
