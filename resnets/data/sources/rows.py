"""Images with labels from Python programs: texts or whole numbers, some of them missing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnets.data.labelled import LabelledImages
from resnets.data.sources.names import is_no_label, split_of
from resnets.data.sources.tables import number_or_word
from resnets.data.splits import SourceContent
from resnets.data.storage import Storage
from resnets.errors import ContentError
from resnets.format import plural

IN_MEMORY = "python:"  # prefix of the names of sources that are Python objects, not paths
_WANTED = "a label is one whole number or one text"


@dataclass(frozen=True)
class Rows:
    """N images, each with a label.

    Attributes:
        storage: where the images lie.
        indices: (N,), which images of the storage these are.
        labels: N texts, whole numbers, or None or NaN where there is no label.
        class_names: what whole numbers stand for; None where they are the classes' names.
        order: (N,), the index of each image in the user's object.
        columns: by name, N values of further data about each image.
        splits: N names of splits; None if there are none.
        noun: the kind of the user's object, such as "array" or "CIFAR10".
        warnings: what a user should know, one sentence each.
    """

    storage: Storage
    indices: NDArray[np.int64]
    labels: Sequence[Any]
    order: Sequence[int]
    class_names: tuple[str, ...] | None = None
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    splits: Sequence[Any] | None = None
    noun: str = "list"
    warnings: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        storage: Storage,
        labels: Sequence[Any],
        order: Sequence[int] | None = None,
        **rest: Any,
    ) -> "Rows":
        """All images of a storage; ``order`` is that of the storage by default."""
        places = range(len(labels)) if order is None else order
        return cls(storage, np.arange(len(storage)), labels, places, **rest)

    def __len__(self) -> int:
        return len(self.indices)

    def chosen(self, places: Sequence[int]) -> "Rows":
        """Some of the rows, by their indices."""

        def pick(values: Sequence[Any]) -> list[Any]:
            return [values[place] for place in places]

        return replace(
            self,
            indices=self.indices[np.asarray(places, np.int64)],
            labels=pick(self.labels),
            order=range(len(places)),
            columns={name: pick(values) for name, values in self.columns.items()},
            splits=None if self.splits is None else pick(self.splits),
        )

    def name(self, place: int) -> str:
        """The name by which a user finds an image."""
        return self.storage.name(int(self.indices[place]))

    def by_split(self) -> dict[str, "Rows"]:
        """The rows of each split; only "all" if they have no splits.

        Raises:
            ContentError: a name is not that of a split.
        """
        if self.splits is None:
            return {"all": self}
        places: dict[str, list[int]] = {}
        for place, word in enumerate(self.splits):
            split = split_of(str(word))
            if split is None:
                raise ContentError(
                    f"{self.name(place)}: split {word!r} is none of train, validation and test"
                )
            places.setdefault(split, []).append(place)
        return {split: self.chosen(rows) for split, rows in places.items()}


def source_content(sets: Mapping[str, Rows]) -> SourceContent:
    """The labelled images of all sets, with common classes and without images that have no label.

    The classes are those that a set declares, else all labels: numbers by value, then texts by
    letter.

    Args:
        sets: by split, or "all".

    Raises:
        ContentError: a label has an unknown type or class, or every label is missing.
    """
    declared = next((rows.class_names for rows in sets.values() if rows.class_names), None)
    by_split = {split: _class_names(rows, declared) for split, rows in sets.items()}
    present = {name for names in by_split.values() for name in names if name is not None}
    class_names = declared or tuple(sorted(present, key=number_or_word))
    number = {name: label for label, name in enumerate(class_names)}
    images, warnings = {}, [text for rows in sets.values() for text in rows.warnings]
    for split, rows in sets.items():
        places = [place for place, name in enumerate(by_split[split]) if name is not None]
        warnings += _missing_label_warnings(rows, by_split[split], split)
        if places:
            for place in places:
                _refuse_unknown(rows, place, by_split[split][place], number)
            labels = [number[str(by_split[split][place])] for place in places]
            images[split] = LabelledImages(
                rows.storage, labels, class_names, rows.indices[np.asarray(places)]
            )
    if not images:
        total = sum(map(len, sets.values()))
        raise ContentError(f"none of the {total:,} images has a label" if total else "no images")
    nouns = [rows.noun for rows in sets.values()]
    return SourceContent(
        kind=nouns[0].lower(),
        images=images,
        warnings=tuple(warnings),
        declared=declared is not None,
        columns=_columns_of(sets),
        source=f"{IN_MEMORY} {nouns[0]} of {sum(map(len, sets.values())):,} images",
    )


def _class_names(rows: Rows, declared: tuple[str, ...] | None) -> list[str | None]:
    """The class name of each row; None if it has no label."""
    names = rows.class_names or declared
    return [_class_of(value, rows, place, names) for place, value in enumerate(rows.labels)]


def _class_of(value: Any, rows: Rows, place: int, names: tuple[str, ...] | None) -> str | None:
    """The name of a label's class; None if the label is missing.

    Args:
        value: the label.
        rows: the rows, for errors.
        place: the index of its row.
        names: the class names that whole numbers index; None if they are names themselves.

    Raises:
        ContentError: the value is not a label.
    """
    value = value.item() if hasattr(value, "item") and getattr(value, "ndim", 0) == 0 else value
    if _is_missing(value):
        return None
    if isinstance(value, str):
        return value
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if not whole:
        shown = f"{value!r:.60}"
        raise ContentError(f"the label of {rows.name(place)} is {shown}; {_WANTED}")
    if names is None:
        return str(value if isinstance(value, bool) else int(value))
    if not 0 <= value < len(names):
        raise ContentError(
            f"the label of {rows.name(place)} is {int(value)}, not in 0..{len(names) - 1} "
            f"({len(names)} classes)"
        )
    return names[int(value)]


def _is_missing(value: Any) -> bool:
    """Whether a value is missing: None, NaN, NA or NaT of pandas, or a text that means it.

    >>> _is_missing(None), _is_missing(float("nan")), _is_missing(" "), _is_missing(0)
    (True, True, True, False)
    """
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    if isinstance(value, str):
        return is_no_label(value)
    return isinstance(value, float) and value != value


def _refuse_unknown(rows: Rows, place: int, name: str | None, number: Mapping[str, int]) -> None:
    """Refuse a text that is not one of the declared classes. Raises ContentError."""
    if name not in number:
        names = ", ".join([*number][:10]) + (" ..." if len(number) > 10 else "")
        raise ContentError(f"the label of {rows.name(place)} is {name!r}; the classes are {names}")


def _missing_label_warnings(rows: Rows, names: Sequence[str | None], split: str) -> list[str]:
    """Warnings about images that have no label."""
    missing = [place for place, name in enumerate(names) if name is None]
    if not missing:
        return []
    if len(missing) == len(rows) and split != "all":
        return [f"the {split} split is left out: none of its images has a label"]
    return [
        f"{plural(len(missing), 'image')} without a label left out, such as {rows.name(missing[0])}"
    ]


def _columns_of(sets: Mapping[str, Rows]) -> dict[str, Any]:
    """By column name, a function from a split to one value for each image of its storage."""
    names = dict.fromkeys(name for rows in sets.values() for name in rows.columns)

    def reader(name: str) -> Any:
        def values(split: str) -> list[Any]:
            rows = sets[split]
            spread: list[Any] = [None] * len(rows.storage)
            for index, value in zip(
                rows.indices.tolist(), rows.columns.get(name, ()), strict=False
            ):
                spread[index] = value
            return spread

        return values

    return {name: reader(name) for name in names}
