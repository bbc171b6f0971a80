"""What belongs together and must stay in one split: the images of a patient, a camera, a burst.

Images of one patient are alike in ways that have nothing to do with the classes. Where some of them
are trained on and others measured, the figures say how well patients are known again.
"""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from resnets.data.labelled import LabelledImages
from resnets.data.sources.names import listed, printable
from resnets.data.splits import Groups, Parts
from resnets.data.storage import FileStorage
from resnets.errors import UsageError

_How = Literal["folder", "pattern", "column"]

_KINDS = (
    "folder:LEVEL (1 is the folder below the class folder), pattern:REGEX (a regular expression "
    "for the path, with one group) or column:NAME (of a table or parquet file)"
)


class GroupingError(UsageError):
    """These images cannot be grouped so."""


@dataclass(frozen=True)
class GroupBy:
    """By what images are grouped.

    Attributes:
        how: by folders, a pattern of the path, or a column.
        what: the level, the regular expression or the name of the column.
    """

    how: _How
    what: str

    @classmethod
    def parse(cls, text: str) -> "GroupBy":
        """Read the value of `--group-by`.

        Raises:
            GroupingError: it is none of `_KINDS`.

        >>> GroupBy.parse("folder:1"), GroupBy.parse("column:patient")
        (GroupBy(how='folder', what='1'), GroupBy(how='column', what='patient'))
        """
        how, colon, what = text.partition(":")
        if not colon or not what or how not in ("folder", "pattern", "column"):
            raise GroupingError(f"--group-by {text!r}: it takes {_KINDS}")
        made = cls(how, what)  # type: ignore[arg-type]
        if problem := made._problem():
            raise GroupingError(f"--group-by {text}: {problem}")
        return made

    def _problem(self) -> str | None:
        if self.how == "folder" and not (self.what.isdecimal() and 0 < int(self.what) < 100):
            return f"{self.what!r} is no level; 1 is the folder below the class folder"
        if self.how != "pattern":
            return None
        try:
            groups = re.compile(self.what).groups
        except re.error as error:
            return f"not a regular expression ({error})"
        if groups != 1:
            return f"{groups} groups in parentheses; it takes one, as in pattern:(patient\\d+)"
        return None

    def __str__(self) -> str:
        return f"{self.how}:{self.what}"


@dataclass(frozen=True)
class Grouping:
    """Which group each image belongs to.

    Attributes:
        names: of the groups.
        numbers: by split, (N,), of the group of each image: places in `names`.
    """

    names: tuple[str, ...]
    numbers: Mapping[str, Groups]

    def in_two(self) -> Iterator[tuple[str, str, list[str]]]:
        """Each two splits that share groups, and the names of these."""
        for first, second in itertools.combinations(self.numbers, 2):
            both = np.intersect1d(self.numbers[first], self.numbers[second]).tolist()
            if both:
                yield first, second, [self.names[number] for number in both]


def find_groups(parts: Parts, images: Mapping[str, LabelledImages], group_by: str) -> Grouping:
    """Group the images of a source.

    Args:
        parts: what the source holds.
        images: by its splits, those of its images that are used.
        group_by: see `GroupBy.parse`.

    Raises:
        GroupingError: it is nothing that can be used, an image has no group, or all have the same.
    """
    by = GroupBy.parse(group_by)
    names = {split: _group_names(by, parts, split, own) for split, own in images.items()}
    missing = [
        images[split].names[index]
        for split, own in names.items()
        for index, name in enumerate(own)
        if not name
    ]
    if missing:
        raise GroupingError(f"--group-by {by}: {_without(by, missing)}")
    numbers: dict[str, int] = {}
    found = {
        split: np.array([numbers.setdefault(str(name), len(numbers)) for name in own], np.int64)
        for split, own in names.items()
    }
    total = sum(map(len, names.values()))
    if len(numbers) == 1 and total > 1:
        raise GroupingError(
            f"--group-by {by}: all {total:,} images are in one group ({next(iter(numbers))!r}), "
            "which no split can divide"
        )
    return Grouping(tuple(numbers), found)


def group_warnings(grouping: Grouping) -> list[str]:
    """Warnings: groups that are in two splits of the source's own, and groups of one image."""
    warnings = [
        f"{_counted(both)} in {first} and in {second} of the source, such as {listed(both, 1)}"
        for first, second, both in grouping.in_two()
    ]
    total = sum(map(len, grouping.numbers.values()))
    if len(grouping.names) == total > 0:
        warnings.append("every image is in a group of its own, so the grouping keeps none together")
    return warnings


def _counted(names: Sequence[str]) -> str:
    """A number of groups, with the verb.

    >>> _counted(["a"]), _counted(["a", "b"])
    ('1 group is', '2 groups are')
    """
    return f"{len(names):,} groups are" if len(names) != 1 else "1 group is"


def _without(by: GroupBy, missing: Sequence[str]) -> str:
    """What to say of images that belong to no group."""
    others = f" and {len(missing) - 1:,} more" if len(missing) > 1 else ""
    reason = {
        "folder": f"not so deep in folders below the class folder (level {by.what})",
        "pattern": "not matched by the regular expression, or its group is empty",
        "column": "without a value in that column",
    }[by.how]
    return f"{missing[0]}{others}: {reason}"


def _group_names(by: GroupBy, parts: Parts, split: str, images: LabelledImages) -> list[str | None]:
    """What the group of each image is called; None or empty where it has none."""
    if by.how == "column":
        return _from_column(by, parts, split, images)
    if by.how == "pattern":
        pattern = re.compile(by.what)
        return [_group_in(pattern, path) for path in _paths_of(images)]
    if not isinstance(images.storage, FileStorage):
        raise GroupingError(f"--group-by {by}: only images in folders of their own have a level")
    classes = [images.class_names[label] for label in images.labels.tolist()]
    above = 1 if parts.kind == "folder" and split != "all" else 0  # the folder of the split
    level = int(by.what)
    return [
        _folder_of(path.split("/")[above:-1], name, level)
        for path, name in zip(_paths_of(images), classes, strict=True)
    ]


def _paths_of(images: LabelledImages) -> list[str]:
    """The path of each image below the source, or what else it is called."""
    storage = images.storage
    if isinstance(storage, FileStorage):
        return [storage.paths[index].replace("\\", "/") for index in images.indices.tolist()]
    return list(images.names)


def _group_in(pattern: re.Pattern[str], path: str) -> str | None:
    """What the group of a pattern matches in a path."""
    match = pattern.search(path)
    return match[1] if match else None


def _folder_of(folders: Sequence[str], class_name: str, level: int) -> str | None:
    """The path of the folder so many levels below the class folder, or below the table.

    >>> _folder_of(["cat", "anna", "monday"], "cat", 2), _folder_of(["cat"], "cat", 1)
    ('anna/monday', None)
    """
    shown = [printable(name) for name in folders]
    below = folders[shown.index(class_name) + 1 if class_name in shown else 0 :]
    return "/".join(below[:level]) if len(below) >= level else None


def _from_column(by: GroupBy, parts: Parts, split: str, images: LabelledImages) -> list[str | None]:
    """The values of a column of the source."""
    if by.what not in parts.columns:
        known = listed([*parts.columns], 9) if parts.columns else "none that have names"
        raise GroupingError(f"--group-by {by}: no such column; there are {known}")
    values = parts.columns[by.what](split)
    chosen = [values[index] for index in images.indices.tolist()]
    for value in chosen:
        if isinstance(value, list | dict | bytes):
            raise GroupingError(
                f"--group-by {by}: holds {type(value).__name__}s, not single values"
            )
    return [_named(value) for value in chosen]


def _named(value: Any) -> str | None:
    """A value of a column as the name of a group; None where it is missing."""
    return None if value is None or value != value else str(value).strip()
