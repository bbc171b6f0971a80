"""Photos copied into a folder a class by their predictions, and into one to review.

What was copied is recorded in a hidden file of the folder. By that file, the walk through folders
of images passes over a sorted folder inside of another, what is left to review is no class of a
data set, and an earlier result can be replaced without touching what somebody else has put there.
"""

import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from resnets.data.sources.names import is_hidden, printable
from resnets.data.sources.walking import REVIEW, SORTED
from resnets.errors import UsageError
from resnets.escaping import safe_name
from resnets.evaluation.predict import Prediction, is_accepted
from resnets.evaluation.source import Source
from resnets.files.outputs import writable_folder
from resnets.files.reading import read_text
from resnets.files.writing import copy_file, write_atomically
from resnets.format import plural
from resnets.json_text import to_json

_ROUNDING = 2  # seconds, to which some file systems round times
_PARTIAL = "partial"  # in the record, until all is copied
_SHOWN = 3  # names of images that stay where they are, and of renamed classes


class _Names:
    """Names that are distinct, even without regard to case and to how accents are encoded."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._numbers = Counter(map(_key, taken))

    def distinct(self, stem: str, ending: str = "") -> str:
        """The name, with a number behind its stem if it is taken."""
        name, key = stem + ending, _key(stem + ending)
        while self._numbers[_key(name)]:
            self._numbers[key] += 1
            name = f"{stem}-{self._numbers[key]}{ending}"
        self._numbers[_key(name)] += 1
        return name


def _key(name: str) -> str:
    """The same for all names that some file systems take for one."""
    return unicodedata.normalize("NFC", name.casefold())


def _class_folders(class_names: Sequence[str]) -> dict[str, str]:
    """The name of each class's folder: one that any system allows, and none twice.

    >>> _class_folders(["cat", "Cat", "review", "and/or", ".x"])
    {'cat': 'cat', 'Cat': 'Cat-2', 'review': 'review-2', 'and/or': 'and_or', '.x': '_.x'}
    """
    names, folders = _Names([REVIEW]), {}
    for class_name in class_names:
        safe = safe_name(class_name, "class")
        folders[class_name] = names.distinct(f"_{safe}" if is_hidden(safe) else safe)
    return folders


def refuse_sorted(folder: Path, overwrite: bool) -> None:
    """Refuse a folder that photos must not or cannot be sorted into, before any work.

    Raises:
        UsageError: it cannot be written, or holds something, unless that is a sorting that was
            broken off; with `overwrite`, if that is not the result of an earlier sorting.
    """
    writable_folder(folder)
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not (folder / SORTED).is_file():
        raise UsageError(
            f"{folder}: holds files that are not from sorting photos; give another folder to --sort"
        )
    if not overwrite and not _is_partial(folder):
        raise UsageError(
            f"{folder}: holds sorted photos already; give another folder to --sort, or --overwrite"
        )


def sortable(sources: Iterable[Source], folder: Path) -> list[Source]:
    """The images that can be sorted into a folder: those in it are left out.

    Raises:
        UsageError: one is no file, so that it cannot be copied; or all are in the folder.
    """
    files, inside, place = list[Source](), 0, folder.resolve()
    for source in sources:
        if not isinstance(source.content, Path):
            raise UsageError(f"{source.name}: no file; --sort copies files")
        if place in source.content.resolve().parents:
            inside += 1
        else:
            files.append(source)
    if inside and not files:
        raise UsageError(f"{folder}: all images are in the folder that they are to be sorted into")
    return files


def sort_images(
    predictions: Sequence[Prediction],
    sources: Sequence[Source],
    folder: Path,
    class_names: Sequence[str],
) -> list[Prediction]:
    """Copy each image into the folder of its class, or into the one to review.

    Args:
        predictions: of the images. Those whose status is not accepted (see `is_accepted`) are to
            be reviewed; those without a prediction stay where they are.
        sources: the images, as `sortable` gives them.
        folder: made if it does not exist; the result of an earlier sorting goes.
        class_names: of the network.

    Returns:
        The predictions, with where their images went.

    Raises:
        UsageError: as `refuse_sorted` does, for a folder that has changed in the meantime.
        OSError: an image cannot be copied; the message says how many were.
    """
    refuse_sorted(folder, overwrite=True)
    _remove_copies(folder)
    folders, names, pairs = _class_folders(class_names), dict[str, _Names](), []
    copied = list[Prediction]()
    for prediction, source in zip(predictions, sources, strict=True):
        if prediction.prediction is None or not isinstance(source.content, Path):
            copied.append(prediction)
            continue
        within = folders[prediction.prediction] if is_accepted(prediction.status) else REVIEW
        if within not in names:
            names[within] = _Names(_content(folder / within))
        path = source.content
        target = folder / within / names[within].distinct(path.stem, path.suffix)
        pairs.append((path, target))
        copied.append(replace(prediction, sorted_to=printable(str(target))))
    _copy(pairs, folder)
    return copied


def _content(folder: Path) -> list[str]:
    """The names in a folder; none if there is no such folder."""
    return [path.name for path in folder.iterdir()] if folder.is_dir() else []


def _copy(pairs: Sequence[tuple[Path, Path]], folder: Path) -> None:
    """Copy files, once it is recorded which, and that it is not all of them yet."""
    folder.mkdir(parents=True, exist_ok=True)
    record = {}
    for path, target in pairs:
        status = path.stat()
        record[target.relative_to(folder).as_posix()] = [status.st_size, int(status.st_mtime)]
    _write_record(folder, {"copies": record, _PARTIAL: True})
    for number, (path, target) in enumerate(pairs):
        try:
            target.parent.mkdir(exist_ok=True)
            copy_file(path, target)
        except OSError as error:
            why = (
                f"{error.strerror or error}: {number:,} of {plural(len(pairs), 'image')} are "
                f"sorted into {folder}; the same command sorts them anew"
            )
            raise OSError(error.errno, why, error.filename) from None
    _write_record(folder, {"copies": record})


def _write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Write what was, or is to be, copied."""
    write_atomically(folder / SORTED, to_json(record, indent=0).encode())


def _is_partial(folder: Path) -> bool:
    """Whether a sorting into a folder was broken off, by its record."""
    try:
        record = json.loads(read_text(folder / SORTED))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(record, dict) and bool(record.get(_PARTIAL))


def _remove_copies(folder: Path) -> None:
    """Remove what an earlier sorting copied, as far as it is still as it was."""
    if not (folder / SORTED).is_file():
        return
    parents = set()
    for path, size, time in _recorded(folder):
        linked = path.is_symlink() or path.parent.is_symlink()  # to what is not ours to remove
        if linked or not path.is_file():
            continue
        status = path.stat()
        if status.st_size == size and abs(status.st_mtime - time) <= _ROUNDING:
            path.unlink()
            parents.add(path.parent)
    for parent in parents:
        if not any(parent.iterdir()):
            parent.rmdir()


def _recorded(folder: Path) -> Iterator[tuple[Path, int, int]]:
    """Path, size in bytes and time of each copy that the record of a folder has, as far as sound.

    Raises:
        UsageError: it is no such record.
    """
    try:
        copies: Any = json.loads(read_text(folder / SORTED))["copies"]
        for name, (size, time) in copies.items():
            parent, slash, own = name.partition("/")
            if slash and own and "/" not in own and {parent, own}.isdisjoint({"", ".", ".."}):
                yield folder / parent / own, int(size), int(time)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise UsageError(
            f"{folder / SORTED}: damaged: give another folder to --sort, or delete {folder}"
        ) from None


def in_words(predictions: Sequence[Prediction], class_names: Sequence[str]) -> list[str]:
    """How many images went where, which classes have another name there, and which images stayed.

    >>> in_words([Prediction("a.png", "cat", 0.9, "ok", sorted_to="s/cat/a.png")], ["cat"])
    ['1 image sorted: 1 cat']
    """
    went = [prediction for prediction in predictions if prediction.sorted_to]
    counts = Counter(Path(str(prediction.sorted_to)).parent.name for prediction in went)
    places = [f"{count:,} {name}" for name, count in sorted(counts.items()) if name != REVIEW]
    places += [f"{counts[REVIEW]:,} to review"] if counts[REVIEW] else []
    lines = [f"{plural(len(went), 'image')} sorted" + (f": {', '.join(places)}" if places else "")]
    renamed = [
        f"{class_name!r} is {within!r}"
        for class_name, within in _class_folders(class_names).items()
        if within != class_name and counts[within]
    ]
    if renamed:
        more = f" and {len(renamed) - _SHOWN:,} more" if len(renamed) > _SHOWN else ""
        lines.append(
            "folders named otherwise than their class, as not every system allows or tells apart "
            f"all names: {', '.join(renamed[:_SHOWN])}{more}"
        )
    for status, why in (("unreadable", "cannot be read"), ("unanswered", "not answered")):
        stay = [prediction.image for prediction in predictions if prediction.status == status]
        if stay:
            more = f" and {len(stay) - _SHOWN:,} more" if len(stay) > _SHOWN else ""
            lines.append(f"{why}, and not copied: {', '.join(stay[:_SHOWN])}{more}")
    return lines
