"""Labelled images from Python objects: data sets, arrays, lists of paths, data frames.

Objects are recognised by their attributes, so that neither torchvision, pandas, polars nor the
hub's library is imported.
"""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from resnets.data.sources.hub import HubStorage
from resnets.data.sources.items import (
    DatasetStorage,
    ItemStorage,
    content_of,
    digests_of_content,
    in_name_of,
    item_of,
)
from resnets.data.sources.names import listed, split_of
from resnets.data.sources.parquet import choose_columns
from resnets.data.sources.rows import Rows, source_content
from resnets.data.sources.tables import LABEL_COLUMNS, PATH_COLUMNS, SPLIT_COLUMNS
from resnets.data.splits import SourceContent
from resnets.data.storage import FileStorage, Pixels, PixelStorage, RowNames, Storage
from resnets.errors import ContentError, UsageError
from resnets.format import plural
from resnets.images.arrays import CHANNELS, array_of, checked_array, is_tensor

Data: TypeAlias = Any  # a path or a name, or what `_FORMS` lists

_FORMS = (
    "data is a path or name as for `resnets train`, a torch Dataset of (image, label), a pair "
    "(images, labels) of arrays, tensors or lists, a list of (path, label), a datasets.Dataset, "
    "a pandas or polars frame with a column of paths and one of labels, or a dict of those by "
    "split: train, validation, test"
)
GROUPS = "groups from Python"  # the column of groups that were passed along with the images
_IN_MEMORY = 1 << 30  # bytes of images; those of a larger data set are computed again on each use
_LISTING = ("to_pylist", "to_list", "tolist")  # methods of columns and arrays
_TRIED = 3  # images of a data set that are read twice


@dataclass(frozen=True)
class _Grouped:
    """A Python object with images, and the group of each image.

    Attributes:
        data: as for `read_objects`.
        groups: one value for each image, in their order; for a dict of splits a dict likewise.
    """

    data: Data
    groups: Any


def grouped(data: Data, group_by: Any) -> tuple[Data, str | None]:
    """Data with groups of images, and the text for `GroupBy.parse` that selects them.

    Args:
        data: as for `read_source`.
        group_by: None; a text for `GroupBy.parse`; the name of a column of a frame or data set;
            or one value for each image, in their order, as a list, an array or a column. For a
            dict of splits, a dict of those.

    Raises:
        UsageError: values for a path or name, whose images have no known order.
    """
    if group_by is None:
        return data, None
    if isinstance(group_by, str):
        return data, group_by if ":" in group_by or is_path(data) else f"column:{group_by}"
    if is_path(data):
        raise UsageError(
            f"group_by: a {type(group_by).__name__} of groups needs data in a known order, such as "
            f"a list of (path, label); for {data!r} it is one of folder:LEVEL, pattern:REGEX and "
            "column:NAME"
        )
    return _Grouped(data, group_by), f"column:{GROUPS}"


def is_path(data: Data) -> bool:
    """Whether data is a path or name, not an object."""
    return isinstance(data, str | os.PathLike)


def read_objects(data: Data) -> SourceContent:
    """The content of a Python object, in its own splits, neither checked nor split further.

    Images may be Pillow's, arrays (H, W) or (H, W, C) uint8, tensors (C, H, W) of uint8 or in 0..1,
    paths, or the bytes of files. Labels are whole numbers or texts; images without one (None, NaN)
    are left out with a warning. A list or frame of paths is taken in the order of the paths.

    Args:
        data: a torch `Dataset` of (image, label), or a `Subset` of one; (images, labels), as
            arrays, tensors or lists; a list of (image, label); a `datasets.Dataset`; a frame of
            pandas, polars or pyarrow; or several of these by split: a dict with the keys train,
            validation and test, a `datasets.DatasetDict`, or a tuple of the three.

    Raises:
        UsageError: it is none of these.
        ContentError: an image or a label cannot be used; the message names it.
    """
    if isinstance(data, _Grouped):
        return source_content(_sets_of(data.data, data.groups))
    return source_content(_sets_of(data))


def _sets_of(data: Data, groups: Any = None) -> dict[str, Rows]:
    """The rows of each split; only "all" without splits. Groups as in `_Grouped`."""
    by_split = _by_split(data)
    if by_split is None:
        return _with_groups(_read_rows(data), groups).by_split()
    if groups is not None and not (isinstance(groups, Mapping) and {*groups} == {*by_split}):
        raise UsageError(f"group_by: for data in splits, give a dict with {listed([*by_split])}")
    sets: dict[str, Rows] = {}
    for name, part in by_split.items():
        split = str(split_of(name)) if len(by_split) > 1 else split_of(name) or "all"
        rows = _read_rows(part, "" if split == "all" else f"{split} ")
        sets[split] = _with_groups(rows, groups and groups[name])
    return sets


def _by_split(data: Data) -> dict[str, Data] | None:
    """The sets of data that has splits; None if it is one set.

    Raises:
        UsageError: a name is not that of a split, or two names mean the same split.
    """
    if isinstance(data, tuple) and len(data) == 3:
        return dict(zip(("train", "validation", "test"), data, strict=True))
    if not isinstance(data, Mapping) or {*data} == {"images", "labels"}:
        return None
    sets = {str(name): content for name, content in data.items()}
    meant = [split_of(name) for name in sets]
    if not sets or (len(sets) > 1 and (None in meant or len({*meant}) < len(meant))):
        raise UsageError(
            f"a dict with the keys {listed([*sets], 9) or '(it is empty)'}: it takes train, "
            'validation and test, each at most once, or "images" and "labels"'
        )
    return sets


def _with_groups(rows: Rows, groups: Any) -> Rows:
    """The rows with a column of groups, if there are any.

    Raises:
        UsageError: the number of groups differs from the number of images.
    """
    if groups is None:
        return rows
    values = _listing(groups)
    if len(values) != len(rows):
        raise UsageError(
            f"group_by: {plural(len(values), 'group')} for {plural(len(rows), 'image')}"
        )
    column = {GROUPS: [values[place] for place in rows.order]}
    return replace(rows, columns={**rows.columns, **column})


def _read_rows(data: Data, prefix: str = "") -> Rows:
    """The rows of one set.

    Args:
        data: one of `_FORMS`, without splits.
        prefix: of its images' names, such as "test ".
    """
    if _is_lazy(data):
        name = type(data).__name__
        raise UsageError(f"a {name} is a query without rows yet: give what its .collect() returns")
    for fits, read in _READERS:
        if fits(data):
            return read(data, prefix)
    raise UsageError(f"{type(data).__name__} holds no labelled images: {_hint(data)}{_FORMS}")


def _is_lazy(data: Data) -> bool:
    """Whether it is a query of polars; its columns are not looked at, as that would run it."""
    return hasattr(data, "collect_schema") and hasattr(data, "collect") and not _is_listing(data)


def _hint(data: Data) -> str:
    """What to give in place of something that is no labelled images; empty if that is unknown."""
    if hasattr(data, "dataset"):
        return "give its dataset: loader.dataset; "
    if isinstance(data, Iterable) and not _is_listing(data) and not _is_array(data):
        return "give its items as a list: list(data); "
    return ""


def _is_hub_dataset(data: Data) -> bool:
    """Whether it is a `datasets.Dataset`, without importing that library."""
    library = sys.modules.get("datasets")
    return library is not None and isinstance(data, library.Dataset | library.IterableDataset)


def _read_hub_dataset(data: Data, prefix: str) -> Rows:
    """The rows of a `datasets.Dataset`: columns of images and labels as in parquet files."""
    if not hasattr(data, "select_columns") or not hasattr(data, "__len__"):
        raise UsageError("an IterableDataset has no length: load it without streaming=True")
    data = data.with_format(None)
    name = f"{prefix}data set"
    columns = choose_columns(data.features.arrow_schema, data.features.to_dict(), name)
    labels = data[columns.label][:]
    if columns.class_names:
        labels = [None if label == -1 else label for label in labels]  # how the hub says "unknown"
    others = {other: _Column(data, other) for other in data.column_names if other != columns.image}
    storage = HubStorage(data, columns.image, name)
    names = columns.class_names or None
    return Rows.of(storage, labels, class_names=names, columns=others, noun="datasets.Dataset")


class _Column(Sequence[Any]):
    """A column of a `datasets.Dataset`, read when it is asked for."""

    def __init__(self, data: Any, name: str) -> None:
        self.data, self.name = data, name

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: Any) -> Any:
        return self.data[self.name][index]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.data[self.name][:])


def _is_frame(data: Data) -> bool:
    """Whether it is a table of pandas, polars or pyarrow, or has the same interface."""
    has_columns = hasattr(data, "columns") or hasattr(data, "column_names")
    return has_columns and (hasattr(data, "__arrow_c_stream__") or hasattr(data, "__dataframe__"))


def _read_frame(data: Data, prefix: str) -> Rows:
    """The rows of a frame: columns named as in a table of paths and labels."""
    names = [*(data.column_names if hasattr(data, "column_names") else data.columns)]
    words = {str(name).strip().lower(): name for name in reversed(names)}
    path, label, split = (
        next((words[word] for word in known if word in words), None)
        for known in (PATH_COLUMNS, LABEL_COLUMNS, SPLIT_COLUMNS)
    )
    if path is None or label is None:
        what, known = ("images", PATH_COLUMNS) if path is None else ("labels", LABEL_COLUMNS)
        raise UsageError(
            f"a {type(data).__name__} without a column of {what} ({', '.join(known)}): it has "
            f"{listed([*map(str, names)], 9)}"
        )
    columns = {str(name): _listing(data[name]) for name in names if name != path}
    rows = _read_items(_listing(data[path]), columns[str(label)], prefix, type(data).__name__)
    others = {name: [values[row] for row in rows.order] for name, values in columns.items()}
    splits = None if split is None else others[str(split)]
    return replace(rows, columns=others, splits=splits)


def _is_pair(data: Data) -> bool:
    """Whether it is (images, labels)."""
    if isinstance(data, Mapping):
        return True
    if not isinstance(data, tuple | list) or len(data) != 2 or isinstance(data[0], str | bytes):
        return False
    return isinstance(data, tuple) or not all(map(_is_entry, data))


def _read_pair(data: Data, prefix: str) -> Rows:
    """The rows of (images, labels)."""
    images, labels = (data["images"], data["labels"]) if isinstance(data, Mapping) else data
    if not _holds_labels(labels):
        raise UsageError(
            f"a pair of {type(images).__name__} and {type(labels).__name__}: the second must be "
            '(N,) labels, one for each image; two sets are {"train": ..., "test": ...}'
        )
    words = _label_list(labels)
    if _is_array(images):
        pixels = _pixels_of(images, f"{prefix}tensor")
        _same_length(len(pixels), len(words))
        noun = "tensor" if is_tensor(images) else "array"
        return Rows.of(_named_pixels(pixels, f"{prefix}{noun}"), words, noun=noun)
    if not _is_listing(images):
        raise UsageError(f"{type(images).__name__} is no images beside labels; {_FORMS}")
    return _read_items(_listing(images), words, prefix, "list")


def _holds_labels(labels: Any) -> bool:
    """Whether a value is a list, an array or a column of a frame, as labels are."""
    if isinstance(labels, list | tuple):
        return not any(map(_is_listing_of_many, labels))
    return any(hasattr(labels, name) for name in _LISTING) and not _is_frame(labels)


def _is_array(images: Any) -> bool:
    """Whether images are one array or tensor."""
    return is_tensor(images) or (isinstance(images, np.ndarray) and images.dtype.kind not in "OUST")


def _is_listing(values: Any) -> bool:
    """Whether a value is a list, tuple or column, and no text."""
    return (
        hasattr(values, "__len__")
        and hasattr(values, "__getitem__")
        and not isinstance(values, str | bytes | Mapping)
        and not hasattr(values, "columns")
    )


def _listing(values: Any) -> list[Any]:
    """The values of a list, an array, or a column of a frame."""
    for name in _LISTING:
        if hasattr(values, name):
            listing: list[Any] = getattr(values, name)()
            return listing
    return list(values)


def _label_list(labels: Any) -> list[Any]:
    """Labels (N,) or (N, 1) as a list.

    Raises:
        UsageError: they are of another shape.
    """
    shape = tuple(getattr(labels, "shape", (len(labels),)))
    if len(shape) == 2 and shape[1] == 1:
        return _listing(labels.reshape(-1))
    if len(shape) != 1:
        hint = "; of one-hot labels, give labels.argmax(1)" if len(shape) == 2 else ""
        raise UsageError(f"labels of the shape {shape}; they must be (N,){hint}")
    return _listing(labels)


def _same_length(images: int, labels: int) -> None:
    """Refuse numbers of images and labels that differ. Raises UsageError."""
    if images != labels:
        raise UsageError(f"{plural(images, 'image')}, but {plural(labels, 'label')}")


def _pixels_of(images: Any, name: str) -> Pixels:
    """An array (N, H, W) or (N, H, W, C), or a tensor (N, H, W) or (N, C, H, W), as (N, H, W, C).

    Raises:
        UsageError: it is none of these; the message names the first image with an invalid value.
    """
    tensor = is_tensor(images)
    if images.ndim not in (3, 4):
        shapes = "(N, H, W) or (N, C, H, W)" if tensor else "(N, H, W) or (N, H, W, C)"
        raise UsageError(f"images of the shape {tuple(images.shape)}; they must be {shapes}")
    if not tensor:
        return checked_array(images, several=True)
    try:
        return checked_array(array_of(images, several=True))
    except UsageError:
        for index, image in enumerate(images):
            in_name_of(f"{name}[{index}]", content_of, image)
        raise


def _named_pixels(pixels: Pixels, name: str) -> PixelStorage:
    """A storage of pixels (N, H, W, C) whose images have the names name[index]."""
    return PixelStorage(pixels, RowNames.of([name], [len(pixels)]))


def _is_entry(value: Any) -> bool:
    """Whether a value is (image, label)."""
    return isinstance(value, tuple | list) and len(value) == 2 and not _is_listing_of_many(value[1])


def _is_listing_of_many(value: Any) -> bool:
    """Whether a value contains several values, so that it is not a label."""
    return _is_listing(value) and getattr(value, "ndim", 1) > 0


def _is_entries(data: Data) -> bool:
    """Whether it is a list of (image, label)."""
    return isinstance(data, list | tuple)


def _read_entries(data: Data, prefix: str) -> Rows:
    """The rows of a list of (image, label)."""
    for index, entry in enumerate(data):
        if not _is_entry(entry):
            raise UsageError(
                f"{prefix}list[{index}] is {entry!r:.60}, not a pair of a path or image and its "
                "label"
            )
    if not data:
        raise UsageError("an empty list; it takes pairs of a path or image and its label")
    return _read_items([image for image, _ in data], [label for _, label in data], prefix, "list")


def _read_items(items: Sequence[Any], labels: Sequence[Any], prefix: str, noun: str) -> Rows:
    """The rows of single images: paths in sorted order, all others in the given order."""
    _same_length(len(items), len(labels))
    if items and all(isinstance(item, str | os.PathLike) for item in items):
        paths = [os.fspath(item) for item in items]
        _refuse_repeated(paths)
        order = sorted(range(len(paths)), key=paths.__getitem__)
        storage: Storage = FileStorage(Path.cwd(), [paths[place] for place in order])
    else:
        order = [*range(len(items))]
        storage = ItemStorage(items, f"{prefix}{noun}")
    chosen = [labels[place] for place in order]
    return Rows.of(storage, chosen, order=order, noun=noun)


def _refuse_repeated(paths: Sequence[str]) -> None:
    """Refuse paths that are listed twice, which could be in two splits or have two labels."""
    splits_by_path: dict[str, int] = {}
    for index, path in enumerate(paths):
        before = splits_by_path.setdefault(path, index)
        if before != index:
            raise ContentError(f"{path} is listed twice, at {before} and {index}; keep one")


def _is_subset(data: Data) -> bool:
    """Whether it is some of the images of another data set, as `torch.utils.data.Subset`."""
    return hasattr(data, "dataset") and hasattr(data, "indices") and not isinstance(data, Mapping)


def _read_subset(data: Data, prefix: str) -> Rows:
    """The rows of a `Subset`."""
    return _read_rows(data.dataset, prefix).chosen([int(index) for index in data.indices])


def _is_image_folder(data: Data) -> bool:
    """Whether a data set knows its files as torchvision's ImageFolder does."""
    samples = getattr(data, "samples", None)
    return (
        hasattr(data, "classes")
        and isinstance(samples, Sequence)
        and len(samples) > 0
        and isinstance(samples[0], tuple)
        and isinstance(samples[0][0], str | os.PathLike)
    )


def _read_image_folder(data: Data, prefix: str) -> Rows:  # noqa: ARG001
    """The rows of torchvision's ImageFolder: its files."""
    root = Path(getattr(data, "root", None) or Path.cwd()).absolute()
    paths = [_relative(Path(path), root) for path, _ in data.samples]
    labels = [label for _, label in data.samples]
    return _of_dataset(data, FileStorage(root, paths), labels)


def _relative(path: Path, root: Path) -> str:
    """A path relative to a folder if it is below it, else the absolute path."""
    path = path.absolute()
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def _is_pixel_set(data: Data) -> bool:
    """Whether a data set holds all its pixels, as torchvision's CIFAR10 and MNIST do."""
    pixels: Any = getattr(data, "data", None)
    labels = getattr(data, "targets", None)
    if labels is None or not _is_array(pixels) or len(pixels) != len(labels):
        return False
    grey = pixels.ndim == 3
    return str(pixels.dtype).endswith("uint8") and (
        grey or (pixels.ndim == 4 and pixels.shape[-1] in CHANNELS)
    )


def _read_pixel_set(data: Data, prefix: str) -> Rows:
    """The rows of torchvision's CIFAR10 or MNIST: (N, H, W, C) or (N, H, W), and targets."""
    pixels = data.data.numpy() if is_tensor(data.data) else data.data
    storage = _named_pixels(_pixels_of(pixels, prefix), f"{prefix}{type(data).__name__}")
    return _of_dataset(data, storage, _label_list(data.targets))


def _of_dataset(data: Data, storage: Storage, labels: Sequence[Any]) -> Rows:
    """The rows of a data set, with its images as stored, without its transform."""
    noun, names = type(data).__name__, _class_names(data)
    warnings: tuple[str, ...] = ()
    if getattr(data, "target_transform", None) is not None:
        labels, names = [data.target_transform(label) for label in labels], None
    if getattr(data, "transform", None) is not None or getattr(data, "transforms", None):
        warnings = (
            f"the transform of this {noun} is not used: images are resized, augmented and "
            "normalised as the recipe says",
        )
    return Rows.of(storage, labels, class_names=names, noun=noun, warnings=warnings)


def _class_names(data: Data) -> tuple[str, ...] | None:
    """The classes that a data set declares."""
    names = getattr(data, "classes", None)
    return tuple(map(str, names)) if isinstance(names, Sequence) and len(names) else None


def _is_tensors(data: Data) -> bool:
    """Whether it is a `torch.utils.data.TensorDataset` of images and labels."""
    return len(getattr(data, "tensors", ())) == 2 and hasattr(data, "__getitem__")


def _read_tensors(data: Data, prefix: str) -> Rows:
    """The rows of a `TensorDataset`."""
    return _read_pair(tuple(data.tensors), prefix)


def _is_dataset(data: Data) -> bool:
    """Whether it has a length and can be indexed."""
    return _is_listing(data) and not _is_array(data)


def _read_dataset(data: Data, prefix: str) -> Rows:
    """The rows of a map-style data set, of which every item is read once.

    Its images are kept in memory if they take at most `_IN_MEMORY` bytes, else read again when
    they are needed.

    Raises:
        UsageError: an item is not (image, label), or an image differs when it is read again.
        ContentError: an image cannot be used.
    """
    name = f"{prefix}{type(data).__name__}"
    contents, labels, size = [], [], 0
    for index in range(len(data)):
        image, label = item_of(data, index, name)
        content = in_name_of(f"{name}[{index}]", content_of, image)
        if index < _TRIED:
            again = in_name_of(name, content_of, item_of(data, index, name)[0])
            _refuse_random(content, again, f"{name}[{index}]")
        labels.append(label)
        size += len(content) if isinstance(content, bytes) else content.nbytes
        if size <= _IN_MEMORY:
            contents.append(content)
    complete = len(contents) == len(data)
    storage = _storage_of(contents, name) if complete else DatasetStorage(data, name)
    return Rows.of(storage, labels, class_names=_class_names(data), noun=type(data).__name__)


def _refuse_random(content: bytes | Pixels, again: bytes | Pixels, name: str) -> None:
    """Refuse an image that changes when it is read again.

    Raises:
        UsageError: it changes, so that splits and fingerprints would differ between runs.
    """
    if digests_of_content(content).digest != digests_of_content(again).digest:
        raise UsageError(
            f"{name} is another image each time: the data set augments at random, so its splits "
            "cannot be reproduced; pass it without random transforms (the recipe augments, or "
            "train's `augmentation`)"
        )


def _storage_of(contents: Sequence[bytes | Pixels], name: str) -> Storage:
    """Images as one array if they are pixels of one shape, else one by one."""
    arrays = [content for content in contents if isinstance(content, np.ndarray)]
    if len(arrays) == len(contents) > 0 and len({array.shape for array in arrays}) == 1:
        return _named_pixels(np.stack(arrays), name)
    return ItemStorage(contents, name)


_READERS: tuple[tuple[Callable[[Data], bool], Callable[[Data, str], Rows]], ...] = (
    (_is_hub_dataset, _read_hub_dataset),
    (_is_frame, _read_frame),
    (_is_subset, _read_subset),
    (_is_image_folder, _read_image_folder),
    (_is_pixel_set, _read_pixel_set),
    (_is_tensors, _read_tensors),
    (_is_pair, _read_pair),
    (_is_entries, _read_entries),
    (_is_dataset, _read_dataset),
)
