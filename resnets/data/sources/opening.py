"""Opening labelled images from any source."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from resnets.addresses import AS_DATA, is_remote, refuse_address
from resnets.data.labelled import LabelledImages
from resnets.data.membership import TrainedOn
from resnets.data.sources.archives import ARCHIVE, cifar_folder, read_cifar
from resnets.data.sources.checks import (
    changed_images,
    check_classes,
    check_images,
    check_names,
    refuse_several_labels,
)
from resnets.data.sources.data_source import DataSource
from resnets.data.sources.digits import read_digits
from resnets.data.sources.folder_index import FolderIndex
from resnets.data.sources.folders import read_folder
from resnets.data.sources.hub import HUB, read_hub
from resnets.data.sources.idx import NAME, idx_sets, read_idx
from resnets.data.sources.layout import CLASSES_FIRST, UNSPECIFIED, Layout, layout_of_flags
from resnets.data.sources.names import has_image_ending
from resnets.data.sources.objects import Data, is_path, read_objects
from resnets.data.sources.parquet import may_hold_images, read_parquet
from resnets.data.sources.remote import read_address
from resnets.data.sources.rows import IN_MEMORY
from resnets.data.sources.shards import holds_shards, read_shards
from resnets.data.sources.tables import TABLE_ENDINGS, read_metadata, read_rows, read_table
from resnets.data.sources.walking import walk
from resnets.data.sources.webdataset import holds_samples, read_tars
from resnets.data.splits import (
    CURRENT_RULE,
    SourceContent,
    SplitRule,
    Splits,
)
from resnets.errors import UsageError
from resnets.escaping import shell_line
from resnets.format import bytes_of
from resnets.run_files import CONFIG, LOG

__all__ = [
    "IN_MEMORY",
    "Data",
    "DataSource",
    "LabelledImages",
    "SourceContent",
    "Splits",
    "open_data",
    "open_source",
    "read_source",
    "source_name",
]

_DATA_ENDINGS = TABLE_ENDINGS | {
    "",
    ".parquet",
    ".gz",
    ".tar",
}  # of files that may hold labelled images
_MODEL_ENDINGS = (".safetensors", ".onnx", ".pt2", ".pt", ".pth", ".th", ".ckpt")

_SOURCES = (
    "data is digits, a folder of class folders, of shards or of parquet files, CIFAR's archives "
    "for Python, IDX files, a .csv or .tsv of path,label, or hub:NAME"
)


def open_data(
    source: Data,
    *,
    validation: float = 0.1,
    seed: int = 0,
    skip_unreadable: bool = False,
    test: float = 0.1,
    test_seed: int = 0,
    to_learn: bool = True,
    split_rule: SplitRule = CURRENT_RULE,
    avoid: TrainedOn | None = None,
) -> Splits:
    """Open labelled images and split them honestly.

    Where the source has its own validation or test split, that is taken as it is. Else the test
    split is drawn from all images and the validation split from what is then left to learn from:
    the given fraction of every class, by the images' content and a seed. The test split has a seed
    of its own, so that networks trained with different seeds are scored on the same images, none of
    which any of them has learnt.

    Args:
        source: see `read_source`.
        validation: fraction to draw, in [0, 1); with 0 there is no validation split.
        seed: draws the validation split.
        skip_unreadable: leave images out that cannot be read, after decoding every one.
        test: fraction to draw if the source has no test split, in [0, 1); 0 for none.
        test_seed: draws the test split.
        to_learn: whether a network shall learn from it. If not, one class is enough, some may be
            empty, and a source that has but a test or validation split is taken as all its images.
        split_rule: by which rule images are recognised and drawn; of an earlier version
            for the networks that it trained.
        avoid: what an earlier network has seen; see `DataSource.splits`.

    Raises:
        UsageError: no such source, or an argument that is not allowed.
        ContentError: no network can be trained on the source; the message says what to do.
    """
    layout = layout_of_flags(None, {}, split_rule.group_by)
    data_source = open_source(
        source, skip_unreadable=skip_unreadable, to_learn=to_learn, layout=layout
    )
    return data_source.splits((validation, seed), (test, test_seed), split_rule, avoid)


def open_source(
    source: Data,
    *,
    skip_unreadable: bool = False,
    to_learn: bool = True,
    layout: Layout = UNSPECIFIED,
    refuse: Callable[[SourceContent], None] | None = None,
) -> DataSource:
    """Open labelled images and look at every one; what is split how is asked for later.

    Args:
        source: see `read_source`.
        skip_unreadable: as for `open_data`.
        to_learn: as for `open_data`.
        layout: what is known of a folder.
        refuse: raises an error for images that are not wanted, before any is looked at.

    Raises:
        UsageError, ContentError: as `open_data`.
    """
    if not to_learn and layout == UNSPECIFIED:
        layout = CLASSES_FIRST
    content = read_source(source, layout) if to_learn else _whole(read_source(source, layout))
    if refuse is not None:
        refuse(content)
    name = source_name(source, content)
    check_names(name, content.class_names)
    checked = check_images(content.images, skip_unreadable, content.declared or not to_learn)
    warnings = (*content.warnings, *changed_images(checked))
    if to_learn:
        warnings = (*warnings, *check_classes(name, content, checked))
        refuse_several_labels(name, checked)
    stored_layout = UNSPECIFIED if layout == CLASSES_FIRST else layout
    return DataSource(name, content, checked, warnings, stored_layout)


def source_name(source: Data, content: SourceContent | None = None) -> str:
    """The name of a source in configurations, model files and reports.

    Args:
        source: see `read_source`.
        content: what it holds, where that was read before; of the hub's data sets only then with
            their commit.

    >>> source_name("digits")
    'digits'
    >>> source_name(read_source("digits"))
    'python: 1,797 images of 10 classes'
    """
    if content is not None and content.source:
        return content.source
    if is_path(source):
        return os.fspath(source)
    content = read_source(source) if content is None else content
    images = sum(map(len, content.images.values()))
    return content.source or f"{IN_MEMORY} {images:,} images of {len(content.class_names)} classes"


def _whole(content: SourceContent) -> SourceContent:
    """The same, but a test or validation split that is alone as all images."""
    (first, *others), (only, *_) = content.images.keys(), content.images.values()
    if others or first == "train":
        return content
    columns = {name: partial(_as_all, first, read) for name, read in content.columns.items()}
    return replace(content, images={"all": only}, columns=columns)


def _as_all(split: str, read: Callable[[str], Sequence[Any]], _: str) -> Sequence[Any]:
    """The values of a column where a split is taken as all images."""
    return read(split)


def read_source(source: Data, layout: Layout = UNSPECIFIED) -> SourceContent:
    """What a source holds, in its own splits, neither checked nor split further.

    Args:
        source: "digits"; a folder of class folders, or one of shards, of parquet files, of IDX
            files or of CIFAR's unpacked batches; a single such file; CIFAR's archive; a table of
            path and label; "hub:" and the name of a data set of the Hugging Face hub, see
            `read_hub`; or the address of a folder of shards, such as s3://bucket/shards. Or what
            these hold, as values: labelled images, in splits of their own or not. Or what Python
            programs hold otherwise: see `objects.read_objects`.
        layout: what is known of the folders in a folder.

    Raises:
        UsageError: there is no such file, or it is none of these; or `read_folder` raises it.
        ContentError: it is one of these, but broken.
    """
    if isinstance(source, SourceContent | Splits | LabelledImages):
        return _content_of_values(source)
    if not is_path(source):
        return read_objects(source)
    content = _read_path(source, layout)
    if content.kind != "folder" and (layout.splits or (layout.class_level or 1) > 1):
        raise UsageError(
            f"{source}: no folder of images in folders, so --class-level and the flags that name "
            "folders of splits do not go with it; leave them out"
        )
    return content


def _read_path(source: str | os.PathLike[str], layout: Layout) -> SourceContent:
    """Read what a name or a path leads to."""
    refuse_missing(source)
    if source == "digits":
        return read_digits()
    if isinstance(source, str) and source.startswith(HUB):
        return read_hub(source)
    if isinstance(source, str) and source.startswith(IN_MEMORY):
        raise UsageError(
            f"{source}: these were given from Python, not by a path; give them again, as with "
            "resnets.resume(folder, data=...)"
        )
    if is_remote(source):
        return _read_address(os.fspath(source), 0)
    path = Path(source)
    return _read_from_folder(path, layout) if path.is_dir() else _read_from_file(path)


def read_images(source: str, cache: str | None = None) -> SourceContent:
    """The images of shards, of tar files of samples or of parquet files, with a label or without.

    Args:
        source: a folder of them, a tar or parquet file, or an address; see `holds_samples` and
            `may_hold_images`.
        cache: for an address, how much of it to keep on the local disk, such as 50GB.

    Raises:
        UsageError: there is no such file at the address, or `cache` is no size.
        ContentError: a file is broken.
    """
    if is_remote(source):
        return read_address(source, _cache_bytes(cache), labelled=False)
    path = Path(source)
    if path.is_dir() and holds_shards(path):
        return read_shards(path)
    if holds_shards(path.parent, path):
        return read_shards(path.parent)
    kind = _kind_of_files(path, walk(path, "")) if path.is_dir() else path.suffix.lower()
    return read_tars(path, False) if kind == ".tar" else read_parquet(path, labelled=False)


def _kind_of_files(folder: Path, names: Iterable[str]) -> str:
    """What the files of a folder are, by the first that holds images; reads no further.

    Returns:
        "image", or ".tar" or ".parquet": the first that holds images, else the first that is there,
        of which reading says what it lacks; or "" for none of these.
    """
    first = ""
    for name in names:
        if name.lower().endswith(".parquet"):
            if may_hold_images(folder / name):
                return ".parquet"
            first = first or ".parquet"
        elif name.lower().endswith(".tar"):
            if holds_samples(folder / name):
                return ".tar"
            first = first or ".tar"
        elif has_image_ending(name):
            return "image"
    return first


def _cache_bytes(size: str | None) -> int:
    """The bytes of a cache; 0 for none. Raises UsageError."""
    try:
        return 0 if size is None else bytes_of(size)
    except UsageError as error:
        raise UsageError(f"--cache {error}") from None


def with_cache(source: Data, size: str | None) -> Data:
    """The content of an address, with a cache of its images; any other source as it is.

    Args:
        source: see `read_source`.
        size: of the cache on the local disk, such as 50GB; None for no cache.

    Raises:
        UsageError: it is no size, or the source is on this machine already.
        ContentError: as `read_source`.
    """
    if size is None:
        return source
    limit = _cache_bytes(size)
    if is_path(source) and is_remote(source):
        return _read_address(os.fspath(source), limit)
    raise UsageError(f"--cache {size}: only what is read from an address has a cache")


def _read_address(address: str, cache_bytes: int) -> SourceContent:
    """Read what lies at an address, which is its name."""
    return replace(read_address(address, cache_bytes), source=address)


def leads_nowhere(source: str) -> bool:
    """Whether a source is a path, and nothing is there on this machine.

    Raises:
        UsageError: it is an address, but none that is read.
    """
    if source == "digits" or source.startswith((HUB, IN_MEMORY)) or is_remote(source):
        return False
    if Path(source).exists():
        return False
    refuse_address(source, AS_DATA)
    return True


def refuse_missing(source: str | os.PathLike[str]) -> None:
    """Refuse a name or path that leads to no data, before any work.

    Raises:
        UsageError: it is empty, nothing is there, or a model is.
    """
    if not os.fspath(source):  # pathlib would take it as the current folder
        raise UsageError(f"no data given: the path is empty; {_SOURCES}")
    if isinstance(source, str) and (source == "digits" or source.startswith((HUB, IN_MEMORY))):
        return
    if is_remote(source):
        return
    path = Path(source)
    if not path.exists():
        refuse_address(source, AS_DATA)
        raise UsageError(f"{source}: no such file or folder; {_SOURCES}")
    _refuse_model(path)


def _refuse_model(path: Path) -> None:
    """Refuse the folder of a run, and a file of weights. Raises UsageError."""
    is_run = path.is_dir() and all((path / name).is_file() for name in (CONFIG, LOG))
    if is_run or path.suffix.lower() in _MODEL_ENDINGS:
        what = "the folder of a run" if is_run else "a model or its weights"
        raise UsageError(
            f"{path}: {what}, where labelled images belong; {_SOURCES} (to start a training from "
            f"its weights: {shell_line('resnets', 'train', 'DATA', '--from', path)})"
        )


def _content_of_values(source: SourceContent | Splits | LabelledImages) -> SourceContent:
    """The content of labelled images in memory."""
    if isinstance(source, SourceContent):
        return source
    if isinstance(source, LabelledImages):
        return SourceContent("python", {"all": source})
    images = {"train": source.train, "validation": source.validation, "test": source.test}
    present = {name: part for name, part in images.items() if part is not None}
    return SourceContent("python", present, source.warnings)


def files_of(source: str | Path) -> Iterator[Path]:
    """The files that are read for a source: images, tables, archives; none if it has no files."""
    path = Path(source)
    if path.is_dir():
        for name in walk(path, ""):
            file = path / name
            known = file.suffix.lower() in _DATA_ENDINGS or NAME.fullmatch(file.name)
            if known or has_image_ending(name):
                yield file
    elif path.exists():
        yield path
        if path.suffix.lower() in TABLE_ENDINGS:
            yield from (path.parent / name for name in read_rows(path))


def _read_from_folder(path: Path, layout: Layout) -> SourceContent:
    """Read a folder, whose kind is recognised by its files."""
    if holds_shards(path):
        return read_shards(path)
    unpacked = cifar_folder(path)
    if unpacked:
        return read_cifar(unpacked)
    if idx_sets(path):
        return read_idx(path)
    index = FolderIndex(path)
    labels = None if layout != UNSPECIFIED else read_metadata(index)
    if labels is not None:
        return labels
    kind = _kind_of_files(path, index.files())
    if kind == ".parquet":
        return read_parquet(path)
    return read_tars(path) if kind == ".tar" else read_folder(path, layout, index)


def _read_from_file(path: Path) -> SourceContent:
    """Read a file, whose kind is recognised by its name."""
    if path.suffix.lower() in TABLE_ENDINGS:
        return read_table(path)
    if path.suffix.lower() == ".parquet":
        return read_shards(path.parent) if holds_shards(path.parent, path) else read_parquet(path)
    if NAME.fullmatch(path.name):
        return read_idx(path)
    if path.suffix.lower() == ".tar" and holds_samples(path):
        return read_tars(path)
    if ARCHIVE.fullmatch(path.name):
        return read_cifar(path)
    raise UsageError(f"{path}: no source of labelled images by its name; {_SOURCES}")
