"""Parquet files in the layout of the Hugging Face hub."""

import contextlib
import hashlib
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from resnets.data.digests import RECENT
from resnets.data.labelled import LabelledImages
from resnets.data.remote.failures import RemoteError
from resnets.data.sources.labels import (
    NO_LABEL,
    is_label,
    label_names_of,
    name_of_label,
    with_label,
)
from resnets.data.sources.names import UNLABELLED, listed, split_of
from resnets.data.sources.tables import MULTI_LABEL, number_or_word
from resnets.data.sources.walking import PassedOver, in_words, walk
from resnets.data.splits import SourceContent
from resnets.data.storage import ArrowStorage, MappedStorage, RowNames, Storage
from resnets.errors import ContentError
from resnets.files.folders import cache_folder, temporary_folder, warn_of_cache
from resnets.files.reading import regular
from resnets.files.writing import replacing
from resnets.format import plural
from resnets.headers import parse_json
from resnets.json_text import to_json
from resnets.packing import unpacked_limit

_NO_CLASS = -2  # instead of the number of a class, beside `NO_LABEL`
_NO_IMAGES = "a parquet file without images"
_IMAGES = ("image", "img")
_LABELS = ("label", "labels", "fine_label", "class")  # the first of these that exists


@dataclass(frozen=True)
class _Columns:
    """The columns of images and labels.

    Attributes:
        image: the name of the column of encoded images.
        label: the name of the column of labels.
        class_names: by label, or empty if the labels' values are the names.
    """

    image: str
    label: str
    class_names: tuple[str, ...]


def choose_columns(schema: Any, features: Mapping[str, Any], where: str) -> _Columns:
    """Choose the columns by the hub's description of them, else by type and name.

    Args:
        schema: the pyarrow.Schema.
        features: the hub's description, such as {"img": {"_type": "Image"}, ...}.
        where: the name of the table in errors.

    Raises:
        ContentError: there is no column of images or of labels.
    """
    image = image_column(schema, features, where)
    classes = {
        name: tuple(map(str, features[name].get("names") or ()))
        for name in schema.names
        if features.get(name, {}).get("_type") == "ClassLabel"
    }
    labels = [name for name in _LABELS if name in schema.names] + list(classes)
    if not labels:
        raise ContentError(f"{where}: no column of labels; it has {listed(schema.names, 9)}")
    _refuse_composite(schema.field(labels[0]).type, labels[0], where)
    return _Columns(image, labels[0], classes.get(labels[0], ()))


def image_column(schema: Any, features: Mapping[str, Any], where: str) -> str:
    """The column of encoded images. Raises ContentError if there is none."""
    names = [name for name in schema.names if features.get(name, {}).get("_type") == "Image"]
    names = names or [name for name in _IMAGES if name in schema.names]
    encoded: list[str] = [name for name in names if _holds_bytes(schema.field(name).type)]
    if not encoded:
        has = listed(schema.names, 9)
        raise ContentError(f"{where}: no column of encoded images (bytes); it has {has}")
    return encoded[0]


def features_of(schema: Any) -> Mapping[str, Any]:
    """What the hub says of the columns; empty where it says nothing."""
    info = parse_json((schema.metadata or {}).get(b"huggingface", b"{}")).get("info", {})
    features: Mapping[str, Any] = info.get("features", {})
    return features


def _refuse_composite(kind: Any, name: str, where: str) -> None:
    """Refuse labels that are lists, structs or bytes.

    Raises:
        ContentError: the labels have such a type; the message says which are allowed.
    """
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    several = pa.types.is_nested(kind) or pa.types.is_map(kind)
    if several or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        hint = f": {MULTI_LABEL}" if several else ""
        raise ContentError(
            f"{where}: the column {name!r} holds labels of the type {str(kind)[:60]}{hint}; a "
            "label must be one whole number or one text an image"
        )


def _holds_bytes(kind: Any) -> bool:
    """Whether a column's type is bytes, or a struct of bytes and path."""
    if pa.types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and _holds_bytes(kind.field(index).type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _encoded_images(column: Any) -> Any:
    """The bytes of a column of images, as a ChunkedArray of binary."""
    if pa.types.is_struct(column.type):
        return pa.chunked_array(
            [pc.struct_field(chunk, "bytes") for chunk in column.chunks],
            type=column.type.field("bytes").type,
        )
    return column


def labelled_splits(
    columns: _Columns, storages: Mapping[str, Storage], values: Mapping[str, Any], where: str
) -> tuple[dict[str, LabelledImages], tuple[str, ...]]:
    """Join each split's images and labels.

    Args:
        columns: with the names of the classes, if the labels are numbers of those.
        storages: the images of each split.
        values: the labels of each split, a ChunkedArray of integers or strings.
        where: the name of the table in errors.

    Returns:
        The splits, and warnings. A split without any label is left out.

    Raises:
        ContentError: a label is missing or belongs to no class.
    """
    declared = columns.class_names
    label_names = label_names_of(
        {} if declared else {split: column.to_pylist() for split, column in values.items()}, where
    )
    class_names = declared or _sorted_names(label_names.values())
    images = {}
    warnings: list[str] = []
    for split, column in values.items():
        if len(column) != len(storages[split]):
            raise ContentError(
                f"{where}: {plural(len(storages[split]), 'image')}, but "
                f"{plural(len(column), 'label')} in {split}"
            )
        labels = _numbers(column, declared, label_names.get(split, ()), class_names)
        chosen, left_out = with_label(split, labels, storages[split].name)
        warnings += left_out
        if len(labels) and not len(chosen):
            continue
        for index in np.flatnonzero(labels == _NO_CLASS)[:1]:
            raise ContentError(
                f"{where}: the label of {storages[split].name(int(index))} is "
                f"{column[int(index)].as_py()}, not in 0..{len(class_names) - 1}"
            )
        images[split] = LabelledImages(storages[split], labels[chosen], class_names, chosen)
    if not images:
        raise ContentError(f"{where}: none of the images has a label")
    return images, tuple(warnings)


def _sorted_names(columns: Iterable[Sequence[str | None]]) -> tuple[str, ...]:
    """The names of classes, numbers in their order."""
    distinct = {name for names in columns for name in names if name is not None}
    return tuple(sorted(distinct, key=number_or_word))


def _numbers(
    column: Any, declared: Sequence[str], names: Sequence[str | None], class_names: Sequence[str]
) -> NDArray[np.int64]:
    """Labels (N,) as numbers of classes, or `NO_LABEL` or `_NO_CLASS`.

    Args:
        column: N values.
        declared: what whole numbers stand for, with -1 for no label; empty if nothing says it.
        names: of the classes that the values mean, N, where nothing is declared.
        class_names: of all classes.
    """
    if declared and pa.types.is_integer(column.type):
        labels = np.array(pc.fill_null(column, NO_LABEL).cast(pa.int64()).to_numpy())
        labels[(labels < NO_LABEL) | (labels >= len(declared))] = _NO_CLASS
        return labels
    number: dict[str | None, int] = {name: label for label, name in enumerate(class_names)}
    number[None] = NO_LABEL
    if declared:
        names = [name_of_label(v) if is_label(v) and v != -1 else None for v in column.to_pylist()]
        number |= {str(label): label for label in range(len(declared)) if str(label) not in number}
    return np.array([number.get(name, _NO_CLASS) for name in names], dtype=np.int64)


_LARGEST = 2**40  # bytes of one file
_ROWS = 1_000_000  # rows that a file may have in addition to one for each byte
_ROWS_AT_ONCE = 16
_PIECE = 2**24  # bytes of a column that are read as one array
_FACTOR = 32  # largest ratio of decompressed to compressed size
_UNREADABLE = (  # exceptions of pyarrow and of damaged descriptions
    *(pa.ArrowException, OSError, ValueError, KeyError, AttributeError, TypeError, IndexError),
    *(OverflowError, RecursionError, MemoryError),
)
Store: TypeAlias = Callable[[Sequence[Path], str], Storage]
IN_MEMORY = 2**28  # bytes of a split's parquet files; images of larger ones are memory-mapped


def _parquet_files(folder: Path) -> tuple[list[Path], tuple[PassedOver, ...]]:
    """The parquet files in and below a folder, sorted; and those that hold no images, with why."""
    every = [folder / name for name in walk(folder, "") if name.lower().endswith(".parquet")]
    chosen = sorted(file for file in every if may_hold_images(file))
    if not chosen:
        return sorted(every), ()
    others = [str(file.relative_to(folder)) for file in every if file not in set(chosen)]
    return chosen, tuple((name, _NO_IMAGES) for name in others)


def may_hold_images(file: Path) -> bool:
    """Whether a parquet file has a column of bytes, or is damaged, which is told later.

    Predictions that this package wrote have none.
    """
    try:
        with parquet_errors(file):
            return any(_holds_bytes(field.type) for field in open_file(file).schema_arrow)
    except ContentError:
        return True


def read_parquet(
    path: Path, labelled: bool = True, where: str = "", store: Store | None = None
) -> SourceContent:
    """Read a parquet file, or all below a folder.

    A file belongs to the split that its name begins with (train-00000-of-00004.parquet) or that a
    folder above it is named after (train/0000.parquet).

    Args:
        path: of the file or folder.
        labelled: whether images without a label are left out; else all are taken, as of the one
            class `UNLABELLED`.
        where: the address that the path holds copies of, for errors; empty for none.
        store: makes the storage of a split's images, of its files and the column of images; None
            for one of what is in the files.

    Raises:
        ContentError: a file is broken, or has no column of images or of labels.
    """
    with _calling(path, where):
        return _read_parquet(path, labelled, store or _store)


@contextlib.contextmanager
def _calling(path: Path, where: str) -> Iterator[None]:
    """Call a folder of copies by the address of its files in a ContentError."""
    try:
        yield
    except ContentError as error:
        if not where:
            raise
        raise ContentError(str(error).replace(str(path), where)) from None


def _read_parquet(path: Path, labelled: bool, store: Store) -> SourceContent:
    """As `read_parquet`."""
    by_split, passed_over = _split_files(path)
    first = next(iter(by_split.values()))[0]
    with parquet_errors(first):
        schema = open_file(first).schema_arrow
        features = features_of(schema)
        columns = choose_columns(schema, features, str(first)) if labelled else None
        image = columns.image if columns else image_column(schema, features, str(first))
    storages = {split: store(files, image) for split, files in by_split.items()}
    warnings = tuple(in_words(passed_over))
    if columns is None:
        images = {
            split: LabelledImages(storage, np.zeros(len(storage)), (UNLABELLED,))
            for split, storage in storages.items()
        }
        return SourceContent("parquet", images, warnings, passed_over=passed_over)
    labels = {split: _read_column(files, columns.label) for split, files in by_split.items()}
    with parquet_errors(path):
        images, left_out = labelled_splits(columns, storages, labels, str(path))
    declared = bool(columns.class_names)
    others = {name: partial(_values_of, by_split, name) for name in schema.names if name != image}
    warnings = (*left_out, *warnings)
    return SourceContent("parquet", images, warnings, declared, others, passed_over=passed_over)


def _values_of(files: Mapping[str, Sequence[Path]], name: str, split: str) -> list[Any]:
    """The values of one column in the files of a split."""
    values: list[Any] = _read_column(files[split], name).to_pylist()
    return values


def _split_files(path: Path) -> tuple[dict[str, list[Path]], tuple[PassedOver, ...]]:
    """The files of each split, "all" for those that name none; and what is passed over."""
    if not path.is_dir():
        return {split_of(_prefix(path)) or "all": [path]}, ()
    by_split: dict[str, list[Path]] = {}
    places = set()
    files, passed_over = _parquet_files(path)
    for file in files:
        above = file.relative_to(path).parent.parts
        split = next(filter(None, map(split_of, (_prefix(file), *reversed(above)))), "all")
        by_split.setdefault(split, []).append(file)
        places.add("/".join(name for name in above if not split_of(name)))
    if len(places) > 1:
        raise ContentError(
            f"{path}: parquet files of several data sets ({listed(sorted(places))}); pass the "
            "folder of one"
        )
    if "all" in by_split and len(by_split) > 1:
        raise ContentError(
            f"{path}: {by_split['all'][0].name} does not say its split; begin its name with "
            "train-, validation- or test-, as the other files' do"
        )
    return by_split, passed_over


def _prefix(file: Path) -> str:
    """The first word of a file's name.

    >>> _prefix(Path("train-00000-of-00004.parquet"))
    'train'
    """
    return re.split(r"[-_.]", file.name)[0]


@contextlib.contextmanager
def parquet_errors(file: Path | str) -> Iterator[None]:
    """Turn errors of reading a parquet file into a ContentError that names the file."""
    try:
        yield
    except (ContentError, RemoteError):
        raise
    except _UNREADABLE as error:
        reason = " ".join(str(error).split())
        raise ContentError(f"{file}: not a readable parquet file ({reason})") from None


def open_file(file: Path) -> pq.ParquetFile:
    """Open a parquet file and read its footer.

    Raises:
        ContentError: it claims more rows than its size allows.
    """
    parquet = pq.ParquetFile(regular(file, _LARGEST), page_checksum_verification=True)
    size, rows = file.stat().st_size, parquet.metadata.num_rows
    if not 0 <= rows <= _ROWS + size:
        raise ContentError(f"{file}: claims {rows:,} rows, in {plural(size, 'byte')}")
    return parquet


def _pieces(file: Path, name: str) -> Iterator[Any]:
    """A column of a file in pieces, each an array of a few MiB. Raises as `pieces`."""
    return pieces(open_file(file), name, file.stat().st_size, str(file))


def pieces(
    parquet: pq.ParquetFile, name: str, packed: int, where: str, group: int | None = None
) -> Iterator[Any]:
    """A column of an open file in pieces, each an array of a few MiB.

    Args:
        parquet: the file.
        name: of the column.
        packed: bytes of what is read, at least.
        where: the name of the file in errors.
        group: which row group; None for all.

    Raises:
        ContentError: it decompresses to far more than its size.
    """
    allowance = unpacked_limit(packed, _FACTOR)
    waiting: list[Any] = []
    bytes_ = 0
    groups = None if group is None else [group]
    for batch in parquet.iter_batches(_ROWS_AT_ONCE, row_groups=groups, columns=[name]):
        waiting.append(batch.column(0))
        bytes_ += waiting[-1].nbytes
        allowance -= waiting[-1].nbytes
        if allowance < 0:
            raise ContentError(f"{where}: unpacks to more than {_FACTOR} times its size; refused")
        if bytes_ > _PIECE:
            yield pa.concat_arrays(waiting)
            waiting, bytes_ = [], 0
    if waiting:
        yield pa.concat_arrays(waiting)


def _read_column(files: Sequence[Path], name: str) -> Any:
    """One column of several files, as a ChunkedArray."""
    chunks: list[Any] = []
    for file in files:
        with parquet_errors(file):
            chunks += _pieces(file, name)
    with parquet_errors(files[0]):
        kind = None if chunks else open_file(files[0]).schema_arrow.field(name).type
        return pa.chunked_array(chunks, type=kind)


def _store(files: Sequence[Path], image: str) -> Storage:
    """The images of several files: in memory if they are small, else mapped from a file.

    Args:
        files: of a split.
        image: the column of images.
    """
    rows = RowNames.of([file.name for file in files], [_count_rows(file) for file in files])
    if sum(file.stat().st_size for file in files) <= IN_MEMORY:
        return ArrowStorage(_encoded_images(_read_column(files, image)), rows)
    try:
        return MappedStorage(_arrow_file(files, image, cache_folder()), rows)
    except OSError as error:
        warn_of_cache(error)
        return MappedStorage(_arrow_file(files, image, temporary_folder()), rows)


def _arrow_file(files: Sequence[Path], image: str, folder: Path) -> Path:
    """The Arrow file of the images in a folder, written if it does not exist yet."""
    mapped = folder / f"{_key(files, image)}.arrow"
    if not mapped.exists() or _may_be_stale(files, mapped):
        folder.mkdir(parents=True, exist_ok=True)
        _write_mapped(files, image, mapped)
    return mapped


def _may_be_stale(files: Sequence[Path], mapped: Path) -> bool:
    """Whether files were so new when they were unpacked that they may have changed afterwards."""
    newest = max(file.stat().st_mtime_ns for file in files)
    return mapped.stat().st_mtime_ns - RECENT < newest < time.time_ns()


def _count_rows(file: Path) -> int:
    """The number of rows of a file, from its footer."""
    with parquet_errors(file):
        return int(open_file(file).metadata.num_rows)


def _key(files: Sequence[Path], image: str) -> str:
    """A name for the images of some files that changes when the files do."""
    stats = [(str(file.resolve()), file.stat()) for file in files]
    state = [image, *((path, stat.st_size, stat.st_mtime_ns) for path, stat in stats)]
    return hashlib.sha256(to_json(state).encode()).hexdigest()[:32]


def _write_mapped(files: Sequence[Path], image: str, target: Path) -> None:
    """Write a column of images to an Arrow file, which can be memory-mapped."""

    def columns() -> Iterator[Any]:
        for file in files:
            with parquet_errors(file):
                yield from _pieces(file, image)

    write_images(columns(), target)


def write_images(columns: Iterable[Any], target: Path) -> None:
    """Write images to an Arrow file, which can be memory-mapped.

    Args:
        columns: arrays of a column of images, as `pieces` gives them.
        target: the file.
    """
    schema = pa.schema([("image", pa.large_binary())])
    with replacing(target) as sink, pa.ipc.new_file(sink, schema) as writer:
        for column in columns:
            images = _encoded_images(pa.chunked_array([column])).cast(pa.large_binary())
            writer.write_batch(pa.record_batch([images.combine_chunks()], schema))
