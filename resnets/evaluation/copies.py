"""Images that the network is judged by and that are among its training images, too."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from resnets.data.labelled import LabelledImages
from resnets.data.storage import Pixels, in_threads
from resnets.errors import ContentError
from resnets.evaluation.duplicates import Pair, Prints, across, joined, prints, twin_threshold
from resnets.evaluation.logits import Booleans, Integers
from resnets.evaluation.proportion import Proportion
from resnets.images.room import IN_USE

COMPARED = 2_000  # training images decoded to look for copies of those that are measured on
CHUNK = 64  # images that a thread decodes before it hands them on


@dataclass(frozen=True)
class Copies:
    """What is there twice.

    Attributes:
        pairs: a training image (`first`) and one to judge by (`second`) that show the same, the
            most alike first. Each image to judge by comes once at most.
        looked_at: number of images to judge by that were compared.
        total: number of all of them.
        among: number of training images that they were compared with.
        train_total: number of all training images.
    """

    pairs: tuple[Pair, ...]
    looked_at: int
    total: int
    among: int
    train_total: int

    @property
    def share(self) -> float:
        """Of the images looked at, 0 to 1."""
        return len(self.pairs) / self.looked_at

    @property
    def everything(self) -> bool:
        """Whether every image was compared with every other."""
        return (self.looked_at, self.among) == (self.total, self.train_total)


@dataclass(frozen=True)
class NearDuplicates:
    """How many of the images that are measured look like training images.

    Attributes:
        found: how many of those that were looked at.
        looked_at: how many were compared.
        among: with how many training images.
        train_total: of how many.
        right_without: accuracy on the other images; None if there are none, or nobody asked.
    """

    found: int
    looked_at: int
    among: int
    train_total: int
    right_without: Proportion | None

    def in_words(self) -> str:
        """For a person."""
        text = f"{self.found:,} of {self.looked_at:,} images look like a training image"
        if self.among < self.train_total:
            text += f" ({self.among:,} of {self.train_total:,} were compared)"
        if not self.found or self.right_without is None:
            return text
        return f"{text}; top-1 accuracy without them {self.right_without}"

    def to_dict(self) -> dict[str, Any]:
        """For JSON: plain values only."""
        without = self.right_without
        return {
            "found": self.found,
            "looked_at": self.looked_at,
            "compared_with": self.among,
            "training_images": self.train_total,
            "top1_without": None if without is None else without.to_dict(),
        }


def near_duplicates(copies: Copies | None, right: Booleans | None) -> NearDuplicates | None:
    """The copies in numbers.

    Args:
        copies: what was found, if there was something to compare.
        right: (N,), whether each image is predicted rightly; None if that is not asked for.
    """
    if copies is None:
        return None
    return NearDuplicates(
        len(copies.pairs),
        copies.looked_at,
        copies.among,
        copies.train_total,
        None if right is None else accuracy_without(copies, right),
    )


def accuracy_without(copies: Copies, right: Booleans) -> Proportion | None:
    """The accuracy on the images that are no copies; None if there are none.

    Args:
        copies: among the images.
        right: (N,), whether each image is predicted rightly.
    """
    kept = np.delete(right, [pair.second for pair in copies.pairs])
    return Proportion(int(kept.sum()), len(kept)) if len(kept) else None


def found_new(copies: Copies) -> Integers:
    """The numbers of the images that were looked at and are no copies."""
    looked_at = evenly(copies.total, copies.looked_at)
    return np.setdiff1d(looked_at, [pair.second for pair in copies.pairs])


def find_copies(images: LabelledImages, train: LabelledImages, most: int) -> Copies | None:
    """Compare images with training images.

    Args:
        images: those to judge by.
        train: those that the network could learn from.
        most: training images to decode, at least 1, and half as many of those to judge by; where
            there are more, they are taken evenly from the whole set. Unreadable ones are left out.

    Returns:
        What was found; None if there is nothing to compare.
    """
    new, wanted = seen(images, max(1, most // 2))
    known, among = seen(train, most)
    if not len(wanted) or not len(among):
        return None
    threshold = twin_threshold(np.concatenate([known.hashes, new.hashes]))
    pairs = [
        Pair(int(among[pair.first]), int(wanted[pair.second]), pair.similarity, pair.exact)
        for pair in across(known, new, threshold)
    ]
    pairs.sort(key=lambda pair: (-pair.exact, -pair.similarity))
    return Copies(tuple(pairs), len(wanted), len(images), len(among), len(train))


def seen(images: LabelledImages, most: int) -> tuple[Prints, Integers]:
    """What images are compared by, and the numbers (M,) of those that can be read."""
    chosen = evenly(len(images), most)
    readable: list[int] = []

    def look(part: range) -> tuple[Prints, list[int]]:
        numbers: list[int] = []
        with IN_USE:
            return prints(decoded(images, chosen[part.start : part.stop], numbers)), numbers

    found = []
    for each, numbers in in_threads(look, len(chosen), CHUNK):
        found.append(each)
        readable += numbers
    return joined(found), np.array(readable, dtype=np.int64)


def evenly(total: int, most: int) -> Integers:
    """The numbers of at most so many of all images, from the whole set."""
    return np.linspace(0, total - 1, min(most, total)).astype(np.int64)


def decoded(images: LabelledImages, numbers: Integers, readable: list[int]) -> Iterator[Pixels]:
    """The images that can be read; their numbers go into `readable`."""
    for number in map(int, numbers):
        try:
            pixels = images.image(number)
        except ContentError:
            continue
        readable.append(number)
        yield pixels
        del pixels  # before the next is decoded
