"""CIFAR-10 and CIFAR-100 as their authors publish them for Python (A. Krizhevsky, 2009)."""

import gzip
import io
import re
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from resnets.data.labelled import LabelledImages
from resnets.data.splits import SourceContent
from resnets.data.storage import Pixels, PixelStorage, RowNames
from resnets.errors import ContentError
from resnets.files.reading import open_input, read_input
from resnets.format import plural
from resnets.packing import Window, unpacked, unpacked_limit
from resnets.pickles import array_or_plain, check_call, read_pickle
from resnets.pickles.arrays import NAMES

_ALLOWED = NAMES | {"_codecs.encode", "builtins.bytes"}


def _load_dict(data: bytes) -> dict[str, Any]:
    """Read a pickled dict of plain values and NumPy arrays of numbers.

    Strings that Python 2 wrote come as bytes, except for the dict's keys.

    Raises:
        ContentError: it is broken or holds anything else. No code of it is run.
    """
    content = read_pickle(data, _ALLOWED.__contains__, check=check_call)
    if not isinstance(content, dict):
        raise ContentError(f"holds a {type(content).__name__}, not a dict")
    return {_text(key): array_or_plain(value) for key, value in content.items()}


def _text(value: Any) -> str:
    """A string that Python 2 or 3 wrote."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


ARCHIVE = re.compile(r".*\.(tar|tar\.gz|tgz)", re.IGNORECASE)

_GZIP = b"\x1f\x8b"  # how such files begin
_LARGEST_ARCHIVE = 2**32  # bytes; the largest real one, unpacked, has 186 MB
_LARGEST = 512 * 2**20  # bytes of one file in an archive; the largest real one has 155 MB


@dataclass(frozen=True)
class _Layout:
    """The files of one of the two data sets and the keys in them."""

    kind: str
    meta: str  # the file of the class names
    names: str  # their key
    labels: str
    splits: Mapping[str, tuple[str, ...]]  # the files of each split

    @property
    def files(self) -> tuple[str, ...]:
        """All of its files."""
        return (self.meta, *(file for files in self.splits.values() for file in files))


_LAYOUTS = (
    _Layout(
        "cifar-10-python",
        meta="batches.meta",
        names="label_names",
        labels="labels",
        splits={
            "train": tuple(f"data_batch_{number}" for number in range(1, 6)),
            "test": ("test_batch",),
        },
    ),
    _Layout(
        "cifar-100-python",
        meta="meta",
        names="fine_label_names",
        labels="fine_labels",
        splits={"train": ("train",), "test": ("test",)},
    ),
)


def cifar_folder(folder: Path) -> Path | None:
    """The folder of the unpacked files of CIFAR-10 or -100 in a folder, or None.

    It is the folder itself, or one inside it that the archive unpacks to.
    """
    for layout in _LAYOUTS:
        for candidate in (folder, folder / layout.kind, folder / "cifar-10-batches-py"):
            if all((candidate / files[0]).is_file() for files in layout.splits.values()):
                return candidate
    return None


def read_cifar(path: Path) -> SourceContent:
    """Read CIFAR-10 or CIFAR-100 (its 100 fine classes) from the archive or the unpacked folder.

    Raises:
        ContentError: a file is missing, broken, or a pickle of anything but data.
    """
    contents = _from_folder(path) if path.is_dir() else _from_archive(path)
    for layout in _LAYOUTS:
        if all(files[0] in contents for files in layout.splits.values()):
            return _read_layout(path, layout, contents)
    raise ContentError(
        f"{path}: not CIFAR-10 or CIFAR-100 for Python; for other images unpack the archive and "
        "pass the folder"
    )


def _from_folder(folder: Path) -> dict[str, bytes]:
    """The files of either data set in a folder."""
    names = {name for layout in _LAYOUTS for name in layout.files}
    return {
        name: read_input(folder / name, _LARGEST) for name in names if (folder / name).is_file()
    }


def _from_archive(path: Path) -> dict[str, bytes]:
    """The files of either data set in an archive, in any of its folders; read without unpacking.

    Raises:
        ContentError: the archive is broken or a file is too large.
    """
    names = {name for layout in _LAYOUTS for name in layout.files}
    contents: dict[str, bytes] = {}
    try:
        with open_input(path, _LARGEST_ARCHIVE) as packed:
            for archive, member in _members(packed):
                name = Path(member.name).name
                if not member.isreg() or name not in names:
                    continue
                if not 0 <= member.size <= _LARGEST or member.sparse:
                    claim = f"{name} has {plural(member.size, 'byte')}"
                    raise ContentError(f"{claim}, which is not possible")
                file = archive.extractfile(member)
                contents[name] = file.read() if file else b""
    except ContentError as error:
        raise ContentError(f"{path}: {error}") from None
    except (tarfile.TarError, EOFError, OSError, zlib.error, ValueError, IndexError) as error:
        raise ContentError(f"{path}: a broken archive ({error}); download it again") from None
    return contents


def _members(packed: IO[bytes]) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """The members of a tar archive, compressed or not, each with the archive to read it from.

    Raises:
        ContentError: it decompresses to far more than its size.
    """
    start, length = packed.read(2), packed.seek(0, io.SEEK_END)
    packed.seek(0)
    if start != _GZIP:
        with tarfile.open(fileobj=packed, mode="r:") as archive:
            for member in archive:
                yield archive, member
        return
    with gzip.GzipFile(fileobj=packed) as stream:
        content = unpacked(stream, unpacked_limit(length))
    with tarfile.open(fileobj=Window(content), mode="r:") as archive:
        for member in archive:
            yield archive, member


def _read_layout(path: Path, layout: _Layout, contents: Mapping[str, bytes]) -> SourceContent:
    """Make labelled images of the files' contents."""
    missing = [name for name in layout.files if name not in contents]
    if missing:
        raise ContentError(f"{path}: {', '.join(missing)} is missing; download it again")

    def load(name: str) -> dict[str, Any]:
        try:
            return _load_dict(contents[name])
        except ContentError as error:
            raise ContentError(f"{path}: {name} {error}") from None

    names = load(layout.meta).get(layout.names)
    if not isinstance(names, list) or not all(isinstance(name, bytes | str) for name in names):
        raise ContentError(f"{path}: {layout.meta} holds no list {layout.names}")
    images = {}
    for split, files in layout.splits.items():
        batches = [
            _batch(f"{path}: {name}", load(name), layout.labels, len(names)) for name in files
        ]
        pixels = np.concatenate([pixels for pixels, _ in batches])
        labels = np.concatenate([labels for _, labels in batches])
        rows = RowNames.of(files, [len(pixels) for pixels, _ in batches])
        class_names = [_text(name) for name in names]
        images[split] = LabelledImages(PixelStorage(pixels, rows), labels, class_names)
    return SourceContent(layout.kind, images, declared=True)


def _batch(
    name: str, content: Mapping[str, Any], labels_key: str, classes: int
) -> tuple[Pixels, NDArray[np.int64]]:
    """Images (N, 32, 32, 3) and labels (N,) of one file; its rows are 1,024 reds, greens, blues."""
    rows, labels = content.get("data"), content.get(labels_key)
    if not isinstance(rows, np.ndarray) or rows.dtype != np.uint8 or rows.shape[1:] != (3072,):
        raise ContentError(f"{name} holds no array data (N, 3072) of bytes")
    if not isinstance(labels, list) or len(labels) != len(rows):
        raise ContentError(f"{name} holds no list {labels_key} of {len(rows)} labels")
    if not all(type(label) is int and 0 <= label < classes for label in labels):
        raise ContentError(f"{name}: {labels_key} are not all in 0..{classes - 1}")
    pixels = np.ascontiguousarray(rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    return pixels, np.array(labels, dtype=np.int64)
