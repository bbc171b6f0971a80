"""Honest splits: what the network learns from, what chooses, and what is scored once at the end.

Which images are drawn depends on their content and the seed alone: every image has a key, the
SHA-256 of the seed and of its content, and the lowest keys of each class are drawn. So neither the
order of the files nor their names matter, and adding an image moves hardly any other.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnets.data.labelled import LabelledImages

Digests = NDArray[np.uint8]  # (N, 32): one SHA-256 for each image


@dataclass(frozen=True)
class Parts:
    """What a source holds, before anything is checked or drawn.

    Attributes:
        kind: what the source is, such as "digits" or "folder".
        images: by split: "train", "validation", "test", or "all" where the source has no splits.
        warnings: what a person should know about the source.
        declared: whether the source lists its classes, so that some may be without images.
    """

    kind: str
    images: Mapping[str, LabelledImages]
    warnings: tuple[str, ...] = ()
    declared: bool = False

    @property
    def class_names(self) -> tuple[str, ...]:
        """The same for every split."""
        return next(iter(self.images.values())).class_names


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
        digests: by split, (N, 32): of the content of each of its images, in their order.
    """

    train: LabelledImages
    validation: LabelledImages | None
    test: LabelledImages | None
    class_names: tuple[str, ...]
    fingerprint: str
    split: dict[str, Any] = field(default_factory=dict)
    skipped: tuple[tuple[str, str], ...] = ()
    warnings: tuple[str, ...] = ()
    digests: Mapping[str, Digests] = field(default_factory=dict)


def draw(
    labels: NDArray[np.int64], digests: Digests, fraction: float, key: str
) -> NDArray[np.bool]:
    """Choose a fraction of every class by the content of its images.

    Each class of n images gives fraction * n of them, rounded, but at least 1 if it has 3 or more,
    and never all.

    Args:
        labels: (N,).
        digests: (N, 32), the content of each image.
        fraction: in [0, 1).
        key: draws with different keys are independent.

    Returns:
        (N,), True for those drawn.
    """
    keys = [hashlib.sha256(key.encode() + row.tobytes()).digest() for row in digests]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    chosen = np.zeros(len(labels), dtype=np.bool)
    left = [share(count, fraction) for count in np.bincount(labels).tolist()]
    for index in order:
        label = int(labels[index])
        if left[label]:
            chosen[index] = True
            left[label] -= 1
    return chosen


def share(count: int, fraction: float) -> int:
    """How many of a class's images are drawn.

    >>> [share(count, 0.1) for count in (1, 2, 3, 14, 15, 5000)]
    [0, 0, 1, 1, 2, 500]
    """
    if fraction == 0 or count == 0:
        return 0
    wished = int(fraction * count + 0.5)
    return min(max(wished, 1 if count >= 3 else 0), count - 1)


def fingerprint(class_names: Sequence[str], parts: Mapping[str, tuple[Any, Digests]]) -> str:
    """SHA-256 over the class names and every image's split, label and content, sorted.

    Args:
        class_names: in the order of the labels.
        parts: by split, the labels (N,) and the digests (N, 32).
    """
    whole = hashlib.sha256("\n".join(class_names).encode())
    for name in sorted(parts):
        labels, digests = parts[name]
        rows = [b"%d " % label + row.tobytes() for label, row in zip(labels, digests, strict=True)]
        whole.update(f"\n\n{name} {len(rows)}\n".encode())
        whole.update(b"".join(sorted(rows)))
    return whole.hexdigest()


def counts(images: LabelledImages | None) -> dict[str, int]:
    """How many images each class has, by name."""
    if images is None:
        return {}
    numbers = np.bincount(images.labels, minlength=len(images.class_names))
    return dict(zip(images.class_names, numbers.tolist(), strict=True))
