"""What is wrong with a data set, before any epoch is spent on it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from resnets.data.grouping import Grouping
from resnets.data.sources.checks import is_multi_label
from resnets.data.sources.names import alike, listed
from resnets.data.sources.table_columns import MULTI_LABEL
from resnets.data.splits import Parts, counts
from resnets.evaluation.doctor.inspection import Inspected
from resnets.format import percent, plural
from resnets.notebook import html_table

if TYPE_CHECKING:
    from resnets.evaluation.logits import Booleans
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from resnets.data.deep import find_depth
from resnets.data.grouping import find_groups
from resnets.evaluation.doctor.duplicates import (
    LEAST,
    Pair,
    duplicates_across,
    duplicates_within,
    similarity_threshold,
)
from resnets.evaluation.doctor.inspection import inspect

Level = Literal["error", "warning", "note"]
_Classes = Mapping[str, int]  # number of images by class

_SHOWN = 3  # images of a finding in a notebook's table
_UNEVEN = 10  # largest class to smallest, from which on it is worth a word
_FEW = 10  # images of a class
_FEW_GROUPS = 3
_SHIFT = 0.05  # share of images whose class would have to change to make two splits alike
_CHANCE = 0.001  # p-value below which such a shift is none
_SMALL, _LARGE = 8, 50_000_000  # pixels: of the shorter side, and in all
_FACTOR = 64  # in area, from the middle of the data set
_SLIM = 10  # longer side to shorter

_ODDITIES: dict[str, tuple[Level, str]] = {
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


def _class_findings(parts: Parts) -> Iterator[Finding]:
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
    yield from _missing_class_findings(empty, present, others, parts.declared)
    yield from _balance_findings(present)
    for split, own in others.items():
        yield from _shift_findings(present, own, split)


def _group_findings(parts: Parts, grouping: Grouping) -> Iterator[Finding]:
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
        if 0 < (count := len(np.unique(groups[labels == label]))) < _FEW_GROUPS
    }
    if few:
        text = (
            f"fewer than {_FEW_GROUPS} groups of {listed([*few])}: too few to train, validate and "
            "test on different ones"
        )
        yield Finding("few-groups", "warning", text)
    yield Finding(
        "groups", "note", f"{plural(len(grouping.names), 'group')} of what belongs together"
    )


def _missing_class_findings(
    empty: Sequence[str], present: _Classes, others: Mapping[str, _Classes], declared: bool
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


def _balance_findings(present: _Classes) -> Iterator[Finding]:
    """Classes of few images, and classes of many more than others."""
    few = [f"{name} ({count})" for name, count in present.items() if count < _FEW]
    if few:
        named = listed(few).replace("'", "")
        text = f"fewer than {_FEW} training images of {named}: hardly enough to learn from"
        yield Finding("few", "warning", text)
    most, least = (pick(present, key=present.__getitem__) for pick in (max, min))
    if present[most] >= _UNEVEN * present[least]:
        text = (
            f"{most!r} has {present[most]:,} training images, {least!r} has {present[least]:,}: "
            "balance them in training, and judge by the recall of each class, not by accuracy"
        )
        yield Finding("uneven", "warning", text)


def _shift_findings(learning: _Classes, own: _Classes, split: str) -> Iterator[Finding]:
    """A split whose classes have other shares than in training, by more than chance."""
    from scipy.stats import chi2_contingency

    names = [name for name in learning if own[name]]
    table = np.array([[learning[name] for name in names], [own[name] for name in names]])
    if len(names) < 2:
        return
    shares = table / table.sum(axis=1, keepdims=True)
    gaps = shares[1] - shares[0]
    moved = np.abs(gaps).sum() / 2
    if moved > _SHIFT and chi2_contingency(table).pvalue < _CHANCE:
        worst = int(np.abs(gaps).argmax())
        text = (
            f"{split} has other shares of the classes than train ({percent(moved, 0)} moved), most "
            f"of all {names[worst]!r}: {percent(shares[0, worst])} of train, "
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
            "delete them, or train with --skip-unreadable"
        )
        yield Finding("unreadable", "error", text, tuple(broken))
    for kind, (level, what) in _ODDITIES.items():
        named = tuple(
            f"{split.images.names[index]}: {detail}"
            for split in splits.values()
            for index, found, detail in split.odd
            if found == kind
        )
        if named:
            yield Finding(kind, level, f"{plural(len(named), 'image')} {what}", named)
    yield from _white_findings(splits)
    flat = [
        split.images.names[int(index)]
        for split in splits.values()
        for index in split.readable[split.constant]
    ]
    if flat:
        text = (
            f"{plural(len(flat), 'image')} of one colour all over: nothing can be learnt from them"
        )
        yield Finding("constant", "warning", text, tuple(flat))
    yield from _size_findings(splits)


def _white_findings(splits: Mapping[str, Inspected]) -> Iterator[Finding]:
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
        text = f"{plural(len(above), 'image')} have values above white, which are clipped"
        yield Finding("clipped", "warning", text, named)


def _size_findings(splits: Mapping[str, Inspected]) -> Iterator[Finding]:
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
        ("tiny", "warning", f"are tiny{typical}", (areas * _FACTOR < middle) | (short < _SMALL)),
        ("huge", "note", f"are huge{typical}", (areas > middle * _FACTOR) | (areas > _LARGE)),
        ("slim", "warning", f"are over {_SLIM} times as long as wide", long > short * _SLIM),
    )
    for kind, level, what, chosen in kinds:
        if chosen.any():
            some = tuple(named[i] for i in np.flatnonzero(chosen))
            yield Finding(kind, level, f"{plural(len(some), 'image')} {what}", some)


_ORDER = ("train", "all", "validation", "test")  # of splits
_LEVELS = ("error", "warning", "note")


@dataclass(frozen=True)
class Diagnosis:
    """What was found in a data set.

    Attributes:
        kind: what the source is, such as "folder".
        classes: number of images by split and class.
        findings: the errors first.
        similarity: from which on two images were taken for the same picture, 0.9 to 1.
    """

    kind: str
    classes: dict[str, dict[str, int]]
    findings: tuple[Finding, ...]
    similarity: float

    @property
    def misleading(self) -> bool:
        """Whether training on this data set, or scoring on it, would mislead."""
        return any(finding.level == "error" for finding in self.findings)

    def _repr_html_(self) -> str:
        """For notebooks."""
        rows = [
            (finding.level, finding.text, ", ".join(finding.images[:_SHOWN]))
            for finding in self.findings
        ]
        title = "Training would be misled" if self.misleading else "Nothing misleads training"
        return html_table(rows, columns=("level", "finding", "such as"), title=title)

    def to_dict(self) -> dict[str, Any]:
        """For JSON: plain values only."""
        return {"misleading": self.misleading} | asdict(self)


def diagnose(
    parts: Parts,
    progress: Callable[[int], None] = lambda _: None,
    group_by: str | None = None,
) -> Diagnosis:
    """Look at every image of a data set, and at its classes and splits.

    Args:
        parts: what the source holds, unchecked, from `read_parts`.
        progress: called with the number of images that were done since the last call.
        group_by: what belongs together; see `grouping.GroupBy`.

    Raises:
        GroupingError: the images cannot be grouped so.
    """
    grouping = find_groups(parts, parts.images, group_by) if group_by is not None else None
    names = sorted(parts.images, key=_ORDER.index)
    white = find_depth(parts.images[names[0]]).white  # of train, or of all
    splits = {name: inspect(parts.images[name].with_white(white), progress) for name in names}
    similarity = similarity_threshold(
        np.concatenate([split.prints.hashes for split in splits.values()])
    )
    findings = [
        *(Finding("source", "warning", text) for text in parts.warnings),
        *_class_findings(parts),
        *(_group_findings(parts, grouping) if grouping else ()),
        *_image_findings(splits),
        *_duplicate_findings(splits, similarity),
    ]
    return Diagnosis(
        kind=parts.kind,
        classes={name: counts(parts.images[name]) for name in names},
        findings=tuple(sorted(findings, key=lambda finding: _LEVELS.index(finding.level))),
        similarity=similarity,
    )


def unreadable_source(reason: str) -> Diagnosis:
    """The diagnosis of a source that cannot even be listed."""
    return Diagnosis("unknown", {}, (Finding("source", "error", reason),), LEAST)


def _duplicate_findings(splits: Mapping[str, Inspected], similarity: float) -> Iterator[Finding]:
    """Images that are there twice, in one split or in two."""
    found = []
    for second, new in splits.items():
        found.append(
            _DuplicatesBetween(second, second, new, new, duplicates_within(new.prints, similarity))
        )
        for first, known in splits.items():
            if first == second:
                break
            pairs = duplicates_across(known.prints, new.prints, similarity)
            found.append(_DuplicatesBetween(first, second, known, new, pairs))
    clashes = tuple(text for twins in found for text in twins.named(exact=True, agree=False))
    if clashes:
        text = (
            f"{plural(len(clashes), 'image')} repeat another's pixels under another label: "
            "keep one label"
        )
        total = sum(len(split.prints.hashes) for split in splits.values())
        if is_multi_label(len(clashes), total - len(clashes)):
            text += f" ({MULTI_LABEL})"
        yield Finding("two-labels", "error", text, clashes)
    for twins in found:
        yield from twins.findings()


@dataclass(frozen=True)
class _DuplicatesBetween:
    """Images of the split `second` with the one that they repeat in `first`, maybe the same."""

    first: str
    second: str
    known: Inspected
    new: Inspected
    pairs: list[Pair]

    def findings(self) -> Iterator[Finding]:
        """What to say of them, but for exact ones under two labels."""
        leak = self.first != self.second
        exact = self.named(exact=True, agree=True)
        if exact and leak:
            text = f"{self.share(exact)} are in {self.first}, too: delete them in one, or the score"
            yield Finding("leak", "error", f"{text} of {self.second} flatters", exact)
        elif exact:
            text = f"{self.share(exact)} repeat another's pixels: delete them, or they count more"
            yield Finding("repeated", "warning", text, exact)
        other = self.named(exact=False, agree=False)
        near = (*self.named(exact=False, agree=True), *other)
        if near:
            text = f"{self.share(near)} look like another one" + (f" in {self.first}" * leak)
            text += f", {len(other)} of them under another label" if other else ""
            text += f": if they are, the score of {self.second} flatters" if leak else ""
            yield Finding(
                "near-leak" if leak else "near", "warning" if leak else "note", text, near
            )

    def share(self, some: tuple[str, ...]) -> str:
        """How many of the images that is."""
        total = len(self.new.readable)
        where = "" if self.second == "all" else f" in {self.second}"
        return f"{len(some):,} of {plural(total, 'image')}{where} ({percent(len(some) / total)})"

    def named(self, *, exact: bool, agree: bool) -> tuple[str, ...]:
        """The pairs that are exact or not and whose labels agree or not, by name."""
        return tuple(text for pair in self.pairs for text in self.name(pair, exact, agree))

    def name(self, pair: Pair, exact: bool, agree: bool) -> Iterator[str]:
        """One pair by name, if it is such a one."""
        old = int(self.known.readable[pair.first])
        new = int(self.new.readable[pair.second])
        labels = [int(self.new.images.labels[new]), int(self.known.images.labels[old])]
        if pair.exact != exact or (labels[0] == labels[1]) != agree:
            return
        text = f"{self.new.images.names[new]} = {self.known.images.names[old]}"
        if not agree:
            said, before = (self.new.images.class_names[label] for label in labels)
            text += f" ({said!r} and {before!r})"
        yield text if exact else text.replace(" = ", " ~ ", 1)
