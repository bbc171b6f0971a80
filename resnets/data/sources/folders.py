"""A folder of class folders, with or without folders for the splits above them."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from resnets.data.labelled import LabelledImages
from resnets.data.sources.names import has_image_ending, is_hidden, listed, printable, split_of
from resnets.data.splits import Parts
from resnets.data.storage import FileStorage
from resnets.errors import ContentError
from resnets.files import open_input
from resnets.images.opening import ALLOWED, MAX_BYTES, format_of

_LAYOUT = "put each image in a folder named after its class, such as cats/1.jpg and dogs/2.jpg"


@dataclass(frozen=True)
class _Scan:
    """What lies below a folder that holds class folders. Paths are relative to the root."""

    classes: Mapping[str, Sequence[str]]  # the images by class folder
    no_images: Sequence[str]  # files in class folders
    no_class: Sequence[str]  # images beside the class folders


def read_folder(root: Path) -> Parts:
    """Read a folder whose class folders hold images, at any depth.

    The class folders lie in it, or in folders named after splits (train, val, test and the like).
    Hidden files are passed over; other files that are no images by their ending, or by their first
    bytes where they have no ending, are passed over with a warning.

    Raises:
        ContentError: no classes, or names of which the meaning is unclear.
    """
    splits, warnings = _find_splits(root)
    scans = {split: _scan(root, folder) for split, folder in splits.items()}
    scans = scans or {"all": _scan(root, "")}
    class_names = sorted({name for found in scans.values() for name in found.classes})
    images = {split: _labelled(root, found, class_names) for split, found in scans.items()}
    for found in scans.values():
        warnings += _told(
            found.no_images, "not an image by its name (JPEG, PNG, WebP, BMP, GIF, TIFF)"
        )
        warnings += _told(found.no_class, "an image in no class folder")
    return Parts("folder", images, tuple(warnings))


def _labelled(root: Path, found: _Scan, class_names: Sequence[str]) -> LabelledImages:
    """The images of some class folders."""
    paths: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(class_names):
        images = found.classes.get(name, ())
        paths += images
        labels += [label] * len(images)
    return LabelledImages(FileStorage(root, paths), labels, [printable(n) for n in class_names])


def _told(paths: Sequence[str], what: str) -> list[str]:
    """A warning about files that are passed over, or none."""
    if not paths:
        return []
    more = f" and {len(paths) - 1} more files" if len(paths) > 1 else ""
    return [f"{printable(paths[0])}{more} ignored: {what}"]


def _find_splits(root: Path) -> tuple[dict[str, str], list[str]]:
    """The folder of each split, and warnings. No splits means that class folders lie in the root.

    A folder is a split's if it is named so and holds folders. If it holds images itself, it is a
    class (of toys, say: car, plane, train) or a test split without labels.
    """
    folders, _ = _entries(root)
    named = [name for name in folders if split_of(name)]
    splits = [name for name in named if _entries(root / name)[0]]
    classes = [name for name in folders if name not in named and _has_images(root, name)]
    if not splits:
        if named and not classes:
            raise ContentError(f"{root}: no class folders in {listed(named)}; {_LAYOUT}")
        return {}, [f"folder {n!r} is taken for a class: it holds no class folders" for n in named]
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
    ignored = [name for name in named if name not in splits]
    return meant, [f"folder {name!r} ignored: it holds no class folders" for name in ignored]


def _has_images(root: Path, folder: str) -> bool:
    """Whether any image lies in or below a folder."""
    return any(has_image_ending(path) for path in walk(root, folder))


def _scan(root: Path, folder: str) -> _Scan:
    """List the class folders in a folder and what is in them."""
    folders, files = _entries(root / folder)
    prefix = f"{folder}/" if folder else ""
    classes: dict[str, list[str]] = {name: [] for name in folders}
    no_images: list[str] = []
    for name, images in classes.items():
        for path in walk(root, prefix + name):
            (images if _is_image(root, path) else no_images).append(path)
    no_class = [prefix + name for name in files if has_image_ending(name)]
    if not any(classes.values()):
        if no_class:
            raise ContentError(
                f"{root / folder}: {len(no_class)} images, no class folders; {_LAYOUT}"
            )
        what = f"no images in {listed(folders)}" if folders else "an empty folder"
        raise ContentError(f"{root / folder}: {what}; {_LAYOUT}")
    return _Scan(classes, no_images, no_class)


def _is_image(root: Path, path: str) -> bool:
    """Judge a file by its ending, or by its first bytes if it has none."""
    if has_image_ending(path) or Path(path).suffix:
        return has_image_ending(path)
    try:
        with open_input(root / path, MAX_BYTES) as file:
            return format_of(file.read(16)) in ALLOWED
    except OSError:
        return False


def _entries(folder: Path) -> tuple[list[str], list[str]]:
    """The visible folders and files in a folder, each sorted.

    A link to nothing counts as a file, so that it is met and named when it is read.

    Raises:
        ContentError: the folder cannot be read.
    """
    folders: list[str] = []
    files: list[str] = []
    try:
        with os.scandir(folder) as found:
            for entry in found:
                if is_hidden(entry.name):
                    continue
                if entry.is_dir():
                    folders.append(entry.name)
                elif entry.is_file() or entry.is_symlink():
                    files.append(entry.name)
    except OSError as error:
        raise ContentError(f"{folder}: cannot be read ({error.strerror or error})") from None
    return sorted(folders), sorted(files)


def walk(root: Path, folder: str, above: tuple[tuple[int, int], ...] = ()) -> Iterator[str]:
    """Every visible file in and below a folder, as a path relative to the root, in sorted order.

    Links are followed, except those that lead back to a folder above.
    """
    status = (root / folder).stat()
    this = (status.st_dev, status.st_ino)
    if this in above:
        return
    folders, files = _entries(root / folder)
    for name in files:
        yield f"{folder}/{name}"
    for name in folders:
        yield from walk(root, f"{folder}/{name}", (*above, this))
