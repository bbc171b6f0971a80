"""Export in float16, in which GPUs compute at least twice as fast.

Inputs and outputs keep their types, and preprocessing stays in float32, which the coordinates of
pixels need. OpenVINO stores the weights in float16 and computes in the type that suits the device.
"""

import tempfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import numpy as np

from resnets.deployment.engines import EngineName, open_engine
from resnets.deployment.engines.accelerators import worth_measuring
from resnets.deployment.export.files import (
    Agreement,
    Write,
    compare,
    open_exported,
    publish,
    read_openvino,
    save_onnx,
    save_openvino,
    with_report,
)
from resnets.deployment.export.int8_onnx import network_nodes, with_node_names
from resnets.deployment.exported.reading import read_onnx
from resnets.errors import ContentError, UsageError, require
from resnets.images import Pixels
from resnets.model_file import Model

_HALF = "_half"  # at the end of a tensor's name


def _float16_graph(content: bytes) -> bytes:
    """The bytes of an ONNX file with its network in float16; the rest stays in float32.

    Raises:
        MissingExtra: onnx is not installed.
        ContentError: the graph has no convolution.
    """
    onnx = require("onnx", "onnx")
    model = with_node_names(onnx.load_from_string(content))
    graph = model.graph
    names = {node.name for node in network_nodes(graph)}
    network = [node for node in graph.node if node.name in names]
    others = [node for node in graph.node if node.name not in names]
    floats = _float_tensors(model)
    inputs, outputs = _tensors(network, "input") & floats, _tensors(network, "output") & floats
    weights = [item for item in graph.initializer if item.name in inputs]
    entering = inputs - outputs - {item.name for item in weights}
    leaving = outputs & (_tensors(others, "input") | {value.name for value in graph.output})
    for item in weights:
        array = onnx.numpy_helper.to_array(item).astype(np.float16)
        graph.initializer.append(onnx.numpy_helper.from_array(array, item.name + _HALF))
    nodes: list[Any] = []
    for node in graph.node:
        if node.name in names:
            nodes += _float16_nodes(node, inputs | outputs, entering, leaving)
        else:
            nodes.append(node)
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    needed = _tensors(nodes, "input")
    used = [item for item in graph.initializer if item.name in needed]
    del graph.initializer[:]
    graph.initializer.extend(used)
    onnx.checker.check_model(model, full_check=True)
    converted: bytes = model.SerializeToString()
    return converted


def _float16_nodes(node: Any, halves: set[str], entering: set[str], leaving: set[str]) -> list[Any]:
    """A copy of a node in float16, with the casts before and after it.

    Args:
        node: is not changed.
        halves: names of the tensors that are in float16 within the network.
        entering: those that come from outside and have no cast yet; the ones that this node
            reads are removed.
        leaving: those that are also read outside.
    """
    import onnx

    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.input[:] = [name + _HALF if name in halves else name for name in node.input]
    copy.output[:] = [name + _HALF if name in halves else name for name in node.output]
    new_inputs = [name for name in node.input if name in entering]
    entering.difference_update(new_inputs)
    cast, types = onnx.helper.make_node, onnx.TensorProto
    return [
        *(
            cast("Cast", [name], [name + _HALF], to=types.FLOAT16)
            for name in dict.fromkeys(new_inputs)
        ),
        copy,
        *(
            cast("Cast", [name + _HALF], [name], to=types.FLOAT)
            for name in node.output
            if name in leaving
        ),
    ]


def _tensors(nodes: Iterable[Any], side: str) -> set[str]:
    """The names of the tensors that nodes read ("input") or compute ("output")."""
    return {name for node in nodes for name in getattr(node, side) if name}


def _float_tensors(model: Any) -> set[str]:
    """The names of all tensors in float32."""
    import onnx

    float32 = onnx.TensorProto.FLOAT
    inferred = onnx.shape_inference.infer_shapes(model).graph
    values = (*inferred.value_info, *inferred.input, *inferred.output)
    names = {value.name for value in values if value.type.tensor_type.elem_type == float32}
    return names | {item.name for item in inferred.initializer if item.data_type == float32}


_TOLERANCE = 0.02  # of a probability; float16 has 11 significant bits


def convert_to_float16(
    model: Model, source: Path, target: Path, images: Sequence[Pixels], words: str
) -> str:
    """Write an exported file in float16, if it then predicts what the network predicts.

    It is run on the CPU and on the GPUs of this machine that its runtime can use.

    Args:
        model: the network that was exported, for the comparison.
        source: a file that `export` wrote for ONNX Runtime or OpenVINO.
        target: the file to write, with the same suffix; an existing one is replaced.
        images: (H, W, C) uint8 on which the file is compared with PyTorch.
        words: a description of the images.

    Returns:
        The largest difference, and by what it was computed, in words.

    Raises:
        UsageError: the file is for another runtime.
        ContentError: a probability differs by more than 0.02; nothing is written.
        MissingExtra: the runtime is not installed.
    """
    if source.suffix not in _MAKERS or target.suffix != source.suffix:
        raise UsageError(f"{target}: float16 is written to {' or '.join(_MAKERS)}")
    write = _MAKERS[source.suffix](source)
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder) / target.name
        write(trial, {})
        agreements = _compared(model, trial, images, words)
        for name, agreement in agreements.items():
            if not agreement.holds:
                raise ContentError(f"{target} is not written in float16: by {name}, {agreement}")
        worst = max(agreements.values(), key=lambda agreement: agreement.difference)
        write(trial, {"fp16": worst.to_dict() | {"engines": [*agreements]}})
        publish(trial, target)
    return f"{worst}, by {' and '.join(agreements)}"


def _compared(
    model: Model, file: Path, images: Sequence[Pixels], words: str
) -> dict[str, Agreement]:
    """How a file agrees with PyTorch on the CPU and on each GPU that is here, by engine."""
    cpu = open_exported(file)
    agreements = {cpu.name: compare(model, cpu, images, words, _TOLERANCE)}
    for name in worth_measuring([cpu.name]):
        with suppress(UsageError):  # there is no such device, or it cannot start
            gpu = open_engine(file, cast("EngineName", name))
            agreements[name] = compare(model, gpu, images, words, _TOLERANCE)
    return agreements


def _make_onnx(source: Path) -> Write:
    """Writer of an .onnx file in float16, with the metadata of the one in float32."""
    onnx = require("onnx", "onnx")
    content, header = read_onnx(source)
    model = onnx.load_from_string(_float16_graph(content))
    return lambda path, report: save_onnx(model, path, with_report(header, report))


def _make_openvino(source: Path) -> Write:
    """Writer of an .xml file and a .bin with weights in float16."""
    model, header = read_openvino(source)
    return lambda path, report: save_openvino(model, path, with_report(header, report), True)


_MAKERS = {".onnx": _make_onnx, ".xml": _make_openvino}
