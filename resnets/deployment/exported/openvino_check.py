"""Checks of OpenVINO's files, an .xml of layers and a .bin of weights, before a runtime opens them.

OpenVINO reads a file by its content, whatever its name, and has formats that run code. So the .xml
is read here: every layer must be of a kind that `resnets export` writes, and every weight must lie
within the .bin. OpenVINO gets the checked text, not the file.

The format: docs.openvino.ai, "Operation sets" and "IR format".
"""

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from resnets.deployment.exported.graph_cost import INT32, INT64, Step, Tensor, refuse_costly
from resnets.deployment.exported.onnx_check import shown
from resnets.errors import ContentError
from resnets.format import plural

LARGEST_TEXT = 1 << 25  # bytes of an .xml; that of resnet1202 in 8 bits has about 2**24
_MAX_LAYERS = 100_000
_VERSIONS = ("10", "11")  # of the format
_MAX_REUSE = 4  # times that the weights may use the bytes of the .bin
_TYPES = {  # of weights, by OpenVINO's name
    **{"f32": np.float32, "f16": np.float16, "i64": np.int64, "i32": np.int32},
    **{"i8": np.int8, "u8": np.uint8},
}
_OPERATORS = {  # OpenVINO's name: the name in `graph_cost.RULES`
    **{"Add": "Add", "Divide": "Floor divide", "Maximum": "Max", "Minimum": "Min"},
    **{"Multiply": "Mul", "Subtract": "Sub", "Power": "Pow", "SquaredDifference": "Pow"},
    **{"ShapeOf": "Shape", "Squeeze": "Squeeze", "Unsqueeze": "Unsqueeze", "Concat": "Concat"},
    **{"Range": "Range", "Convert": "Cast", "ConvertLike": "Abs", "Reshape": "Reshape"},
    **{"Transpose": "Transpose by input", "MatMul": "MatMul transposed"},
    **{"Gather": "Gather on axis"},
    **{"Convolution": "Conv", "GroupConvolution": "Conv in groups", "Slice": "Slice"},
    **{"AvgPool": "AveragePool", "MaxPool": "MaxPool with indices", "Pad": "Pad at ends"},
    **{"Broadcast": "Broadcast", "VariadicSplit": "Split"},
    **{name: name for name in ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceL2")},
    **dict.fromkeys(
        (
            *("Abs", "BatchNormInference", "Clamp", "Exp", "FakeQuantize", "Floor", "Log"),
            *("LogSoftmax", "MVN", "Negative", "ReLU", "Sigmoid", "SoftMax", "Sqrt"),
        ),
        "Abs",
    ),
}
_OPTIONS = (  # allowed in any layer
    *("auto_broadcast", "auto_pad", "axis", "batch_dims", "destination_type", "dilations"),
    *("element_type", "eps", "eps_mode", "epsilon", "exclude-pad", "index_element_type"),
    *("keep_dims", "kernel", "levels", "m_pythondiv", "max", "min", "mode", "normalize_variance"),
    *("offset", "output_type", "pad_mode", "pads_begin", "pads_end", "rounding_type", "shape"),
    *("size", "special_zero", "strides", "transpose_a", "transpose_b"),
)
_PARTS = {"data", "input", "output", "rt_info"}  # allowed elements of a layer


@dataclass(frozen=True)
class _Network:
    """The layers of an .xml that holds only what this package writes.

    Attributes:
        text: the XML to pass to OpenVINO.
        description: the metadata as JSON; empty if there are none.
        layers: by number.
        edges: from (layer, port) to (layer, port), by their end.
    """

    text: bytes
    description: str
    layers: dict[str, ElementTree.Element]
    edges: dict[tuple[str, str], tuple[str, str]]


def read_network(content: bytes) -> _Network:
    """Read and check an .xml.

    Raises:
        ContentError: it is not OpenVINO's, or holds what `resnets export` does not write.
    """
    root = _parse(content)
    if root.tag != "net" or root.get("version") not in _VERSIONS:
        raise ContentError("not an OpenVINO file of a known version")
    parts = [part.tag for part in root]
    if sorted(parts) != ["edges", "layers", "rt_info"]:
        raise ContentError("not an OpenVINO file as `resnets export` writes it")
    layers = {layer.get("id", ""): layer for layer in root.iterfind("layers/*")}
    if len(layers) != len(root.findall("layers/*")) or len(layers) > _MAX_LAYERS:
        raise ContentError(
            f"{len(layers):,} layers; there are too many, or two have the same number"
        )
    for layer in layers.values():
        _refuse_unknown(layer)
    edges = {}
    for edge in root.iterfind("edges/*"):
        source, target = (
            (edge.get(f"{side}-layer", ""), edge.get(f"{side}-port", "")) for side in ("from", "to")
        )
        if target in edges:
            raise ContentError("two edges lead to one port")
        edges[target] = source
    metadata = root.find("rt_info/resnets")
    description = metadata.get("value", "") if metadata is not None else ""
    return _Network(ElementTree.tostring(root, "utf-8"), description, layers, edges)


def _parse(content: bytes) -> ElementTree.Element:
    """The elements of an .xml without a document type, which could hold entities.

    Raises:
        ContentError: it has one, is not XML in UTF-8, or is very large.
    """
    if len(content) > LARGEST_TEXT:
        size = plural(len(content), "byte")
        raise ContentError(f"{size} of XML; at most {LARGEST_TEXT:,} are read")
    if not content.startswith((b"<?xml", b"<net")) or b"<!" in content:
        raise ContentError("not an OpenVINO file (it has to be plain XML)")
    try:
        content.decode("utf-8")
        return ElementTree.fromstring(content, ElementTree.XMLParser(encoding="utf-8"))
    except (ElementTree.ParseError, UnicodeDecodeError, ValueError, RecursionError):
        raise ContentError("not an OpenVINO file, or cut off") from None


def _refuse_unknown(layer: ElementTree.Element) -> None:
    """Refuse a layer of a kind, or with an option, that this package does not write."""
    kind, name = layer.get("type", ""), layer.get("name", "")
    description = f"the layer {shown(kind)} ({shown(name)})"
    if kind not in _OPERATORS and kind not in ("Const", "Parameter", "Result"):
        raise ContentError(f"{description} is not one that this package writes")
    if not layer.get("version", "").removeprefix("opset").isdigit():
        raise ContentError(f"{description} is not of OpenVINO's own operators")
    if {part.tag for part in layer} - _PARTS:
        raise ContentError(f"{description} holds more than this package writes")
    unknown = [option for option in _options_of(layer) if option not in _OPTIONS]
    if unknown:
        raise ContentError(f"{description}: the option {shown(unknown[0])} is not known")


def _options_of(layer: ElementTree.Element) -> Mapping[str, str]:
    """The attributes of a layer's data element."""
    data = layer.find("data")
    return {} if data is None else data.attrib


def check_cost(network: _Network, weights: bytes, side: int, channels: int) -> int:
    """Refuse weights outside of the .bin, and a network that needs too much memory or time.

    Args:
        network: from `read_network`.
        weights: the .bin.
        side: of the image, in pixels.
        channels: of the image.

    Returns:
        The most values that are held at once for one image: see `refuse_costly`.

    Raises:
        ContentError: the network is one of these.
    """
    tensors: dict[str, Tensor] = {}
    steps, used = [], 0
    for layer in _topological_order(network):
        kind, outputs = layer.get("type", ""), _ports(layer, "output")
        if kind == "Parameter":
            tensors |= {name: Tensor((1, side, side, channels)) for name in outputs}
        elif kind == "Const":
            tensor = _constant(layer, weights)  # checks the size, too
            used += int(_options_of(layer)["size"])
            tensors |= dict.fromkeys(outputs, tensor)
        elif kind != "Result":
            inputs = tuple(
                ":".join(network.edges.get((layer.get("id", ""), port), ("", "")))
                for port in _port_numbers(layer, "input")
            )
            steps.append(Step(_OPERATORS[kind], inputs, tuple(outputs), dict(_options(layer))))
    if used > _MAX_REUSE * len(weights) + (1 << 20):
        raise ContentError("its weights are many times what the .bin holds")
    if sum(layer.get("type") == "Parameter" for layer in network.layers.values()) != 1:
        raise ContentError("its graph has other inputs than images")
    return refuse_costly(steps, tensors)


def _port_numbers(layer: ElementTree.Element, side: str) -> list[str]:
    """The numbers of a layer's ports ("input" or "output")."""
    return [port.get("id", "") for port in layer.iterfind(f"{side}/port")]


def _ports(layer: ElementTree.Element, side: str) -> list[str]:
    """The names of the tensors at a layer's ports."""
    return [f"{layer.get('id', '')}:{port}" for port in _port_numbers(layer, side)]


def _topological_order(network: _Network) -> Iterator[ElementTree.Element]:
    """The layers in topological order.

    Raises:
        ContentError: there is a cycle, or an edge leads nowhere.
    """
    before: dict[str, set[str]] = {number: set() for number in network.layers}
    after: dict[str, set[str]] = {number: set() for number in network.layers}
    for (end, _), (start, _) in network.edges.items():
        if start not in before or end not in before:
            raise ContentError("an edge leads to a missing layer")
        before[end].add(start)
        after[start].add(end)
    ready = [number for number in network.layers if not before[number]]
    count = 0
    while ready:
        number = ready.pop()
        count += 1
        yield network.layers[number]
        for later in after[number]:
            before[later].discard(number)
            if not before[later]:
                ready.append(later)
    if count != len(network.layers):
        raise ContentError("its layers form a cycle")


def _constant(layer: ElementTree.Element, weights: bytes) -> Tensor:
    """Shape and tracked values of a layer's weights.

    Raises:
        ContentError: they are not in the .bin, of another size than stated, or not finite.
    """
    attributes, description = _options_of(layer), f"the weights {shown(layer.get('name', ''))}"
    kind = _TYPES.get(attributes.get("element_type", ""))
    try:
        offset, size = int(attributes["offset"]), int(attributes["size"])
        shape = tuple(_integers(attributes.get("shape", "")))
    except (KeyError, ValueError):
        raise ContentError(f"{description} have no valid position and shape") from None
    if kind is None or min(shape, default=0) < 0 or len(shape) > 8:
        raise ContentError(f"{description} are of a type or shape that this package does not write")
    if offset < 0 or size != prod(shape) * np.dtype(kind).itemsize or offset + size > len(weights):
        raise ContentError(f"{description} are not in the .bin, or of another size than stated")
    values = np.frombuffer(weights, kind, prod(shape), offset)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        count_infinite = int((~np.isfinite(values)).sum())
        raise ContentError(
            f"{description} hold {count_infinite:,} of {values.size:,} values that are not finite"
        )
    tracked = values.dtype in (np.int32, np.int64) and values.size <= 64
    return Tensor(shape, tuple(values.tolist()) if tracked else None, constant=True)


def _integers(text: str) -> list[int]:
    """Integers separated by commas."""
    return [int(part) for part in text.split(",")] if text.strip() else []


def _options(layer: ElementTree.Element) -> Iterator[tuple[str, Any]]:
    """A layer's options under ONNX's names, as far as shapes depend on them.

    Raises:
        ContentError: an option has a value that this package does not write.
    """
    attributes = _options_of(layer)
    try:
        for openvino_name, onnx_name in (("strides", "strides"), ("dilations", "dilations")):
            if openvino_name in attributes:
                yield onnx_name, _integers(attributes[openvino_name])
        if "kernel" in attributes:
            yield "kernel_shape", _integers(attributes["kernel"])
        if "pads_begin" in attributes:
            yield "pads", [*_integers(attributes["pads_begin"]), *_integers(attributes["pads_end"])]
        if "axis" in attributes:
            yield "axis", int(attributes["axis"])
    except (KeyError, ValueError):
        raise ContentError(
            f"the layer {shown(layer.get('name', ''))} has options that this package does not write"
        ) from None
    if attributes.get("auto_pad", "explicit") not in ("explicit", "notset"):
        raise ContentError("a padding that this package does not write")
    if attributes.get("batch_dims", "0") != "0":
        raise ContentError("a Gather with batch_dims, which this package does not write")
    yield "to", {"i32": INT32, "i64": INT64}.get(attributes.get("destination_type", ""), 0)
    yield "keepdims", int(attributes.get("keep_dims", "true") == "true")
    yield "allowzero", int(attributes.get("special_zero", "true") != "true")
    yield "ceil_mode", int(attributes.get("rounding_type", "floor").startswith("ceil"))
    yield "transA", int(attributes.get("transpose_a", "false") == "true")
    yield "transB", int(attributes.get("transpose_b", "false") == "true")
