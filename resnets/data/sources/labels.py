"""What the labels in parquet and tar files mean: the names of classes, or that there is none."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnets.data.sources.names import is_no_label
from resnets.errors import ContentError
from resnets.format import plural

NO_LABEL = -1  # instead of the number of a class


def with_label(
    split: str, labels: NDArray[np.int64], name: Callable[[int], str]
) -> tuple[NDArray[np.int64], list[str]]:
    """Which images of a split have a label, (M,), and a warning about the others.

    Args:
        split: its name.
        labels: (N,), -1 for none.
        name: of an image, by its index.
    """
    chosen, missing = np.flatnonzero(labels != NO_LABEL), np.flatnonzero(labels == NO_LABEL)
    if not len(missing):
        return chosen, []
    if not len(chosen):  # how the hub publishes test splits without labels
        return chosen, [f"the {split} split is left out: none of its images has a label"]
    return chosen, [
        f"left out of {split}: {plural(len(missing), 'image')} without a label, such as "
        f"{name(int(missing[0]))}"
    ]


def label_names_of(
    labels_of: Mapping[str, Sequence[Any]], where: str
) -> dict[str, list[str | None]]:
    """The labels of each split as names of classes, None where there is none.

    Whether -1 is a class or says that there is no label: it is none where a split has nothing else,
    as the hub publishes tests without answers, and beside labels that count from 0 to 2 or more.

    Raises:
        ContentError: a label is a number that is not whole.
    """
    for labels in labels_of.values():
        for value in labels:
            if isinstance(value, float) and not value.is_integer() and not math.isnan(value):
                raise ContentError(
                    f"{where}: a label is {value}; a label must be one whole number or one text "
                    "an image"
                )
    every = {value for labels in labels_of.values() for value in labels if is_label(value)} - {-1}
    counted = len(every) >= 3 and every == set(range(len(every)))
    label_names = {}
    for split, labels in labels_of.items():
        void = counted or not any(is_label(value) and value != -1 for value in labels)
        label_names[split] = [
            None if not is_label(value) or (void and value == -1) else name_of_label(value)
            for value in labels
        ]
    return label_names


def is_label(value: Any) -> bool:
    """Whether a value is not missing: None, NaN or a text that means it."""
    if isinstance(value, str):
        return not is_no_label(value)
    return value is not None and value == value


def name_of_label(value: Any) -> str:
    """The name of the class that a label stands for."""
    return str(int(value)) if isinstance(value, float) else str(value)
