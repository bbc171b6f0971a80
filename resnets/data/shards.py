"""Shards: tar files of many images, and an index that says where in them each image lies.

The tar files are those of WebDataset: NUMBER.jpg, NUMBER.cls (the label) and NUMBER.json (the class
and the image's name) for each image. The index, `index.parquet`, has a row for each image; images
are read by their place, in any order, without reading what lies around them.

An image is recognised by the digests of its original, from which it was made: so the same images
are drawn for validation and test as from the original files, and a network that was trained on the
one is known to have seen the other.
"""

import dataclasses
import hashlib
import io
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from resnets.data.digests import ImageDigests
from resnets.data.places import Folder, LocalFolder
from resnets.data.remote.ranges import Place
from resnets.data.storage import JoinedStorage, Storage
from resnets.errors import ContentError
from resnets.fields import check_known, from_table
from resnets.files.folders import cache_folder, temporary_folder, warn_of_cache
from resnets.files.reading import regular
from resnets.files.writing import replacing
from resnets.format import byte_size, plural
from resnets.headers import parse_json
from resnets.images.opening import MAX_BYTES
from resnets.integrity import DIGEST, UNSTAMPED, matches, stamped
from resnets.json_text import to_json

INDEX = "index.parquet"
UNFINISHED = ".shard-rows"  # ends the names of the rows of a shard, until the index is written
LARGEST_INDEX = 1 << 34  # bytes

_METADATA = b"resnets.shards"
_VERSION = "1"
_LARGEST = 1 << 44  # bytes of a mapped file
_MAPPED = 100_000  # images from which on the index is memory-mapped, so that processes share it
_AS_THEY_ARE = ("digest", "stored")  # columns
_BYTES_A_ROW = 32  # at least, since digests are stored as they are: see `index_bytes`

SCHEMA = pa.schema(
    [
        ("split", pa.string()),
        ("shard", pa.string()),  # name of the file
        ("key", pa.string()),  # name of its members, without their ending
        ("offset", pa.int64()),  # of the first byte of the encoded image in the file
        ("length", pa.int64()),
        ("label", pa.int32()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("name", pa.string()),  # of the original
        ("digest", pa.binary(32)),  # of the original: `ImageDigests.digest`
        ("earlier", pa.binary(32)),  # `ImageDigests.earlier`, where it is another
        ("member", pa.uint64()),  # by which a network recognises the original: `membership`
        ("stored", pa.binary(32)),  # of the encoded image in the shard: `ImageDigests.digest`
    ]
)
COLUMN = "column:"  # begins the names of columns that the source has, a text or nothing a row
_BROKEN = (  # exceptions of pyarrow and of damaged descriptions
    *(pa.ArrowException, OSError, ValueError, KeyError, AttributeError, TypeError, IndexError),
    *(OverflowError, RecursionError, MemoryError),
)


@dataclass(frozen=True)
class Shard:
    """A tar file.

    Attributes:
        file: its name.
        images: how many are in it.
        bytes: its size.
        sha256: of its content, in hexadecimal digits.
        made_from: SHA-256 of the names and labels of its images and of the settings.
    """

    file: str
    images: int
    bytes: int
    sha256: str
    made_from: str


@dataclass(frozen=True)
class SplitCounts:
    """A split, "all" where the source has none, and the number of images of each class."""

    name: str
    images: tuple[int, ...]


@dataclass(frozen=True)
class About:
    """What the index says of all shards.

    Attributes:
        class_names: label k means class_names[k].
        splits: that there are.
        shards: the tar files.
        kind: of the source that they were made from, as `SourceContent` has it.
        version: of the format.
    """

    class_names: tuple[str, ...]
    splits: tuple[SplitCounts, ...]
    shards: tuple[Shard, ...]
    kind: str
    version: str = _VERSION

    def metadata(self) -> dict[bytes, bytes]:
        """For the schema of the index."""
        return {_METADATA: to_json(dataclasses.asdict(self)).encode()}

    @classmethod
    def of(cls, schema: pa.Schema) -> "About":
        """Undo `metadata`. Raises ContentError."""
        values = parse_json((schema.metadata or {}).get(_METADATA, b"{}"))
        if not isinstance(values, Mapping) or "version" not in values:
            raise ContentError("says nothing of shards")
        check_known(values, "version", _VERSION, "")
        return from_table(cls, values, "")


def schema_with(columns: Iterable[str]) -> pa.Schema:
    """The schema of an index, with columns of the source, by their names there."""
    return pa.schema([*SCHEMA, *((f"{COLUMN}{name}", pa.string()) for name in columns)])


def _columns_of(schema: pa.Schema) -> list[str]:
    """The columns of the source in an index, by their names there."""
    return [name.removeprefix(COLUMN) for name in schema.names if name.startswith(COLUMN)]


def index_bytes(about: About, tables: Sequence[pa.Table]) -> bytes:
    """The content of an index, one row group for each shard. All have the same columns."""
    sink = io.BytesIO()
    own = schema_with(_columns_of(tables[0].schema))
    schema = own.with_metadata(about.metadata() | {DIGEST.encode(): UNSTAMPED.encode()})
    small = [name for name in schema.names if name not in _AS_THEY_ARE]
    ways: dict[str, Any] = {"use_dictionary": small, "compression": _compression(schema)}
    with pq.ParquetWriter(sink, schema, **ways) as writer:
        for table in tables:
            writer.write_table(table.cast(own).replace_schema_metadata(schema.metadata))
    return stamped(sink.getvalue())


def _compression(schema: pa.Schema) -> dict[str, str]:
    """How each column is compressed: those of copies of one image would have no size at all."""
    return {name: "none" if name in _AS_THEY_ARE else "zstd" for name in schema.names}


def rows_by_shard(content: bytes) -> dict[str, tuple[Shard, pa.Table]]:
    """Each shard of an index, by its name, and its rows.

    Raises:
        ContentError: as `_read_rows`.
    """
    about, table = _read_rows(content)
    starts = itertools.accumulate((shard.images for shard in about.shards), initial=0)
    return {
        shard.file: (shard, table.slice(start, shard.images))
        for shard, start in zip(about.shards, starts, strict=False)
    }


def _read_rows(content: bytes) -> tuple[About, pa.Table]:
    """The description and the rows of an index.

    Raises:
        ContentError: it is damaged, or the index of something else.
    """
    try:
        parquet = pq.ParquetFile(pa.BufferReader(content))
        digest = (parquet.metadata.metadata or {}).get(DIGEST.encode())
        if digest is not None and not matches(content, digest.decode("latin-1")):
            raise ContentError("damaged: its content does not match the digest in it")
        about = About.of(parquet.schema_arrow)
        rows = parquet.metadata.num_rows
        if not 0 <= rows * _BYTES_A_ROW <= len(content):
            raise ContentError(f"claims {rows:,} rows, in {plural(len(content), 'byte')}")
        if rows != sum(shard.images for shard in about.shards):
            raise ContentError("has not as many rows as its shards have images")
        table = parquet.read().cast(schema_with(_columns_of(parquet.schema_arrow)))
    except ContentError:
        raise
    except _BROKEN as error:
        raise ContentError(" ".join(str(error).split())[:200] or type(error).__name__) from None
    return about, table


def is_index(file: Path | pa.BufferReader) -> bool | None:
    """Whether a parquet file is an index of shards; None if it is damaged."""
    try:
        source = regular(file, LARGEST_INDEX) if isinstance(file, Path) else file
        return _METADATA in (pq.read_schema(source).metadata or {})
    except _BROKEN:
        return None


class ShardIndex:
    """Where the images of shards lie, in memory or memory-mapped.

    Attributes:
        about: all shards.
        splits: the names of the splits.
        labels: (N,) int32.
        columns: of the source that are kept, by their names there.
        members: (N,) uint64, by which networks recognise the originals; 0: not kept.
    """

    def __init__(self, about: About, table: pa.Table, file: Path | None = None) -> None:
        """Take columns as `_compact` makes them, each in one chunk."""
        self.about, self.table, self.file = about, table, file
        self.splits = [split.name for split in about.splits]
        self.shards = self._numbers("shard")
        self.offsets = self._numbers("offset")
        self.lengths = self._numbers("length")
        self.labels = self._numbers("label")
        self.members = self._numbers("member")
        self.split_numbers = self._numbers("split")
        self.names = self._column("name")
        self.digests, self.stored = self._column("digest"), self._column("stored")
        self.earlier = self._column("earlier")
        self.columns = _columns_of(table.schema)

    def __len__(self) -> int:
        return len(self.table)

    def __reduce__(self) -> tuple[Any, ...]:
        if self.file is not None:
            return _open_mapped, (self.about, self.file)
        return ShardIndex, (self.about, self.table)

    def _column(self, name: str) -> Any:
        column = self.table.column(name)
        return column.chunk(0) if column.num_chunks else pa.array([], column.type)

    def _numbers(self, name: str) -> NDArray[Any]:
        numbers: NDArray[Any] = self._column(name).to_numpy(zero_copy_only=True)
        return numbers

    @classmethod
    def read(cls, content: bytes) -> "ShardIndex":
        """Read an index; a large one is memory-mapped from a file in the cache.

        Raises:
            ContentError: it is damaged.
        """
        return cls.of(*_read_rows(content))

    @classmethod
    def of(cls, about: About, table: pa.Table) -> "ShardIndex":
        """Make an index of columns of `SCHEMA`; a large one is memory-mapped, as by `read`.

        Raises:
            ContentError: a row contradicts the description.
        """
        compact = _compact(about, table)
        if len(compact) < _MAPPED:
            return cls(about, compact)
        rows = hashlib.sha256(to_json(compact.schema.names).encode())
        for column in compact.columns:
            for buffer in column.chunk(0).buffers():
                rows.update(buffer or b"")
        name = f"{rows.hexdigest()[:32]}-{_VERSION}.arrow"
        try:
            return _open_mapped(about, _mapped_file(compact, cache_folder() / "shards" / name))
        except OSError as error:
            warn_of_cache(error)
            return _open_mapped(about, _mapped_file(compact, temporary_folder() / name))

    def rows_of(self, split: str) -> NDArray[np.int64]:
        """The rows of a split, in order."""
        return np.flatnonzero(self.split_numbers == self.splits.index(split))

    def values(self, column: str) -> list[str | None]:
        """The values of a column of the source, (N,); see `COLUMN`."""
        values: list[str | None] = self._column(f"{COLUMN}{column}").to_pylist()
        return values

    def place(self, row: int) -> Place:
        """Where an image lies."""
        return Place(
            self.about.shards[self.shards[row]].file,
            int(self.offsets[row]),
            int(self.lengths[row]),
            self.stored[row].as_py(),
        )


def stored_digests(
    storage: Storage, rows: NDArray[np.int64], digests: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """The digests of what is read of images, (M, 32); in shards they may be smaller than before.

    Args:
        storage: of the images.
        rows: (M,) which of them.
        digests: (M, 32) of the originals; elsewhere than in shards, these are what is read.
    """
    if isinstance(storage, ShardStorage):
        return storage.stored_digests(rows)
    if not isinstance(storage, JoinedStorage):
        return digests
    stored = digests.copy()
    for part, own, its in storage.parted(rows):
        stored[own] = stored_digests(part, its, digests[own])
    return stored


def _compact(about: About, table: pa.Table) -> pa.Table:
    """The columns that are read again and again, each in one chunk and checked.

    Raises:
        ContentError: a row contradicts the description.
    """
    shard = _positions(table["shard"], [shard.file for shard in about.shards], "shard")
    split = _positions(table["split"], [split.name for split in about.splits], "split")
    needed = ("offset", "length", "label", "name", "digest", "member", "stored")
    columns = {name: table[name].combine_chunks() for name in needed}
    for name, column in columns.items():
        if column.null_count:
            raise ContentError(f"the column {name!r} has rows without a value")
    offset, length, label = (columns[name].to_numpy() for name in ("offset", "length", "label"))
    sizes = np.array([shard.bytes for shard in about.shards], np.int64)
    inside = (offset >= 0) & (length >= 0)
    if not (inside & (offset <= sizes[shard] - length)).all():
        raise ContentError("an image lies outside of its shard")
    if not ((label >= 0) & (label < len(about.class_names))).all():
        raise ContentError(f"a label is not in 0..{len(about.class_names) - 1}")
    columns["name"] = columns["name"].cast(pa.large_string())
    columns |= {"earlier": table["earlier"].combine_chunks(), "shard": shard, "split": split}
    for name in filter(lambda name: name.startswith(COLUMN), table.schema.names):
        columns[name] = table[name].combine_chunks().cast(pa.large_string())
    return pa.table(columns).combine_chunks()


def _positions(column: Any, names: Sequence[str], what: str) -> NDArray[np.int32]:
    """For each row, which of the names it has, (N,). Raises ContentError for another one."""
    numbers = pc.index_in(column, value_set=pa.array(names, pa.string())).combine_chunks()
    if numbers.null_count:
        raise ContentError(f"a row names a {what} that the index does not describe")
    positions: NDArray[np.int32] = numbers.to_numpy()
    return positions


def _as_bytes(digests: Any) -> NDArray[np.uint8]:
    """A column of digests as an array, (N, 32); what is missing has any bytes."""
    content = np.frombuffer(digests.buffers()[1], np.uint8)
    rows: NDArray[np.uint8] = content[: 32 * (digests.offset + len(digests))].reshape(-1, 32)
    return rows[digests.offset :]


def _mapped_file(table: pa.Table, file: Path) -> Path:
    """Write columns to a file that can be memory-mapped, unless it exists."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    return file


def _open_mapped(about: About, file: Path) -> ShardIndex:
    """Map the columns of an index."""
    table = pa.ipc.open_file(pa.memory_map(str(regular(file, _LARGEST)))).read_all()
    return ShardIndex(about, table, file)


def _may_be_image(place: Place) -> bool:
    """Whether a place has a size that an image may have: in the tar files of others, any has."""
    return 0 < place.length <= MAX_BYTES


def _read(folder: Folder, place: Place) -> bytes:
    """The bytes of a place; none are asked for where there are none. Raises as `Folder.read`."""
    if place.length > MAX_BYTES:
        raise ContentError(f"is larger than {byte_size(MAX_BYTES)}")
    return folder.read(place) if place.length else b""


@dataclass(frozen=True)
class PlacedImages:
    """Some images in shards, by their places: what another process needs to read them, no more.

    Attributes:
        folder: of the shards.
        places: of the images in them.
    """

    folder: Folder
    places: tuple[Place, ...]

    def __len__(self) -> int:
        return len(self.places)

    def read(self, index: int) -> bytes:
        """The encoded image. Raises as `ShardStorage.read`."""
        return _read(self.folder, self.places[index])

    @property
    def reads_ahead(self) -> bool:
        """Whether it helps to say which images are read next."""
        return not isinstance(self.folder, LocalFolder)

    def expect(self, indices: Sequence[int]) -> None:
        """These images are read soon, in this order."""
        self.folder.expect([*filter(_may_be_image, (self.places[index] for index in indices))])


@dataclass(frozen=True)
class ShardStorage:
    """The images in shards; of each, the digests are those of its original."""

    folder: Folder
    index: ShardIndex

    def __len__(self) -> int:
        return len(self.index)

    def read(self, index: int) -> bytes:
        """The encoded image.

        Raises:
            ContentError: its shard is missing or damaged, or it is too large.
            OSError: it cannot be reached.
        """
        return _read(self.folder, self.index.place(index))

    @property
    def reads_ahead(self) -> bool:
        """Whether it helps to say which images are read next."""
        return not isinstance(self.folder, LocalFolder)

    def name(self, index: int) -> str:
        """The name of the original."""
        return str(self.index.names[index].as_py())

    def digests(self, index: int) -> ImageDigests:
        """The digests of the original, from the index."""
        digest: bytes = self.index.digests[index].as_py()
        earlier: bytes | None = self.index.earlier[index].as_py()
        return ImageDigests(digest, earlier or digest, familiar=True)

    def all_digests(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The digests of many originals and their earlier ones, (2, M, 32)."""
        digest = _as_bytes(self.index.digests)[indices]
        has_other = np.asarray(self.index.earlier.is_valid())[indices]
        earlier = np.where(has_other[:, None], _as_bytes(self.index.earlier)[indices], digest)
        return np.stack([digest, earlier])

    def member(self, index: int) -> int | None:
        """By what a network recognises the original, if it is kept: `membership.content_member`."""
        return int(self.index.members[index]) or None

    def expect(self, indices: Sequence[int]) -> None:
        """These images are read soon, in this order."""
        places = (self.index.place(int(index)) for index in indices)
        self.folder.expect([*filter(_may_be_image, places)])

    def may_be_images(self, rows: NDArray[np.int64]) -> NDArray[np.bool]:
        """Whether each has a size that an image may have, (M,)."""
        lengths = self.index.lengths[rows]
        sizes: NDArray[np.bool] = (lengths > 0) & (lengths <= MAX_BYTES)
        return sizes

    def stored_digests(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The digests of encoded images as they lie in the shards, (M, 32)."""
        return _as_bytes(self.index.stored)[rows]

    def placed(self, rows: Sequence[int]) -> PlacedImages:
        """Some of the images, without the index."""
        return PlacedImages(self.folder, tuple(map(self.index.place, rows)))
