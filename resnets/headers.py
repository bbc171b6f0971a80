"""Headers of files: JSON of bounded size, and the header of a safetensors file."""

import io
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resnets.errors import ContentError
from resnets.files.reading import open_input
from resnets.format import plural
from resnets.other_formats import HEAD, other_format

TORCH_ENDINGS = (".pt", ".pth", ".th", ".bin", ".ckpt")  # of files that torch.save writes
_LARGEST_FILE = 1 << 36  # bytes
_LARGEST = 100_000_000  # bytes; the limit of the safetensors format itself
_MOST = 1_000_000  # values in it, each of which takes memory beyond its bytes
_MOST_TENSORS = 100_000
_BITS: Mapping[str, int] = {  # of a number of each type that the format has
    **{"BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8},
    **{"F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6},
    **{"I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32},
    **{"I64": 64, "U64": 64, "F64": 64, "C64": 64},
}


@dataclass(frozen=True)
class Header:
    """Of a safetensors file.

    Attributes:
        metadata: text values by name.
        shapes: of its tensors, by name.
    """

    metadata: dict[str, str]
    shapes: dict[str, tuple[int, ...]]


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text; absurdly large or deep ones and repeated names are refused.

    Raises:
        ContentError: it is no such JSON; the message does not name the file.
    """
    content = text.encode(errors="replace") if isinstance(text, str) else text
    if sum(map(content.count, (b",", b"[", b"{"))) > _MOST:
        raise ContentError(f"JSON of more than {_MOST:,} values")
    try:
        return json.loads(text, object_pairs_hook=_once)
    except ContentError:
        raise
    except RecursionError:
        raise ContentError("JSON nested too deep") from None
    except ValueError as error:
        raise ContentError(f"no JSON ({error})") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A dict of pairs, whose names must differ: readers do not agree on which of two counts."""
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ContentError("JSON with a repeated name")
    return table


def read_safetensors_header(path: str | Path) -> Header:
    """The header of a safetensors file, checked; no weight is read.

    Raises:
        OSError: if the file cannot be read.
        ContentError: if it is not a safetensors file, is cut off, or contradicts itself.
    """
    with open_input(path, _LARGEST_FILE) as file:
        start = file.read(8)
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(start, "little")
        if len(start) != 8 or not 2 <= length <= min(_LARGEST, size - 8):
            framework = other_format(start + file.read(HEAD - len(start)), _last(file))
            raise ContentError(f"{path}: {framework or 'not a safetensors file, or cut off'}")
        text = file.read(length)
    try:
        return parse_header(text, size - 8 - length)
    except ContentError as error:
        raise ContentError(f"{path}: not a safetensors file, or damaged: {error}") from None


def _last(file: io.BufferedReader) -> bytes:
    """The last 8 bytes."""
    file.seek(max(0, os.fstat(file.fileno()).st_size - 8))
    return file.read(8)


def parse_header(text: bytes, size: int) -> Header:
    """The header from its JSON.

    Args:
        text: the JSON.
        size: bytes of all tensors together.

    Raises:
        ContentError: it is not a header, or its tensors do not fill those bytes, each byte once.
    """
    table = parse_json(text)
    if not isinstance(table, dict):
        raise ContentError("its header is not a table")
    metadata = table.pop("__metadata__", {})
    if not isinstance(metadata, dict):
        raise ContentError("its metadata are not a table")
    if len(table) > _MOST_TENSORS:
        raise ContentError(f"{len(table):,} tensors; {_MOST_TENSORS:,} at most")
    places = sorted(_place(name, entry) for name, entry in table.items())
    end_so_far = 0
    for start, end, name in places:
        if start != end_so_far:
            raise ContentError(f"tensor {name[:80]!r} overlaps another, or leaves a gap")
        end_so_far = end
    if end_so_far != size:
        cut = "cut off: " if end_so_far > size else ""
        raise ContentError(f"{cut}tensors of {plural(end_so_far, 'byte')} in {size:,}")
    shapes = {name: tuple(entry["shape"]) for name, entry in table.items()}
    return Header({key: str(value) for key, value in metadata.items()}, shapes)


def _place(name: str, entry: Any) -> tuple[int, int, str]:
    """Where a tensor begins and ends.

    Raises:
        ContentError: its type, shape and place do not agree.
    """
    types = {"dtype": str, "shape": list, "data_offsets": list}
    if not isinstance(entry, dict) or any(
        not isinstance(entry.get(key), kind) for key, kind in types.items()
    ):
        raise ContentError(f"tensor {name[:80]!r} without a dtype, shape and data_offsets")
    numbers = (*entry["shape"], *entry["data_offsets"])
    if not all(type(number) is int and 0 <= number < 1 << 48 for number in numbers):
        raise ContentError(f"tensor {name[:80]!r} of an impossible size")
    bits = _BITS.get(entry["dtype"])
    if bits is None or len(entry["data_offsets"]) != 2 or len(entry["shape"]) > 16:
        raise ContentError(f"tensor {name[:80]!r} of an unknown type or shape")
    start, end = entry["data_offsets"]
    if math.prod(entry["shape"]) * bits != (end - start) * 8:
        raise ContentError(f"tensor {name[:80]!r} does not have the bytes that its shape takes")
    return start, end, name
