"""Tar files of WebDataset without an index, as others publish them.

The members of a sample have one name and several endings: KEY.jpg, KEY.cls, KEY.json. Where each
image lies is found when a file is seen for the first time, and kept in the cache.
"""

import contextlib
import hashlib
import io
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from resnets.data.digests import digests_of_bytes
from resnets.data.labelled import LabelledImages
from resnets.data.membership import encoded_member, is_lossy
from resnets.data.places import Folder, LocalFolder
from resnets.data.remote import RemoteFolder
from resnets.data.remote.failures import RemoteError
from resnets.data.shards import SCHEMA, About, Shard, ShardIndex, ShardStorage, SplitCounts
from resnets.data.sources.labels import label_names_of, with_label
from resnets.data.sources.names import UNLABELLED, has_image_ending, listed, printable, split_of
from resnets.data.sources.tables import number_or_word
from resnets.data.sources.walking import walk
from resnets.data.splits import SourceContent
from resnets.errors import ContentError
from resnets.files.folders import cache_folder, writing_to_cache
from resnets.files.reading import open_input, read_input
from resnets.files.writing import write_atomically
from resnets.format import plural
from resnets.headers import parse_json
from resnets.images.opening import MAX_BYTES
from resnets.json_text import to_json
from resnets.machine import reading_threads

_LARGEST = 1 << 40  # bytes of a tar file
_LARGEST_ROWS = 1 << 32  # bytes of what is kept of one
_LARGEST_TEXT = 1 << 20  # bytes of a label or a description
_FORMAT = 2  # of what is kept; a new one looks at the files again
_SAMPLE = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)")  # key and ending, as WebDataset parts them
_LABELS = ("cls", "label", "label.txt", "cls.txt")
_CLASS_KEYS = ("class", "class_name", "label")  # in KEY.json
_MOST_CLASSES = 1 << 20
_WHOLE = re.compile(r"-1|[0-9]{1,9}")  # the number of a class, or that there is none

_ROWS = pa.schema(
    [
        *(SCHEMA.field(name) for name in ("key", "offset", "length", "digest", "earlier")),
        ("member", pa.uint64()),  # 0: its pixels tell, see `membership`
        ("label", pa.string()),  # a number or a name; null: there is none
        ("class", pa.string()),  # its name where KEY.json has it
    ]
)


def holds_samples(file: Path) -> bool:
    """Whether a tar file begins with a sample that has an image."""
    try:
        with open_input(file, _LARGEST) as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
            first = next((member for member in tar if member.isreg()), None)
    except (tarfile.TarError, OSError, ValueError, EOFError, IndexError):
        return False
    match = None if first is None else _SAMPLE.fullmatch(first.name)
    return match is not None and (_is_image(match[2]) or match[2].lower() in (*_LABELS, "json"))


def read_tars(path: Path, labelled: bool = True) -> SourceContent:
    """Read a tar file of samples, or all in and below a folder.

    A file belongs to the split that its name begins with (train-0000.tar), or that a folder above
    it is named after.

    Args:
        path: of the file or folder.
        labelled: as for `read_tars_in`.

    Raises:
        ContentError: a file is damaged, or no image has a label.
    """
    root = path if path.is_dir() else path.parent
    files = [path.name]
    if path.is_dir():
        files = sorted(name for name in walk(path, "") if name.lower().endswith(".tar"))
    return read_tars_in(LocalFolder(root), files, str(path), labelled)


def read_tars_in(
    folder: Folder, files: Sequence[str], where: str, labelled: bool = True
) -> SourceContent:
    """Read tar files of samples; each is read as a whole when it is seen for the first time.

    Args:
        folder: that they are in, here or at an address.
        files: their names.
        where: what to call them in errors.
        labelled: whether images without a label are left out; else all are taken, as of the one
            class `UNLABELLED`.

    Raises:
        ContentError: a file is damaged, or no image has a label.
        OSError: an address cannot be reached.
    """
    with ThreadPoolExecutor(reading_threads()) as pool:
        tables = [*pool.map(lambda name: _rows_of(folder, name), files)]
    if not any(map(len, tables)):
        raise ContentError(f"{where}: no samples with an image in {listed(files)}")
    if labelled:
        labels, names = _classes(where, files, tables)
    else:
        labels, names = np.zeros(sum(map(len, tables)), np.int32), (UNLABELLED,)
    index = _index(folder, files, tables, labels, names)
    storage = ShardStorage(folder, index)
    images, warnings = {}, _about_empty(files, tables)
    for split in index.splits:
        rows = index.rows_of(split)
        own = partial(_name_of, storage, rows)
        chosen, left_out = with_label(split, labels[rows].astype(np.int64), own)
        warnings += left_out
        if len(chosen):
            rows = rows[chosen]
            images[split] = LabelledImages(storage, labels[rows], names, rows)
    return SourceContent("webdataset", images, tuple(warnings), declared=True)


def _name_of(storage: ShardStorage, rows: NDArray[np.int64], index: int) -> str:
    """The name of one of some images in a storage."""
    return storage.name(int(rows[index]))


def _about_empty(files: Sequence[str], tables: Sequence[pa.Table]) -> list[str]:
    """A warning about tar files in which there is no image, as after an upload that failed."""
    empty = [file for file, table in zip(files, tables, strict=True) if not len(table)]
    return [f"no samples with an image in {listed(empty)}; was an upload cut off?"] if empty else []


def _index(
    folder: Folder,
    files: Sequence[str],
    tables: Sequence[pa.Table],
    labels: NDArray[np.int32],
    names: Sequence[str],
) -> ShardIndex:
    """The index of all files."""
    splits = [_split(file) for file in files]
    shards = tuple(
        Shard(file, len(table), folder.size(file) or 0, "", "")
        for file, table in zip(files, tables, strict=True)
    )
    about = About(
        tuple(names),
        tuple(SplitCounts(split, ()) for split in dict.fromkeys(splits)),
        shards,
        "webdataset",
    )
    lengths = [len(table) for table in tables]
    rows = pa.concat_tables(tables)
    shard = np.repeat(np.array(files, dtype=object), lengths)
    key = rows["key"].to_pylist()
    columns = {
        "split": np.repeat(np.array(splits, dtype=object), lengths),
        "shard": shard,
        "label": np.maximum(labels, 0),  # rows without a label are in no split's images
        "name": [f"{printable(file)}/{name}" for file, name in zip(shard, key, strict=True)],
        "stored": rows["digest"],
        **{name: rows[name] for name in ("offset", "length", "digest", "earlier", "member")},
    }
    return ShardIndex.of(about, pa.table(columns))


def _split(file: str) -> str:
    """The split that a file belongs to, "all" where nothing tells."""
    *above, name = file.split("/")
    words = (re.split(r"[-_.]", name)[0], *reversed(above))
    return next(filter(None, map(split_of, words)), "all")


def _classes(
    where: str, files: Sequence[str], tables: Sequence[pa.Table]
) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    """The label of each image, (N,), -1 for none; and the names of the classes.

    Raises:
        ContentError: no image has a label.
    """
    texts = _label_texts(where, files, tables)
    distinct = {text for text in texts if text is not None}
    if not distinct:
        first, table = next(
            (file, table) for file, table in zip(files, tables, strict=True) if table
        )
        raise ContentError(
            f"{where}: {printable(first)}/{table['key'][0].as_py()} has no label; there must be a "
            "member of the same name that ends with .cls, or .json with a 'class' or 'label' in it"
        )
    if not all(text.isdecimal() and int(text) < _MOST_CLASSES for text in distinct):
        names = tuple(sorted(distinct, key=number_or_word))
        number: dict[str | None, int] = {name: label for label, name in enumerate(names)}
        return np.array([number.get(text, -1) for text in texts], np.int32), names
    numbers = [-1 if text is None else int(text) for text in texts]
    class_names = [name for table in tables for name in table["class"].to_pylist()]
    of_number: dict[int, str] = {}
    for label, name in zip(numbers, class_names, strict=True):
        of_number.setdefault(label, str(label) if name is None else name)
    names = tuple(of_number.get(label, str(label)) for label in range(max(numbers) + 1))
    if len(set(names)) < len(names):  # the names tell less than the numbers
        names = tuple(map(str, range(len(names))))
    return np.array(numbers, np.int32), names


def _label_texts(where: str, files: Sequence[str], tables: Sequence[pa.Table]) -> list[str | None]:
    """The label of each image as it is written, None for none: as in the columns of tables."""
    texts = [
        (_split(file), text)
        for file, table in zip(files, tables, strict=True)
        for text in table["label"].to_pylist()
    ]
    values: dict[str, list[str | int | None]] = {}
    for split, text in texts:
        number = text is not None and _WHOLE.fullmatch(text)
        values.setdefault(split, []).append(int(text) if number else text)
    names = {split: iter(own) for split, own in label_names_of(values, where).items()}
    return [text if next(names[split]) is not None else None for split, text in texts]


def _rows_of(folder: Folder, file: str) -> pa.Table:
    """The images in a tar file, from the cache where it is known there.

    Raises:
        ContentError: it is damaged.
        OSError: its address cannot be reached.
    """
    state = (*_state(folder, file), _FORMAT)
    name = hashlib.sha256(to_json(state).encode()).hexdigest()[:32]
    kept = cache_folder() / "tars" / f"{name}.parquet"
    try:
        rows = pa.BufferReader(read_input(kept, _LARGEST_ROWS))
        return pq.read_table(rows, page_checksum_verification=True).cast(_ROWS)
    except (OSError, ValueError, pa.ArrowException):
        table = pa.Table.from_pylist([*_scan(folder, file)], _ROWS)
    content = io.BytesIO()
    pq.write_table(table, content, write_page_checksum=True)
    with writing_to_cache():
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(kept, content.getvalue())
    return table


def _state(folder: Folder, file: str) -> tuple[str | int, ...]:
    """What changes with a file."""
    if isinstance(folder, RemoteFolder):
        return folder.address, file, folder.version(file)
    assert isinstance(folder, LocalFolder)
    path = folder.path / file
    status = path.stat()
    return str(path.resolve()), status.st_size, status.st_mtime_ns


@contextlib.contextmanager
def _opened(folder: Folder, file: str) -> Iterator[IO[bytes]]:
    """A file that is open to be read once."""
    if isinstance(folder, RemoteFolder):
        with folder.stream(file) as stream:
            yield stream
        return
    assert isinstance(folder, LocalFolder)
    with open_input(folder.path / file, _LARGEST) as stream:
        yield stream


class _CutOffError(ContentError):
    """A file is damaged, or was not copied as a whole."""


def _scan(folder: Folder, file: str) -> Iterator[dict[str, Any]]:
    """A row for each image in a tar file. Raises ContentError, or RemoteError."""
    where = f"{folder.address.rstrip('/')}/{file}"
    again = "download it again" if isinstance(folder, LocalFolder) else "upload it again"
    try:
        with _opened(folder, file) as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
            sample: dict[str, Any] = {}
            for member in tar:
                match = _SAMPLE.fullmatch(member.name) if member.isreg() else None
                if match is None or member.sparse:
                    continue
                if sample.get("group") != match[1]:
                    yield from _row(sample)
                    sample = {"group": match[1]}
                _add(sample, tar, member, match[2].lower())
            yield from _row(sample)
            stream.seek(tar.offset)
            if stream.read(2 * tarfile.BLOCKSIZE).strip(b"\0"):  # Python takes it as the end
                raise _CutOffError(f"damaged at byte {tar.offset:,}")
    except RemoteError:
        raise
    except _CutOffError as error:
        raise ContentError(f"{where}: {error}; {again}") from None
    except ContentError as error:
        raise ContentError(f"{where}: {error}") from None
    except (tarfile.TarError, OSError, EOFError, ValueError, IndexError) as error:
        raise ContentError(f"{where}: a broken archive ({error}); {again}") from None


def _add(sample: dict[str, Any], tar: tarfile.TarFile, member: tarfile.TarInfo, end: str) -> None:
    """Add what a member tells of its sample. Raises ContentError or an error of tarfile.

    An image that has no bytes, or far too many, is found to be unreadable like any other.
    """
    if _is_image(end) and "key" not in sample:
        is_large = member.size > MAX_BYTES
        data = b"" if is_large else _content(tar, member, MAX_BYTES)
        digests = digests_of_bytes(data)
        sample |= {
            "key": printable(member.name),
            "offset": member.offset_data,
            "length": member.size,
            "digest": digests.digest,
            "earlier": None if digests.earlier == digests.digest else digests.earlier,
            "member": encoded_member(digests.digest) if is_lossy(data) else 0,
        }
    elif end in _LABELS:
        sample["label"] = _content(tar, member, _LARGEST_TEXT).decode("utf-8", "replace").strip()
    elif end == "json":
        about = parse_json(_content(tar, member, _LARGEST_TEXT) or b"{}")
        sample["about"] = about if isinstance(about, Mapping) else {}


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo, limit: int) -> bytes:
    """What a member holds. Raises ContentError if it is too large, or cut off."""
    if not 0 <= member.size <= limit:
        raise ContentError(f"{printable(member.name)} has {plural(member.size, 'byte')}")
    file = tar.extractfile(member)
    data = file.read() if file else b""
    if len(data) != member.size:
        raise _CutOffError(f"{printable(member.name)} is cut off")
    return data


def _row(sample: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The row of a sample; none if it has no image."""
    if "key" not in sample:
        return
    about: Mapping[str, Any] = sample.pop("about", {})
    values = [about[key] for key in _CLASS_KEYS if isinstance(about.get(key), str | int)]
    names = [value for value in values if isinstance(value, str)]
    label = sample.get("label") or next(map(str, values), None)
    yield {name: sample.get(name) for name in _ROWS.names} | {
        "label": label,
        "class": names[0] if names else None,
    }


def _is_image(ending: str) -> bool:
    """Whether the ending of a member is that of an image, such as jpg, or input.png."""
    return has_image_ending(f".{ending}")
