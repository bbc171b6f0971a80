"""A folder of shards, as `resnets shard` writes it: see `resnets.data.shards`."""

from functools import partial
from pathlib import Path

from resnets.data.labelled import LabelledImages
from resnets.data.places import AGAIN, Folder, LocalFolder, folder_at
from resnets.data.remote.fetching import NoSuchFileError
from resnets.data.shards import (
    INDEX,
    LARGEST_INDEX,
    UNFINISHED,
    ShardIndex,
    ShardStorage,
    is_index,
)
from resnets.data.splits import SourceContent
from resnets.errors import ContentError
from resnets.format import plural


def holds_shards(folder: Path, file: Path | None = None) -> bool:
    """Whether a folder holds shards, finished or not; or whether a file is the index of shards."""
    index = folder / INDEX
    if file is not None and file.name != INDEX:
        return False
    if index.is_file():
        is_ours = is_index(index)
        return any(folder.glob("*.tar")) if is_ours is None else is_ours
    return file is None and any(folder.glob(f"*{UNFINISHED}"))


def read_shards(source: str | Path, cache_bytes: int = 0) -> SourceContent:
    """Read the index of a folder of shards; images are read when they are needed.

    Args:
        source: the folder, or its address, such as s3://bucket/shards.
        cache_bytes: size of the cache on the local disk for images from an address.

    Raises:
        ContentError: the index or a shard is missing or damaged.
        OSError: an address cannot be reached, or nothing is there.
    """
    folder = folder_at(source, cache_bytes)
    index = _read_index(folder)
    if isinstance(folder, LocalFolder):  # elsewhere each shard would take a request
        _check_sizes(folder, index)
    storage = ShardStorage(folder, index)
    names = index.about.class_names
    images = {}
    for split in index.splits:
        rows = index.rows_of(split)
        if len(rows):
            images[split] = LabelledImages(storage, index.labels[rows], names, rows)
    columns = {name: partial(_values_of, index, name) for name in index.columns}
    return SourceContent("shards", images, declared=True, columns=columns)


def _values_of(index: ShardIndex, column: str, _: str) -> list[str | None]:
    """A value for each image of all splits, which have one storage; see `SourceContent.columns`."""
    return index.values(column)


def _check_sizes(folder: LocalFolder, index: ShardIndex) -> None:
    """Compare the sizes of the shards with the index. Raises ContentError."""
    for shard in index.about.shards:
        size = folder.size(shard.file)
        if size != shard.bytes:
            what = (
                "missing"
                if size is None
                else f"{plural(size, 'byte')}, and should have {shard.bytes:,}"
            )
            raise ContentError(f"{folder.path / shard.file}: {what}; {AGAIN}")


def _read_index(folder: Folder) -> ShardIndex:
    """The index of a folder.

    Raises:
        NoSuchFileError: there is none at an address.
        ContentError: it is missing or damaged.
    """
    where = f"{folder.address.rstrip('/')}/{INDEX}"
    try:
        return ShardIndex.read(folder.read_file(INDEX, LARGEST_INDEX))
    except FileNotFoundError:
        raise ContentError(
            f"{folder.address}: shards without their index, as `resnets shard` was stopped before "
            "it was written; run it again, and it goes on from there"
        ) from None
    except NoSuchFileError:
        raise NoSuchFileError(
            f"{where}: no such file; give the address of a folder that `resnets shard` has "
            "written, or of a .tar or .parquet file"
        ) from None
    except OSError as error:
        if not isinstance(folder, LocalFolder):  # it is told what was tried
            raise
        raise ContentError(f"{where}: cannot be read ({error.strerror or error})") from None
    except ContentError as error:
        raise ContentError(f"{where}: not a readable index of shards ({error}); {AGAIN}") from None
