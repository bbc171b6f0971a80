"""A minimal reader of protobuf messages, to check a file before a runtime opens it.

Encoding: protobuf.dev/programming-guides/encoding.
"""

from collections.abc import Iterator

import numpy as np

from resnets.errors import ContentError

_Field = tuple[int, int | memoryview]

_METADATA = 14  # a field of ModelProto in onnx.proto
_KEY, _VALUE = 1, 2  # fields of an entry of the metadata


def fields(message: memoryview) -> Iterator[_Field]:
    """Number and content of each field of a message.

    Raises:
        ContentError: it is not a message, or is cut off.
    """
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, position = _varint(message, position)
            yield number, value
            continue
        if kind == 2:
            length, position = _varint(message, position)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise ContentError("not a protobuf message")
        if length > len(message) - position:
            raise ContentError("cut off, or not a protobuf message")
        yield number, message[position : position + length]
        position += length


def _varint(message: memoryview, start: int) -> tuple[int, int]:
    """An integer of 7 bits per byte, and the position after it."""
    value = 0
    for count in range(10):
        if start + count >= len(message):
            break
        byte = message[start + count]
        value |= (byte & 127) << (7 * count)
        if byte < 128:
            return value, start + count + 1
    raise ContentError("cut off, or not a protobuf message")


def signed(value: int) -> int:
    """An unsigned integer of 64 bits reinterpreted as int64."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


def messages_in(message: memoryview, *numbers: int) -> Iterator[memoryview]:
    """The messages in the fields of these numbers."""
    for number, value in fields(message):
        if number in numbers and isinstance(value, memoryview):
            yield value


def text_of(message: memoryview, number: int) -> str:
    """The text in a field; empty if the field is missing."""
    texts = [bytes(value).decode(errors="replace") for value in messages_in(message, number)]
    return texts[-1] if texts else ""


def metadata_of(content: bytes) -> dict[str, str]:
    """The metadata of an ONNX file, by key.

    Raises:
        ContentError: the bytes are not an ONNX file.
    """
    entries = messages_in(memoryview(content), _METADATA)
    return {text_of(entry, _KEY): text_of(entry, _VALUE) for entry in entries}


def packed(message: memoryview) -> list[int]:
    """The numbers of a packed field."""
    position, numbers = 0, []
    while position < len(message):
        value, position = _varint(message, position)
        numbers.append(value)
    return numbers


def packed_count(message: memoryview) -> int:
    """The count of numbers in a packed field."""
    return int((np.frombuffer(message, np.uint8) < 128).sum())
