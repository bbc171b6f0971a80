"""The bare structure of protobuf messages, enough to look into an ONNX file before a runtime does.

Field numbers are those of onnx.proto.
"""

from collections.abc import Iterator
from math import prod

from resnets.errors import ContentError

Field = tuple[int, int | memoryview]

GRAPH, METADATA, TRAINING, FUNCTIONS = 7, 14, 20, 25  # of a model
NODES, INITIALIZERS, SPARSE = 1, 5, 15  # of a graph
OPERATOR, ATTRIBUTES, DOMAIN = 4, 5, 7  # of a node
TENSORS, GRAPHS = (5, 10), (6, 11)  # of an attribute: one, several
DIMENSIONS, EXTERNAL, LOCATION = 1, 13, 14  # of a tensor
KEY, VALUE = 1, 2  # of an entry of the metadata

DOMAINS = ("", "ai.onnx", "com.microsoft")


def fields(message: memoryview) -> Iterator[Field]:
    """Number and content of each field of a message.

    Raises:
        ContentError: it is no message, or cut off.
    """
    place = 0
    while place < len(message):
        key, place = varint(message, place)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, place = varint(message, place)
            yield number, value
            continue
        if kind == 2:
            length, place = varint(message, place)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise ContentError("no protobuf message")
        if length > len(message) - place:
            raise ContentError("cut off, or no protobuf message")
        yield number, message[place : place + length]
        place += length


def varint(message: memoryview, place: int) -> tuple[int, int]:
    """A whole number of 7 bits a byte, and where the next thing begins."""
    value = 0
    for count in range(10):
        if place + count >= len(message):
            break
        byte = message[place + count]
        value |= (byte & 127) << (7 * count)
        if byte < 128:
            return value, place + count + 1
    raise ContentError("cut off, or no protobuf message")


def inside(message: memoryview, *numbers: int) -> Iterator[memoryview]:
    """The messages that are in some fields of a message."""
    for number, value in fields(message):
        if number in numbers and isinstance(value, memoryview):
            yield value


def text(message: memoryview, number: int) -> str:
    """The text in a field; empty if it has none."""
    found = [bytes(value).decode(errors="replace") for value in inside(message, number)]
    return found[-1] if found else ""


def metadata_of(content: bytes) -> dict[str, str]:
    """The metadata of an ONNX file, by key.

    Raises:
        ContentError: the bytes are no ONNX file.
    """
    entries = inside(memoryview(content), METADATA)
    return {text(entry, KEY): text(entry, VALUE) for entry in entries}


def refuse_hostile(content: bytes) -> None:
    """Refuse an ONNX file that reaches beyond itself.

    Files of this package need no other file, no subgraph, no function and no operator but those
    of ONNX and ONNX Runtime, and no tensor is larger than what is written of it.

    Raises:
        ContentError: it does need such, or is no ONNX file.
    """
    model = memoryview(content)
    if any(True for _ in inside(model, TRAINING, FUNCTIONS)):
        raise ContentError("holds functions or training code")
    graphs = list(inside(model, GRAPH))
    if len(graphs) != 1:
        raise ContentError("not an ONNX file")
    if any(True for _ in inside(graphs[0], SPARSE)):
        raise ContentError("holds sparse tensors")
    for tensor in inside(graphs[0], INITIALIZERS):
        refuse_tensor(tensor)
    for node in inside(graphs[0], NODES):
        if text(node, DOMAIN) not in DOMAINS:
            raise ContentError(f"needs an operator of {text(node, DOMAIN)!r}, which is not ONNX's")
        for attribute in inside(node, ATTRIBUTES):
            if any(True for _ in inside(attribute, *GRAPHS)):
                raise ContentError(f"holds a graph within {text(node, OPERATOR)}")
            for tensor in inside(attribute, *TENSORS):
                refuse_tensor(tensor)


def refuse_tensor(tensor: memoryview) -> None:
    """Refuse a tensor that is in another file, or larger than its bytes."""
    dimensions: list[int] = []
    for number, value in fields(tensor):
        if number == EXTERNAL or (number == LOCATION and value != 0):
            raise ContentError("a tensor is in another file, which is never opened")
        if number == DIMENSIONS:
            dimensions += [value] if isinstance(value, int) else packed(value)
    if prod(dimensions) > 2 * len(tensor):  # the smallest types have 4 bits
        shown = " x ".join(map(str, dimensions))
        raise ContentError(f"a tensor claims {shown} values in {len(tensor)} bytes")


def packed(message: memoryview) -> list[int]:
    """Numbers one after another."""
    place, found = 0, []
    while place < len(message):
        value, place = varint(message, place)
        found.append(value)
    return found
