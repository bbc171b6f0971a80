"""What may be wrong with a data set: one function per kind of fault, each from counts to sentences.

An error would mislead training or its scores: images that cannot be read, a class that cannot be
learnt, one image under two labels, one image in two splits. A warning may. A note is good to know.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from resnets.data.grouping import Grouping
from resnets.data.names import alike, listed
from resnets.data.splits import Parts, counts
from resnets.evaluation.inspection import Inspected

if TYPE_CHECKING:
    from resnets.evaluation.logits import Booleans

Level = Literal["error", "warning", "note"]
Classes = Mapping[str, int]  # number of images by class

UNEVEN = 10  # largest class to smallest, from which on it is worth a word
FEW = 10  # images of a class
FEW_GROUPS = 3
SHIFT = 0.05  # share of images whose class would have to change to make two splits alike
CHANCE = 0.001  # p-value below which such a shift is none
SMALL, LARGE = 8, 50_000_000  # pixels: of the shorter side, and in all
FACTOR = 64  # in area, from the middle of the data set
SLIM = 10  # longer side to shorter

ODD: dict[str, tuple[Level, str]] = {
    "animated": ("warning", "are animated or have several pages; only the first one is used"),
    "colours": ("note", "have colours for print (CMYK) or others that are not RGB; converted"),
    "deep": ("note", "have more than 8 bits a value; scaled to 8"),
    "rotated": ("note", "are turned by their EXIF data; used as a person sees them"),
    "transparent": ("note", "have transparent parts; shown on white"),
    "ending": ("note", "are of another format than their name says; read by their content"),
}


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes:
        kind: a word for programs.
        level: how bad it is.
        text: what it is, in how many images, and what to do.
        images: the images concerned, each by its name and a detail.
    """

    kind: str
    level: Level
    text: str
    images: tuple[str, ...] = ()


def class_findings(parts: Parts) -> Iterator[Finding]:
    """Faults of the classes, by their numbers of images alone."""
    same = alike(parts.class_names)
    if same:
        text = f"the classes {same[0]!r} and {same[1]!r} differ only by case: rename or merge them"
        yield Finding("alike", "error", text)
    number = {split: counts(images) for split, images in parts.images.items()}
    learning = number.get("all") or number.get("train")
    if not learning:
        yield Finding("no-training", "error", f"no training images, only {listed([*number])}")
        return
    present = {name: count for name, count in learning.items() if count}
    if len(present) < 2:
        text = f"one class only ({listed([*present])}): there is nothing to tell apart"
        yield Finding("one-class", "error", text)
        return
    empty = [name for name in learning if name not in present]
    others = {split: own for split, own in number.items() if own is not learning}
    yield from missing_classes(empty, present, others, parts.declared)
    yield from balance(present)
    for split, own in others.items():
        yield from shifted(present, own, split)


def group_findings(parts: Parts, grouping: Grouping) -> Iterator[Finding]:
    """Groups of what belongs together that are in two splits, and classes of very few groups."""
    for first, second, both in grouping.in_two():
        text = (
            f"{len(both):,} groups are in {first} and in {second}: the score of {second} flatters"
        )
        yield Finding("group-leak", "error", text, tuple(both))
    split = next((name for name in ("train", "all") if name in parts.images), None)
    if split is None:
        return
    labels, groups = parts.images[split].labels, grouping.numbers[split]
    few = {
        name: count
        for label, name in enumerate(parts.class_names)
        if 0 < (count := len(np.unique(groups[labels == label]))) < FEW_GROUPS
    }
    if few:
        text = (
            f"fewer than {FEW_GROUPS} groups of {listed([*few])}: too few to train, validate and "
            "test on different ones"
        )
        yield Finding("few-groups", "warning", text)
    yield Finding("groups", "note", f"{len(grouping.names):,} groups of what belongs together")


def missing_classes(
    empty: Sequence[str], present: Classes, others: Mapping[str, Classes], declared: bool
) -> Iterator[Finding]:
    """Classes without images to learn from, or without any to be judged by."""
    for split, own in others.items():
        unknown = [name for name in empty if own[name]]
        if unknown:
            text = f"{listed(unknown)} in {split} but not in train: never learnt, always wrong"
            yield Finding("missing-class", "error", text)
        unseen = [name for name in present if not own[name]]
        if unseen:
            text = f"{split} has no images of {listed(unseen)}: its scores say nothing of them"
            yield Finding("missing-class", "warning", text)
    nowhere = [name for name in empty if not any(own[name] for own in others.values())]
    if nowhere:
        text = f"no images of {listed(nowhere)}: add some, or delete the class"
        yield Finding("empty-class", "warning" if declared else "error", text)


def balance(present: Classes) -> Iterator[Finding]:
    """Classes of few images, and classes of many more than others."""
    few = [f"{name} ({count})" for name, count in present.items() if count < FEW]
    if few:
        named = listed(few).replace("'", "")
        text = f"fewer than {FEW} training images of {named}: hardly enough to learn from"
        yield Finding("few", "warning", text)
    most, least = (pick(present, key=present.__getitem__) for pick in (max, min))
    if present[most] >= UNEVEN * present[least]:
        text = (
            f"{most!r} has {present[most]:,} training images, {least!r} has {present[least]:,}: "
            "balance them in training, and judge by the recall of each class, not by accuracy"
        )
        yield Finding("uneven", "warning", text)


def shifted(learning: Classes, own: Classes, split: str) -> Iterator[Finding]:
    """A split whose classes have other shares than in training, by more than chance."""
    from scipy.stats import chi2_contingency

    names = [name for name in learning if own[name]]
    table = np.array([[learning[name] for name in names], [own[name] for name in names]])
    if len(names) < 2:
        return
    shares = table / table.sum(axis=1, keepdims=True)
    gaps = shares[1] - shares[0]
    moved = np.abs(gaps).sum() / 2
    if moved > SHIFT and chi2_contingency(table).pvalue < CHANCE:
        worst = int(np.abs(gaps).argmax())
        text = (
            f"{split} has other shares of the classes than train ({moved:.0%} moved), most of all "
            f"{names[worst]!r}: {shares[0, worst]:.1%} of train, {shares[1, worst]:.1%} of {split}"
        )
        yield Finding("shift", "warning", text)


def image_findings(splits: Mapping[str, Inspected]) -> Iterator[Finding]:
    """Images that cannot be read, and odd ones."""
    broken = [
        f"{split.images.names[index]}: {reason}"
        for split in splits.values()
        for index, reason in split.unreadable
    ]
    if broken:
        text = f"{plural(len(broken))} cannot be read: delete them, or train with --skip-unreadable"
        yield Finding("unreadable", "error", text, tuple(broken))
    for kind, (level, what) in ODD.items():
        named = tuple(
            f"{split.images.names[index]}: {detail}"
            for split in splits.values()
            for index, found, detail in split.odd
            if found == kind
        )
        if named:
            yield Finding(kind, level, f"{plural(len(named))} {what}", named)
    yield from white_findings(splits)
    flat = [
        split.images.names[int(index)]
        for split in splits.values()
        for index in split.readable[split.constant]
    ]
    if flat:
        text = f"{plural(len(flat))} of one colour all over: nothing can be learnt from them"
        yield Finding("constant", "warning", text, tuple(flat))
    yield from size_findings(splits)


def white_findings(splits: Mapping[str, Inspected]) -> Iterator[Finding]:
    """Which value was taken for white in images that do not say it, and what is above it."""
    white = next(iter(splits.values())).images.white
    for sentence in white.in_words():
        text = f"{sentence[0].lower()}{sentence[1:]}, by a sample of the training images"
        yield Finding("white", "note", text)
    above = [(split, *each) for split in splits.values() for each in split.clipped]
    if above:
        named = tuple(
            f"{split.images.names[index]}: {found.values:,} values, up to {found.largest:,.6g}"
            for split, index, found in above
        )
        text = f"{plural(len(above))} have values above white, which are clipped"
        yield Finding("clipped", "warning", text, named)


def size_findings(splits: Mapping[str, Inspected]) -> Iterator[Finding]:
    """Images much smaller, much larger or much slimmer than the others."""
    sizes = np.concatenate([split.sizes for split in splits.values()])
    areas, short, long = (sizes.prod(axis=1), sizes.min(axis=1), sizes.max(axis=1))
    named = [
        f"{split.images.names[int(index)]}: {width}x{height}"
        for split in splits.values()
        for index, (width, height) in zip(split.readable, split.sizes, strict=True)
    ]
    middle = float(np.median(areas)) if len(sizes) else 0.0
    typical = f"; the typical one has {middle:,.0f} pixels"
    kinds: tuple[tuple[str, Level, str, Booleans], ...] = (
        ("tiny", "warning", f"are tiny{typical}", (areas * FACTOR < middle) | (short < SMALL)),
        ("huge", "note", f"are huge{typical}", (areas > middle * FACTOR) | (areas > LARGE)),
        ("slim", "warning", f"are over {SLIM} times as long as wide", long > short * SLIM),
    )
    for kind, level, what, chosen in kinds:
        if chosen.any():
            some = tuple(named[i] for i in np.flatnonzero(chosen))
            yield Finding(kind, level, f"{plural(len(some))} {what}", some)


def plural(count: int) -> str:
    """A number of images.

    >>> plural(1), plural(1200)
    ('1 image', '1,200 images')
    """
    return f"{count:,} image" + ("s" if count != 1 else "")
