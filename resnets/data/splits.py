"""Honest splits: what the network learns from, what chooses, and what is scored once at the end.

Which images are drawn depends on their content and the seed alone: every image has a key, the
SHA-256 of the seed and of its content, and the lowest keys of each class are drawn. So neither the
order of the files nor their names matter, and adding an image moves hardly any other. Images that
are equal byte for byte have the same key and are drawn together or not at all.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from resnets.data.labelled import LabelledImages, joined
from resnets.errors import ContentError, UsageError
from resnets.images import White
from resnets.matrices import product

Digests = NDArray[np.uint8]  # (N, 32): one SHA-256 for each image
Groups = NDArray[np.int64]  # (N,): images of one number belong together
Ranks = NDArray[np.int8]  # (N,): in which turn images are drawn

RULE = 2  # how splits are drawn and fingerprints made; see `SplitRule`
NEVER = 2  # the rank of images that are not drawn


class FoldsError(UsageError):
    """There are too few images for as many folds."""


@dataclass(frozen=True)
class SourceContent:
    """What a source holds, before anything is checked or drawn.

    Attributes:
        kind: what the source is, such as "digits" or "folder".
        images: by split: "train", "validation", "test", or "all" where the source has no splits.
        warnings: what a user should know about the source, one sentence each.
        declared: whether the source lists its classes, so that some may be without images.
        columns: by name, what else the source tells of its images: from a split to a value for
            each image of its storage.
        source: what to call it where it has no path; empty where it has one.
        passed_over: path and reason of each file and folder that was not read.
    """

    kind: str
    images: Mapping[str, LabelledImages]
    warnings: tuple[str, ...] = ()
    declared: bool = False
    columns: Mapping[str, Callable[[str], Sequence[Any]]] = field(default_factory=dict)
    source: str = ""
    passed_over: tuple[tuple[str, str], ...] = ()

    @property
    def class_names(self) -> tuple[str, ...]:
        """The same for every split."""
        return next(iter(self.images.values())).class_names


@dataclass(frozen=True)
class SplitRule:
    """How images are recognised and splits are drawn.

    Attributes:
        rule: 2: by whole files, and equal images together. 1: as versions before 2026-12 did, by
            32 KiB at either end of large files, each image alone; for what they trained.
        group_by: what else is drawn together; see `grouping.GroupBy`. Not with rule 1.
        folds: into how many parts all images are divided for cross-validation, in place of drawing
            splits; 0: no cross-validation.
        fold: which of these parts is left out of training and measured, from 1; 0: none.
    """

    rule: int = RULE
    group_by: str | None = None
    folds: int = 0
    fold: int = 0

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> "SplitRule":
        """As it was when `data` was recorded: the description of a model's data, or a saved state.

        Raises:
            ContentError: by a rule of a later version, or the record of folds is damaged.

        >>> SplitRule.of({"fingerprint": "0" * 64}).rule, SplitRule.of({}).rule
        (1, 2)
        """
        rule = data.get("rule", 1 if "fingerprint" in data else RULE)
        if rule not in (1, RULE):
            raise ContentError(
                f"its images were split by rule {rule!r}, and this version knows 1 to {RULE} "
                "(pip install --upgrade resnets)"
            )
        group_by = data.get("group_by")
        folds, fold = (data.get(name) or 0 for name in ("folds", "fold"))
        if type(folds) is not int or type(fold) is not int or not 0 <= fold <= folds:
            raise ContentError(
                f"its record of cross-validation is damaged: fold {fold!r} of {folds!r}"
            )
        return cls(rule, None if group_by is None else str(group_by), folds, fold)

    def to_dict(self) -> dict[str, Any]:
        """What `of` reads; empty for the rule of old, as then."""
        values = {} if self.rule == 1 else {"rule": self.rule}
        values |= {"folds": self.folds, "fold": self.fold} if self.folds else {}
        return values | ({"group_by": self.group_by} if self.group_by else {})


CURRENT_RULE = SplitRule()


@dataclass(frozen=True)
class Splits:
    """Labelled images to learn from (train), to choose by (validation) and to score once (test).

    Attributes:
        validation: None if none was asked for.
        test: None if the source has none and none was asked for.
        class_names: of all three.
        fingerprint: 64 hexadecimal digits that stand for the images, labels, class names and the
            source's own splits; the order and the names of the files do not matter.
        split: how the splits were made; plain values for JSON.
        skipped: name and reason of each image that was left out.
        warnings: one sentence each.
        not_drawn: which splits got no image, and what a training lacks then, one sentence each.
        digests: by split, (N, 32): of the content of each of its images, in their order.
        fingerprints: by rule, see `SplitRule`; `fingerprint` is the one by which they were drawn.
        stored: as `fingerprint`, of what is read of the images: shards of another size or quality
            have another one.
        readable: number of images of the source that can be read, in whatever split.
    """

    train: LabelledImages
    validation: LabelledImages | None
    test: LabelledImages | None
    class_names: tuple[str, ...]
    fingerprint: str
    split: dict[str, Any] = field(default_factory=dict)
    skipped: tuple[tuple[str, str], ...] = ()
    warnings: tuple[str, ...] = ()
    not_drawn: tuple[str, ...] = ()
    digests: Mapping[str, Digests] = field(default_factory=dict)
    fingerprints: Mapping[int, str] = field(default_factory=dict)
    stored: str = ""
    readable: int = 0

    def with_white(self, white: White) -> "Splits":
        """The same images, where this value is white in those of 16 or 32 bits a value."""
        train, validation, test = (
            part and part.with_white(white) for part in (self.train, self.validation, self.test)
        )
        assert train is not None
        return replace(self, train=train, validation=validation, test=test)

    @cached_property
    def listing(self) -> str:
        """Hexadecimal digits that stand for the order in which the training images are listed."""
        digests = self.digests.get("train", np.zeros((0, 32), np.uint8))
        return hashlib.sha256(np.ascontiguousarray(digests).data).hexdigest()

    @property
    def training_and_validation(self) -> LabelledImages:
        """The images that a network trained on these splits has seen."""
        if self.validation is None or not len(self.validation):
            return self.train
        return joined([self.train, self.validation]).with_white(self.train.white)

    def are_those_of(self, data: Mapping[str, Any]) -> bool:
        """Whether a model was trained on these very images, by the description of its data."""
        fingerprint = data.get("fingerprint")
        return fingerprint is not None and fingerprint == self.fingerprints.get(
            SplitRule.of(data).rule
        )


def draw(
    labels: NDArray[np.int64],
    digests: Digests,
    fraction: float,
    key: str,
    groups: Groups | None = None,
    ranks: Ranks | None = None,
) -> NDArray[np.bool]:
    """Choose a fraction of every class by the content of its images, whole groups only.

    Each class of n images gives fraction * n of them, rounded, but at least 1 if it has 3 or more,
    and never all. Where groups have several images, it is as near to that as they allow: a group
    is drawn if that brings the numbers of its classes nearer to what is wanted, and a class with
    3 groups or more gives at least one.

    Args:
        labels: (N,).
        digests: (N, 32), the content of each image.
        fraction: in [0, 1).
        key: draws with different keys are independent.
        groups: which images are drawn together; those with equal digests if not given.
        ranks: (N,), images of a lower one are drawn first, those of `NEVER` not at all.

    Returns:
        (N,), True for those drawn.
    """
    groups = equal_images(digests) if groups is None else groups
    if not len(groups):
        return np.zeros(0, dtype=np.bool)
    members = _Members.of(groups)
    turns = np.zeros(len(labels), np.int8) if ranks is None else ranks
    rank = np.maximum.reduceat(turns[members.images], members.starts)
    keys = b"".join(_group_key(key, digests[group]) for group in members)
    order = np.lexsort((*_columns(np.frombuffer(keys, np.uint8).reshape(-1, 32)), rank))
    counts = _Counts(labels, members, order[rank[order] != NEVER])
    drawn = _choose_groups(counts, np.bincount(labels).tolist(), fraction)
    chosen = np.zeros(len(labels), dtype=np.bool)
    for number in drawn:
        chosen[members[counts.order[number]]] = True
    return chosen


def assign_folds(
    labels: NDArray[np.int64],
    digests: Digests,
    folds: int,
    key: str,
    groups: Groups | None = None,
    ranks: Ranks | None = None,
) -> NDArray[np.int64]:
    """Divide images into parts of about equal size, every class evenly, whole groups only.

    Each group goes to the part that has the fewest images of its classes by then, those with the
    most images first, so that small ones even out what large ones leave.

    Args:
        labels: (N,).
        digests: (N, 32), the content of each image.
        folds: number of parts.
        key: divisions with different keys are independent.
        groups: which images stay together; those with equal digests if not given.
        ranks: (N,); only images of rank 0, which the network of --from has not seen, are assigned
            to a part.

    Returns:
        (N,): 1 to ``folds``, and 0 for images that belong to none.

    Raises:
        FoldsError: there are fewer groups than parts.
    """
    members = [*_Members.of(equal_images(digests) if groups is None else groups)]
    seen = np.zeros(len(labels), np.int8) if ranks is None else ranks
    free = [group for group in members if not seen[group].any()]
    if len(free) < folds:
        known = len(members) - len(free)
        more = f" ({known} more were seen by the network of --from)" if known else ""
        raise FoldsError(
            f"--folds {folds}: there are {len(free)} images (or groups of images that belong "
            f"together) to divide{more}, so {len(free)} folds are the most"
        )
    free.sort(key=lambda group: (-len(group), _group_key(key, digests[group])))
    total = np.bincount(labels)
    counts = np.zeros((folds, len(total)))
    parts = np.zeros(len(labels), np.int64)
    for group in free:
        its = np.bincount(labels[group], minlength=len(total))
        crowded = product(counts, its / np.maximum(total, 1))
        best = np.lexsort((counts.sum(1), crowded))[0]
        counts[best] += its
        parts[group] = best + 1
    return parts


@dataclass(frozen=True)
class _Members(Sequence[NDArray[np.int64]]):
    """The images of each group, in ascending order; the groups in that of their first images.

    Attributes:
        images: (N,), those of one group after those of another.
        starts: (G,), where the images of each group begin.
    """

    images: NDArray[np.int64]
    starts: NDArray[np.int64]

    @classmethod
    def of(cls, groups: Groups) -> "_Members":
        """The images by the numbers of their groups (N,)."""
        _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
        turn = np.empty(len(first), np.int64)
        turn[np.argsort(first)] = np.arange(len(first))
        sizes = np.bincount(turn[inverse], minlength=len(first))
        return cls(np.argsort(turn[inverse], kind="stable"), np.cumsum(sizes) - sizes)

    def __len__(self) -> int:
        return len(self.starts)

    @overload
    def __getitem__(self, index: int) -> NDArray[np.int64]: ...
    @overload
    def __getitem__(self, index: slice) -> list[NDArray[np.int64]]: ...
    def __getitem__(self, index: int | slice) -> NDArray[np.int64] | list[NDArray[np.int64]]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        start = self.starts[index]
        end = self.starts[index + 1] if index + 1 < len(self.starts) else len(self.images)
        return self.images[start:end]


@dataclass(frozen=True)
class _Counts:
    """How many images of each class each group has, counted on access.

    Attributes:
        labels: (N,).
        members: the images of the groups.
        order: (M,), the groups in the order in which they are tried.
    """

    labels: NDArray[np.int64]
    members: _Members
    order: NDArray[np.int64]

    def __iter__(self) -> Iterator[Mapping[int, int]]:
        return map(self.__getitem__, range(len(self.order)))

    def __getitem__(self, number: int) -> Mapping[int, int]:
        group = self.members[int(self.order[number])]
        return (
            {int(self.labels[group[0]]): 1}
            if len(group) == 1
            else Counter(self.labels[group].tolist())
        )


class _Quota:
    """How many images of each class are still to be drawn.

    Attributes:
        left: of each class, still to draw; below 0 where a group brought more.
        keep: of each class, images that are not drawn.
        missing: classes that still need an image in the split.
    """

    def __init__(self, total: Sequence[int], fraction: float) -> None:
        self.left = [_share(count, fraction) for count in total]
        self.keep = [*total]
        self.missing = {label for label, number in enumerate(self.left) if number}

    def gain(self, group: Mapping[int, int]) -> int:
        """How much nearer to what is wanted a group brings its classes."""
        left = self.left
        return sum(abs(left[label]) - abs(left[label] - group[label]) for label in group)

    def spares(self, group: Mapping[int, int]) -> bool:
        """Whether a group leaves each of its classes some images."""
        return not any(self.keep[label] <= count for label, count in group.items())

    def take(self, group: Mapping[int, int]) -> None:
        """Draw a group."""
        for label, count in group.items():
            self.left[label] -= count
            self.keep[label] -= count
        self.missing.difference_update(group)


def _choose_groups(groups: _Counts, total: Sequence[int], fraction: float) -> list[int]:
    """Which groups to draw; see `draw`.

    Args:
        groups: images of each class in each group, in the order in which they are tried.
        total: images of each class.
        fraction: in [0, 1).
    """
    quota, drawn = _Quota(total, fraction), []
    for number, group in enumerate(groups):
        if quota.gain(group) > 0 and quota.spares(group):
            quota.take(group)
            drawn.append(number)
    for label in sorted(quota.missing):
        having = [number for number, group in enumerate(groups) if label in group]
        able = [number for number in having if quota.spares(groups[number])]
        if label in quota.missing and len(having) >= 3 and able:
            drawn.append(max(able, key=lambda number: quota.gain(groups[number])))
            quota.take(groups[drawn[-1]])
    return drawn


def equal_images(digests: Digests) -> Groups:
    """Groups of the images whose digests (N, 32) are equal: (N,), the index of the first of each.

    >>> equal_images(np.repeat(np.uint8([[7], [0], [7]]), 32, axis=1)).tolist()
    [0, 1, 0]
    """
    columns = _columns(digests)
    order = np.lexsort(columns)
    changes = np.any([column[order[1:]] != column[order[:-1]] for column in columns], axis=0)
    starts = np.flatnonzero(np.append(len(order) > 0, changes))
    first = np.empty(len(order), np.int64)
    first[order] = np.repeat(order[starts], np.diff(starts, append=len(order)))
    return first


def _columns(digests: Digests) -> tuple[NDArray[np.uint64], ...]:
    """Digests (N, 32) as keys for `numpy.lexsort`, which sorts them as it would their bytes."""
    words = np.ascontiguousarray(digests).view(">u8").astype(np.uint64)
    return tuple(words.T[::-1])


def merged(groups: Groups, rows: Sequence[bytes]) -> Groups:
    """Groups of images that are in one group already, or whose digests are equal, or both in turn.

    >>> merged(np.array([0, 0, 1, 2]), [b"a", b"b", b"b", b"c"]).tolist()
    [0, 0, 0, 2]
    """
    above: dict[int, int] = {}

    def top(number: int) -> int:
        while (over := above.get(number, number)) != number:
            above[number] = number = above.get(over, over)
        return number

    first: dict[bytes, int] = {}
    numbers = groups.tolist()
    for number, row in zip(numbers, rows, strict=True):
        one, other = top(number), top(first.setdefault(row, number))
        above[max(one, other)] = min(one, other)
    return np.array([top(number) for number in numbers], dtype=np.int64)


def _group_key(key: str, digests: Digests) -> bytes:
    """What a group is sorted by: the hash of its smallest digest, whatever the images' order."""
    return hashlib.sha256(key.encode() + min(row.tobytes() for row in digests)).digest()


def _share(count: int, fraction: float) -> int:
    """How many of a class's images are drawn.

    >>> [_share(count, 0.1) for count in (1, 2, 3, 14, 15, 5000)]
    [0, 0, 1, 1, 2, 500]
    """
    if fraction == 0 or count == 0:
        return 0
    target = int(fraction * count + 0.5)
    return min(max(target, 1 if count >= 3 else 0), count - 1)


def fingerprint(class_names: Sequence[str], parts: Mapping[str, tuple[Any, Digests]]) -> str:
    """SHA-256 over the class names and every image's split, label and content, sorted.

    Args:
        class_names: in the order of the labels.
        parts: by split, the labels (N,) and the digests (N, 32).
    """
    whole = hashlib.sha256("\n".join(class_names).encode())
    for name in sorted(parts):
        labels, digests = np.asarray(parts[name][0]), parts[name][1]
        whole.update(f"\n\n{name} {len(labels)}\n".encode())
        for label in sorted(np.unique(labels).tolist(), key=lambda label: b"%d " % label):
            its = digests[labels == label]
            before = np.frombuffer(b"%d " % label, np.uint8)
            rows = np.hstack([np.tile(before, (len(its), 1)), its[np.lexsort(_columns(its))]])
            whole.update(rows.tobytes())
    return whole.hexdigest()


def counts(images: LabelledImages | None) -> dict[str, int]:
    """How many images each class has, by name."""
    if images is None:
        return {}
    numbers = np.bincount(images.labels, minlength=len(images.class_names))
    return dict(zip(images.class_names, numbers.tolist(), strict=True))
