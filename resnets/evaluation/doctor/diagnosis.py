"""Faults of a data set, found before any epoch is spent on it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from resnets.data.grouping import Grouping
from resnets.data.sources.checks import is_multi_label
from resnets.data.sources.names import alike, listed
from resnets.data.sources.table_columns import MULTI_LABEL
from resnets.data.splits import SourceContent, counts
from resnets.evaluation.doctor.inspection import Inspected
from resnets.format import percent, plural, value_in_data
from resnets.notebook import html_table

if TYPE_CHECKING:
    from resnets.evaluation.logits import Booleans
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from resnets.data.grouping import find_groups
from resnets.data.labelled import LabelledImages
from resnets.data.white_level import find_white_level
from resnets.evaluation.doctor.duplicates import (
    LEAST,
    Pair,
    duplicates_across,
    duplicates_within,
    similarity_threshold,
)
from resnets.evaluation.doctor.inspection import Sample, inspect

Level = Literal["error", "warning", "note"]
_Classes = Mapping[str, int]  # number of images by class

_SHOWN = 3  # images of a finding in a notebook's table
_UNEVEN = 10  # least ratio of the largest to the smallest class that is worth a warning
_FEW = 10  # images of a class
_FEW_GROUPS = 3
_SHIFT = 0.05  # least share of images that would have to change class to make two splits alike
_CHANCE = 0.001  # p-value above which such a shift counts as chance
_SMALL, _LARGE = 8, 50_000_000  # pixels: of the shorter side, and in all
_FACTOR = 64  # ratio of the area to the median area
_SLIM = 10  # ratio of the longer to the shorter side

_ODDITIES: dict[str, tuple[Level, str]] = {
    "animated": ("warning", "with several frames or pages; only the first one is used"),
    "colours": ("note", "with colours for print (CMYK) or others that are not RGB; converted"),
    "deep": ("note", "with more than 8 bits a value; scaled to 8"),
    "rotated": ("note", "with a rotation in the EXIF data; used as in viewers"),
    "transparent": ("note", "with transparent parts; shown on white"),
    "ending": ("note", "with a name for another format; read by content"),
}


@dataclass(frozen=True)
class Finding:
    """One fault or oddity of a data set.

    Attributes:
        kind: an identifier for programs, such as "leak".
        level: how serious it is.
        text: what the fault is, in how many images, and what to do.
        images: the images concerned: name and detail of each.
    """

    kind: str
    level: Level
    text: str
    images: tuple[str, ...] = ()


def _class_findings(content: SourceContent) -> Iterator[Finding]:
    """Faults of the classes that their numbers of images show."""
    same = alike(content.class_names)
    if same:
        text = f"the classes {same[0]!r} and {same[1]!r} differ only by case: rename or merge them"
        yield Finding("alike", "error", text)
    by_split = {split: counts(images) for split, images in content.images.items()}
    training = by_split.get("all") or by_split.get("train")
    if not training:
        yield Finding("no-training", "error", f"no training images, only {listed([*by_split])}")
        return
    present = {name: count for name, count in training.items() if count}
    if len(present) < 2:
        text = f"one class only ({listed([*present])}): training needs two or more"
        yield Finding("one-class", "error", text)
        return
    empty = [name for name in training if name not in present]
    others = {split: classes for split, classes in by_split.items() if classes is not training}
    yield from _missing_class_findings(empty, present, others, content.declared)
    yield from _balance_findings(present)
    for split, classes in others.items():
        yield from _shift_findings(present, classes, split)


def _group_findings(content: SourceContent, grouping: Grouping) -> Iterator[Finding]:
    """Groups that are in two splits, and classes with very few groups."""
    for first, second, both in grouping.in_two():
        text = (
            f"{plural(len(both), 'group')} with images in both {first} and {second}: the accuracy "
            f"on {second} is too optimistic"
        )
        yield Finding("group-leak", "error", text, tuple(both))
    split = next((name for name in ("train", "all") if name in content.images), None)
    if split is None:
        return
    labels, groups = content.images[split].labels, grouping.numbers[split]
    few = {
        name: count
        for label, name in enumerate(content.class_names)
        if 0 < (count := len(np.unique(groups[labels == label]))) < _FEW_GROUPS
    }
    if few:
        text = (
            f"fewer than {_FEW_GROUPS} groups of {listed([*few])}: too few to train, validate and "
            "test on different groups"
        )
        yield Finding("few-groups", "warning", text)
    yield Finding(
        "groups", "note", f"{plural(len(grouping.names), 'group')} of images that belong together"
    )


def _missing_class_findings(
    empty: Sequence[str], present: _Classes, others: Mapping[str, _Classes], declared: bool
) -> Iterator[Finding]:
    """Classes without training images, and splits without images of a class."""
    for split, classes in others.items():
        unknown = [name for name in empty if classes[name]]
        if unknown:
            text = f"{listed(unknown)} in {split} but not in train: always predicted wrongly"
            yield Finding("missing-class", "error", text)
        unseen = [name for name in present if not classes[name]]
        if unseen:
            text = f"{split} has no images of {listed(unseen)}: its accuracy does not cover them"
            yield Finding("missing-class", "warning", text)
    nowhere = [name for name in empty if not any(counts[name] for counts in others.values())]
    if nowhere:
        text = f"no images of {listed(nowhere)}: add some, or delete the class"
        yield Finding("empty-class", "warning" if declared else "error", text)


def _balance_findings(present: _Classes) -> Iterator[Finding]:
    """Classes with few images, and classes with many more than others."""
    few = [name for name, count in present.items() if count < _FEW]
    if few:
        names = listed(few, counts=present)
        text = f"fewer than {_FEW} training images of {names}: hardly enough to train on"
        yield Finding("few", "warning", text)
    most, least = (pick(present, key=present.__getitem__) for pick in (max, min))
    if present[most] >= _UNEVEN * present[least]:
        text = (
            f"{most!r} has {present[most]:,} training images, {least!r} has {present[least]:,}: "
            "balance them in training (train --balanced-sampling), and look at the recall of each "
            "class, not at accuracy"
        )
        yield Finding("uneven", "warning", text)


def _shift_findings(training: _Classes, other: _Classes, split: str) -> Iterator[Finding]:
    """A split whose shares of the classes differ from those of the training split."""
    from scipy.stats import chi2_contingency

    names = [name for name in training if other[name]]
    table = np.array([[training[name] for name in names], [other[name] for name in names]])
    if len(names) < 2:
        return
    shares = table / table.sum(axis=1, keepdims=True)
    gaps = shares[1] - shares[0]
    shift = np.abs(gaps).sum() / 2
    if shift > _SHIFT and chi2_contingency(table).pvalue < _CHANCE:
        worst = int(np.abs(gaps).argmax())
        text = (
            f"{split} has other shares of the classes than train (shifted by {percent(shift, 0)}), "
            f"most of all {names[worst]!r}: {percent(shares[0, worst])} of train, "
            f"{percent(shares[1, worst])} of {split}"
        )
        yield Finding("shift", "warning", text)


def _image_findings(splits: Mapping[str, Inspected]) -> Iterator[Finding]:
    """Images that cannot be read, and odd ones."""
    broken = [
        f"{split.images.names[index]}: {reason}"
        for split in splits.values()
        for index, reason in split.unreadable
    ]
    if broken:
        text = (
            f"{plural(len(broken), 'image')} cannot be read: "
            f"repair or delete {'it' if len(broken) == 1 else 'them'}, or train with "
            "--skip-unreadable"
        )
        yield Finding("unreadable", "error", text, tuple(broken))
    for kind, (level, text) in _ODDITIES.items():
        details = tuple(
            f"{split.images.names[index]}: {detail}"
            for split in splits.values()
            for index, oddity, detail in split.odd
            if oddity == kind
        )
        if details:
            yield Finding(kind, level, f"{plural(len(details), 'image')} {text}", details)
    yield from _white_findings(splits)
    flat = [
        split.images.names[int(index)]
        for split in splits.values()
        for index in split.readable[split.constant]
    ]
    if flat:
        text = f"{plural(len(flat), 'image')} of a single colour, which shows nothing"
        yield Finding("constant", "warning", text, tuple(flat))
    yield from _size_findings(splits)


def _white_findings(splits: Mapping[str, Inspected]) -> Iterator[Finding]:
    """Which value was used as white where image files do not say it, and values above it."""
    white = next(iter(splits.values())).images.white
    for sentence in white.in_words():
        text = f"{sentence[0].lower()}{sentence[1:]}, by a sample of the training images"
        yield Finding("white", "note", text)
    above = [(split, *image) for split in splits.values() for image in split.clipped]
    if above:
        details = tuple(
            f"{split.images.names[index]}: {plural(values.values, 'value')}, "
            f"up to {value_in_data(values.largest)}"
            for split, index, values in above
        )
        text = f"{plural(len(above), 'image')} with values above white, which are clipped"
        yield Finding("clipped", "warning", text, details)


def _size_findings(splits: Mapping[str, Inspected]) -> Iterator[Finding]:
    """Images that are tiny, huge or very narrow compared with the others."""
    sizes = np.concatenate([split.sizes for split in splits.values()])
    areas, short, long = (sizes.prod(axis=1), sizes.min(axis=1), sizes.max(axis=1))
    details = [
        f"{split.images.names[int(index)]}: {width}x{height}"
        for split in splits.values()
        for index, (width, height) in zip(split.readable, split.sizes, strict=True)
    ]
    median = float(np.median(areas)) if len(sizes) else 0.0
    typical = f"; the typical one has {plural(round(median), 'pixel')}"
    kinds: tuple[tuple[str, Level, str, Booleans], ...] = (
        (
            "tiny",
            "warning",
            f"of tiny size{typical}",
            (areas * _FACTOR < median) | (short < _SMALL),
        ),
        ("huge", "note", f"of huge size{typical}", (areas > median * _FACTOR) | (areas > _LARGE)),
        ("slim", "warning", f"over {_SLIM} times as long as wide", long > short * _SLIM),
    )
    for kind, level, text, chosen in kinds:
        if chosen.any():
            some = tuple(details[i] for i in np.flatnonzero(chosen))
            yield Finding(kind, level, f"{plural(len(some), 'image')} {text}", some)


_ORDER = ("train", "all", "validation", "test")  # of splits
_LEVELS = ("error", "warning", "note")


@dataclass(frozen=True)
class Diagnosis:
    """The findings on a data set.

    Attributes:
        kind: of the source, such as "folder".
        classes: number of images by split and class.
        findings: the errors first.
        similarity: at and above which two images count as the same picture, 0.9 to 1.
    """

    kind: str
    classes: dict[str, dict[str, int]]
    findings: tuple[Finding, ...]
    similarity: float

    @property
    def misleading(self) -> bool:
        """Whether training on this data set, or an accuracy measured on it, would mislead."""
        return any(finding.level == "error" for finding in self.findings)

    def _repr_html_(self) -> str:
        """For notebooks."""
        rows = [
            (finding.level, finding.text, ", ".join(finding.images[:_SHOWN]))
            for finding in self.findings
        ]
        title = "Correct the errors before training" if self.misleading else "No errors"
        return html_table(rows, columns=("level", "finding", "examples"), title=title)

    def to_dict(self) -> dict[str, Any]:
        """For JSON: plain values only."""
        return {"misleading": self.misleading} | asdict(self)


def diagnose(
    content: SourceContent,
    progress: Callable[[int], None] = lambda _: None,
    group_by: str | None = None,
) -> Diagnosis:
    """Look at every image of a data set, and at its classes and splits.

    Args:
        content: what the source holds, unchecked, from `read_source`.
        progress: called with the number of images done since the last call.
        group_by: which images belong together; see `grouping.GroupBy`.

    Raises:
        GroupingError: the images cannot be grouped that way.
    """
    grouping = find_groups(content, content.images, group_by) if group_by is not None else None
    names = sorted(content.images, key=_ORDER.index)
    first = content.images[names[0]]  # train, or all
    sample = Sample(first.storage)
    sampled = LabelledImages(sample, first.labels, first.class_names, first.indices)
    white = find_white_level(sampled).white
    splits = {
        name: inspect(
            content.images[name].with_white(white),
            progress,
            sample.kept if name == names[0] else None,  # splits may share a storage, not images
        )
        for name in names
    }
    similarity = similarity_threshold(
        np.concatenate([split.prints.hashes for split in splits.values()])
    )
    findings = [
        *(Finding("source", "warning", text) for text in content.warnings),
        *_class_findings(content),
        *(_group_findings(content, grouping) if grouping else ()),
        *_image_findings(splits),
        *_duplicate_findings(splits, similarity),
    ]
    return Diagnosis(
        kind=content.kind,
        classes={name: counts(content.images[name]) for name in names},
        findings=tuple(sorted(findings, key=lambda finding: _LEVELS.index(finding.level))),
        similarity=similarity,
    )


def unreadable_source(reason: str) -> Diagnosis:
    """The diagnosis of a source that cannot even be listed."""
    return Diagnosis("unknown", {}, (Finding("source", "error", reason),), LEAST)


def _duplicate_findings(splits: Mapping[str, Inspected], similarity: float) -> Iterator[Finding]:
    """Duplicate images, in one split or in two."""
    duplicates = []
    for second, new in splits.items():
        duplicates.append(
            _DuplicatesBetween(second, second, new, new, duplicates_within(new.prints, similarity))
        )
        for first, known in splits.items():
            if first == second:
                break
            pairs = duplicates_across(known.prints, new.prints, similarity)
            duplicates.append(_DuplicatesBetween(first, second, known, new, pairs))
    clashes = tuple(
        text
        for pairs_between in duplicates
        for text in pairs_between.pair_names(exact=True, agree=False)
    )
    if clashes:
        text = (
            f"{plural(len(clashes), 'image')} {'has' if len(clashes) == 1 else 'have'} the same "
            "pixels as another with another label: keep one label"
        )
        total = sum(len(split.prints.hashes) for split in splits.values())
        if is_multi_label(len(clashes), total - len(clashes)):
            text += f" ({MULTI_LABEL})"
        yield Finding("two-labels", "error", text, clashes)
    for pairs_between in duplicates:
        yield from pairs_between.findings()


@dataclass(frozen=True)
class _DuplicatesBetween:
    """Images of the split `second` and their duplicates in `first`, which may be the same split."""

    first: str
    second: str
    known: Inspected
    new: Inspected
    pairs: list[Pair]

    def findings(self) -> Iterator[Finding]:
        """Findings on all of them except exact duplicates with different labels."""
        leak = self.first != self.second
        exact = self.pair_names(exact=True, agree=True)
        if exact and leak:
            text = f"{self.share(exact)} are also in {self.first}: delete them in one, or "
            text += f"the accuracy on {self.second} is too optimistic"
            yield Finding("leak", "error", text, exact)
        elif exact:
            text = f"{self.share(exact)} repeat another image: delete them, or they count twice"
            yield Finding("repeated", "warning", text, exact)
        other = self.pair_names(exact=False, agree=False)
        near = (*self.pair_names(exact=False, agree=True), *other)
        if near:
            text = f"{self.share(near)} look like another one" + (f" in {self.first}" * leak)
            text += f", {len(other)} of them with another label" if other else ""
            if leak:
                text += f": if they are, the accuracy on {self.second} is too optimistic"
            yield Finding(
                "near-leak" if leak else "near", "warning" if leak else "note", text, near
            )

    def share(self, some: tuple[str, ...]) -> str:
        """How many of the images that is, in words."""
        total = len(self.new.readable)
        where = "" if self.second == "all" else f" in {self.second}"
        return f"{len(some):,} of {plural(total, 'image')}{where} ({percent(len(some) / total)})"

    def pair_names(self, *, exact: bool, agree: bool) -> tuple[str, ...]:
        """The names of the pairs that are exact or not and whose labels agree or not."""
        return tuple(text for pair in self.pairs for text in self.pair_name(pair, exact, agree))

    def pair_name(self, pair: Pair, exact: bool, agree: bool) -> Iterator[str]:
        """The names of one pair, if it is exact or not and agrees or not as asked for."""
        old = int(self.known.readable[pair.first])
        new = int(self.new.readable[pair.second])
        labels = [int(self.new.images.labels[new]), int(self.known.images.labels[old])]
        if pair.exact != exact or (labels[0] == labels[1]) != agree:
            return
        text = f"{self.new.images.names[new]} = {self.known.images.names[old]}"
        if not agree:
            label, other = (self.new.images.class_names[label] for label in labels)
            text += f" ({label!r} and {other!r})"
        yield text if exact else text.replace(" = ", " ~ ", 1)
