"""Which files below a folder are images; and what is passed over, and why."""

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from resnets.data.sources.names import (
    has_image_ending,
    is_hidden,
    is_unread_image,
    printable,
)
from resnets.errors import ContentError
from resnets.files.reading import open_input
from resnets.images.opening import ALLOWED, HEIC_HINT, MAX_BYTES, format_of
from resnets.locks import LOCK
from resnets.run_files import CONFIG, LOG

HIDDEN = "hidden, or made by a system"
_OURS = "written by resnets"
_OUR_LABELS = "the labels that `resnets serve` collected"
_OUR_LOCK = "keeps two commands from writing into a folder"
_NOT_TOLD = frozenset({_OUR_LABELS, _OUR_LOCK})  # these belong there
_NO_FILE = "neither a file nor a folder"
_NO_IMAGE = f"not an image by its name ({', '.join(ALLOWED)})"
_COMPRESSED = "a compressed tar file; decompress it, such as by gunzip, and give the .tar file"
_COMPRESSED_TARS = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
_UNREAD = "an image of a kind that is not read here; convert it to JPEG or PNG"
_UNREAD_HEIC = f"a photo in HEIC; {HEIC_HINT}"
NO_CLASS = "an image in no class folder"

PassedOver = tuple[str, str]  # a path and why

SORTED = ".sorted.json"  # in a folder that `predict --sort` wrote: what it copied there
REVIEW = "review"  # the folder in it of what nobody has labelled yet
_OUR_FILES = frozenset({"contact-sheet.png", SORTED})  # of `explain`, in its folder of pictures
_EXPORTED = (".onnx", ".pt2", ".safetensors", ".pbtxt")
_OUR_CURVE = "learning-rate.png"  # of `find-lr`
LABELS = "labels.jsonl"  # of `serve --collect`, beside the folders of the classes
_LABEL_KEYS = frozenset({"image", "label", "prediction", "model", "digest"})  # of its lines
_LONGEST_LINE = 1 << 16  # bytes


@dataclass(frozen=True)
class Entries:
    """What lies in a folder; each sorted.

    Attributes:
        folders: that are searched.
        files: with links to nothing, so that these are met and named when they are read.
        passed_over: name and reason of all else.
        linked: whether anything in it is a link, or may be one.
        read: what was read besides the folder itself to tell what is what, as paths relative to it.
    """

    folders: Sequence[str]
    files: Sequence[str]
    passed_over: Sequence[PassedOver] = ()
    linked: bool = False
    read: Sequence[str] = ()


@dataclass(frozen=True)
class Listing:
    """What lies below a folder. Paths are relative to the root, in sorted order.

    Attributes:
        images: by their ending, or by their first bytes where they have no ending.
        passed_over: path and reason of all else.
    """

    images: Sequence[str]
    passed_over: Sequence[PassedOver]


def entries(folder: Path) -> Entries:
    """What lies in a folder.

    Raises:
        ContentError: the folder cannot be read.
    """
    folders: list[str] = []
    files: list[str] = []
    others: list[PassedOver] = []
    linked = False
    try:
        with os.scandir(folder) as scan:
            for entry in scan:
                linked |= entry.is_symlink()
                if is_hidden(entry.name):
                    others.append((entry.name, _OUR_LOCK if entry.name == LOCK else HIDDEN))
                elif entry.is_dir():
                    folders.append(entry.name)
                elif entry.is_file() or entry.is_symlink():
                    files.append(entry.name)
                else:
                    others.append((entry.name, _NO_FILE))
    except OSError as error:
        raise ContentError(f"{folder}: cannot be read ({error.strerror or error})") from None
    looks = {name: _look(folder, name) for name in folders}
    ours = {name for name, look in looks.items() if look.is_output} | ({_OUR_CURVE} & set(files))
    others += [(name, _OURS) for name in ours]
    if LABELS in files and _has_collected_labels(folder / LABELS):
        ours.add(LABELS)
        others.append((LABELS, _OUR_LABELS))
    return Entries(
        sorted(name for name in folders if name not in ours),
        sorted(name for name in files if name not in ours),
        sorted(others),
        linked,
        sorted({LABELS} & set(files)) + [path for look in looks.values() for path in look.read],
    )


def walk(root: Path, folder: str) -> Iterator[str]:
    """Every file in and below a folder that is not passed over, relative to the root, sorted.

    Links are followed, except those that lead back to a folder above.
    """
    yield from (path for path, why in _items(root, folder) if not why)


def listing(root: Path, folder: str = "") -> Listing:
    """The images in and below a folder, and what is passed over there."""
    images: list[str] = []
    others: list[PassedOver] = []
    for path, why in _items(root, folder):
        reason = why or why_no_image(root / path)
        (others.append((path, reason)) if reason else images.append(path))
    return Listing(images, others)


def why_no_image(file: Path) -> str:
    """Why a file does not count as an image; empty if it does."""
    if has_image_ending(file.name):
        return ""
    if is_unread_image(file.name):
        return _UNREAD_HEIC if file.suffix.lower() in (".heic", ".heif") else _UNREAD
    if file.name.lower().endswith(_COMPRESSED_TARS):
        return _COMPRESSED
    if file.suffix:
        return _NO_IMAGE
    try:
        with open_input(file, MAX_BYTES) as stream:
            return "" if format_of(stream.read(64)) in ALLOWED else _NO_IMAGE
    except OSError:
        return _NO_IMAGE


def in_words(passed_over: Iterable[PassedOver]) -> list[str]:
    """One sentence for each reason, with the first path and how many more there are.

    Nothing is said of collected labels, which the folders have too, and of the lock beside them.

    >>> in_words([("a/notes.txt", "no image"), ("b/notes.txt", "no image")])
    ['a/notes.txt and 1 more ignored: no image']
    """
    by_reason: dict[str, list[str]] = {}
    for path, why in passed_over:
        if why not in _NOT_TOLD:
            by_reason.setdefault(why, []).append(path)
    return [
        f"{printable(paths[0])}{f' and {len(paths) - 1:,} more' if len(paths) > 1 else ''} "
        f"ignored: {why}"
        for why, paths in by_reason.items()
    ]


def _items(
    root: Path, folder: str, above: tuple[tuple[int, int], ...] = ()
) -> Iterator[PassedOver]:
    """Every file in and below a folder, the reason empty; and what is passed over, with it."""
    status = (root / folder).stat()
    this = (status.st_dev, status.st_ino)
    if this in above:
        return
    listing, prefix = entries(root / folder), f"{folder}/" if folder else ""
    yield from ((prefix + name, why) for name, why in listing.passed_over)
    yield from ((prefix + name, "") for name in listing.files)
    for name in listing.folders:
        yield from _items(root, prefix + name, (*above, this))


@dataclass(frozen=True)
class _Look:
    """A look into a folder.

    Attributes:
        is_output: whether this package wrote it.
        read: the folders and files that this was told by, relative to the folder above it.
    """

    is_output: bool
    read: Sequence[str]


def _look(above: Path, name: str) -> _Look:
    """Look whether this package wrote a folder: pictures that explain, a run, runs, exported files.

    A folder with images ends the look at the first of them, however many it holds.
    """
    folder = above / name
    if any(os.path.lexists(folder / file) for file in _OUR_FILES) or _is_run(folder):
        return _Look(True, [name])
    visible: list[str] = []
    for inner in _visible_names(folder):
        if has_image_ending(inner):
            return _Look(False, [name])
        visible.append(inner)
    if any(inner.lower().endswith(_EXPORTED) for inner in visible):
        read = [name, *(f"{name}/{inner}" for inner in visible)]
        return _Look(not any((folder / inner).is_dir() for inner in visible), read)
    read = [name]
    for inner in visible:
        read.append(f"{name}/{inner}")
        if not _is_run(folder / inner):
            return _Look(False, read)
    return _Look(bool(visible), read)


def _is_run(folder: Path) -> bool:
    """Whether a folder is that of a run."""
    return all(os.path.lexists(folder / name) for name in (CONFIG, LOG))


def _has_collected_labels(file: Path) -> bool:
    """Whether a file of this name is ours, by its first line: users have such files, too."""
    try:
        with open_input(file, MAX_BYTES) as stream:
            first = json.loads(stream.readline(_LONGEST_LINE))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(first, dict) and first.keys() >= _LABEL_KEYS


def _visible_names(folder: Path) -> Iterator[str]:
    """What lies in a folder and is not hidden; nothing where it is none, or cannot be read."""
    with contextlib.suppress(OSError), os.scandir(folder) as scan:
        yield from (entry.name for entry in scan if not is_hidden(entry.name))
