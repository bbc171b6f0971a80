"""Duplicate images: the same pixels, or the same picture in another rendering.

A picture is recognised by its perceptual hash: the coarse part of its detail, as the 63 lowest
coefficients of a cosine transform of its grey rendering on 32 x 32 pixels, each multiplied by its
frequency. That undoes that pictures have less contrast the finer the detail (Field 1987), so that
every coefficient counts alike. Their signs would be the usual 64-bit hash; kept as numbers they
tell duplicates from look-alikes better. Two pictures are as similar as the cosine between their
hashes, -1 to 1. Brightness, contrast, colour, size and compression hardly change it; a crop by
3 % at each side or a shift by one pixel of 32 hides some; a mirrored picture is another one.
Pictures that all have the same border or background are alike in what they have in common: a pair
must also be alike in the rest.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from resnets.data.labelled import LabelledImages
from resnets.data.storage import Pixels, in_threads
from resnets.errors import ContentError
from resnets.evaluation.logits import Booleans, Integers
from resnets.evaluation.proportion import Proportion
from resnets.format import plural
from resnets.images import from_pixels
from resnets.images.memory_budget import IN_USE
from resnets.images.resizing import resized_to
from resnets.matrices import product

Hashes = NDArray[np.float32]  # (N, 63), each of length 1, or of zeros for a picture of one grey

_SIDE = 32  # pixels
_COEFFICIENTS = 8  # coefficients in each direction
LEAST = 0.9  # least similarity of duplicates; see `similarity_threshold`
_GREATEST = 0.995
_ALIKE_IN_DETAIL = 0.75  # least similarity of duplicates after what all images share is removed
_OTHERS = 10  # least number of images besides a pair to tell what all images share
_BLOCK = 2048  # images compared at a time: 16 MB of similarities


@dataclass(frozen=True)
class Fingerprints:
    """What the images of a set are compared by.

    Attributes:
        digests: of the pixels of each image, N of them; equal where all pixels are.
        hashes: (N, 63), the perceptual ones.
    """

    digests: tuple[bytes, ...]
    hashes: Hashes

    def __len__(self) -> int:
        return len(self.digests)


@dataclass(frozen=True)
class Pair:
    """Two images that show the same: their indices in their sets; `similarity` is 1 if exact."""

    first: int
    second: int
    similarity: float
    exact: bool


def fingerprints(images: Iterable[Pixels]) -> Fingerprints:
    """Digests and perceptual hashes of images (H, W, C)."""
    digests, squares = [], []
    for image in images:
        digests.append(_digest(image))
        squares.append(_grey_square(image))
        del image  # before the next is decoded
    return Fingerprints(
        tuple(digests), _hashes(np.array(squares, np.uint8).reshape(-1, _SIDE, _SIDE))
    )


def concatenated(parts: Sequence[Fingerprints]) -> Fingerprints:
    """The fingerprints of several sets as those of one."""
    digests = [digest for part in parts for digest in part.digests]
    return Fingerprints(
        tuple(digests), np.concatenate([fingerprints([]).hashes, *(p.hashes for p in parts)])
    )


def _digest(image: Pixels) -> bytes:
    """16 bytes that differ where the size, channels or pixels of images differ. (H, W, C)."""
    shape = repr(image.shape).encode()
    return hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16, key=shape).digest()


def _grey_square(image: Pixels) -> Pixels:
    """The picture in grey on 32 x 32 pixels, squeezed if it was not square. (H, W, C)."""
    return resized_to(from_pixels(image, 1), _SIDE, _SIDE, "box")[..., 0]


def _hashes(squares: Pixels) -> Hashes:
    """Perceptual hashes of grey pictures. (N, 32, 32) -> (N, 63)."""
    waves = np.arange(_COEFFICIENTS)
    angles = np.pi * np.outer(waves, np.arange(_SIDE) + 0.5) / _SIDE
    transform = (np.cos(angles) * np.where(waves == 0, np.sqrt(0.5), 1)[:, None]).astype(np.float32)
    frequency = np.hypot(*np.meshgrid(waves, waves)).astype(np.float32)
    coefficients = np.empty((len(squares), _COEFFICIENTS * _COEFFICIENTS - 1), np.float32)
    for start in range(0, len(squares), _BLOCK):
        part = squares[start : start + _BLOCK].astype(np.float32)
        weighted = product(product(transform, part), transform.T) * frequency
        coefficients[start : start + _BLOCK] = weighted.reshape(len(part), -1)[:, 1:]
    length = np.linalg.norm(coefficients, axis=1, keepdims=True)
    return np.where(length > 1, coefficients / np.maximum(length, 1), 0)


def similarity_threshold(hashes: Hashes) -> float:
    """The similarity at and above which two images of this set count as the same picture.

    0.9 for photos. Where images are all much alike, as digits are, it is higher: where of N images
    no more than N/1000 pairs of different pictures are expected to be so similar. That is worked
    out from the 8 N and the 64 N most similar pairs, hardly any of which can be duplicates: the
    number of chance pairs falls exponentially with artanh(similarity).

    Args:
        hashes: (N, 63), of distinct images.
    """
    total = len(hashes)
    if total < 256:  # too few to estimate, but few images also have few chance pairs
        return LEAST
    rows = np.linspace(0, total - 1, min(total, 1 + 20_000_000 // total)).astype(int)
    similarity = product(hashes[rows], hashes.T).ravel()
    ranks = [int(similarity.size * (1 - share / total)) for share in (128, 16)]
    similarity.partition(ranks)
    common, rare = np.arctanh(np.clip(similarity[ranks], 0, 0.999))
    target = rare + np.log(8 * 1000) / np.log(8) * (rare - common)
    return float(np.clip(np.tanh(target), LEAST, _GREATEST))


def duplicates_within(images: Fingerprints, threshold: float) -> list[Pair]:
    """Each image that repeats an earlier one, with that one (the first of them if exact)."""
    pairs = _same_digests(images, images)
    repeated = {pair.second for pair in pairs}
    rest = np.array([i for i in range(len(images)) if i not in repeated], dtype=np.int64)
    hashes = images.hashes
    near = _pairs_above(rest, rest, _best_matches(hashes[rest]), threshold)
    return pairs + _alike_in_detail(near, hashes, hashes, hashes)


def duplicates_across(known: Fingerprints, new: Fingerprints, threshold: float) -> list[Pair]:
    """Each image of `new` that is also in `known`, with the most similar one there."""
    pairs = _same_digests(known, new)
    repeated = {pair.second for pair in pairs}
    rest = np.array([i for i in range(len(new)) if i not in repeated], dtype=np.int64)
    matches = _best_matches(new.hashes[rest], known.hashes)
    near = _pairs_above(np.arange(len(known)), rest, matches, threshold)
    everything = np.concatenate([known.hashes, new.hashes])
    return pairs + _alike_in_detail(near, known.hashes, new.hashes, everything)


def _alike_in_detail(
    pairs: list[Pair], known: Hashes, new: Hashes, everything: Hashes
) -> list[Pair]:
    """The pairs that are still alike when what all other images share is removed.

    Args:
        pairs: of indices into `known` and `new`.
        known: (N, 63).
        new: (M, 63).
        everything: (L, 63), of all images that these are among.
    """
    others = len(everything) - 2
    if others < _OTHERS or not pairs:
        return pairs
    first = known[[pair.first for pair in pairs]].astype(np.float64)
    second = new[[pair.second for pair in pairs]].astype(np.float64)
    common = (everything.sum(axis=0, dtype=np.float64) - first - second) / others
    one, other = first - common, second - common
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    alike = (one * other).sum(axis=1) >= _ALIKE_IN_DETAIL * lengths
    return [pair for pair, same in zip(pairs, alike.tolist(), strict=True) if same]


def _same_digests(known: Fingerprints, new: Fingerprints) -> list[Pair]:
    """Images of `new` with exactly the pixels of one in `known`; in one set, of an earlier one."""
    first: dict[bytes, int] = {}
    for index, value in enumerate(known.digests):
        first.setdefault(value, index)
    matches = [(first.get(value), index) for index, value in enumerate(new.digests)]
    return [
        Pair(earlier, index, 1.0, exact=True)
        for earlier, index in matches
        if earlier is not None and (known is not new or earlier != index)
    ]


def _pairs_above(
    known: Integers, new: Integers, matches: tuple[Integers, Hashes], threshold: float
) -> list[Pair]:
    """The matches that reach the threshold, as pairs of the indices `known` and `new`."""
    places, similarity = matches
    return [
        Pair(int(known[places[i]]), int(new[i]), float(min(similarity[i], 1)), exact=False)
        for i in np.flatnonzero(similarity >= threshold)
    ]


def _best_matches(hashes: Hashes, known: Hashes | None = None) -> tuple[Integers, Hashes]:
    """For each image the most similar in `known`; without `known`, among the images before it.

    Args:
        hashes: (M, 63).
        known: (N, 63).

    Returns:
        Its index (M,), -1 if there is none, and the similarity (M,), 0 to 1.
    """
    others = hashes if known is None else known
    places = np.full(len(hashes), -1)
    best = np.zeros(len(hashes), np.float32)
    for top in range(0, len(hashes), _BLOCK):
        rows = slice(top, top + _BLOCK)
        for left in range(0, len(others) if known is not None else top + 1, _BLOCK):
            similarity = product(hashes[rows], others[left : left + _BLOCK].T)
            if known is None and left == top:
                similarity[np.triu_indices(len(similarity))] = 0
            better = np.flatnonzero(similarity.max(axis=1) > best[rows])
            column = similarity[better].argmax(axis=1)
            best[top + better] = similarity[better, column]
            places[top + better] = left + column
    return places, best


COMPARED = (
    2_000  # training and validation images decoded to look for duplicates of the evaluated images
)
_MOST_WITHIN = 20_000  # photos of a set that are compared with one another
_LEAST_SIDE = 64  # pixels: images whose shorter side is below that look alike by chance
_SIDES = 16  # images whose sides are looked at; their median counts
_CHUNK = 64  # images that a thread decodes at a time


@dataclass(frozen=True)
class Duplicates:
    """Duplicates of images that a network has seen, among the images of an evaluation.

    Attributes:
        pairs: a seen image (`first`) and an evaluated one (`second`) that show the same, the
            most similar first. Each evaluated image comes once at most.
        looked_at: number of evaluated images that were compared.
        total: number of all evaluated images.
        among: number of seen images that they were compared with.
        train_total: number of all seen images.
        alike: pairs of evaluated images that show the same, each a later one with an earlier one.
    """

    pairs: tuple[Pair, ...]
    looked_at: int
    total: int
    among: int
    train_total: int
    alike: tuple[Pair, ...] = ()

    @property
    def groups(self) -> int:
        """How many groups of two or more images that show the same the evaluated images have."""
        first: dict[int, int] = {}  # of each image that repeats one, the first of its group
        for pair in sorted(self.alike, key=lambda pair: pair.second):
            first[pair.second] = first.get(pair.first, pair.first)
        return len(set(first.values()))

    @property
    def share(self) -> float:
        """The share of the compared images that are duplicates, 0 to 1."""
        return len(self.pairs) / self.looked_at

    @property
    def everything(self) -> bool:
        """Whether every image was compared with every other."""
        return (self.looked_at, self.among) == (self.total, self.train_total)


@dataclass(frozen=True)
class NearDuplicates:
    """How many of the evaluated images look like training or validation images.

    Attributes:
        count: number of near-duplicates.
        looked_at: number of evaluated images that were compared.
        among: number of seen images that they were compared with.
        train_total: number of all seen images.
        right_without: accuracy on the other images; None if there are none, or it was not asked
            for.
        groups: number of groups of evaluated images that look like one another.
        repeated: number of images of these groups besides the first of each.
    """

    count: int
    looked_at: int
    among: int
    train_total: int
    right_without: Proportion | None
    groups: int = 0
    repeated: int = 0

    @property
    def dependent(self) -> str:
        """That evaluated images look like one another, and what follows; empty if none do."""
        if not self.groups:
            return ""
        images = f"{self.groups + self.repeated:,} of {plural(self.looked_at, 'image')}"
        return (
            f"{images} look like one another, in {plural(self.groups, 'group')}: they are right or "
            "wrong together, so that intervals are too narrow (resnets doctor lists them)"
        )

    def in_words(self) -> str:
        """One sentence for a user."""
        look = "looks" if self.count == 1 else "look"
        evaluated = plural(self.looked_at, "image")
        text = f"{self.count:,} of {evaluated} {look} like a training or validation image"
        if self.among < self.train_total:
            text += f" ({self.among:,} of {self.train_total:,} were compared)"
        if not self.count or self.right_without is None:
            return text
        return f"{text}; top-1 accuracy without them {self.right_without}"

    def to_dict(self) -> dict[str, Any]:
        """For JSON: plain values only."""
        without = self.right_without
        return {
            "found": self.count,
            "looked_at": self.looked_at,
            "compared_with": self.among,
            "training_images": self.train_total,
            "top1_without": None if without is None else without.to_dict(),
            "alike": {"groups": self.groups, "images": self.groups + self.repeated},
        }


def near_duplicates(duplicates: Duplicates | None, right: Booleans | None) -> NearDuplicates | None:
    """The number of duplicates, and the accuracy without them.

    Args:
        duplicates: see `find_duplicates`; None if there was nothing to compare with.
        right: (N,), whether each prediction is right; None leaves the accuracy out.
    """
    if duplicates is None:
        return None
    return NearDuplicates(
        len(duplicates.pairs),
        duplicates.looked_at,
        duplicates.among,
        duplicates.train_total,
        None if right is None else accuracy_without(duplicates, right),
        duplicates.groups,
        len(duplicates.alike),
    )


def accuracy_without(duplicates: Duplicates, right: Booleans) -> Proportion | None:
    """The accuracy on the images that are not duplicates; None if there are none.

    Args:
        duplicates: among the images.
        right: (N,), whether each prediction is right.
    """
    rest = np.delete(right, [pair.second for pair in duplicates.pairs])
    return Proportion(int(rest.sum()), len(rest)) if len(rest) else None


def indices_of_new(duplicates: Duplicates) -> Integers:
    """The indices of the compared images that are not duplicates."""
    looked_at = _evenly_spaced(duplicates.total, duplicates.looked_at)
    return np.setdiff1d(looked_at, [pair.second for pair in duplicates.pairs])


class Pictures(Protocol):
    """Images that are read by their number, such as labelled ones."""

    def __len__(self) -> int:
        """How many there are."""

    def image(self, index: int, /) -> Pixels:
        """The pixels of an image, (H, W, C) uint8. Raises ContentError if it cannot be read."""


def find_duplicates(images: Pictures, train: LabelledImages, most: int) -> Duplicates | None:
    """Compare images with those that a network has seen.

    Args:
        images: to evaluate a network on.
        train: images that the network may have been trained or validated on.
        most: of these, images to decode, at least 1, and half as many of the others; of more, a
            sample at even distances is taken. Unreadable images are left out.

    Returns:
        The duplicates; None if there is nothing to compare.
    """
    new, indices = _fingerprint_sample(images, max(1, most // 2))
    known, among = _fingerprint_sample(train, most)
    if not len(indices) or not len(among):
        return None
    threshold = similarity_threshold(np.concatenate([known.hashes, new.hashes]))
    pairs = [
        Pair(int(among[pair.first]), int(indices[pair.second]), pair.similarity, pair.exact)
        for pair in duplicates_across(known, new, threshold)
    ]
    pairs.sort(key=lambda pair: (-pair.exact, -pair.similarity))
    alike = [
        replace(pair, first=int(indices[pair.first]), second=int(indices[pair.second]))
        for pair in duplicates_within(new, similarity_threshold(new.hashes))
    ]
    if alike and not _large_enough(images):
        alike = []
    return Duplicates(tuple(pairs), len(indices), len(images), len(among), len(train), tuple(alike))


def look_alikes(images: LabelledImages) -> Booleans:
    """Which photos look like an earlier one of their class, (N,).

    None where there are too many, or they are small: different digits look alike.
    """
    alike = np.zeros(len(images), np.bool)
    if len(images) > _MOST_WITHIN or not _large_enough(images):
        return alike
    prints, readable = _fingerprint_sample(images, _MOST_WITHIN)
    for pair in duplicates_within(prints, similarity_threshold(prints.hashes)):
        first, second = readable[pair.first], readable[pair.second]
        alike[second] = images.labels[first] == images.labels[second]
    return alike


def _large_enough(images: Pictures) -> bool:
    """Whether images are so large that different ones rarely look alike, as digits do."""
    some = _evenly_spaced(len(images), _SIDES)
    sides = [min(pixels.shape[:2]) for pixels in _decoded(images, some, [])]
    return bool(sides) and float(np.median(sides)) >= _LEAST_SIDE


def _fingerprint_sample(images: Pictures, most: int) -> tuple[Fingerprints, Integers]:
    """Fingerprints of at most this number of images, and the indices (M,) of the readable ones."""
    chosen = _evenly_spaced(len(images), most)
    readable: list[int] = []

    def fingerprint_part(part: range) -> tuple[Fingerprints, list[int]]:
        numbers: list[int] = []
        with IN_USE:
            return fingerprints(_decoded(images, chosen[part.start : part.stop], numbers)), numbers

    parts = []
    for prints, numbers in in_threads(fingerprint_part, len(chosen), _CHUNK):
        parts.append(prints)
        readable += numbers
    return concatenated(parts), np.array(readable, dtype=np.int64)


def _evenly_spaced(total: int, most: int) -> Integers:
    """At most `most` of the indices 0 ... total - 1, at even distances."""
    return np.linspace(0, total - 1, min(most, total)).astype(np.int64)


def _decoded(images: Pictures, numbers: Integers, readable: list[int]) -> Iterator[Pixels]:
    """The images that can be read; their indices go into `readable`."""
    for number in map(int, numbers):
        try:
            pixels = images.image(number)
        except ContentError:
            continue
        readable.append(number)
        yield pixels
        del pixels  # before the next is decoded
