"""How a folder of images is laid out: which of its folders are splits, which are classes."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any

from resnets.data.sources.folder_index import FolderIndex
from resnets.data.sources.names import has_image_ending, listed
from resnets.errors import ContentError, UsageError

_SPLIT = re.compile(r"train|test|val|dev|eval", re.IGNORECASE)
_FOLD = re.compile(r"(fold|part|split|batch|set)[ _-]?\d+", re.IGNORECASE)


@dataclass(frozen=True)
class Layout:
    """What a user says of the folders of a data set.

    Attributes:
        class_level: which folders are the classes: 1 for those in the folder, or in those of its
            splits, 2 for those one level below; None where it may be told from what lies there.
        train_folder: of the training images, relative to the folder; None where it is named so.
        validation_folder: likewise.
        test_folder: likewise.
    """

    class_level: int | None = None
    train_folder: str | None = None
    validation_folder: str | None = None
    test_folder: str | None = None

    def __post_init__(self) -> None:
        if self.class_level is not None and self.class_level < 1:
            raise UsageError(
                f"--class-level {self.class_level}: it is 1 for the folders in the data's folder, "
                "2 for those inside these"
            )

    @property
    def splits(self) -> dict[str, str]:
        """The folder of each split that is named."""
        folders = {
            "train": self.train_folder,
            "validation": self.validation_folder,
            "test": self.test_folder,
        }
        return {split: str(PurePosixPath(name)) for split, name in folders.items() if name}

    def to_dict(self) -> dict[str, Any]:
        """What is said, for JSON; empty if nothing is."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> "Layout":
        """As it was when `data`, the description of a model's data, was recorded.

        Raises:
            ContentError: it is damaged.
        """
        values = data.get("layout") or {}
        field_names = {item.name for item in fields(cls)}
        if not isinstance(values, Mapping) or set(values) - field_names:
            raise ContentError(f"the layout of its data is {values!r}, which makes no sense")
        return cls(**values)

    def fits(self, root: Path, class_names: Iterable[str]) -> bool:
        """Whether a folder has the named splits, or class folders of these names at the level."""
        if self.splits:
            return any((root / name).is_dir() for name in self.splits.values())
        above = "*/" * ((self.class_level or 1) - 1)
        known = set(class_names)
        return any(path.name in known for path in root.glob(f"{above}*") if path.is_dir())


UNSPECIFIED = Layout()
CLASSES_FIRST = Layout(class_level=1)  # which need not be said of a network's data


def layout_of_flags(
    class_level: int | None, splits: Mapping[str, str | None], group_by: Any = None
) -> Layout:
    """What a user says of the folders.

    Args:
        class_level: as for `Layout`.
        splits: the folder of each split that is named.
        group_by: what belongs together; who knows that knows which folders are the classes.

    Raises:
        UsageError: there is no such level.
    """
    if class_level is None and group_by is not None:
        class_level = 1
    return Layout(class_level, **{f"{split}_folder": name for split, name in splits.items()})


def layout_of_networks(source: Any, descriptions: Iterable[Any]) -> Layout:
    """How to read a folder for networks, which know their classes: as when they were trained.

    Args:
        source: of images; only a folder has a layout.
        descriptions: of the networks.
    """
    try:
        root = Path(source)
    except TypeError:
        return CLASSES_FIRST
    for description in descriptions:
        layout = Layout.of(description.data)
        if layout != UNSPECIFIED and layout.fits(root, description.class_names):
            return layout
    return CLASSES_FIRST


def refuse_look_alikes(index: FolderIndex, folder: str, classes: Iterable[str]) -> None:
    """Refuse folders that look like splits or variants of one data set where classes should be.

    Args:
        index: of the data's folder.
        folder: the one that holds the folders, relative to the root; empty for the root.
        classes: the names of those that hold images.

    Raises:
        UsageError: they hold the same folders; it says what can be done.
    """
    classes = list(classes)
    prefix = f"{folder}/" if folder else ""
    within = {name: _inner(index, prefix, name) for name in classes}
    nested = {name: inner for name, inner in within.items() if inner[1]}
    if len(nested) < 2 or 2 * len(nested) < len(classes):
        return
    sets = [names for _, names in nested.values()]
    shared, every = set.intersection(*sets), set.union(*sets)
    if len(shared) < 2 or 2 * len(shared) < len(every):
        return
    paths = {name: path for name, (path, _) in nested.items()}
    raise UsageError(
        f"{index.root / folder}: the folders {listed(sorted(nested))} hold the same folders "
        f"({listed(sorted(shared))}), so they look like {_what(nested)}; if they are the "
        f"classes: --class-level 1{_advice(index.root, folder, paths)}"
    )


def _inner(index: FolderIndex, prefix: str, name: str) -> tuple[str, set[str]]:
    """The folders in a folder, or in the one folder that is all it holds; and where they lie.

    No folders where images lie beside them: it is a class.
    """
    path = name
    while True:
        folder = index.folder(prefix + path)
        if any(map(has_image_ending, folder.images)):
            return path, set()
        if len(folder.folders) != 1:
            return path, set(folder.folders)
        path = f"{path}/{folder.folders[0]}"


def _what(names: Iterable[str]) -> str:
    """What folders look like that hold the same class folders, by their names."""
    names = list(names)
    if any(map(_SPLIT.search, names)):
        return "splits, not classes"
    if all(map(_FOLD.search, names)):
        return "folds or other parts of one data set, not classes"
    return "variants of one data set, not classes"


def _advice(root: Path, folder: str, paths: Mapping[str, str]) -> str:
    """The flags that say which folders are splits, by the paths of those folders."""
    prefix = f"{folder}/" if folder else ""
    flags = []
    for flag, words in (("train", "train"), ("validation", "val|dev"), ("test", "test|eval")):
        matching = [path for name, path in paths.items() if re.search(words, name, re.IGNORECASE)]
        flags += [f"--{flag}-folder {prefix}{matching[0]}"] if matching else []
    level = max(path.count("/") for path in paths.values()) + 2
    advice = f"; if the folders inside them are, in all of them: --class-level {level}"
    if len(flags) > 1:
        return f"; if they are splits: {' '.join(flags)}{advice}"
    first = root / prefix / next(iter(paths.values()))
    return f"{advice}; or give one of them as the data, such as {first}"
