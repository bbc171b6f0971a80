"""Other projects' weight files, of any format and packing, read without running what they say."""

import argparse
import gzip
import io
import pickle
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from resnets.errors import ContentError
from resnets.files import read_input

GZIP, ZIP, PICKLE = b"\x1f\x8b", b"PK\x03\x04", b"\x80"  # how such files begin
WEIGHT_ENDINGS = (".safetensors", ".pt", ".pth", ".th", ".bin", ".ckpt")
LARGEST = 1 << 34  # bytes that a packed file may unpack to
DEEPEST = 8  # levels of dictionaries around the weights
HARMLESS: list[Any] = [argparse.Namespace, np.dtype, np.ndarray]


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Every tensor in a file by its dotted name, the keys of dictionaries around it included.

    Args:
        path: .safetensors, or what `torch.save` wrote (.pt, .pth, .th, .bin, .ckpt), or either of
            them packed with gzip or zip. The content decides, not the ending.

    Raises:
        OSError: if the file cannot be read.
        ContentError: if it holds no weights, is damaged, or wants to run code.
    """
    content = read_input(path, LARGEST)
    if not content:
        raise ContentError(f"{path}: 0 bytes; no weights in it (download it again)")
    found = dict(flatten(load(unpack(content, path), path)))
    if not found:
        raise ContentError(f"{path}: no tensor in it; a checkpoint of weights was expected")
    return found


def unpack(content: bytes, path: str | Path) -> bytes:
    """What a gzip or zip file packs; torch's own zip files stay as they are."""
    try:
        if content[:2] == GZIP:
            with gzip.open(io.BytesIO(content)) as packed:
                return _limited(packed.read(LARGEST + 1), path)
        if content[:4] == ZIP:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                return _from_zip(archive, content, path)
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError) as error:
        raise ContentError(f"{path}: damaged ({error}); download it again") from None
    return content


def _from_zip(archive: zipfile.ZipFile, content: bytes, path: str | Path) -> bytes:
    names = archive.namelist()
    if any(name.endswith("data.pkl") for name in names):
        return content  # torch.save's own format
    wanted = [name for name in names if name.endswith(WEIGHT_ENDINGS)]
    if len(wanted) != 1:
        raise ContentError(
            f"{path}: {len(wanted)} weight files inside; unpack it and name the one that you mean"
        )
    with archive.open(wanted[0]) as packed:
        return _limited(packed.read(LARGEST + 1), path)


def _limited(content: bytes, path: str | Path) -> bytes:
    if len(content) > LARGEST:
        raise ContentError(f"{path}: unpacks to more than {LARGEST >> 30} GiB; refused")
    return content


def load(content: bytes, path: str | Path) -> Any:
    """The tensors in their dictionaries. Pickles are read by torch's restricted unpickler."""
    if content[8:9] == b"{":
        return _load_safetensors(content, path)
    if content[:1] != PICKLE and content[:4] != ZIP:
        raise ContentError(f"{path}: not a weight file (neither safetensors nor torch.save's)")
    try:
        with torch.serialization.safe_globals(HARMLESS):
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        wanted = re.search(r"GLOBAL (\S+)|(?:class|type) (\S+)", str(error))
        what = f" (it asks for {wanted[1] or wanted[2]})" if wanted else ""
        raise ContentError(
            f"{path}: damaged, or holds more than weights, which could run code{what}; "
            "ask for a file with the state_dict alone"
        ) from None
    except Exception as error:  # torch raises whatever the damaged bytes lead to
        reason = " ".join(str(error).split())[:100]
        raise ContentError(f"{path}: a damaged weight file ({reason})") from None


def _load_safetensors(content: bytes, path: str | Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load as load_safetensors

    try:
        return load_safetensors(content)
    except (SafetensorError, ValueError, KeyError, OverflowError) as error:
        raise ContentError(f"{path}: a damaged safetensors file ({error})") from None


def flatten(tree: Any, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    """The tensors of nested dictionaries, with the path to each as a dotted name."""
    if isinstance(tree, Tensor):
        yield prefix.rstrip("."), tree
    elif isinstance(tree, Mapping) and depth < DEEPEST:
        for key, value in tree.items():
            yield from flatten(value, f"{prefix}{key}.", depth + 1)
