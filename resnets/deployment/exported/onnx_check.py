"""Checks of an ONNX file against a list of allowed content, before a runtime opens it.

The schema, onnx.proto (github.com/onnx/onnx), has many places for a tensor, another file, a graph
or a function. So this module does not search for bad content: every field, operator and option must
be one that `resnets export` writes, and the size of every tensor must match its bytes.
Field numbers are those of onnx.proto.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from resnets.deployment.exported.graph_cost import RULES, Shape, Step, Tensor, refuse_costly
from resnets.deployment.exported.protobuf import fields, packed, packed_count, signed
from resnets.errors import ContentError
from resnets.escaping import escaped

_Value = int | memoryview
_MAX_NODES, _MAX_TENSORS = 50_000, 50_000
_MAX_NAME = 1000  # bytes

# The allowed fields of each message: at most once, or any number of times (after "*").
_MODEL = {1: "ir_version", 2: "producer_name", 3: "producer_version", 4: "domain"} | {
    5: "model_version", 6: "doc_string", 7: "graph", 8: "*opset_import", 14: "*metadata_props"
}  # fmt: skip
_GRAPH = {1: "*node", 2: "name", 5: "*initializer", 10: "doc_string", 11: "*input"} | {
    12: "*output", 13: "*value_info", 16: "*metadata_props"
}  # fmt: skip
_NODE = {1: "*input", 2: "*output", 3: "name", 4: "op_type", 5: "*attribute", 6: "doc_string"} | {
    7: "domain", 9: "*metadata_props"
}  # fmt: skip
_ATTRIBUTE = {1: "name", 2: "f", 3: "i", 4: "s", 5: "t", 7: "*floats", 8: "*ints", 13: "doc_string"}
_ATTRIBUTE |= {20: "type"}
_TENSOR = {1: "*dims", 2: "data_type", 4: "float_data", 5: "int32_data", 7: "int64_data"} | {
    8: "name", 9: "raw_data", 12: "doc_string", 14: "data_location", 16: "*metadata_props"
}  # fmt: skip
_VALUE_INFO = {1: "name", 2: "type", 3: "doc_string", 4: "*metadata_props"}
_TYPE = {1: "tensor_type", 6: "denotation"}
_TENSOR_TYPE = {1: "elem_type", 2: "shape"}
_SHAPE = {1: "*dim"}
_DIMENSION = {1: "dim_value", 2: "dim_param", 3: "denotation"}
_OPERATOR_SET = {1: "domain", 2: "version"}
_ELSEWHERE = {  # some fields that are not allowed, for the message
    "model": {20: "training code", 25: "functions", 26: "devices"},
    "graph": {14: "quantisation annotations", 15: "sparse tensors"},
    "node": {8: "an overload", 10: "devices"},
    "attribute": {
        6: "a graph", 11: "graphs", 22: "a sparse tensor", 23: "sparse tensors", 10: "tensors",
        14: "a type", 15: "types", 9: "texts", 21: "a reference to a function's attribute",
    },
    "tensor": {
        13: "its values in another file, which is never opened", 3: "a segment", 6: "texts",
        10: "float64", 11: "unsigned 64-bit numbers",
    },
    "type": {4: "a sequence", 5: "a map", 7: "an opaque type", 8: "a sparse type", 9: "an option"},
}  # fmt: skip

# number of the type in onnx.proto: NumPy's type and the field of the values
_TYPES: dict[int, tuple[Any, str]] = {
    1: (np.float32, "float_data"),
    2: (np.uint8, "int32_data"),
    3: (np.int8, "int32_data"),
    6: (np.int32, "int32_data"),
    7: (np.int64, "int64_data"),
    10: (np.float16, "int32_data"),
}
_INT64 = 7
# may be imported; only ONNX's are used
_OPERATOR_SETS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
_WINDOW = ("auto_pad", "ceil_mode", "count_include_pad", "dilations", "kernel_shape", "pads")
_OPTIONS: dict[str, tuple[str, ...]] = {  # allowed options of the operators
    **dict.fromkeys(("AveragePool", "MaxPool"), (*_WINDOW, "storage_order", "strides")),
    **dict.fromkeys(("BatchNormalization", "InstanceNormalization"), ("epsilon", "momentum")),
    "Cast": ("to",),
    "Concat": ("axis",),
    "Constant": ("value", "value_float", "value_int", "value_ints"),
    "ConstantOfShape": ("value",),
    "Conv": ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"),
    **dict.fromkeys(("DequantizeLinear", "Flatten", "Gather", "LogSoftmax", "Softmax"), ("axis",)),
    "QuantizeLinear": ("axis", "saturate"),
    "Gemm": ("alpha", "beta", "transA", "transB"),
    "Pad": ("mode",),
    "Reshape": ("allowzero",),
    "Shape": ("start", "end"),
    "Transpose": ("perm",),
    **dict.fromkeys((name for name in RULES if name.startswith("Reduce")), ("keepdims",)),
}
_OPENVINO_ALONE = (
    *("Broadcast", "Conv in groups", "Floor divide", "Gather on axis", "MatMul transposed"),
    *("MaxPool with indices", "Pad at ends", "Slice", "Split", "Transpose by input"),
)
_OPERATORS = RULES.keys() - _OPENVINO_ALONE
_TEXTS = (b"NOTSET", b"constant", b"reflect")  # allowed values of options that are texts


@dataclass(frozen=True)
class _Graph:
    """The graph of an ONNX file that holds only what this package writes.

    Attributes:
        steps: its operators in order.
        weights: its tensors by name.
        input: name and sizes of its input; -1 stands for any size.
    """

    steps: tuple[Step, ...]
    weights: dict[str, Tensor]
    input: tuple[str, Shape]


def read_graph(content: bytes) -> _Graph:
    """Read and check an ONNX file.

    Raises:
        ContentError: it is not one, or holds anything that `resnets export` does not write.
    """
    model = _message(memoryview(content), _MODEL, "model")
    if len(model["graph"]) != 1:
        raise ContentError("not an ONNX file")
    for item in model["opset_import"]:
        domain = _text_of(_message(item, _OPERATOR_SET, "operator set"), "domain")
        if domain not in _OPERATOR_SETS:
            raise ContentError(f"needs operators of {shown(domain)}, not of ONNX")
    graph = _message(model["graph"][0], _GRAPH, "graph")
    if len(graph["node"]) > _MAX_NODES or len(graph["initializer"]) > _MAX_TENSORS:
        raise ContentError(f"{len(graph['node']):,} operators; at most {_MAX_NODES:,} are read")
    weights: dict[str, Tensor] = {}
    for name, tensor in map(_read_tensor, graph["initializer"]):
        if name in weights:
            raise ContentError(f"two tensors are called {shown(name)}")
        weights[name] = tensor
    inputs = [_read_input(item) for item in graph["input"]]
    for item in (*graph["output"], *graph["value_info"]):
        _read_input(item)
    inputs = [(name, shape) for name, shape in inputs if name not in weights]
    if len(inputs) != 1:
        raise ContentError(f"its graph has {len(inputs)} inputs instead of images only")
    return _Graph(tuple(map(_read_node, graph["node"])), weights, inputs[0])


def check_cost(graph: _Graph, side: int, channels: int) -> int:
    """Refuse a graph that needs more memory or computation for one image than networks do.

    Args:
        graph: from `read_graph`.
        side: of the image, in pixels.
        channels: of the image.

    Returns:
        The most values that are held at once for one image: see `refuse_costly`.

    Raises:
        ContentError: it does; names the operator.
    """
    name, shape = graph.input
    if len(shape) != 4 or shape[3] not in (-1, channels):
        raise ContentError(
            f"the graph takes {shape[3] if len(shape) == 4 else 'no'} channels, its metadata "
            f"state {channels}"
        )
    image = (1, side, side, channels)
    return refuse_costly(graph.steps, {**graph.weights, name: Tensor(image)})


def _message(content: _Value, allowed: dict[int, str], kind: str) -> dict[str, list[Any]]:
    """The fields of a message by name.

    Raises:
        ContentError: a field is not allowed, or is repeated too often.
    """
    if isinstance(content, int):
        raise ContentError(f"a {kind} is missing")
    values_by_name: dict[str, list[Any]] = {name.lstrip("*"): [] for name in allowed.values()}
    for number, value in fields(content):
        name = allowed.get(number)
        if name is None:
            content_name = _ELSEWHERE.get(kind, {}).get(number, f"field {number}")
            raise ContentError(f"its {kind}{_name_of(content, kind)} holds {content_name}")
        values = values_by_name[name.lstrip("*")]
        if values and not name.startswith("*"):
            raise ContentError(f"its {kind}{_name_of(content, kind)} has {name} twice")
        values.append(value)
    return values_by_name


def _name_of(content: memoryview, kind: str) -> str:
    """The name of a refused message, if it has one."""
    number = {"attribute": 1, "tensor": 8, "node": 4}.get(kind)
    names = [bytes(v) for n, v in fields(content) if n == number and isinstance(v, memoryview)]
    return f" {shown(names[0].decode(errors='replace'))}" if names else ""


def shown(name: str) -> str:
    """A name from the file, short and safe to print."""
    return repr(escaped(name[:60]))


def _text_of(message: dict[str, list[Any]], name: str) -> str:
    """The text in a field; empty if the field is missing."""
    value = message[name][0] if message[name] else b""
    return _decoded(value)


def _decoded(value: _Value | bytes) -> str:
    """Bytes as text.

    Raises:
        ContentError: they are a number, not UTF-8, or very long.
    """
    if isinstance(value, int) or len(value) > _MAX_NAME:
        raise ContentError("a name that is not a text, or is very long")
    try:
        return bytes(value).decode()
    except UnicodeDecodeError:
        raise ContentError("a name that is not UTF-8") from None


def _number_of(message: dict[str, list[Any]], name: str, default: int = 0) -> int:
    """The integer in a field."""
    value = message[name][0] if message[name] else default
    if not isinstance(value, int):
        raise ContentError(f"{name} is not a number")
    return signed(value)


def _numbers(values: list[_Value]) -> list[int]:
    """Integers, packed or one by one."""
    numbers: list[int] = []
    for value in values:
        numbers += [value] if isinstance(value, int) else packed(value)
    return [signed(value) for value in numbers]


def _read_input(content: memoryview) -> tuple[str, Shape]:
    """Name and sizes of an input or output; -1 stands for any size."""
    value = _message(content, _VALUE_INFO, "value")
    name = _text_of(value, "name")
    if not value["type"]:
        return name, ()
    kinds = _message(value["type"][0], _TYPE, "type")["tensor_type"]
    tensor = _message(kinds[0] if kinds else memoryview(b""), _TENSOR_TYPE, "tensor type")
    if not tensor["shape"]:
        return name, ()
    sizes = _message(tensor["shape"][0], _SHAPE, "shape")["dim"]
    dimensions = [_message(size, _DIMENSION, "dimension") for size in sizes]
    return name, tuple(_number_of(dimension, "dim_value", -1) for dimension in dimensions)


def _read_node(content: memoryview) -> Step:
    """An operator with its options."""
    node = _message(content, _NODE, "node")
    operator = _text_of(node, "op_type")
    outputs = tuple(map(_decoded, node["output"]))
    description = f"{shown(operator)} ({shown(outputs[0]) if outputs else 'nothing'})"
    domain = _text_of(node, "domain")
    if domain not in ("", "ai.onnx"):
        raise ContentError(f"needs an operator of {shown(domain)}: {description}")
    if operator not in _OPERATORS:
        raise ContentError(f"the operator {description} is not one that this package writes")
    try:
        options = dict(_read_option(attribute, operator) for attribute in node["attribute"])
    except ContentError as error:
        raise ContentError(f"the operator {description}: {error}") from None
    if len(options) != len(node["attribute"]) or len(outputs) != 1:
        raise ContentError(f"the operator {description} has options twice, or several outputs")
    return Step(operator, tuple(map(_decoded, node["input"])), outputs, options)


def _read_option(content: memoryview, operator: str) -> tuple[str, Any]:
    """The name and value of an attribute."""
    attribute = _message(content, _ATTRIBUTE, "attribute")
    name = _text_of(attribute, "name")
    allowed = _OPTIONS.get(operator, ())
    if name not in allowed and not (name == "noop_with_empty_axes" and "keepdims" in allowed):
        raise ContentError(f"the option {shown(name)} is not one that this package writes")
    if attribute["t"]:
        return name, _read_tensor(attribute["t"][0])[1]
    if attribute["s"]:
        if bytes(attribute["s"][0]) not in _TEXTS:
            raise ContentError(f"its option {name} is not one that this package writes")
        return name, None
    if attribute["ints"]:
        return name, _numbers(attribute["ints"])
    if attribute["i"]:
        return name, _number_of(attribute, "i")
    return name, None  # a float: no shape depends on it


def _read_tensor(content: memoryview) -> tuple[str, Tensor]:
    """Name and shape of a tensor, with its values if they may become shapes.

    Raises:
        ContentError: its values are in another file, not as many as its shape, or not finite.
    """
    tensor = _message(content, _TENSOR, "tensor")
    name = _text_of(tensor, "name")
    description = f"the tensor {shown(name)}"
    if _number_of(tensor, "data_location") != 0:
        raise ContentError(f"{description} has its values in another file, which is never opened")
    kind = _TYPES.get(_number_of(tensor, "data_type"))
    shape = tuple(_numbers(tensor["dims"]))
    if kind is None or min(shape, default=0) < 0 or len(shape) > 8:
        raise ContentError(f"{description} is of a type or shape that this package does not write")
    count = sum(_counts(tensor, *kind))
    if count != prod(shape):
        sizes = " x ".join(map(str, shape)) or "1"
        raise ContentError(f"{description} has the shape {sizes}, but {count:,} values")
    values = _values_of(tensor, *kind)
    if values is not None and values.dtype.kind == "f" and not np.isfinite(values).all():
        count_infinite = int((~np.isfinite(values)).sum())
        raise ContentError(
            f"{description} holds {count_infinite:,} of {count:,} values that are not finite"
        )
    tracked = values is not None and values.dtype in (np.int32, np.int64) and values.size <= 64
    integers = tuple(values.ravel().tolist()) if tracked and values is not None else None
    return name, Tensor(shape, integers, constant=True)


def _counts(tensor: dict[str, list[Any]], kind: Any, listed: str) -> Iterator[int]:
    """The number of values in each field that holds values."""
    for name in ("raw_data", "float_data", "int32_data", "int64_data"):
        for value in tensor[name]:
            size = np.dtype(kind).itemsize if name == "raw_data" else 4
            if name not in ("raw_data", listed) or isinstance(value, int):
                raise ContentError("a tensor whose values are of another type")
            if name in ("raw_data", "float_data") and len(value) % size:
                raise ContentError("a tensor with an incomplete value")
            of_bytes = name in ("raw_data", "float_data")
            yield len(value) // size if of_bytes else packed_count(value)


def _values_of(tensor: dict[str, list[Any]], kind: Any, listed: str) -> Any:
    """The values as an array, in the order of the file; None for integers of 8 or 16 bits."""
    if tensor["raw_data"]:
        return np.frombuffer(tensor["raw_data"][0], np.dtype(kind).newbyteorder("<"))
    if tensor["float_data"]:
        return np.frombuffer(tensor["float_data"][0], "<f4")
    if listed == "int64_data" and tensor[listed]:
        return np.array(_numbers(tensor[listed]), np.int64)
    if kind is np.float16 and tensor[listed]:
        return np.array(_numbers(tensor[listed]), np.uint16).view(np.float16)
    return None
