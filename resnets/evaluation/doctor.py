"""What is wrong with a data set, before any epoch is spent on it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from resnets.data.deep import find_depth
from resnets.data.grouping import find_groups
from resnets.data.splits import Parts, counts
from resnets.evaluation.duplicates import LEAST, Pair, across, twin_threshold, within
from resnets.evaluation.findings import (
    Finding,
    class_findings,
    group_findings,
    image_findings,
    plural,
)
from resnets.evaluation.inspection import Inspected, inspect

ORDER = ("train", "all", "validation", "test")  # of splits
LEVELS = ("error", "warning", "note")


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
    names = sorted(parts.images, key=ORDER.index)
    white = find_depth(parts.images[names[0]]).white  # of train, or of all
    splits = {name: inspect(parts.images[name].with_white(white), progress) for name in names}
    similarity = twin_threshold(np.concatenate([split.prints.hashes for split in splits.values()]))
    findings = [
        *(Finding("source", "warning", text) for text in parts.warnings),
        *class_findings(parts),
        *(group_findings(parts, grouping) if grouping else ()),
        *image_findings(splits),
        *duplicate_findings(splits, similarity),
    ]
    return Diagnosis(
        kind=parts.kind,
        classes={name: counts(parts.images[name]) for name in names},
        findings=tuple(sorted(findings, key=lambda finding: LEVELS.index(finding.level))),
        similarity=similarity,
    )


def refused(reason: str) -> Diagnosis:
    """The diagnosis of a source that cannot even be listed."""
    return Diagnosis("unknown", {}, (Finding("source", "error", reason),), LEAST)


def duplicate_findings(splits: Mapping[str, Inspected], similarity: float) -> Iterator[Finding]:
    """Images that are there twice, in one split or in two."""
    found = []
    for second, new in splits.items():
        found.append(Twins(second, second, new, new, within(new.prints, similarity)))
        for first, known in splits.items():
            if first == second:
                break
            pairs = across(known.prints, new.prints, similarity)
            found.append(Twins(first, second, known, new, pairs))
    clashes = tuple(text for twins in found for text in twins.named(exact=True, agree=False))
    if clashes:
        text = f"{plural(len(clashes))} repeat another's pixels under another label: keep one label"
        yield Finding("two-labels", "error", text, clashes)
    for twins in found:
        yield from twins.findings()


@dataclass(frozen=True)
class Twins:
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
        return f"{len(some):,} of {plural(total)}{where} ({len(some) / total:.1%})"

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
