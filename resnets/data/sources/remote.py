"""Data at an address: shards of `resnets shard`, or tar and parquet files of others.

Others' files are named one by one, or many at once by a range or a list in braces, as WebDataset
has it; in a bucket, which tells what is in it, by their folder. Tar files are read by ranges like
shards, once they were looked through. In parquet files, images are packed together by row groups,
which are fetched whole; small files are copied into the cache.
"""

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

from resnets.data.remote import RemoteFolder
from resnets.data.remote.copies import copied, total_of
from resnets.data.remote.fetching import NoSuchFileError, scheme_of
from resnets.data.shards import INDEX
from resnets.data.sources.parquet import IN_MEMORY, read_parquet
from resnets.data.sources.row_groups import RowGroupStorage, stand_ins
from resnets.data.sources.shards import read_shards
from resnets.data.sources.webdataset import read_tars_in
from resnets.data.splits import SourceContent
from resnets.errors import UsageError
from resnets.format import byte_size

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d{1,9})\.\.(\d{1,9})")
_MOST = 100_000  # files that a name stands for


def read_address(address: str, cache_bytes: int, labelled: bool = True) -> SourceContent:
    """Read what lies at an address.

    Args:
        address: of a folder of shards, of a tar or parquet file, of several by a range such as
            train-{0000..0012}.tar or a list such as {train,test}.parquet, or of a folder of them in
            a bucket.
        cache_bytes: of the cache on the local disk: for images that are read by ranges, and for
            what is kept of all parquet files, for which 0 is no limit.
        labelled: whether images without a label are left out; shards have none.

    Raises:
        UsageError: the range means nothing, there is no such file, or the copies would take more
            than the cache.
        ContentError: a file is damaged.
        OSError: the address cannot be reached.
    """
    try:
        return _read(address, cache_bytes, labelled)
    except NoSuchFileError as error:  # as for a path: what is missing later is a fault
        raise UsageError(str(error)) from None


def _read(address: str, cache_bytes: int, labelled: bool) -> SourceContent:
    """The same; NoSuchFileError where something is missing."""
    place, _, name = address.rstrip("/").rpartition("/")
    if name == INDEX:
        return read_shards(place, cache_bytes)
    if name.lower().endswith((".tar", ".parquet")):
        return _read_files(RemoteFolder(place, cache_bytes), [*_expanded(name)], address, labelled)
    folder = RemoteFolder(address, cache_bytes)
    if scheme_of(address) != "http" and folder.size(INDEX) is None:
        for ending in (".tar", ".parquet"):
            if files := [file for file in folder.names() if file.lower().endswith(ending)]:
                return _read_files(folder, files, address, labelled)
    return read_shards(address, cache_bytes)


def _expanded(pattern: str) -> Iterator[str]:
    """The names that a name with ranges and lists stands for.

    >>> [*_expanded("train-{08..11}.tar")]
    ['train-08.tar', 'train-09.tar', 'train-10.tar', 'train-11.tar']
    >>> [*_expanded("{train,test}-{1..2}.tar")]
    ['train-1.tar', 'train-2.tar', 'test-1.tar', 'test-2.tar']

    Raises:
        UsageError: a range is empty, or there are too many names.
    """
    parts = _BRACES.split(pattern)  # what is between braces stands at odd places
    choices = [_choices(part) if place % 2 else [part] for place, part in enumerate(parts)]
    count = math.prod(map(len, choices))
    if not 0 < count <= _MOST:
        raise UsageError(f"{pattern}: stands for {count:,} files; it must be 1 to {_MOST:,}")
    yield from map("".join, itertools.product(*choices))


def _choices(braces: str) -> list[str]:
    """What a pair of braces stands for: a range, a list, or itself.

    >>> _choices("8..11"), _choices("train,test"), _choices("x")
    (['8', '9', '10', '11'], ['train', 'test'], ['{x}'])
    """
    if span := _RANGE.fullmatch(braces):
        first, stop = span.groups()
        numbers = range(int(first), min(int(stop), int(first) + _MOST) + 1)
        return [f"{number:0{len(first)}}" for number in numbers]
    return braces.split(",") if "," in braces else [f"{{{braces}}}"]


def _read_files(
    folder: RemoteFolder, files: Sequence[str], address: str, labelled: bool
) -> SourceContent:
    """Read tar files, or parquet files."""
    if files[0].lower().endswith(".tar"):
        return read_tars_in(folder, files, address, labelled)
    where, total = folder.address.rstrip("/"), total_of(folder, files)
    if total <= IN_MEMORY:
        return read_parquet(copied(folder, files, total), labelled, where)
    store = partial(RowGroupStorage, folder)
    content = read_parquet(stand_ins(folder, files, total), labelled, where, store)
    if labelled and 0 < folder.cache_bytes < total:
        content = replace(content, warnings=(*content.warnings, _too_small(folder, total)))
    return content


def _too_small(folder: RemoteFolder, total: int) -> str:
    """What a cache that holds a part of the row groups means for what reads in random order."""
    return (
        f"--cache: {byte_size(folder.cache_bytes)} hold a part of these parquet files "
        f"({byte_size(total)}), of which whole row groups are fetched. Training reads images in "
        "random order, so most will be fetched many times: allow more, or write them as shards "
        "(resnets shard), of which single images are read"
    )
