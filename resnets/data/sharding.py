"""Writing shards: see `shards`. A killed run leaves whole shards, which the next one keeps."""

import contextlib
import hashlib
import itertools
import multiprocessing
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from resnets.data.augmentation.draws import epoch_order
from resnets.data.digests import ImageDigests, digests_of_bytes
from resnets.data.grouping import group_name
from resnets.data.labelled import LabelledImages
from resnets.data.membership import content_member, known_member
from resnets.data.places import Folder, LocalFolder
from resnets.data.processes import become_worker, process_context
from resnets.data.remote import RemoteFolder
from resnets.data.remote.lock import locked_remotely
from resnets.data.shards import (
    COLUMN,
    INDEX,
    LARGEST_INDEX,
    UNFINISHED,
    About,
    Shard,
    SplitCounts,
    index_bytes,
    is_index,
    rows_by_shard,
    schema_with,
)
from resnets.data.skipped_images import write_skipped
from resnets.data.splits import SourceContent
from resnets.data.storage import FileStorage, Pixels, Storage
from resnets.errors import ContentError, UsageError
from resnets.files.reading import open_input
from resnets.files.writing import replacing
from resnets.format import plural
from resnets.images.encoding import Encoded, fitted
from resnets.images.memory_budget import IN_USE
from resnets.json_text import to_json
from resnets.locks import LOCK, locked

_SAMPLED = 32  # images whose encoded size tells how many fit in a shard
_COMPARED = 512  # images of a split that are looked for in shards that are there
_EXTRA = 2816  # bytes of a tar file for an image, in addition to the image
_BLOCK, _RECORD = 512, 10240  # bytes: POSIX.1-1988, ustar
_BEGUN = f"begun{UNFINISHED}"  # the index is still to come; names the files that are written
_HALF = re.compile(r"\.(.*\.tar.*|index\.parquet|begun\.shard-rows)\.[0-9a-f]{16}")
_LONGEST = 200  # characters of a value of a column that is kept; a caption has more
_FORMAT = 1  # of what is written; a new one writes all shards anew


@dataclass(frozen=True)
class Settings:
    """How images are stored.

    Attributes:
        size: the largest shorter side, in pixels.
        quality: of JPEG, 1 to 100.
        shard_mb: about the size of a shard, in millions of bytes.
    """

    size: int
    quality: int
    shard_mb: int

    def __post_init__(self) -> None:
        for name, least, most in (
            ("size", 8, 10_000),
            ("quality", 1, 100),
            ("shard_mb", 1, 100_000),
        ):
            value = getattr(self, name)
            if not least <= value <= most:
                flag = name.replace("_", "-")
                raise UsageError(f"--{flag} {value}: it must be from {least} to {most:,}")


class Written(NamedTuple):
    """What is in a folder of shards now.

    Attributes:
        about: the shards.
        kept: how many were there already.
        skipped: name and reason of each image that was found unreadable now.
        left_out: how many images are in no shard, as they cannot be read.
        gone: how many images were in the shards that were there before, and are in none now.
    """

    about: About
    kept: int
    skipped: tuple[tuple[str, str], ...]
    left_out: int
    gone: int


@dataclass(frozen=True)
class _Task:
    """A shard to write.

    Attributes:
        split: of its images.
        file: its name.
        first: the number of its first image in the split.
        indices: (M,), its images in the set of the split.
        columns: of the source that are kept, by name: a text or nothing for each image, (M,).
        present: the shard that is there under its name.
    """

    split: str
    file: str
    first: int
    indices: NDArray[np.int64]
    columns: Mapping[str, pa.Array]
    present: Shard | None = None

    def values(self, place: int) -> dict[str, str | None]:
        """The columns of one of its images, as the index names them."""
        return {f"{COLUMN}{name}": each[place].as_py() for name, each in self.columns.items()}


class _Result(NamedTuple):
    """What became of a task.

    Attributes:
        shard: that is there now.
        is_new: whether it was written.
        skipped: name and reason of each image that cannot be read.
    """

    shard: Shard
    is_new: bool
    skipped: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class _Work:
    """What all tasks share; sent to each worker once."""

    images: Mapping[str, LabelledImages]
    kind: str
    folder: Folder
    settings: Settings
    skip_unreadable: bool

    def carry_out(self, task: _Task) -> _Result:
        """Write a shard and then its rows, unless it is there with the bytes that it had.

        Raises:
            ContentError: an image cannot be read and is not to be left out; the message names it.
            OSError: it cannot be written.
        """
        images = self.images[task.split]
        made_from = _origin(images, task, self.settings)
        present = task.present
        if present and present.made_from == made_from and _is_whole(self.folder, present):
            return _Result(present, is_new=False)
        rows: list[dict[str, Any]] = []
        skipped: list[tuple[str, str]] = []
        with _new_file(self.folder, task.file) as file:
            tar = _Tar(file)
            for number, index in enumerate(task.indices.tolist(), task.first):
                try:
                    values = task.values(number - task.first) | {"split": task.split}
                    rows.append(self._add(tar, images, index, number) | values)
                except ContentError as error:
                    if not self.skip_unreadable:
                        name = images.names[index]
                        raise ContentError(f"{name}: {error} ({images.remedy()})") from None
                    skipped.append((images.names[index], str(error)))
            tar.end()
        shard = Shard(task.file, len(rows), tar.size, tar.digest.hexdigest(), made_from)
        schema = schema_with(task.columns)
        table = pa.Table.from_pylist([row | {"shard": task.file} for row in rows], schema)
        content = index_bytes(self.about([shard], [table]), [table])
        self.folder.write_bytes(task.file + UNFINISHED, content)
        return _Result(shard, True, tuple(skipped))

    def about(self, shards: Sequence[Shard], tables: Sequence[pa.Table]) -> About:
        """The description of shards with these rows."""
        class_names = next(iter(self.images.values())).class_names
        counts = {split: np.zeros(len(class_names), np.int64) for split in self.images}
        for table in tables:
            for split in table["split"].slice(0, 1).to_pylist():  # the same in all of its rows
                labels = table["label"].to_numpy()
                counts[split] += np.bincount(labels, minlength=len(class_names))
        splits = (SplitCounts(split, tuple(count.tolist())) for split, count in counts.items())
        return About(class_names, tuple(splits), tuple(shards), self.kind)

    def _add(self, tar: "_Tar", images: LabelledImages, index: int, number: int) -> dict[str, Any]:
        """Add an image to a shard; returns its row. Raises ContentError."""
        settings, label = self.settings, int(images.labels[index])
        with IN_USE:
            original = images.storage.read(int(images.indices[index]))
            encoded = fitted(original, settings.size, settings.quality)
            digests = _digests(images.storage, int(images.indices[index]), original)
            member = known_member(images.storage, int(images.indices[index]))
            if member is None:
                member = content_member(original, digests.digest)
        name, key = images.names[index], f"{number:09}"
        offset = tar.add(key + encoded.ending, encoded.data)
        tar.add(f"{key}.cls", b"%d" % label)
        words = to_json({"class": images.class_names[label], "name": name})
        tar.add(f"{key}.json", words.encode())
        return _row(encoded, digests) | {
            "key": key,
            "offset": offset,
            "label": label,
            "name": name,
            "member": member,
        }


@contextlib.contextmanager
def _new_file(folder: Folder, name: str) -> Iterator[IO[bytes]]:
    """A file that appears in a folder when the block ends without an error, and as a whole."""
    if isinstance(folder, LocalFolder):
        with replacing(folder.path / name) as file:
            yield file
        return
    assert isinstance(folder, RemoteFolder)
    with TemporaryDirectory(prefix="resnets-") as place:
        with replacing(Path(place) / name) as file:
            yield file
        folder.write_file(name, Path(place) / name)


def _digests(storage: Storage, row: int, original: bytes | Pixels) -> ImageDigests:
    """The digests of an image that was read, without reading its file again."""
    if isinstance(storage, FileStorage) and isinstance(original, bytes):
        return digests_of_bytes(original)
    return storage.digests(row)


def _row(encoded: Encoded, digests: ImageDigests) -> dict[str, Any]:
    """What a row of the index says of the image itself."""
    return {
        "length": len(encoded.data),
        "width": encoded.width,
        "height": encoded.height,
        "digest": digests.digest,
        "earlier": None if digests.earlier == digests.digest else digests.earlier,
        "stored": digests_of_bytes(encoded.data).digest,
    }


class _Tar:
    """A tar file that depends on nothing but the names and contents of its members."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.size, self.digest = file, 0, hashlib.sha256()

    def add(self, name: str, content: bytes) -> int:
        """Add a member; returns where its content begins."""
        header = tarfile.TarInfo(name)
        header.size = len(content)
        self._write(header.tobuf(tarfile.USTAR_FORMAT))
        start = self.size
        self._write(content + bytes(-len(content) % _BLOCK))
        return start

    def end(self) -> None:
        """Write the end of the archive."""
        self._write(bytes(2 * _BLOCK))
        self._write(bytes(-self.size % _RECORD))

    def _write(self, data: bytes) -> None:
        self.file.write(data)
        self.digest.update(data)
        self.size += len(data)


def write_shards(
    content: SourceContent,
    folder: Folder,
    settings: Settings,
    *,
    workers: int,
    skip_unreadable: bool = False,
    progress: Callable[[int], None] = lambda _: None,
    overwrite: bool = False,
) -> Written:
    """Write the images of a source as shards and their index, which comes last.

    Images are in a random order that only their number determines, so that each shard has images of
    all classes. Shards that are there already, made from the same images with the same settings,
    are kept; those of images that changed or are gone are deleted at the end.

    Args:
        content: of the source.
        folder: to write to.
        settings: how images are stored.
        workers: processes; 0: this one.
        skip_unreadable: leave images out that cannot be read.
        progress: called with the number of images done since the last call.
        overwrite: replace shards of other data, too.

    Raises:
        FolderInUse: another process writes shards into the folder.
        UsageError: the folder holds something else, or shards of other data.
        ContentError: an image cannot be read; or none can.
        OSError: a file cannot be written.
    """
    with _alone_in(folder):
        work = _Work(content.images, content.kind, folder, settings, skip_unreadable)
        return _write(work, _plan(content, settings), workers, progress, overwrite)


@contextlib.contextmanager
def _alone_in(folder: Folder) -> Iterator[None]:
    """Be the only process that writes into a folder."""
    if isinstance(folder, RemoteFolder):
        with locked_remotely(folder):
            yield
        return
    assert isinstance(folder, LocalFolder)
    folder.path.mkdir(parents=True, exist_ok=True)
    with locked(folder.path):
        try:
            yield
        except KeyboardInterrupt:
            for name in filter(_is_half, folder.names()):
                folder.remove(name)
            raise


def _write(
    work: _Work,
    plan: Sequence[_Task],
    workers: int,
    progress: Callable[[int], None],
    overwrite: bool,
) -> Written:
    """Write the shards that are missing, and the index."""
    folder, planned = work.folder, {task.file for task in plan}
    names = folder.names()
    listed = _listed(folder, names)
    ours = _ours(folder, names, listed, planned)
    earlier = present = _whole(folder, listed)
    if not overwrite:
        _refuse_other_data(work, [table for _, table in present.values()])
    tasks = [
        replace(task, present=present[task.file][0] if task.file in present else None)
        for task in plan
    ]
    if INDEX not in names or planned - listed.keys():
        folder.write_bytes(_BEGUN, "\n".join(sorted(planned | ours)).encode())
    results = _carry_out(work, tasks, workers, progress)
    present = _whole(folder, _listed(folder, folder.names()))
    shards = [results[task.file].shard for task in tasks if results[task.file].shard.images]
    if not shards:
        raise ContentError("none of the images can be read")
    if gone := [shard.file for shard in shards if shard.file not in present]:
        raise ContentError(
            f"{folder.address}: {gone[0]} was written, but is not there any more, or cannot be "
            "read; run the command again"
        )
    tables = [present[shard.file][1] for shard in shards]
    about = work.about(shards, tables)
    folder.write_bytes(INDEX, index_bytes(about, tables))
    _tidy(folder, present, {shard.file for shard in shards})
    skipped = tuple(problem for task in tasks for problem in results[task.file].skipped)
    kept = [task for task in tasks if not results[task.file].is_new]
    names_kept = ((work.images[task.split].names, task.indices) for task in kept)
    write_skipped(
        folder, skipped, (own[n] for own, indices in names_kept for n in indices.tolist())
    )
    unchanged = {task.file for task in kept}
    before = [table for name, (_, table) in earlier.items() if name not in unchanged]
    after = [present[shard.file][1] for shard in shards if shard.file not in unchanged]
    return Written(
        about,
        kept=len(kept),
        skipped=skipped,
        left_out=sum(len(task.indices) for task in tasks) - sum(shard.images for shard in shards),
        gone=_number_gone(before, after),
    )


def _number_gone(before: Sequence[pa.Table], after: Sequence[pa.Table]) -> int:
    """How many images of some shards are in none of the shards that took their place."""
    if not before:
        return 0
    digests = [table["digest"].combine_chunks() for table in after]
    now = pa.concat_arrays(digests) if digests else pa.array([], pa.binary(32))
    there = (pc.sum(pc.is_in(table["digest"], now)).as_py() or 0 for table in before)
    return sum(map(len, before)) - sum(there)


def _refuse_other_data(work: _Work, tables: Sequence[pa.Table]) -> None:
    """Refuse to replace shards that have no image in common with the source.

    Images are compared by content: folders of different data have files of the same names, and
    those of the same data may have been renamed. Of a large source a sample is compared.

    Args:
        work: what is to be written.
        tables: the rows of the shards that are there.

    Raises:
        UsageError: they are of other data.
    """
    rows = sum(map(len, tables))
    digests = _sampled_digests(work.images) if rows else iter(())
    any_read = False
    while some := list(itertools.islice(digests, 16)):  # mostly the first is there
        any_read, wanted = True, pa.array(some, pa.binary(32))
        if any(pc.any(pc.is_in(table["digest"], wanted)).as_py() for table in tables):
            return
    if any_read:  # else there is nothing to compare, and nothing will be written
        raise UsageError(
            f"{work.folder.address}: holds shards of other data ({plural(rows, 'image')}, none of "
            "them in DATA); give another --output, or --overwrite to replace them"
        )


def _sampled_digests(images: Mapping[str, LabelledImages]) -> Iterator[bytes]:
    """The digests of images of all splits, spread evenly; those that cannot be read are left out.

    If one in a hundred is in the shards, a sample of this size has one of them almost surely.
    """
    for each in images.values():
        places = np.linspace(0, len(each) - 1, min(_COMPARED, len(each))).astype(np.int64)
        for row in each.indices[places].tolist():
            with IN_USE, contextlib.suppress(ContentError, OSError):
                yield each.storage.digests(int(row)).digest


def _listed(folder: Folder, names: Sequence[str]) -> dict[str, tuple[Shard, pa.Table]]:
    """The shards of a folder by name, and their rows, as its index and what is beside it say."""
    sources = [name for name in names if name.endswith(UNFINISHED) and name != _BEGUN]
    listed: dict[str, tuple[Shard, pa.Table]] = {}
    for name in [INDEX, *sources] if INDEX in names else sources:
        with contextlib.suppress(ContentError, OSError):  # damaged: it is written anew
            listed |= rows_by_shard(folder.read_file(name, LARGEST_INDEX))
    return listed  # of a shard, the newest rows are those beside it


def _whole(folder: Folder, listed: Mapping[str, Any]) -> dict[str, tuple[Shard, pa.Table]]:
    """Those shards whose files have as many bytes as is written of them."""
    return {name: row for name, row in listed.items() if folder.size(name) == row[0].bytes}


def _ours(
    folder: Folder, names: Sequence[str], listed: Mapping[str, Any], planned: set[str]
) -> set[str]:
    """The files that an earlier run wrote, or may have begun to write.

    Raises:
        UsageError: the folder holds something else: other files alone, or one under the name of a
            file that is to be written.
    """
    ours = {*listed, LOCK, *filter(_is_half, names)}
    for name in names:
        if name.endswith(UNFINISHED):
            ours |= {name, name.removesuffix(UNFINISHED)}
    has_told = any(f"{name}{UNFINISHED}" not in names for name in listed)  # the index, that is
    if INDEX in names and (has_told or _may_be_our_index(folder)):
        ours.add(INDEX)
        if not has_told:  # it is damaged: it no longer tells which files are its own
            ours |= {*names}
    if _BEGUN in names:
        begun = folder.read_file(_BEGUN, LARGEST_INDEX).decode("utf-8", "replace")
        ours |= {*begun.split("\n")} if begun else {*names}  # empty: of an earlier version
    others = {*names} - ours
    if INDEX in ours or any(name.endswith(UNFINISHED) for name in names):
        others &= planned | {INDEX}
    if others:
        raise UsageError(
            f"{folder.address}: holds other files, such as {min(others)}, which `resnets shard` "
            "did not write; name a new or empty folder"
        )
    return {name for name in ours if name.endswith(".tar") and not name.startswith(".")}


def _may_be_our_index(folder: Folder) -> bool:
    """Whether an index that cannot be used is a damaged one of ours, not a file of others."""
    try:
        content = folder.read_file(INDEX, LARGEST_INDEX)
    except ContentError:  # larger than any of ours
        return False
    known = is_index(pa.BufferReader(content))
    return known or (known is None and (not content or content.startswith(b"PAR1")))


def _is_whole(folder: Folder, shard: Shard) -> bool:
    """Whether a shard has the bytes that its index says; of one elsewhere only the size is known.

    To read a shard from elsewhere may take as long as to write it again.
    """
    if not isinstance(folder, LocalFolder):
        return True
    with open_input(folder.path / shard.file, shard.bytes) as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == shard.sha256


def _is_half(name: str) -> bool:
    """Whether a file is what a run that was stopped wrote of a shard, its rows or an index.

    Such a file has the name that `replacing` gives it.
    """
    return _HALF.fullmatch(name) is not None


def _tidy(folder: Folder, present: Mapping[str, Any], kept: set[str]) -> None:
    """Delete what belongs to no shard of the index any more."""
    for name in folder.names():
        if name.endswith(UNFINISHED) or _is_half(name) or (name in present and name not in kept):
            folder.remove(name)


def _plan(content: SourceContent, settings: Settings) -> list[_Task]:
    """Which images go into which shard."""
    images_each = max(1, int(settings.shard_mb * 1e6 / _mean_bytes(content, settings)))
    columns = _kept_columns(content)
    tasks = []
    for split, images in content.images.items():
        order = epoch_order(len(images), 0, zlib.crc32(split.encode()))
        for number, start in enumerate(range(0, len(order), images_each)):
            its = order[start : start + images_each]
            values = {name: by_split[split].take(its) for name, by_split in columns.items()}
            tasks.append(_Task(split, f"{split}-{number:06}.tar", start, its, values))
    return tasks


def _kept_columns(content: SourceContent) -> dict[str, dict[str, pa.Array]]:
    """The columns of a source that can group its images: by name and split, of each image.

    A column of lists or bytes, or with a text too long for a name, is left out.
    """
    columns = {}
    for name, read in content.columns.items():
        by_split = {}
        for split, images in content.images.items():
            values = read(split)
            chosen = [values[row] for row in images.indices.tolist()]
            if any(isinstance(value, list | dict | bytes) for value in chosen):
                break
            texts = [group_name(value) for value in chosen]
            if max((len(text) for text in texts if text), default=0) > _LONGEST:
                break
            by_split[split] = pa.array(texts, pa.string())
        else:
            columns[name] = by_split
    return columns


def _mean_bytes(content: SourceContent, settings: Settings) -> float:
    """Bytes of a shard for each image, by a sample of the images."""
    sizes = []
    for images in content.images.values():
        places = np.linspace(0, len(images) - 1, min(_SAMPLED, len(images))).astype(np.int64)
        for index in places.tolist():
            with IN_USE, contextlib.suppress(ContentError):
                original = images.storage.read(int(images.indices[index]))
                sizes.append(len(fitted(original, settings.size, settings.quality).data))
    return _EXTRA + sum(sizes) / max(1, len(sizes))


def _origin(images: LabelledImages, task: _Task, settings: Settings) -> str:
    """SHA-256 of all that a shard is made from; of files only names, sizes and times."""
    made_from = hashlib.sha256(f"{_FORMAT} {settings.size} {settings.quality}\n".encode())
    if task.columns:
        made_from.update(to_json([*task.columns]).encode())
    for place, index in enumerate(task.indices.tolist()):
        label = images.class_names[int(images.labels[index])]
        row = int(images.indices[index])
        words = (label, images.names[index], _state(images, row), *task.values(place).values())
        made_from.update(to_json(words).encode())
    return made_from.hexdigest()


def _state(images: LabelledImages, row: int) -> str:
    """What changes with an image of a storage."""
    storage = images.storage
    with contextlib.suppress(ContentError, OSError):
        if isinstance(storage, FileStorage):
            status = (storage.root / storage.paths[row]).stat()
            return f"{status.st_size} {status.st_mtime_ns}"
        return storage.digests(row).digest.hex()
    return "unreadable"


def _carry_out(
    work: _Work, tasks: Sequence[_Task], workers: int, progress: Callable[[int], None]
) -> dict[str, _Result]:
    """The results of all tasks by file. The first exception ends it."""
    results: dict[str, _Result] = {}

    def done(task: _Task, result: _Result) -> None:
        results[task.file] = result
        progress(len(task.indices))

    if workers == 0 or len(tasks) < 2:
        for task in tasks:
            done(task, work.carry_out(task))
        return results
    context = process_context(__name__, work)
    others = {process.pid for process in multiprocessing.active_children()}  # of the whole program
    with ProcessPoolExecutor(min(workers, len(tasks)), context, _start_worker, (work,)) as pool:
        waiting = {pool.submit(_carry_out_here, task): task for task in tasks}
        try:
            for future in as_completed(waiting):
                done(waiting[future], future.result())
        except BaseException as error:
            pool.shutdown(wait=False, cancel_futures=True)
            if isinstance(error, KeyboardInterrupt):  # else it waits for the shards at work
                for worker in multiprocessing.active_children():
                    if worker.pid not in others:
                        worker.terminate()
            raise
    return results


_WORK: list[_Work] = []  # of this process, if it is a worker


def _start_worker(work: _Work) -> None:
    """Set up this worker process."""
    become_worker()
    _WORK.append(work)


def _carry_out_here(task: _Task) -> _Result:
    """The work of a worker."""
    return _WORK[0].carry_out(task)
