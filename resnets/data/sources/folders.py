"""A folder of class folders, with or without folders for the splits above them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from resnets.data.labelled import LabelledImages
from resnets.data.paths import Paths
from resnets.data.sources.folder_index import Folder, FolderIndex
from resnets.data.sources.layout import UNSPECIFIED, Layout, refuse_look_alikes
from resnets.data.sources.names import listed, printable, split_of
from resnets.data.sources.walking import NO_CLASS, REVIEW, SORTED, PassedOver, in_words
from resnets.data.splits import SourceContent
from resnets.data.storage import FileStorage
from resnets.errors import ContentError, UsageError
from resnets.format import plural

_LAYOUT = "put each image in a folder named after its class, such as cats/1.jpg and dogs/2.jpg"
_TO_REVIEW = "photos that `predict --sort` left to review; move each into the folder of its class"
_NONE = Paths.of(())


@dataclass(frozen=True)
class _Scan:
    """What lies below a folder that holds class folders. Paths are relative to the root."""

    classes: Mapping[str, Paths]  # the images by class
    passed_over: Sequence[PassedOver]


def read_folder(
    root: Path, layout: Layout = UNSPECIFIED, index: FolderIndex | None = None
) -> SourceContent:
    """Read a folder whose class folders hold images, at any depth.

    The class folders lie in it, or in folders named after splits (train, val, test and the like).
    Files that are not images (by their ending, or by their first bytes if they have none) are
    skipped with a warning, like hidden files, system files and files written by this package.

    Args:
        root: the folder.
        layout: what is known of its folders.
        index: of the folder, where that is open.

    Raises:
        ContentError: no classes, or names of which the meaning is unclear.
        UsageError: its folders look like splits or variants of one data set, and `layout` does not
            say what they are; or it names a folder that does not exist.
    """
    beside: list[PassedOver] = []
    index = index or FolderIndex(root)
    if layout.splits:
        splits, warnings = _named_splits(index, layout)
    else:
        splits, warnings, beside = _find_splits(index)
    level = layout.class_level or 1
    scans = {split: _scan(index, folder, level) for split, folder in splits.items()}
    scans = scans or {"all": _scan(index, "", level)}
    if layout.class_level is None:
        for split, scan in scans.items():
            with_images = [name for name, images in scan.classes.items() if images]
            refuse_look_alikes(index, splits.get(split, ""), with_images)
    index.save()
    class_names = sorted({name for scan in scans.values() for name in scan.classes})
    if REVIEW in class_names:  # where the folders of a sorted folder were moved or copied
        warnings.append(
            f"folder {REVIEW!r} counts as a class; move it elsewhere if it holds what "
            "`predict --sort` left to review"
        )
    images = {split: _labelled(root, scan, class_names) for split, scan in scans.items()}
    passed_over = [*beside, *(entry for scan in scans.values() for entry in scan.passed_over)]
    warnings += in_words(passed_over)
    return SourceContent("folder", images, tuple(warnings), passed_over=tuple(passed_over))


def _named_splits(index: FolderIndex, layout: Layout) -> tuple[dict[str, str], list[str]]:
    """The folder of each split that the user names, and warnings about all others.

    Raises:
        UsageError: there is no such folder, or two splits are the same.
    """
    root, folders = index.root, index.folder("").folders
    for split, name in layout.splits.items():
        if not (root / name).is_dir():
            raise UsageError(
                f"--{split}-folder {name}: there is no such folder in {root}; it holds "
                f"{listed(folders) or 'none'}"
            )
    chosen = list(layout.splits.values())
    if len(set(chosen)) < len(chosen):
        raise UsageError(f"{root}: {listed(chosen)} name one folder for two splits; keep one")
    if "train" not in layout.splits:
        raise UsageError(f"{root}: name the training images, too: --train-folder FOLDER")
    used = {Path(name).parts[0] for name in chosen}
    others = [name for name in folders if name not in used and index.has_images(name)]
    return layout.splits, [f"folder {name!r} ignored: it is named as no split" for name in others]


def _labelled(root: Path, scan: _Scan, class_names: Sequence[str]) -> LabelledImages:
    """The images of some class folders."""
    images = [scan.classes.get(name, _NONE) for name in class_names]
    labels = np.repeat(np.arange(len(images)), [len(paths) for paths in images])
    storage = FileStorage(root, Paths.joined(images))
    return LabelledImages(storage, labels, [printable(name) for name in class_names])


def _find_splits(index: FolderIndex) -> tuple[dict[str, str], list[str], list[PassedOver]]:
    """The folder of each split, warnings, and what is passed over beside them.

    No splits means that class folders lie in the root.

    A folder is a split's if it is named so and holds folders. If it holds images itself, it is a
    class (of toys, say: car, plane, train) or a test split without labels.
    """
    root, at_root = index.root, index.folder("")
    folders = at_root.folders
    split_folders = [name for name in folders if split_of(name)]
    splits = [name for name in split_folders if index.folder(name).folders]
    classes = [name for name in folders if name not in split_folders and index.has_images(name)]
    if not splits:
        if split_folders and not classes:
            raise ContentError(f"{root}: no class folders in {listed(split_folders)}; {_LAYOUT}")
        taken = "counts as a class: it holds no class folders"
        return {}, [f"folder {name!r} {taken}" for name in split_folders], []
    if classes:
        raise ContentError(
            f"{root}: folders of splits ({listed(splits)}) beside other folders with images "
            f"({listed(classes)}); move the ones or the others elsewhere"
        )
    meant: dict[str, str] = {}
    for name in splits:
        split = str(split_of(name))
        if split in meant:
            both = f"{meant[split]!r} and {name!r}"
            raise ContentError(f"{root}: {both} both mean the {split} split; keep one")
        meant[split] = name
    ignored = [name for name in split_folders if name not in splits]
    warnings = [f"folder {name!r} ignored: it holds no class folders" for name in ignored]
    return meant, warnings, _in_no_class("", at_root)


def _scan(index: FolderIndex, folder: str, level: int = 1) -> _Scan:
    """List the class folders `level` levels below a folder, and what is in them."""
    paths, passed_over = [folder], []
    for _ in range(level):
        for path in paths:
            passed_over += _in_no_class(path, index.folder(path))
        inner = [_joined(path, name) for path in paths for name in index.folder(path).folders]
        left = [path for path in inner if _is_to_review(index, path)]
        passed_over += [(path, _TO_REVIEW) for path in left]
        paths = [path for path in inner if path not in left]
    parts: dict[str, list[Paths]] = {}
    for path in paths:
        images, others = index.below(path)
        parts.setdefault(Path(path).name, []).append(images)
        passed_over += others
    classes = {name: Paths.joined(part) for name, part in parts.items()}
    if not any(classes.values()):
        raise ContentError(f"{index.root / folder}: {_nothing(classes, passed_over)}; {_LAYOUT}")
    return _Scan(classes, passed_over)


def _is_to_review(index: FolderIndex, path: str) -> bool:
    """Whether a folder is that of a sorted folder for photos without a sure prediction."""
    above, _, name = path.rpartition("/")
    return name == REVIEW and (index.root / above / SORTED).is_file()


def _joined(folder: str, name: str) -> str:
    """The path of what lies in a folder, relative to the root."""
    return f"{folder}/{name}" if folder else name


def _in_no_class(path: str, folder: Folder) -> list[PassedOver]:
    """What lies beside class folders, each with the reason why it is passed over."""
    files = sorted([*((name, NO_CLASS) for name in folder.images), *folder.no_images])
    return [(_joined(path, name), why) for name, why in (*folder.passed_over, *files)]


def _nothing(classes: Mapping[str, Sequence[str]], passed_over: Sequence[PassedOver]) -> str:
    """What to say of a folder in which no class folder holds an image."""
    stray = sum(why == NO_CLASS for _, why in passed_over)
    if stray:
        return f"{plural(stray, 'image')}, no class folders"
    if classes:
        what = f"no images in {listed(sorted(classes))}"
    else:
        what = "no images in this folder" if passed_over else "an empty folder"
    telling = sorted(passed_over, key=lambda row: row[1] != _TO_REVIEW)
    return "; ".join([what, *in_words(telling)[:1]])
