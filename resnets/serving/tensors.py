"""Tensors of the Open Inference Protocol: a request's images, and the outputs of its response.

Source: Open Inference Protocol, HTTP/REST (github.com/kserve/open-inference-protocol), and of
Triton's extensions to it binary_tensor_data and classification.
Shapes: N images of H x W pixels and C channels, K classes.
"""

import base64
import binascii
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.exceptions import HTTPException

from resnets.errors import ContentError
from resnets.format import plural
from resnets.headers import parse_json
from resnets.images import Pixels

INPUTS = {"images": "UINT8", "files": "BYTES"}  # names and types; a request has one of them
OUTPUTS = {
    "probabilities": "FP32",
    "prediction": "BYTES",
    "status": "BYTES",
    "error": "BYTES",
    "features": "FP32",
}
_DEFAULT_OUTPUTS = ("probabilities", "prediction", "status")
_HOW = (
    "give one tensor: images (UINT8, N x H x W x C), or files (BYTES, N, each the bytes of an "
    "image file)"
)
_LARGEST_SIZE = (1 << 63) - 1  # sizes are of 64 bits in the protocol
_LENGTH = struct.Struct("<I")  # of each element of BYTES in binary


@dataclass(frozen=True)
class RequestedOutput:
    """An output that a request asks for.

    Attributes:
        name: one of OUTPUTS.
        binary: whether its values follow the JSON as bytes.
        classes: how many of the most probable classes to list in place of all values; 0: none.
    """

    name: str
    binary: bool = False
    classes: int = 0


@dataclass(frozen=True)
class InferRequest:
    """What a request asks for.

    Attributes:
        id: that the response repeats; None without one.
        images: bytes of image files, or pixels (H, W, C) uint8.
        outputs: in the order of the response.
        timeout: seconds that the client waits.
    """

    id: str | None
    images: Sequence[bytes | Pixels]
    outputs: Sequence[RequestedOutput]
    timeout: float = math.inf


@dataclass(frozen=True)
class Output:
    """A tensor of a response.

    Attributes:
        name: one of OUTPUTS.
        values: of FP32, of any shape, or texts (BYTES) of any shape.
        binary: whether its values follow the JSON as bytes.
    """

    name: str
    values: NDArray[np.float32] | NDArray[np.object_]
    binary: bool = False


def read_request(body: bytes, header_length: str | None, most: int) -> InferRequest:
    """What the body of a request asks for. Nothing is allocated before its size was checked.

    Args:
        body: JSON, which the bytes of a tensor may follow.
        header_length: the header Inference-Header-Content-Length, where bytes follow.
        most: the largest number of images.

    Raises:
        HTTPException: 400, the body makes no sense; 413, there are more images.
    """
    header, tail = _parts(body, header_length)
    try:
        values = parse_json(header)
    except ContentError as error:
        raise HTTPException(400, f"the body: {error}; large tensors go in binary") from None
    request = _object(values, "the body")
    inputs = request.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1:
        raise HTTPException(400, f"inputs: {_HOW}")
    identity = request.get("id")
    if not isinstance(identity, str | None):
        raise HTTPException(400, "id: it must be a text")
    parameters = _object(request.get("parameters", {}), "parameters")
    return InferRequest(
        identity,
        _images(_object(inputs[0], "inputs"), tail, most),
        _requested(request.get("outputs"), parameters.get("binary_data_output") is True),
        _timeout(parameters),
    )


def _parts(body: bytes, header_length: str | None) -> tuple[bytes, memoryview]:
    """The JSON of a body, and the bytes that follow it."""
    if header_length is None:
        return body, memoryview(b"")
    plain = header_length.isascii() and header_length.isdecimal() and len(header_length) < 12
    if not plain or int(header_length) > len(body):
        raise HTTPException(
            400,
            f"Inference-Header-Content-Length: {header_length[:20]!r} is not the length of the "
            f"JSON in a body of {len(body):,} bytes",
        )
    size = int(header_length)
    return body[:size], memoryview(body)[size:]


def _object(value: Any, name: str) -> Mapping[str, Any]:
    """A value that must be a JSON object."""
    if not isinstance(value, dict):
        raise HTTPException(400, f"{name}: it must be a JSON object")
    return value


def _timeout(parameters: Mapping[str, Any]) -> float:
    """Seconds that the client waits, from the parameter timeout in microseconds."""
    value = parameters.get("timeout", math.inf)
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise HTTPException(400, "timeout: it must be a number of microseconds above 0")
    return float(min(value, 1e15)) / 1e6


def _images(tensor: Mapping[str, Any], tail: memoryview, most: int) -> list[bytes | Pixels]:
    """The images of the input tensor of a request."""
    name, kind = tensor.get("name"), tensor.get("datatype")
    if not isinstance(name, str) or name not in INPUTS:
        raise HTTPException(400, f"unexpected input {_shown(name)}; {_HOW}")
    if kind != INPUTS[name]:
        shown = "missing" if kind is None else _shown(kind)
        raise HTTPException(400, f"{name}: the datatype is {shown}; it must be {INPUTS[name]}")
    shape = _shape(tensor.get("shape"), name)
    if shape[0] > most:
        raise HTTPException(413, f"{name}: {shape[0]:,} images; at most {most:,} are taken")
    parameters = _object(tensor.get("parameters", {}), f"{name}: parameters")
    if "shared_memory_region" in parameters:
        raise HTTPException(400, f"{name}: shared memory is not offered")
    size = parameters.get("binary_data_size")
    if size is None and "data" not in tensor:
        raise HTTPException(400, f"{name}: neither data nor binary_data_size is given")
    if size is not None and "data" in tensor:
        raise HTTPException(400, f"{name}: both data and binary_data_size are given; give one")
    if isinstance(size, bool) or (size or 0) != len(tail):
        raise HTTPException(
            400,
            f"{name}: binary_data_size is {_shown(size)}, and {len(tail):,} bytes follow the JSON",
        )
    packed = None if size is None else tail
    if name == "images":
        pixels = _pixels(tensor.get("data"), packed, shape)
        return list(pixels.reshape(shape))
    if packed is not None:
        return list(_elements(packed, shape[0]))
    return _decoded(tensor["data"], shape[0], parameters.get("content_type", "base64"))


def _shape(value: Any, name: str) -> tuple[int, ...]:
    """The shape of an input tensor: (N, H, W, C) of images, (N,) or (N, 1) of files."""
    sizes = value if isinstance(value, list) else [0]
    fits = all(type(size) is int and 1 <= size <= _LARGEST_SIZE for size in sizes)
    if name == "images":
        if not (fits and len(sizes) == 4 and sizes[3] in (1, 3, 4)):
            raise HTTPException(
                400,
                f"images: the shape is {_shown(value)}, not N x H x W x C with N, H and W of at "
                "least 1 and C of 1, 3 or 4",
            )
    elif not (fits and (len(sizes) == 1 or (len(sizes) == 2 and sizes[1] == 1))):
        raise HTTPException(400, f"files: the shape is {_shown(value)}, neither (N) nor (N, 1)")
    return tuple(sizes)


def _pixels(data: Any, packed: memoryview | None, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """The values of a tensor of pixels, as many as its shape says."""
    count = math.prod(shape)
    values: Sequence[Any] | memoryview = _flat(data, 4) if packed is None else packed
    if len(values) != count:
        raise HTTPException(
            400, f"images: {len(values):,} values; the shape {list(shape)} has {count:,}"
        )
    try:
        if isinstance(values, memoryview):
            return np.frombuffer(values, np.uint8)
        if bool in set(map(type, values)):  # which `bytes` takes for 1 and 0
            raise TypeError
        return np.frombuffer(bytes(values), np.uint8)
    except (TypeError, ValueError):
        raise HTTPException(400, "images: data holds other than whole numbers 0 to 255") from None


def _flat(data: Any, levels: int) -> list[Any]:
    """The values of data in nested lists, as many levels deep at most."""
    for _ in range(levels):
        if not isinstance(data, list) or not data or not isinstance(data[0], list):
            break
        if not all(isinstance(each, list) for each in data):
            raise HTTPException(400, "data: lists and values stand beside each other")
        data = list(chain.from_iterable(data))
    if not isinstance(data, list):
        raise HTTPException(400, "data: it must be a list")
    return data


def _elements(content: memoryview, count: int) -> Sequence[bytes]:
    """The elements of a BYTES tensor in binary, each after its length in 4 bytes."""
    place, elements = 0, []
    for _ in range(count):
        if len(content) - place < _LENGTH.size:
            raise HTTPException(400, f"files: fewer than {count:,} elements in binary")
        (length,) = _LENGTH.unpack_from(content, place)
        place += _LENGTH.size
        if length > len(content) - place:
            raise HTTPException(400, f"files: an element of {length:,} bytes is cut off")
        elements.append(bytes(content[place : place + length]))
        place += length
    if place != len(content):
        raise HTTPException(400, f"files: more than {count:,} elements in binary")
    return elements


def _decoded(data: Any, count: int, content_type: Any) -> list[bytes | Pixels]:
    """The elements of a BYTES tensor in JSON: base64, as a text or as {"b64": TEXT}."""
    if content_type != "base64":
        raise HTTPException(400, f"files: content_type {_shown(content_type)}; it must be base64")
    texts: list[Any] = [
        each.get("b64") if isinstance(each, dict) else each for each in _flat(data, 2)
    ]
    if len(texts) != count:
        elements = plural(len(texts), "element")
        raise HTTPException(400, f"files: {elements} in data; the shape has {count:,}")
    try:
        return [base64.b64decode(text, validate=True) for text in texts]
    except (TypeError, ValueError, binascii.Error):
        raise HTTPException(
            400, "files: data must be texts in base64, or objects with b64; or send them in binary"
        ) from None


def _requested(outputs: Any, binary: bool) -> tuple[RequestedOutput, ...]:
    """The outputs that a request asks for; those of _DEFAULT_OUTPUTS where it names none."""
    if outputs is None or outputs == []:
        return tuple(RequestedOutput(name, binary) for name in _DEFAULT_OUTPUTS)
    if not isinstance(outputs, list) or len(outputs) > len(OUTPUTS):
        raise HTTPException(400, "outputs: it must be a list, with each output once")
    requested = tuple(_one_requested(_object(each, "outputs"), binary) for each in outputs)
    if len({each.name for each in requested}) != len(requested):
        raise HTTPException(400, "outputs: one is requested twice")
    return requested


def _one_requested(output: Mapping[str, Any], binary: bool) -> RequestedOutput:
    """An output that a request asks for."""
    name = output.get("name")
    if not isinstance(name, str) or name not in OUTPUTS:
        raise HTTPException(
            400, f"unexpected output {_shown(name)}; there are {', '.join(OUTPUTS)}"
        )
    parameters = _object(output.get("parameters", {}), f"{name}: parameters")
    if "shared_memory_region" in parameters:
        raise HTTPException(400, f"{name}: shared memory is not offered")
    classes = parameters.get("classification", 0)
    if not isinstance(classes, int) or isinstance(classes, bool) or classes < 0:
        raise HTTPException(400, f"{name}: classification must be a number of classes")
    if classes and name != "probabilities":
        raise HTTPException(400, f"{name}: classification goes with probabilities only")
    return RequestedOutput(name, parameters.get("binary_data", binary) is True, classes)


def _shown(value: Any) -> str:
    """A value of a request, in a message."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def classification(probabilities: NDArray[np.float32], names: Sequence[str], top: int) -> list[str]:
    """The most probable classes of an image, as Triton writes them: value, index, label.

    >>> classification(np.array([0.25, 0.75], np.float32), ("cat", "dog"), 1)
    ['0.750000:1:dog']
    """
    order = np.argsort(-probabilities, kind="stable")[:top].tolist()
    return [f"{probabilities.item(index):.6f}:{index}:{names[index]}" for index in order]


def described(output: Output) -> dict[str, Any]:
    """An output in the JSON of a response, with its values unless they follow as bytes."""
    values = output.values
    described: dict[str, Any] = {
        "name": output.name,
        "datatype": "FP32" if values.dtype == np.float32 else "BYTES",
        "shape": list(values.shape),
    }
    if output.binary:
        return described | {"parameters": {"binary_data_size": len(in_binary(output))}}
    return described | {"data": values.ravel().tolist()}


def in_binary(output: Output) -> bytes:
    """The values of an output as bytes: little-endian, each text after its length."""
    if output.values.dtype == np.float32:
        return output.values.astype("<f4").tobytes()
    texts = [str(text).encode() for text in output.values.ravel()]
    return b"".join(_LENGTH.pack(len(text)) + text for text in texts)
