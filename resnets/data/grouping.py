"""Groups of images that must stay in one split: those of a patient, a camera, a burst.

Images of one patient are similar in ways that are unrelated to the classes. If some of them are
trained on and others are evaluated on, the figures show how well patients are recognised.
"""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from resnets.data.labelled import LabelledImages
from resnets.data.shards import ShardStorage
from resnets.data.sources.names import listed, printable
from resnets.data.splits import Groups, SourceContent
from resnets.data.storage import FileStorage
from resnets.errors import UsageError
from resnets.format import plural

_How = Literal["folder", "pattern", "column"]

_KINDS = (
    "folder:LEVEL (1 is the folder below the class folder), pattern:REGEX (a regular expression "
    "for the path, with one group) or column:NAME (of a table or parquet file)"
)


class GroupingError(UsageError):
    """The images cannot be grouped as requested."""


@dataclass(frozen=True)
class GroupBy:
    """The rule by which images are grouped.

    Attributes:
        how: by folder, by a pattern of the path, or by a column.
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
            raise GroupingError(f"--group-by {text!r}: it must be {_KINDS}")
        group_by = cls(how, what)  # type: ignore[arg-type]
        if problem := group_by._problem():
            raise GroupingError(f"--group-by {text}: {problem}")
        return group_by

    def _problem(self) -> str | None:
        if self.how == "folder" and not (self.what.isdecimal() and 0 < int(self.what) < 100):
            return f"{self.what!r} is not a level; 1 is the folder below the class folder"
        if self.how != "pattern":
            return None
        try:
            groups = re.compile(self.what).groups
        except re.error as error:
            return f"not a regular expression ({error})"
        if groups != 1:
            return f"{groups} groups in parentheses; there must be 1, as in pattern:(patient\\d+)"
        return None

    def __str__(self) -> str:
        return f"{self.how}:{self.what}"


@dataclass(frozen=True)
class Grouping:
    """The group of each image.

    Attributes:
        names: of the groups.
        numbers: by split, (N,): the index in `names` of each image's group.
    """

    names: tuple[str, ...]
    numbers: Mapping[str, Groups]

    def in_two(self) -> Iterator[tuple[str, str, list[str]]]:
        """Each pair of splits with groups in common, and the names of these groups."""
        for first, second in itertools.combinations(self.numbers, 2):
            both = np.intersect1d(self.numbers[first], self.numbers[second]).tolist()
            if both:
                yield first, second, [self.names[number] for number in both]


def find_groups(
    content: SourceContent, images: Mapping[str, LabelledImages], group_by: str
) -> Grouping:
    """Group the images of a source.

    Args:
        content: the content of the source.
        images: by split of the source, the images that are used.
        group_by: see `GroupBy.parse`.

    Raises:
        GroupingError: the rule is invalid, an image has no group, or all images have the same.
    """
    by = GroupBy.parse(group_by)
    names = {split: _group_names(by, content, split, part) for split, part in images.items()}
    missing = [
        images[split].names[index]
        for split, split_names in names.items()
        for index, name in enumerate(split_names)
        if not name
    ]
    if missing:
        raise GroupingError(f"--group-by {by}: {_missing_group_message(by, missing)}")
    numbers: dict[str, int] = {}
    by_split = {
        split: np.array(
            [numbers.setdefault(str(name), len(numbers)) for name in split_names], np.int64
        )
        for split, split_names in names.items()
    }
    total = sum(map(len, names.values()))
    if len(numbers) == 1 and total > 1:
        raise GroupingError(
            f"--group-by {by}: all {total:,} images are in one group ({next(iter(numbers))!r}), "
            "which no split can divide"
        )
    return Grouping(tuple(numbers), by_split)


def group_warnings(grouping: Grouping) -> list[str]:
    """Warnings about groups that are in two splits of the source, or that all have one image."""
    warnings = [
        f"{plural(len(both), 'group')} with images in {first} and in {second} of the source, such "
        f"as {listed(both, 1)}"
        for first, second, both in grouping.in_two()
    ]
    total = sum(map(len, grouping.numbers.values()))
    if len(grouping.names) == total > 0:
        warnings.append("every image is in a group of its own, so the grouping keeps none together")
    return warnings


def _missing_group_message(by: GroupBy, missing: Sequence[str]) -> str:
    """The message about images that belong to no group."""
    others = f" and {len(missing) - 1:,} more" if len(missing) > 1 else ""
    reason = {
        "folder": f"not so deep in folders below the class folder (level {by.what})",
        "pattern": "not matched by the regular expression, or its group is empty",
        "column": "without a value in that column",
    }[by.how]
    return f"{missing[0]}{others}: {reason}"


def _group_names(
    by: GroupBy, content: SourceContent, split: str, images: LabelledImages
) -> list[str | None]:
    """The name of each image's group; None or empty if it has none."""
    if by.how == "column":
        return _column_groups(by, content, split, images)
    if by.how == "pattern":
        pattern = re.compile(by.what)
        return [_pattern_group(pattern, path) for path in _paths_of(images)]
    if not isinstance(images.storage, FileStorage | ShardStorage):
        raise GroupingError(f"--group-by {by}: only images in folders of their own have a level")
    classes = [images.class_names[label] for label in images.labels.tolist()]
    above = (
        1 if _kind_of(content, images) == "folder" and split != "all" else 0
    )  # the folder of the split
    level = int(by.what)
    return [
        _folder_group(path.split("/")[above:-1], name, level)
        for path, name in zip(_paths_of(images), classes, strict=True)
    ]


def _kind_of(content: SourceContent, images: LabelledImages) -> str:
    """The kind of a source; of shards, that of the source that they were made from."""
    storage = images.storage
    return storage.index.about.kind if isinstance(storage, ShardStorage) else content.kind


def _paths_of(images: LabelledImages) -> list[str]:
    """The path of each image relative to the source, or its name if it has no path."""
    storage = images.storage
    if isinstance(storage, FileStorage):
        return [storage.paths[index].replace("\\", "/") for index in images.indices.tolist()]
    return list(images.names)


def _pattern_group(pattern: re.Pattern[str], path: str) -> str | None:
    """The match of a pattern's group in a path."""
    match = pattern.search(path)
    return match[1] if match else None


def _folder_group(folders: Sequence[str], class_name: str, level: int) -> str | None:
    """The path from the class folder, or from the table's folder, down to a level.

    >>> _folder_group(["cat", "anna", "monday"], "cat", 2), _folder_group(["cat"], "cat", 1)
    ('anna/monday', None)
    """
    shown = [printable(name) for name in folders]
    below = folders[shown.index(class_name) + 1 if class_name in shown else 0 :]
    return "/".join(below[:level]) if len(below) >= level else None


def _column_groups(
    by: GroupBy, content: SourceContent, split: str, images: LabelledImages
) -> list[str | None]:
    """The group names in a column of the source."""
    if by.what not in content.columns:
        columns = listed([*content.columns], 9) if content.columns else "none that have names"
        raise GroupingError(f"--group-by {by}: no such column; there are {columns}")
    values = content.columns[by.what](split)
    chosen = [values[index] for index in images.indices.tolist()]
    for value in chosen:
        if isinstance(value, list | dict | bytes):
            raise GroupingError(
                f"--group-by {by}: the column holds {type(value).__name__}s, not single values"
            )
    return [group_name(value) for value in chosen]


def group_name(value: Any) -> str | None:
    """A value of a column as the name of a group; None if it is missing."""
    return None if value is None or value != value else str(value).strip()
