"""Large parquet files at an address: their images are fetched a row group at a time.

A local file stands for each of them, as long as it is, with all its bytes but those of the column
of images (a sparse file, which takes no room for what it lacks). So labels and all else are read
as from a local parquet file. A row group is fetched when one of its images is read, or will be read
soon, and its images are kept in a local file, which is memory-mapped.
"""

import bisect
import hashlib
import io
import itertools
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from resnets.data.digests import ImageDigests, digests_of_bytes
from resnets.data.remote import Place, RemoteFolder
from resnets.data.remote.copies import kept, of_each, trim
from resnets.data.remote.fetching import joined
from resnets.data.remote.streams import RemoteStream
from resnets.data.sources.parquet import (
    features_of,
    image_column,
    open_file,
    parquet_errors,
    pieces,
    write_images,
)
from resnets.data.storage import MappedStorage, RowNames
from resnets.errors import ContentError, UsageError
from resnets.files.writing import replacing
from resnets.format import byte_size

_MAGIC = b"PAR1"
_END = 8  # bytes behind the footer: its length, and `_MAGIC`
_TAIL = 1 << 16  # bytes at the end of a file that are fetched at first, mostly the whole footer
_LARGEST_FOOTER = 1 << 30  # bytes
_OPEN = 16  # files of row groups that a process has mapped
_BUFFER = 1 << 20  # bytes of a column that pyarrow reads at a time
_EXPECTED = 8  # row groups that a process fetches before one of their images is read


def stand_ins(folder: RemoteFolder, files: Sequence[str], total: int) -> Path:
    """A folder with a local file for each remote parquet file, which lacks the images alone.

    Args:
        folder: of the files.
        files: their names.
        total: their bytes.

    Raises:
        UsageError: the images of one row group would take more than the folder's `cache_bytes`.
        ContentError: a file is no parquet file.
        RemoteError: a file cannot be reached.
    """

    def fill(place: Path) -> None:
        missing = [file for file in files if not (place / file).exists()]
        of_each(lambda file: _write_stand_in(folder, file, place / file), missing)

    return kept(folder, files, min(total, folder.cache_bytes), fill)


def _write_stand_in(folder: RemoteFolder, file: str, target: Path) -> None:
    """Write a file that is as long as a remote one, and lacks the bytes of its images."""
    where = joined(folder.address, file)
    size = folder.size(file) or 0
    tail = _read(folder, file, max(0, size - _TAIL), size)
    footer = int.from_bytes(tail[-_END:-4], "little") + _END
    if tail[-4:] != _MAGIC or footer > min(size, _LARGEST_FOOTER):
        raise ContentError(f"{where}: not a readable parquet file (it does not end as one)")
    if footer > len(tail):
        tail = _read(folder, file, size - footer, size)
    with parquet_errors(where):
        metadata = pq.read_metadata(pa.BufferReader(_MAGIC + tail[-footer:]))
        leaf = _leaf_of_images(metadata, where)
    others: list[Place] = []
    if leaf is not None:  # else it is passed over: see `parquet.may_hold_images`
        for group in range(metadata.num_row_groups):
            for column, path in enumerate(_columns(metadata, group)):
                if path != leaf:
                    part = _span(metadata, group, column, size, where)
                    others.append(Place(file, part.start, len(part)))
        _refuse_small_cache(metadata, leaf, folder.cache_bytes)
    folder.expect(others)
    with replacing(target) as output:
        output.write(_MAGIC)
        for each in others:
            output.seek(each.offset)
            output.write(folder.read(each))
        output.seek(size - len(tail))
        output.write(tail)


def _leaf_of_images(metadata: Any, where: str) -> str | None:
    """The path of the column of images; None if there is none."""
    schema = metadata.schema.to_arrow_schema()
    try:
        return _leaf(schema, image_column(schema, features_of(schema), where))
    except ContentError:
        return None


def _leaf(schema: Any, image: str) -> str:
    """The path of a column of images, which are bytes, or a struct of bytes and a name."""
    return f"{image}.bytes" if pa.types.is_struct(schema.field(image).type) else image


def _columns(metadata: Any, group: int) -> list[str]:
    """The paths of a row group's columns, in their order."""
    row_group = metadata.row_group(group)
    return [row_group.column(each).path_in_schema for each in range(metadata.num_columns)]


def _span(metadata: Any, group: int, column: int, size: int, where: str) -> range:
    """The bytes of a column of a row group, in a file of a size."""
    chunk = metadata.row_group(group).column(column)
    start = int(chunk.data_page_offset)
    if chunk.dictionary_page_offset:
        start = min(start, chunk.dictionary_page_offset)
    part = range(start, start + chunk.total_compressed_size)
    if not 0 <= part.start <= part.stop <= size:
        raise ContentError(f"{where}: not a readable parquet file (a column lies outside of it)")
    return part


def _refuse_small_cache(metadata: Any, leaf: str, limit: int) -> None:
    """Refuse a limit of the cache that a row group does not fit into.

    Raises:
        UsageError: it does not.
    """
    sizes = []
    for group in range(metadata.num_row_groups):
        column = _columns(metadata, group).index(leaf)
        sizes.append(metadata.row_group(group).column(column).total_uncompressed_size)
    if limit and (largest := max(sizes, default=0)) > limit:
        raise UsageError(
            f"--cache: one row group of these files takes {byte_size(largest)}, more than the "
            f"{byte_size(limit)} that it allows; allow more, leave --cache out, or write them as "
            "shards (resnets shard), of which single images are read"
        )


@dataclass(frozen=True)
class _Group:
    """A row group of a file.

    Attributes:
        file: the local file that stands for it.
        number: in that file.
        leaf: the path of the column of images.
        part: the bytes of that column.
    """

    file: Path
    number: int
    leaf: str
    part: range

    @property
    def images(self) -> Path:
        """The local file of its images; each column, whose name may be any text, has its own."""
        column = hashlib.sha256(self.leaf.encode()).hexdigest()[:8]
        return self.file.with_name(f"{self.file.name}.{column}.{self.number}.arrow")


@dataclass
class _Open:
    """What one process has open of a storage; a forked one begins anew.

    Attributes:
        process: its id.
        mapped: the row groups that were used last, by their numbers.
        expected: those of which pieces are being fetched, or are here.
        locks: of those that are read.
        lock: of all this.
    """

    process: int = field(default_factory=os.getpid)
    mapped: OrderedDict[int, MappedStorage] = field(default_factory=OrderedDict)
    expected: set[int] = field(default_factory=set)
    locks: dict[int, threading.Lock] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)


class RowGroupStorage:
    """The images of a split's parquet files at an address.

    Args:
        folder: of the files; its `cache_bytes` limit what is kept of them, 0 does not.
        files: the local files of `stand_ins`.
        image: the column of images.
    """

    reads_ahead = True

    def __init__(self, folder: RemoteFolder, files: Sequence[Path], image: str) -> None:
        self.folder = folder
        self.groups: list[_Group] = []
        rows: list[int] = []
        of_files: list[int] = []
        for file in files:
            where = joined(folder.address, file.name)
            with parquet_errors(where):
                metadata = open_file(file).metadata
                leaf = _leaf(metadata.schema.to_arrow_schema(), image)
                for number in range(metadata.num_row_groups):
                    column = _columns(metadata, number).index(leaf)
                    part = _span(metadata, number, column, file.stat().st_size, where)
                    self.groups.append(_Group(file, number, leaf, part))
                    rows.append(metadata.row_group(number).num_rows)
            of_files.append(metadata.num_rows)
        self.starts = list(itertools.accumulate(rows, initial=0))
        self.name: Callable[[int], str] = RowNames.of([file.name for file in files], of_files)
        self._state: _Open | None = None

    def __len__(self) -> int:
        return self.starts[-1]

    def __getstate__(self) -> dict[str, Any]:
        """Without what is open in this process."""
        return vars(self) | {"_state": None}

    def read(self, index: int) -> bytes:
        """The encoded image.

        Raises:
            ContentError: the file is damaged there.
            RemoteError: it cannot be reached.
        """
        number = self._group_of(index)
        return self._images_of(number).read(index - self.starts[number])

    def digests(self, index: int) -> ImageDigests:
        """The digests of the encoded image, which is read."""
        return digests_of_bytes(self.read(index))

    def expect(self, indices: Sequence[int]) -> None:
        """Begin to fetch row groups of images that will be read soon, the first ones at least."""
        state = self._open
        for number in dict.fromkeys(map(self._group_of, indices)):
            with state.lock:
                if len(state.expected) >= _EXPECTED:
                    return
                if number in state.expected or self.groups[number].images.exists():
                    continue
                state.expected.add(number)
            self.folder.expect(self._stream(self.groups[number]).pieces())

    @property
    def _open(self) -> _Open:
        if self._state is None or self._state.process != os.getpid():
            self._state = _Open()
        return self._state

    def _group_of(self, index: int) -> int:
        """The row group of an image; empty ones hold none."""
        return bisect.bisect_right(self.starts, index) - 1

    def _images_of(self, number: int) -> MappedStorage:
        """The images of a row group."""
        state = self._open
        with state.lock:
            if number in state.mapped:
                state.mapped.move_to_end(number)
                return state.mapped[number]
            lock = state.locks.setdefault(number, threading.Lock())
        with lock:
            if (images := state.mapped.get(number)) is None:
                images = self._brought(self.groups[number])
        with state.lock:
            if number in state.expected:
                state.expected.remove(number)
                self.folder.forget(self._stream(self.groups[number]).pieces())
            state.locks.pop(number, None)
            state.mapped[number] = images
            while len(state.mapped) > _OPEN:
                state.mapped.popitem(last=False)
        return images

    def _brought(self, group: _Group) -> MappedStorage:
        """The images of a row group, which are fetched first if they are not here."""
        while (images := _mapped(group.images)) is None:  # again where others needed the room
            where = joined(self.folder.address, group.file.name)
            with parquet_errors(where):
                parquet = pq.ParquetFile(
                    io.BufferedReader(self._stream(group)),
                    metadata=open_file(group.file).metadata,
                    buffer_size=_BUFFER,
                    page_checksum_verification=True,
                )
                columns = pieces(parquet, group.leaf, len(group.part), where, group.number)
                write_images(columns, group.images)
            if self.folder.cache_bytes:
                trim(group.file.parent, "*.arrow", self.folder.cache_bytes)
        return images

    def _stream(self, group: _Group) -> RemoteStream:
        """The remote file, of which the images of a row group are read."""
        size = group.file.stat().st_size
        return RemoteStream(self.folder, group.file.name, size, group.part)


def _mapped(file: Path) -> MappedStorage | None:
    """The images in a local file, which is used now; None if it is not there, or damaged."""
    try:
        os.utime(file)
        return MappedStorage(file, str)
    except FileNotFoundError:
        return None
    except (pa.ArrowException, ContentError):
        file.unlink(missing_ok=True)
        return None


def _read(folder: RemoteFolder, file: str, start: int, stop: int) -> bytes:
    """A range of a file."""
    return folder.read(Place(file, start, stop - start))
