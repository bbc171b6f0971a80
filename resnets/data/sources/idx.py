"""IDX files, the format of MNIST (Y. LeCun, 1998), Fashion-MNIST and KMNIST."""

import gzip
import math
import os
import re
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

from resnets.data.labelled import LabelledImages
from resnets.data.sources.names import is_hidden, listed
from resnets.data.splits import SourceContent
from resnets.data.storage import Pixels, PixelStorage, RowNames
from resnets.errors import ContentError
from resnets.files.reading import open_input, read_text
from resnets.format import byte_size, plural
from resnets.packing import first_bytes, unpacked_limit

NAME = re.compile(
    r"(?P<set>.*?)(?P<split>train|t10k|test)-(?P<what>images|labels)[.-]idx[13]-ubyte(\.gz)?"
)
_CLASSES = "classes.txt"  # an optional file beside the others, with one name a line

_LARGEST = 2**33  # bytes of one unpacked file
_FACTOR = 32  # largest ratio of decompressed to compressed size; that of digits on black is 5


def idx_sets(folder: Path) -> dict[str, dict[tuple[str, str], Path]]:
    """The IDX files in a folder, by the prefix of their names and by (split, images or labels).

    If a file is there both compressed and uncompressed, the uncompressed one is used.
    """
    sets: dict[str, dict[tuple[str, str], Path]] = {}
    for file in sorted(folder.iterdir(), reverse=True):  # x.gz comes before x, which replaces it
        match = NAME.fullmatch(file.name)
        if match and file.is_file() and not is_hidden(file.name):
            split = "train" if match["split"] == "train" else "test"
            sets.setdefault(match["set"], {})[split, match["what"]] = file
    return sets


def read_idx(path: Path) -> SourceContent:
    """Read a folder that holds the four IDX files of a data set, or any one of the four.

    Class names are the lines of classes.txt beside them, else the numbers of the labels.

    Raises:
        ContentError: a file is missing or broken, or does not match the others.
    """
    sets = idx_sets(path if path.is_dir() else path.parent)
    match = NAME.fullmatch(path.name)
    if path.is_file() and match:
        sets = {match["set"]: sets[match["set"]]}
    if len(sets) != 1:
        raise ContentError(
            f"{path}: files of {len(sets)} data sets ({listed(sorted(sets))}); pass a file of one"
        )
    (files,) = sets.values()
    folder = next(iter(files.values())).parent
    labels = {}
    pixels: dict[str, Pixels] = {}
    for split in dict.fromkeys(split for split, _ in sorted(files, reverse=True)):
        pixels[split], labels[split] = _pair(folder, files, split)
    largest = max(int(values.max(initial=0)) for values in labels.values())
    names = _class_names(folder, largest + 1)
    images = {}
    for split, stack in pixels.items():
        rows = RowNames.of([files[split, "images"].name], [len(stack)])
        images[split] = LabelledImages(PixelStorage(stack, rows), labels[split], names)
    return SourceContent("idx", images, declared=True)


def _pair(folder: Path, files: Mapping[tuple[str, str], Path], split: str) -> tuple[Pixels, Pixels]:
    """Images (N, H, W, 1) and labels (N,) of a split."""
    for what in ("images", "labels"):
        if (split, what) not in files:
            raise ContentError(f"{folder}: the file of the {split} split's {what} is missing")
    images = _read_array(files[split, "images"], 3)
    labels = _read_array(files[split, "labels"], 1)
    if len(images) != len(labels):
        raise ContentError(
            f"{files[split, 'images']}: {plural(len(images), 'image')}, but "
            f"{plural(len(labels), 'label')} in {files[split, 'labels'].name}"
        )
    return images[..., None], labels


def _read_array(file: Path, dimensions: int) -> Pixels:
    """Read one IDX file of unsigned bytes.

    It begins with two zero bytes, the type (8 is unsigned byte), the number of dimensions, and
    each dimension as a big-endian 32-bit integer.
    """
    try:
        with open_input(file, _LARGEST) as packed, _stream_of(file, packed) as stream:
            head = stream.read(4 + 4 * dimensions)
            if len(head) < 4 + 4 * dimensions or head[:4] != bytes([0, 0, 8, dimensions]):
                raise ContentError(f"{file}: not an IDX file of bytes in {dimensions} dimensions")
            shape = struct.unpack(f">{dimensions}I", head[4:])
            size = math.prod(shape)
            length = os.fstat(packed.fileno()).st_size
            if size > _LARGEST or 0 in shape:
                raise ContentError(f"{file}: claims the shape {shape}, which is not possible")
            limit = unpacked_limit(length, _FACTOR)
            data = first_bytes(stream, min(size, limit) + 1)
            if limit < min(size, len(data)):
                raise ContentError(f"{file}: unpacks to more than {byte_size(limit)}; refused")
    except (OSError, EOFError, zlib.error) as error:
        raise ContentError(f"{file}: cannot be read ({error}); download it again") from None
    if len(data) != size:
        what = "more" if len(data) > size else f"{len(data):,}"
        raise ContentError(
            f"{file}: should hold {plural(size, 'byte')} but holds {what}; download it again"
        )
    return np.frombuffer(data, dtype=np.uint8).reshape(shape)


def _stream_of(file: Path, content: BinaryIO) -> BinaryIO | gzip.GzipFile:
    """The content of a file, which is decompressed if its name ends in .gz."""
    return gzip.GzipFile(fileobj=content) if file.suffix == ".gz" else content


def _class_names(folder: Path, count: int) -> list[str]:
    """The lines of classes.txt, else numbers."""
    file = folder / _CLASSES
    if not file.is_file():
        return [str(label) for label in range(count)]
    names = read_text(file).split("\n")
    names = [name.strip() for name in names if name.strip()]
    if len(names) < count:
        raise ContentError(
            f"{file}: {plural(len(names), 'name')}, but the labels go up to {count - 1}"
        )
    return names
