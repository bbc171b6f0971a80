"""A data source with checked images, and its splits: its own as they are, the others drawn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnets.data.grouping import Grouping, find_groups, group_warnings
from resnets.data.membership import TrainedOn, member_digests, ranks
from resnets.data.sources.checks import (
    Checked,
    empty_splits,
    missing_classes,
    repeated_images,
    together,
)
from resnets.data.sources.layout import UNSPECIFIED, Layout
from resnets.data.splits import (
    CURRENT_RULE,
    NEVER,
    RULE,
    Groups,
    SourceContent,
    SplitRule,
    Splits,
    assign_folds,
    counts,
    draw,
    fingerprint,
    merged,
)
from resnets.errors import UsageError
from resnets.format import plural

_ORDER = ("all", "train", "validation", "test")  # of splits


@dataclass(frozen=True)
class DataSource:
    """A source with checked images.

    Attributes:
        source: its name.
        content: its content.
        checked: by split of the source, or "all": the images that can be read.
        warnings: one sentence each.
        layout: what was said of its folders; the classes first goes without saying.
    """

    source: str
    content: SourceContent
    checked: Mapping[str, Checked]
    warnings: tuple[str, ...]
    layout: Layout = UNSPECIFIED

    @property
    def skipped(self) -> tuple[tuple[str, str], ...]:
        """Name and reason of each image that was left out."""
        return tuple(problem for part in self.checked.values() for problem in part.skipped)

    def everything(self) -> Checked:
        """All images of all the source's own splits."""
        return together([self.checked[name] for name in _ORDER if name in self.checked])

    def splits(
        self,
        validation: tuple[float, int] = (0.1, 0),
        test: tuple[float, int] = (0.1, 0),
        split_rule: SplitRule = CURRENT_RULE,
        avoid: TrainedOn | None = None,
    ) -> Splits:
        """Split it.

        Args:
            validation: fraction to draw, and seed.
            test: fraction to draw, and seed.
            split_rule: by which rule images are recognised and drawn.
            avoid: what an earlier network has seen. Nothing of it gets into test. Into validation
                gets nothing that it was trained on, and what it was validated on only where a
                class has too few other images. What is so left out of a split of the source's own
                is counted in `Splits.split`.

        Raises:
            UsageError: a fraction is not allowed, or the images cannot be grouped as asked.
        """
        _check_fractions(validation=validation[0], test=test[0])
        warnings = list(self.warnings)
        if not validation[0] and "validation" in self.checked and not split_rule.folds:
            left_out = len(self.checked["validation"].images)
            warnings.append(f"the source's {plural(left_out, 'validation image')} left out")
        if split_rule.folds and {"train", "validation"} <= set(self.checked):
            merged_in = plural(len(self.checked["validation"].images), "image")
            warnings.append(
                f"the {merged_in} of the source's validation split are in the folds, too: --folds "
                "divides all images but those of a test split"
            )
        grouping = self.grouping(split_rule.group_by)
        checked = self.checked if grouping is None else _in_groups(self.checked, grouping)
        warnings += [] if grouping is None else group_warnings(grouping)
        if split_rule.folds:
            splits, origins = _arrange_fold(
                checked, validation[1], split_rule, avoid or TrainedOn()
            )
        else:
            splits, origins = _arrange(checked, validation, test, split_rule, avoid or TrainedOn())
        images = {name: part.images for name, part in splits.items()}
        description = self._description_of(splits, origins)
        if grouping is not None:
            groups = {name: len(_set_of(part.groups)) for name, part in splits.items()}
            description["groups"] = groups
        return Splits(
            train=images["train"],
            validation=images.get("validation"),
            test=images.get("test"),
            class_names=self.content.class_names,
            fingerprint=self.fingerprints[split_rule.rule],
            split=description | split_rule.to_dict(),
            skipped=self.skipped,
            warnings=(*warnings, *missing_classes(splits), *repeated_images(splits)),
            not_drawn=tuple(empty_splits(splits, origins)),
            digests={name: part.digests for name, part in splits.items()},
            fingerprints=self.fingerprints,
            stored=self.stored,
            readable=sum(len(part.images) for part in self.checked.values()),
        )

    def _description_of(
        self, splits: Mapping[str, Checked], origins: Mapping[str, Any]
    ) -> dict[str, Any]:
        """What the model file tells of the images: from where, and how many of each class."""
        description = {
            "source": self.source,
            "kind": self.content.kind,
            **origins,
            "counts": {name: counts(part.images) for name, part in splits.items()},
        }
        if self.layout != UNSPECIFIED:
            description["layout"] = self.layout.to_dict()
        return description

    def grouping(self, group_by: str | None) -> Grouping | None:
        """Which images belong together; None if that is not asked for.

        Raises:
            GroupingError: they cannot be grouped so.
        """
        if group_by is None:
            return None
        images = {name: part.images for name, part in self.checked.items()}
        return find_groups(self.content, images, group_by)

    @cached_property
    def fingerprints(self) -> dict[int, str]:
        """By rule, as `Splits` has them."""
        names, parts = self.content.class_names, self.checked.values()
        own = _fingerprint_of(names, self.checked, RULE)
        same = all(np.array_equal(part.earlier, part.digests) for part in parts)
        return {1: own if same else _fingerprint_of(names, self.checked, 1), RULE: own}

    @cached_property
    def stored(self) -> str:
        """As `Splits` has it."""
        content = {
            name: (part.images.labels, part.stored_digests) for name, part in self.checked.items()
        }
        if all(content[name][1] is part.digests for name, part in self.checked.items()):
            return self.fingerprints[RULE]
        return fingerprint(self.content.class_names, content)


def _in_groups(checked: Mapping[str, Checked], grouping: Grouping) -> dict[str, Checked]:
    """The images with the groups that they belong to."""
    return {name: replace(part, groups=grouping.numbers[name]) for name, part in checked.items()}


def _set_of(groups: Groups | None) -> set[int]:
    """The distinct numbers of groups."""
    return set() if groups is None else set(groups.tolist())


def _fingerprint_of(class_names: Sequence[str], parts: Mapping[str, Checked], rule: int) -> str:
    """The fingerprint of a source by a rule of `SplitRule`."""
    content = {name: (part.images.labels, part.known_by(rule)) for name, part in parts.items()}
    return fingerprint(class_names, content)


def _check_fractions(**fractions: float) -> None:
    """Check the fractions to draw, by split. Raises UsageError."""
    for name, fraction in fractions.items():
        if not 0 <= fraction < 1:
            raise UsageError(f"{name}: {fraction} is not a fraction in [0, 1)")


def _arrange(
    parts: Mapping[str, Checked],
    validation: tuple[float, int],
    test: tuple[float, int],
    split_rule: SplitRule,
    avoid: TrainedOn,
) -> tuple[dict[str, Checked], dict[str, Any]]:
    """Draw the splits that a source lacks.

    Args:
        parts: the source's own splits, or "all".
        validation: fraction and seed.
        test: fraction and seed.
        split_rule: by which rule.
        avoid: what an earlier network has seen.

    Returns:
        The splits in the order train, validation, test; and plain values: where the last two are
        from, and what of them was seen before.
    """
    parts = {name: _with_ranks(part, avoid) for name, part in parts.items()}
    learning = _to_learn_from(parts)
    drawn: dict[str, Checked] = {}
    origins: dict[str, Any] = {"validation": None, "test": None}
    wishes = {"test": ("all", *test), "validation": ("train", *validation)}
    left_out = {"test": 0, "validation": 0}
    for name, (whence, fraction, seed) in wishes.items():
        if name in parts and (fraction or name == "test"):
            drawn[name] = parts[name].subset(_unseen(parts[name], strictly=name == "test"))
            origins[name] = {"from": "source"}
            left_out[name] = len(parts[name].images) - len(drawn[name].images)
        elif fraction and name not in parts:
            strictly = name == "test"
            chosen = _draw_from(
                learning, fraction, f"{name} {seed} ", split_rule, strictly=strictly
            )
            drawn[name], learning = learning.subset(chosen), learning.subset(~chosen)
            origins[name] = {"from": whence, "fraction": fraction, "seed": seed}
    splits = {"train": learning} | drawn
    if avoid:
        origins["start_network"] = _overlap(splits, left_out)
    return {
        name: splits[name]
        for name in ("train", "validation", "test")
        if name in splits and (name == "train" or len(splits[name].images))
    }, origins


def _arrange_fold(
    parts: Mapping[str, Checked], seed: int, split_rule: SplitRule, avoid: TrainedOn
) -> tuple[dict[str, Checked], dict[str, Any]]:
    """All images but those of one fold to learn from, and that fold as the test split.

    A test split of the source's own is in no fold: it is the test split where no fold is left out.

    Args:
        parts: the source's own splits, or "all".
        seed: of the folds.
        split_rule: the folds, and which is left out.
        avoid: what an earlier network has seen, which is in no fold.

    Returns:
        As `_arrange`.
    """
    parts = {name: _with_ranks(part, avoid) for name, part in parts.items()}
    learning = [part for name, part in parts.items() if name != "test"]
    pool = together(learning or [_to_learn_from(parts)])
    rows = [row.tobytes() for row in pool.digests]
    groups = None if pool.groups is None else merged(pool.groups, rows)
    folds = assign_folds(
        pool.images.labels, pool.digests, split_rule.folds, f"fold {seed} ", groups, pool.ranks
    )
    held_out = (folds == split_rule.fold) & (folds > 0)
    splits, origin, left_out = {"train": pool.subset(~held_out)}, None, 0
    if split_rule.fold:
        splits["test"], origin = pool.subset(held_out), {"from": "fold"}
    elif "test" in parts:
        splits["test"] = parts["test"].subset(_unseen(parts["test"], strictly=True))
        origin = {"from": "source"}
        left_out = len(parts["test"].images) - len(splits["test"].images)
    origins: dict[str, Any] = {"validation": None, "test": origin}
    if avoid:
        origins["start_network"] = _overlap(splits, {"test": left_out, "validation": 0})
    return {name: part for name, part in splits.items() if name == "train" or len(part.images)}, (
        origins
    )


def _to_learn_from(parts: Mapping[str, Checked]) -> Checked:
    """The training images; none where a source that is only measured has but the other splits."""
    for name in ("all", "train"):
        if name in parts:
            return parts[name]
    other = next(iter(parts.values()))
    return other.subset(np.zeros(len(other.images), dtype=np.bool))


def _with_ranks(part: Checked, avoid: TrainedOn) -> Checked:
    """Images with what an earlier network has seen of them; as they are if there was none."""
    if not len(avoid.trained) and not len(avoid.validated):
        return part
    return replace(part, ranks=ranks(member_digests(part.images, part.digests), avoid))


def _draw_from(
    part: Checked, fraction: float, key: str, split_rule: SplitRule, *, strictly: bool
) -> NDArray[np.bool]:
    """Choose a fraction of every class, (N,): see `draw`; `strictly` only what was never seen."""
    groups = np.arange(len(part.images)) if split_rule.rule == 1 else None
    if groups is None and part.groups is not None:
        groups = merged(part.groups, [row.tobytes() for row in part.digests])
    turns = part.ranks
    if turns is not None and strictly:
        turns = np.where(turns > 0, np.int8(NEVER), turns)
    digests = part.known_by(split_rule.rule)
    return draw(part.images.labels, digests, fraction, key, groups, turns)


def _unseen(part: Checked, strictly: bool) -> NDArray[np.bool]:
    """Which images of a split of the source's own stay, (N,).

    Args:
        part: N images.
        strictly: only what was never seen. Else also what was validated on, in classes of which
            nothing else is left.
    """
    if part.ranks is None:
        return np.ones(len(part.images), dtype=np.bool)
    new: NDArray[np.bool] = part.ranks == 0
    if not strictly:
        bare = ~np.isin(part.images.labels, part.images.labels[new])
        new |= bare & (part.ranks < NEVER)
    return new


def _overlap(splits: Mapping[str, Checked], left_out: Mapping[str, int]) -> dict[str, Any]:
    """What an earlier network has seen of the splits, as counts by split: plain values for JSON."""
    ranked = {name: part.ranks for name, part in splits.items() if part.ranks is not None}
    return {
        "left_out": dict(left_out),
        "trained_on": {name: int((ranks == NEVER).sum()) for name, ranks in ranked.items()},
        "validated_on": {name: int((ranks == 1).sum()) for name, ranks in ranked.items()},
    }
