"""An index of the folders below a data set's folder: what lies in each, kept in the cache.

A folder of many images is listed once. Later only the time of each of its folders is asked for:
adding, removing or renaming a file changes the time of the folder that it lies in, and what changed
is listed again. What is in the files is no matter of the index: see `resnets.data.digests`.
"""

import contextlib
import functools
import hashlib
import heapq
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from resnets.data.digests import RECENT
from resnets.data.paths import NAMES, Paths
from resnets.data.sources.names import has_image_ending
from resnets.data.sources.walking import Entries, PassedOver, entries, why_no_image
from resnets.files.folders import cache_folder, writing_to_cache
from resnets.files.reading import read_input, read_text
from resnets.files.writing import replacing
from resnets.images.opening import ALLOWED
from resnets.images.probing import ENDINGS

_MARK = b"resnets folders 1\n"  # with another number once names are judged by other rules
_LEAST = 10_000  # files of a folder; listing fewer takes no time
_LARGEST = 1 << 32  # bytes of the index of one folder: 100 million files
_KEPT = 16  # indices in the cache, the most recently used ones

Stamp = tuple[int, int, int]  # device and number of a folder or file, and its time in nanoseconds

_OTHERS = pa.list_(pa.struct([("name", NAMES), ("why", pa.string())]))
_STAMPS = pa.list_(
    pa.struct(
        [("path", NAMES), ("device", pa.uint64()), ("number", pa.uint64()), ("time", pa.int64())]
    )
)


@dataclass(frozen=True)
class Folder:
    """What lies in a folder; each sorted by name.

    Attributes:
        folders: that are searched.
        images: by their ending, or by their first bytes where they have no ending.
        no_images: name of every other file, and why it is none.
        passed_over: name and reason of all else.
        stamps: by path relative to the folder, of it and of what else was read to tell what is
            what; empty where that would not do to see a change.
    """

    folders: Sequence[str]
    images: Paths
    no_images: Sequence[PassedOver]
    passed_over: Sequence[PassedOver]
    stamps: Mapping[str, Stamp]


class FolderIndex:
    """What lies in the folders below a root, each listed on first access, or taken from the cache.

    The index of a root is one file in the cache folder, written atomically: several processes may
    share it, and the last one to write wins. A file that cannot be read counts as none; one that
    cannot be written is not saved.
    """

    def __init__(self, root: Path) -> None:
        """Read the index of a folder from the cache, if it is there."""
        self.root = root
        name = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:32]
        self._file = cache_folder() / "folders" / f"{name}.bin"
        self._table = _read(self._file)
        paths = Paths(self._table["path"]) if self._table else ()
        self._rows = {path: row for row, path in enumerate(paths)}
        self._folders: dict[str, Folder] = {}
        self._stamps: dict[str, Stamp | None] = {}
        self._listed = 0
        self._began = time.time_ns()

    def folder(self, path: str) -> Folder:
        """What lies in a folder, by its path relative to the root; empty for the root.

        Raises:
            ContentError: it cannot be read.
        """
        if path not in self._folders:
            self._folders[path] = self._from_cache(path) or self._list(path)
        return self._folders[path]

    def below(self, path: str) -> tuple[Paths, list[PassedOver]]:
        """The images in and below a folder, and what is passed over there; relative to the root.

        Links are followed, except those that lead back to a folder above.
        """
        images: list[Paths] = []
        others: list[PassedOver] = []
        for inner, folder in self._folders_below(path):
            images.append(folder.images.below(inner))
            prefix = f"{inner}/" if inner else ""
            others += ((prefix + name, why) for name, why in folder.passed_over)
            others += ((prefix + name, why) for name, why in folder.no_images)
        return Paths.joined(images), others

    def files(self) -> Iterator[str]:
        """Every file that is not passed over, relative to the root, each folder's sorted."""
        for path, folder in self._folders_below(""):
            others = (name for name, _ in folder.no_images)
            yield from (_joined(path, name) for name in heapq.merge(folder.images, others))

    def has_images(self, path: str) -> bool:
        """Whether any file in or below a folder has the ending of an image."""
        return any(
            any(map(has_image_ending, folder.images)) for _, folder in self._folders_below(path)
        )

    def save(self) -> None:
        """Write the index of the folders that were accessed, if any was listed and it is large."""
        if not self._listed or sum(len(each.images) for each in self._folders.values()) < _LEAST:
            return
        content = _written(self._folders)
        with writing_to_cache():
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self._file) as file:
                file.write(_heading(content))
                file.write(content)
            files = sorted(self._file.parent.glob("*.bin"), key=lambda path: path.stat().st_mtime)
            for old in files[:-_KEPT]:
                old.unlink(missing_ok=True)

    def _folders_below(
        self, path: str, above: tuple[tuple[int, int], ...] = ()
    ) -> Iterator[tuple[str, Folder]]:
        """A folder, and each below it, with its path; a folder before those inside it."""
        device, number, _ = self._stamp(path) or (0, 0, 0)
        if (device, number) in above:
            return
        folder = self.folder(path)
        yield path, folder
        for name in folder.folders:
            inner = f"{path}/{name}" if path else name
            yield from self._folders_below(inner, (*above, (device, number)))

    def _from_cache(self, path: str) -> Folder | None:
        """What is known of a folder; None if that is nothing, or may no longer hold."""
        row = self._rows.get(path)
        if row is None or self._table is None:
            return None
        folder = _folder_of(self._table, row)
        fresh = folder.stamps and all(
            self._stamp(_joined(path, inner)) == stamp for inner, stamp in folder.stamps.items()
        )
        return folder if fresh else None

    def _list(self, path: str) -> Folder:
        """What lies in a folder now."""
        stamp = self._stamp(path)  # before it is listed, so that a change meanwhile shows later
        content = entries(self.root / path)
        reasons = {
            name: "" if has_image_ending(name) else why_no_image(self.root / path / name)
            for name in content.files
        }
        stamps = {"": stamp} | {
            inner: self._stamp(_joined(path, inner)) for inner in dict.fromkeys(content.read)
        }
        self._listed += 1
        return Folder(
            content.folders,
            Paths.of(name for name, why in reasons.items() if not why),
            [(name, why) for name, why in reasons.items() if why],
            content.passed_over,
            {name: each for name, each in stamps.items() if each}
            if _shows_changes(content) and all(map(self._is_settled, stamps.values()))
            else {},
        )

    def _stamp(self, path: str) -> Stamp | None:
        """What changes with a folder; None where nothing is there. Asked for once."""
        if path not in self._stamps:
            try:
                status = (self.root / path).stat()
                self._stamps[path] = (status.st_dev, status.st_ino, status.st_mtime_ns)
            except OSError:
                self._stamps[path] = None
        return self._stamps[path]

    def _is_settled(self, stamp: Stamp | None) -> bool:
        """Whether a change from now on would show: not within the tick of the system's clock."""
        return stamp is not None and _has_times(stamp[0]) and stamp[2] < self._began - RECENT


def _joined(folder: str, name: str) -> str:
    """The path of what lies in a folder, relative to the root."""
    return f"{folder}/{name}" if folder and name else folder or name


def _shows_changes(content: Entries) -> bool:
    """Whether the folder's time changes with all that is in it.

    It does not where a link leads elsewhere, or where a file is judged by its content.
    """
    return not content.linked and all("." in name and name[-1] != "." for name in content.files)


@functools.cache
def _has_times(device: int) -> bool:
    """Whether folders there have times to go by: not in a bucket that is mounted as a folder."""
    kinds: list[str] = []
    if sys.platform == "linux":
        with contextlib.suppress(OSError, ValueError):
            number = f"{os.major(device)}:{os.minor(device)}"
            mounts = [line.split() for line in read_text("/proc/self/mountinfo").splitlines()]
            kinds = [mount[mount.index("-") + 1] for mount in mounts if mount[2] == number]
    return not any(kind.startswith("fuse") for kind in kinds)


def _heading(content: Any) -> bytes:
    """What precedes the index: its checksum, with that of what this Python counts as images."""
    kinds = repr((sorted(ALLOWED), sorted(ENDINGS.items()))).encode()
    checksum = hashlib.sha256(kinds)
    checksum.update(content)
    return _MARK + checksum.digest()


def _read(file: Path) -> Any:
    """The table of an index; None if there is none, or it is damaged or of other rules."""
    try:
        content = pa.py_buffer(read_input(file, _LARGEST))
    except OSError:
        return None
    start = len(_MARK) + 32
    if content[:start].to_pybytes() != _heading(content[start:]):
        return None
    return pa.ipc.open_stream(content[start:]).read_all().combine_chunks()


def _written(folders: Mapping[str, Folder]) -> Any:
    """The table of an index as a buffer of Arrow."""
    every = list(folders.values())
    starts = np.cumsum([0, *(len(folder.images) for folder in every)])
    images = Paths.joined(folder.images for folder in every).encoded
    columns = {
        "path": Paths.of(folders).encoded,
        "folders": pa.array([_encoded(folder.folders) for folder in every], pa.list_(NAMES)),
        "images": pa.LargeListArray.from_arrays(pa.array(starts, pa.int64()), images),
        "no_images": pa.array([_rows(folder.no_images) for folder in every], _OTHERS),
        "passed_over": pa.array([_rows(folder.passed_over) for folder in every], _OTHERS),
        "stamps": pa.array(
            [_rows((path, *stamp) for path, stamp in folder.stamps.items()) for folder in every],
            _STAMPS,
        ),
    }
    table = pa.table(columns)
    counted = pa.MockOutputStream()
    _write(table, counted)
    content = pa.allocate_buffer(counted.size())  # a stream that grows takes twice the memory
    _write(table, pa.FixedSizeBufferWriter(content))
    return content


def _write(table: Any, stream: Any) -> None:
    """Write a table to a stream of Arrow's."""
    with pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table)


def _encoded(names: Iterable[str]) -> list[bytes]:
    """Names as the system has them."""
    return [os.fsencode(name) for name in names]


def _rows(values: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Tuples that begin with a name, with that name as the system has it."""
    return [(os.fsencode(name), *rest) for name, *rest in values]


def _folder_of(table: Any, row: int) -> Folder:
    """A row of the table of an index."""
    value = {name: table[name][row] for name in table.column_names}
    no_images, passed_over = (
        [(os.fsdecode(other["name"]), other["why"]) for other in value[name].as_py()]
        for name in ("no_images", "passed_over")
    )
    stamps = {
        os.fsdecode(each["path"]): (each["device"], each["number"], each["time"])
        for each in value["stamps"].as_py()
    }
    folders = [os.fsdecode(name) for name in value["folders"].as_py()]
    return Folder(folders, Paths(value["images"].values), no_images, passed_over, stamps)
