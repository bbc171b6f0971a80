"""Other projects' weight files, of any format and packing, read without running what they say."""

import gzip
import os
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from resnets.errors import ContentError
from resnets.files.reading import open_input
from resnets.format import plural
from resnets.headers import TORCH_ENDINGS, parse_header
from resnets.networks.checkpoints.torch_file import TorchFile, read_torch
from resnets.other_formats import HEAD, other_archive, other_format
from resnets.packing import (
    BROKEN_ZIP,
    Window,
    refuse_many_members,
    unpacked,
    unpacked_limit,
    unpacked_member,
)
from resnets.pickles import Call, ForbiddenNameError

_GZIP, _ZIP, _PICKLE = b"\x1f\x8b", b"PK\x03\x04", b"\x80"  # how such files begin
_WEIGHT_ENDINGS = (".safetensors", *TORCH_ENDINGS)
_LARGEST = 1 << 34  # bytes
_DEEPEST = 8  # levels of dictionaries around the weights
_MOST = 300_000  # values in them, each counted as often as it is referred to
_LONGEST = 1000  # characters of a name, all its levels together


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Every tensor in a file by its dotted name, the keys of dictionaries around it included.

    Args:
        path: .safetensors, or what `torch.save` wrote (.pt, .pth, .th, .bin, .ckpt), or either of
            them packed with gzip or zip. The content decides, not the ending.

    Raises:
        OSError: if the file cannot be read.
        ContentError: if it holds no weights, is damaged, or wants to run code.
    """
    content = _read_all(path)
    if not content:
        raise ContentError(f"{path}: 0 bytes; no weights in it (download it again)")
    try:
        tensors = _load(_unpack(content))
    except ForbiddenNameError as error:
        raise ContentError(
            f"{path}: holds more than weights, which could run code (it asks for {error.name}); "
            "ask for a file with the state_dict alone"
        ) from None
    except ContentError as error:
        raise ContentError(f"{path}: {error}") from None
    if not tensors:
        raise ContentError(f"{path}: no tensor in it; a checkpoint of weights was expected")
    return tensors


def _read_all(path: str | Path) -> bytearray:
    """The content of a file, once in memory, for tensors to be views of."""
    with open_input(path, _LARGEST) as file:
        content = bytearray(os.fstat(file.fileno()).st_size)
        length = file.readinto(content)
    if length != len(content):
        raise ContentError(f"{path}: changed while it was read; try again")
    return content


def _unpack(content: bytes | bytearray) -> bytes | bytearray:
    """What a gzip or zip file packs; torch's own zip files stay as they are."""
    try:
        if content[:2] == _GZIP:
            with gzip.GzipFile(fileobj=Window(content)) as packed:
                return unpacked(packed, unpacked_limit(len(content)))
        if content[:4] == _ZIP:
            refuse_many_members(content)
            with zipfile.ZipFile(Window(content)) as archive:
                return _from_zip(archive, content)
    except ContentError:
        raise
    except (*BROKEN_ZIP, zlib.error) as error:
        raise ContentError(f"damaged ({error}); download it again") from None
    return content


def _from_zip(archive: zipfile.ZipFile, content: bytes | bytearray) -> bytes | bytearray:
    members = {member.filename: member for member in archive.infolist()}
    if any(name.endswith("data.pkl") for name in members):
        return content  # torch.save's own format
    if framework := other_archive(members):
        raise ContentError(framework)
    weight_files = [name for name in members if name.endswith(_WEIGHT_ENDINGS)]
    if len(weight_files) != 1:
        raise ContentError(
            f"{len(weight_files)} weight files inside; unpack it and name the one that you mean"
        )
    return unpacked_member(archive, members[weight_files[0]], unpacked_limit(len(content)))


def _load(content: bytes | bytearray) -> dict[str, Tensor]:
    """The tensors by their dotted names, of a file that is not packed.

    Raises:
        ContentError: it is no weight file, is damaged, or wants to run code.
    """
    if content[8:9] == b"{":
        return _load_safetensors(content)
    if content[:1] != _PICKLE and content[:4] != _ZIP:
        framework = other_format(bytes(content[:HEAD]), bytes(content[-8:]))
        raise ContentError(framework or "not a weight file (neither safetensors nor torch.save's)")
    file = read_torch(content)
    return dict(_flatten(file, file.tree, "", iter(range(_MOST))))


def _load_safetensors(content: bytes | bytearray) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load as load_safetensors

    length = int.from_bytes(content[:8], "little")
    if length > len(content) - 8:
        raise ContentError(
            f"cut off, or no safetensors file: its header has {plural(length, 'byte')}, the "
            f"whole file {len(content):,} (download it again)"
        )
    parse_header(bytes(content[8 : 8 + length]), len(content) - 8 - length)
    try:
        return load_safetensors(bytes(content))
    except (SafetensorError, ValueError, KeyError, OverflowError) as error:
        raise ContentError(f"a damaged safetensors file ({error})") from None


def _flatten(
    file: TorchFile, tree: Any, prefix: str, budget: Iterator[int], depth: int = 0
) -> Iterator[tuple[str, Tensor]]:
    """The tensors of nested dictionaries, with the path to each as a dotted name.

    Raises:
        ContentError: the dictionaries unfold to more than any checkpoint has.
    """
    if next(budget, None) is None:
        raise ContentError(f"dictionaries that unfold to more than {_MOST:,} values; refused")
    if isinstance(tree, dict) and depth < _DEEPEST:
        for key, value in tree.items():
            if isinstance(value, dict | Call):
                yield from _flatten(file, value, f"{prefix}{key}.", budget, depth + 1)
    elif isinstance(tree, Call):
        if len(prefix) > _LONGEST:
            raise ContentError(f"a name of {len(prefix):,} characters; {_LONGEST:,} at most")
        tensor = file.tensor(tree)
        if tensor is not None:
            yield prefix.rstrip("."), tensor
