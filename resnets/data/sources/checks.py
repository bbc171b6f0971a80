"""Checks of a source: images that cannot be read, classes that cannot be trained on."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from resnets.data.labelled import LabelledImages, joined
from resnets.data.shards import ShardStorage, stored_digests
from resnets.data.sources.names import alike, listed
from resnets.data.sources.table_columns import MULTI_LABEL
from resnets.data.splits import Digests, Groups, Ranks, SourceContent, counts, equal_images
from resnets.data.storage import in_threads
from resnets.errors import ContentError, UnreadableImage
from resnets.escaping import say
from resnets.format import duration, plural
from resnets.images.probing import ENDINGS
from resnets.images.stderr import silent_decoders

_T = TypeVar("_T", bound=np.generic)

_SHOWN = 3  # images in a message
_PATIENCE = 60.0  # seconds for which unreadable images are looked for
_SOON = 2.0  # seconds from which that is said
_MEANT = 4  # images under several labels from which on these may be meant


@dataclass(frozen=True)
class Checked:
    """The readable images of a split, as far as they were checked.

    Attributes:
        images: N of them.
        digests: (N, 32), of the content of each.
        earlier: (N, 32), the digests of earlier versions; see `ImageDigests`.
        skipped: name and reason of the images that were left out.
        ranks: (N,), whether an earlier network has seen them, see `membership.ranks`; None if
            there was none.
        groups: (N,), the group of each image; None without grouping.
        changed: names of images that have other content than when they were last read, as far as
            that is known.
    """

    images: LabelledImages
    digests: Digests
    earlier: Digests
    skipped: tuple[tuple[str, str], ...] = ()
    ranks: Ranks | None = None
    groups: Groups | None = None
    changed: tuple[str, ...] = ()

    def subset(self, chosen: np.ndarray[tuple[int], np.dtype[np.bool]]) -> "Checked":
        """Some of the images, by a mask (N,)."""
        ranks = None if self.ranks is None else self.ranks[chosen]
        groups = None if self.groups is None else self.groups[chosen]
        images = self.images.subset(chosen)
        return Checked(
            images, self.digests[chosen], self.earlier[chosen], ranks=ranks, groups=groups
        )

    @property
    def stored_digests(self) -> Digests:
        """The digests of what is read of the images, (N, 32); see `shards.stored_digests`."""
        return stored_digests(self.images.storage, self.images.indices, self.digests)

    def known_by(self, rule: int) -> Digests:
        """The digests of the images by a rule of `SplitRule`, (N, 32)."""
        return self.earlier if rule == 1 else self.digests


def together(parts: Sequence[Checked]) -> Checked:
    """Several sets of images as one, in their order; at least one."""
    if len(parts) == 1:
        return parts[0]
    return Checked(
        joined([part.images for part in parts]),
        np.concatenate([part.digests for part in parts]),
        np.concatenate([part.earlier for part in parts]),
        tuple(problem for part in parts for problem in part.skipped),
        ranks=_joined([part.ranks for part in parts]),
        groups=_joined([part.groups for part in parts]),
    )


def _joined(values: Sequence[NDArray[_T] | None]) -> NDArray[_T] | None:
    """One value an image of several sets; None where a set has none."""
    present = [value for value in values if value is not None]
    return np.concatenate(present) if len(present) == len(values) else None


def check_images(
    images: Mapping[str, LabelledImages], skip_unreadable: bool, declared: bool = True
) -> dict[str, Checked]:
    """Check every image of every split.

    Without `skip_unreadable` only the first bytes are checked, and images that do not begin like an
    image file are decoded; an image with damage further on raises an error when it is used. With
    `skip_unreadable`, every image is decoded once, so that none raises an error later.

    Raises:
        ContentError: images cannot be read and `skip_unreadable` is not set. Then all are decoded,
            as far as there is time, so that one message tells of all; and of classes without images
            unless these are `declared`, which `check_classes` would refuse next.
    """
    checked = {name: _checked(part, skip_unreadable) for name, part in images.items()}
    if not skip_unreadable and any(part.skipped for part in checked.values()):
        raise ContentError(_unreadable_in_words(images.values()) + _and_empty(checked, declared))
    return checked


def _and_empty(checked: Mapping[str, Checked], declared: bool) -> str:
    """The end of a message: classes without an image to learn from; empty if there is none."""
    learning = checked.get("all") or checked.get("train")
    if declared or learning is None:
        return ""
    empty = [name for name, count in counts(learning.images).items() if not count]
    return f"; besides, no readable images of {listed(empty)}" if empty else ""


def _checked(images: LabelledImages, decode_all: bool) -> Checked:
    """The readable images of a split."""
    if isinstance(images.storage, ShardStorage) and not decode_all:
        return _checked_by_index(images, images.storage)
    digests = np.zeros((2, len(images), 32), dtype=np.uint8)

    def look(part: range) -> list[tuple[int, str]]:
        problems = []
        for index, own in zip(part, digests_of(part), strict=True):
            try:
                if isinstance(own, ContentError):
                    raise own
                if decode_all or not own.familiar:
                    suffix = Path(images.names[index]).suffix.lower()
                    is_loud = not own.familiar or suffix in ENDINGS["TIFF"]
                    with silent_decoders() if is_loud else contextlib.nullcontext():
                        images.try_image(index)
                for row, digest in zip(digests, (own.digest, own.earlier), strict=True):
                    row[index] = np.frombuffer(digest, dtype=np.uint8)
            except ContentError as error:
                problems.append((index, str(error)))
        return problems

    with images.cached_digests() as digests_of:
        problems = [problem for part in in_threads(look, len(images)) for problem in part]
    readable = np.ones(len(images), dtype=np.bool)
    readable[[index for index, _ in problems]] = False
    return Checked(
        images.subset(readable),
        digests[0, readable],
        digests[1, readable],
        tuple((images.names[index], reason) for index, reason in problems),
        changed=tuple(digests_of.changed),
    )


def _checked_by_index(images: LabelledImages, storage: ShardStorage) -> Checked:
    """The images of a split in shards that may be readable by their size; nothing is read."""
    digest, earlier = storage.all_digests(images.indices)
    readable = storage.may_be_images(images.indices)
    if readable.all():
        return Checked(images, digest, earlier)
    skipped = []
    for index in np.flatnonzero(~readable).tolist():
        try:
            images.try_image(index)
        except ContentError as error:
            skipped.append((images.names[index], str(error)))
    chosen = images.subset(readable)
    return Checked(chosen, digest[readable], earlier[readable], tuple(skipped))


@contextlib.contextmanager
def all_unreadable(images: Callable[[], Iterable[LabelledImages]]) -> Iterator[None]:
    """Where an image turns out to be damaged while it is used, tell of all that are.

    Args:
        images: those among which they are looked for.

    Raises:
        ContentError: an image is damaged.
    """
    try:
        yield
    except UnreadableImage as error:
        with silent_decoders() as stream, _told_if_it_lasts(str(error), stream):
            in_words = _unreadable_in_words(images())
        all_of_them = ContentError(in_words or str(error))
        for note in getattr(error, "__notes__", ()):  # such as how to go on
            all_of_them.add_note(note)
        raise all_of_them from None


@contextlib.contextmanager
def _told_if_it_lasts(error: str, stream: TextIO) -> Iterator[None]:
    """Say what is wrong and what is done, where it takes a while: processes may wait meanwhile."""
    line = f"{error}; looking for other damaged images, for {duration(_PATIENCE)} at most"
    timer = threading.Timer(_SOON, say, (line,), {"file": stream, "flush": True})
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _unreadable_in_words(parts: Iterable[LabelledImages]) -> str:
    """A message about the images that cannot be decoded; empty if there is none.

    Looking for them ends after a minute.
    """
    problems: list[tuple[str, str]] = []
    end, decoded, total = time.monotonic() + _PATIENCE, 0, 0
    harmed: LabelledImages | None = None  # the first images of which some cannot be read
    for images in parts:

        def look(part: range, images: LabelledImages = images) -> list[tuple[str, str] | None]:
            results: list[tuple[str, str] | None] = []
            for index in part:
                if time.monotonic() > end:
                    break
                try:
                    images.try_image(index)
                    results.append(None)
                except ContentError as error:
                    results.append((images.names[index], str(error)))
            return results

        total += len(images)
        with silent_decoders():  # libtiff prints lines of its own for each, on standard error
            for results in in_threads(look, len(images)):
                decoded += len(results)
                problems += filter(None, results)
        harmed = harmed or (images if problems else None)
    if harmed is None:
        return ""
    alone = len(problems) == 1 and decoded == total
    return f"{_unreadable_message(problems, decoded, total)} ({harmed.remedy(several=not alone)})"


def changed_images(checked: Mapping[str, Checked]) -> list[str]:
    """A warning about images that were written anew in place since they were last read."""
    changed = [name for part in checked.values() for name in part.changed]
    if not changed:
        return []
    return [f"{plural(len(changed), 'image')} changed since last read, such as {changed[0]}"]


def _unreadable_message(problems: Sequence[tuple[str, str]], decoded: int, total: int) -> str:
    """A message in one line that names the first images, those with the same reason together."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in problems[:_SHOWN]:
        by_reason.setdefault(reason, []).append(name)
    shown = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in by_reason.items())
    if len(problems) == 1 and decoded == total:
        return shown
    more, count = len(problems) - _SHOWN, plural(len(problems), "image")
    rest = f"; and {more:,} more, which `resnets doctor DATA` lists" if more > 0 else ""
    rest += f"; looked at {decoded:,} of {total:,}" if decoded < total else ""
    return f"{count} cannot be read: {shown}{rest}"


def check_names(source: str, names: Sequence[str]) -> None:
    """Raise a ContentError if two classes have names that differ only by case."""
    same = alike(names)
    if same:
        raise ContentError(
            f"{source}: the classes {same[0]!r} and {same[1]!r} differ only by case; rename one"
        )


def check_classes(source: str, content: SourceContent, checked: Mapping[str, Checked]) -> list[str]:
    """Refuse classes that cannot be learnt; return warnings about empty ones that are declared.

    Raises:
        ContentError: a class has no images to learn from, or there are fewer than two classes.
    """
    names = content.class_names
    number = {split: counts(part.images) for split, part in checked.items()}
    learning = number.get("all") or number.get("train")
    if not learning:
        raise ContentError(f"{source}: no training images, only {listed(sorted(checked))}")
    empty = [name for name in names if not learning[name]]
    for split, in_split in number.items():
        unknown = [name for name in empty if in_split[name]]
        if unknown:
            raise ContentError(
                f"{source}: {listed(unknown)} in {split} but not in train; add images to train, or "
                f"delete them from {split}"
            )
    present = [name for name in names if learning[name]]
    if empty and not content.declared:
        raise ContentError(
            f"{source}: no readable images of {listed(empty)}; add some, or delete the class"
        )
    if len(present) < 2:
        raise ContentError(
            f"{source}: only one class ({listed(present)}); at least two are needed. If the "
            "classes are folders inside it, pass that folder"
        )
    return [f"no images of {listed(empty)}: never learnt, never the answer"] if empty else []


def empty_splits(checked: Mapping[str, Checked], origins: Mapping[str, Any]) -> list[str]:
    """Warnings about splits that were to be there and got no image.

    Args:
        checked: the existing splits.
        origins: by split, where it is from; None where it was not asked for.
    """
    most = max(counts(checked["train"].images).values(), default=0)
    consequences = {
        "test": "nothing is measured on images that are new to the network",
        "validation": "nothing is chosen or calibrated",
    }
    drawn = {
        name: name in checked and (origins.get(name) or {}).get("from") != "source"
        for name in consequences
    }
    warnings = []
    for split, loss in consequences.items():
        origin = origins.get(split)
        if origin is None or split in checked:
            continue
        after = " after the test images were drawn" if drawn["test"] and split != "test" else ""
        why = "none of its images is left" if origin["from"] == "source" else _too_few(most, after)
        warnings.append(f"no {split} images: {why}; {loss}")
    return warnings


def _too_few(most: int, after: str = "") -> str:
    """Why no image could be drawn.

    Args:
        most: remaining images of the largest class.
        after: since when there are so many only.
    """
    if most >= 3:
        return "what belongs together fills its class, and is not parted"
    return f"too few to draw from (a class gives some if it has 3; the largest has {most}{after})"


def is_multi_label(repeated: int, distinct: int) -> bool:
    """Whether many of the distinct images have several labels, which is then no accident.

    >>> is_multi_label(3, 4), is_multi_label(25, 100), is_multi_label(24, 100)
    (False, True, False)
    """
    return repeated >= _MEANT and 4 * repeated >= distinct


def refuse_several_labels(source: str, checked: Mapping[str, Checked]) -> None:
    """Refuse a source of which many images are there under several labels, byte for byte.

    Raises:
        ContentError: it names one of them.
    """
    for part in checked.values():
        first, labels = equal_images(part.digests), part.images.labels
        others = np.flatnonzero(labels != labels[first])
        repeated, distinct = len(np.unique(first[others])), len(np.unique(first))
        if is_multi_label(repeated, distinct):
            names = part.images.names
            pair = f"{names[int(first[others[0]])]} and {names[int(others[0])]}"
            raise ContentError(
                f"{source}: {repeated:,} of {plural(distinct, 'different image')} are there "
                f"under several labels, such as {pair}: {MULTI_LABEL}; "
                "keep each image in one class"
            )


def missing_classes(checked: Mapping[str, Checked]) -> list[str]:
    """Warnings about classes that validation or test say nothing of."""
    learning = counts(checked["train"].images)
    warnings = []
    for split, part in checked.items():
        present = counts(part.images)
        missing = [name for name, count in learning.items() if count and not present[name]]
        if missing:
            few = min(learning[name] for name in missing)
            why = " (too few to draw from)" if few < 3 else ""
            warnings.append(f"{split} has no images of {listed(missing)}{why}")
    return warnings


def repeated_images(checked: Mapping[str, Checked]) -> list[str]:
    """Warnings about content that is there again under another label or in another split."""
    parts = list(checked.items())
    sizes = [len(part.images) for _, part in parts]
    starts = np.cumsum(sizes) - sizes
    split_of = np.repeat(np.arange(len(parts)), sizes)
    labels = np.concatenate([part.images.labels for _, part in parts])
    first = equal_images(np.concatenate([part.digests for _, part in parts]))
    two_labels = labels != labels[first]
    two_splits = (split_of != split_of[first]) & ~two_labels

    def pair(index: int) -> str:
        places = [(split_of[each], each) for each in (first[index], index)]
        return " and ".join(
            f"{parts[split][1].images.names[int(each - starts[split])]} ({parts[split][0]})"
            for split, each in places
        )

    kept = "each counts under both; delete the copy in the wrong class"
    repeated = ((two_labels, "with two labels", f": {kept}"), (two_splits, "in two splits", ""))
    return [
        f"{plural(int(again.sum()), 'image')} {where}, such as {pair(int(again.argmax()))}{advice}"
        for again, where, advice in repeated
        if again.any()
    ]
