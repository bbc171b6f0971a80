"""The bare structure of protobuf messages, enough to look into a file before a runtime does.

Encoding: protobuf.dev/programming-guides/encoding.
"""

from collections.abc import Iterator

import numpy as np

from resnets.errors import ContentError

_Field = tuple[int, int | memoryview]

_METADATA = 14  # of onnx.proto's model
_KEY, _VALUE = 1, 2  # of an entry of the metadata


def fields(message: memoryview) -> Iterator[_Field]:
    """Number and content of each field of a message.

    Raises:
        ContentError: it is no message, or cut off.
    """
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, place = _varint(message, place)
            yield number, value
            continue
        if kind == 2:
            length, place = _varint(message, place)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise ContentError("no protobuf message")
        if length > len(message) - place:
            raise ContentError("cut off, or no protobuf message")
        yield number, message[place : place + length]
        place += length


def _varint(message: memoryview, place: int) -> tuple[int, int]:
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


def signed(value: int) -> int:
    """A whole number of 64 bits that may be negative, as int64 has it."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


def _inside(message: memoryview, *numbers: int) -> Iterator[memoryview]:
    """The messages that are in some fields of a message."""
    for number, value in fields(message):
        if number in numbers and isinstance(value, memoryview):
            yield value


def _text(message: memoryview, number: int) -> str:
    """The text in a field; empty if it has none."""
    found = [bytes(value).decode(errors="replace") for value in _inside(message, number)]
    return found[-1] if found else ""


def metadata_of(content: bytes) -> dict[str, str]:
    """The metadata of an ONNX file, by key.

    Raises:
        ContentError: the bytes are no ONNX file.
    """
    entries = _inside(memoryview(content), _METADATA)
    return {_text(entry, _KEY): _text(entry, _VALUE) for entry in entries}


def packed(message: memoryview) -> list[int]:
    """Numbers one after another."""
    place, found = 0, []
    while place < len(message):
        value, place = _varint(message, place)
        found.append(value)
    return found


def packed_count(message: memoryview) -> int:
    """How many numbers stand one after another."""
    return int((np.frombuffer(message, np.uint8) < 128).sum())
