"""Logits of labelled images over several processes, and the choice of the images to evaluate on.

Shapes: N images, K classes.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from resnets.data.batches import Batch
from resnets.data.labelled import joined
from resnets.data.membership import first_of_copies, member_digests
from resnets.data.sources.checks import Checked
from resnets.data.sources.hub import HUB
from resnets.data.sources.layout import layout_of_networks
from resnets.data.sources.opening import Data, DataSource, LabelledImages, Splits, open_source
from resnets.data.splits import SplitRule
from resnets.errors import ContentError, UsageError
from resnets.evaluation.doctor.duplicates import COMPARED, find_duplicates
from resnets.evaluation.exposure import (
    Exposure,
    Mask,
    SeenImages,
    exposure_from,
    mask_of_new,
    redraw_splits,
    seen_images_of,
    seen_masks,
    split_settings,
)
from resnets.evaluation.familiarity import Familiarity
from resnets.evaluation.logits import Integers
from resnets.evaluation.metrics import merge
from resnets.evaluation.proportion import Proportion
from resnets.format import plural
from resnets.model_file import Description
from resnets.networks import ResNet
from resnets.networks.evaluation_mode import evaluating
from resnets.pretrained.names import class_numbers, known_in_words
from resnets.run_files import CONFIG
from resnets.training.parallel import from_all

Logits = NDArray[np.float32]
_MEASURE_ALL = "--split all measures them anyway, or give other images"
_SPLITS = ("train", "validation", "test", "all")
FITTING = "test or rest"  # the part of `choose_images` that leaves others to fit on


class NothingNewError(UsageError):
    """A network has seen every image.

    Attributes:
        problem: the message without the advice for `evaluate`.
        advice: that advice.
    """

    def __init__(self, problem: str, advice: str) -> None:
        super().__init__(f"{problem}; {advice}")
        self.problem, self.advice = problem, advice


def logits_of(
    network: nn.Module,
    batches: Iterable[Batch],
    total: int,
    compute: Callable[[Tensor], Tensor] | None = None,
) -> Logits:
    """The network's logits for every image, in the images' order, in every process. (N, K).

    Args:
        network: on the device of the batches; it computes in evaluation mode.
        batches: this process's part of the images, as `evaluation_batches` gives them.
        total: N, the number of images over all processes.
        compute: a function to use in place of the network, (B, C, S, S) to (B, any number).

    Raises:
        ContentError: an image cannot be read; the message names it.
        UsageError: there is no image.
    """
    parts = []
    with evaluating(network), torch.inference_mode():
        for batch in batches:
            logits = (compute or network)(batch.images).float().cpu().numpy()
            parts.append((batch.indices.numpy(), logits))
    return merge([part for process in from_all(parts) for part in process], total)


def logits_and_score(network: ResNet, known: Familiarity) -> Callable[[Tensor], Tensor]:
    """A function that computes logits and, as last column, the familiarity score: (B, K + 1)."""
    device = next(network.parameters()).device
    directions = F.normalize(torch.from_numpy(known.directions).to(device), dim=1)

    def compute(images: Tensor) -> Tensor:
        features = network.embed(images)
        units = F.normalize(features.float(), dim=1)
        score = (units @ directions.T).amax(1, keepdim=True)
        return torch.cat([network.fc(features).float(), score], dim=1)

    return compute


def logits_and_features(network: ResNet) -> Callable[[Tensor], Tensor]:
    """A function that computes logits and, after them, the features: (B, K + F)."""

    def compute(images: Tensor) -> Tensor:
        features = network.embed(images)
        return torch.cat([network.fc(features).float(), features.float()], dim=1)

    return compute


@dataclass(frozen=True)
class EvaluationImages:
    """Images on which to evaluate networks.

    Attributes:
        images: with labels numbered as the network's logits are.
        part: a phrase that describes them.
        split: "train", "validation", "test", "all", or "new" for all that no network has seen.
        exposures: for each network, how many of them it has seen.
        names: of the networks, for use in a sentence.
        train: training images, labelled likewise: of the same source, or of the network's run;
            None where there are none.
        seen: these and the validation images, to look for near-duplicates in; None likewise.
        warnings: about the source, one sentence each.
        skipped: name and reason of each image that cannot be read.
        automatic: whether "auto" chose them, not the user.
        copies: (N,), how many exact copies there are of each, itself among them; the others are
            left out. None if it is not known.
    """

    images: LabelledImages
    part: str
    split: str
    exposures: tuple[Exposure, ...]
    names: tuple[str, ...]
    train: LabelledImages | None
    seen: LabelledImages | None
    warnings: tuple[str, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()
    automatic: bool = False
    copies: Integers | None = None

    @property
    def what(self) -> str:
        """The images, how many of them were seen and how many were left out, in words."""
        sentences = [
            exposure.in_words(who) for exposure, who in zip(self.exposures, self.names, strict=True)
        ]
        left = [
            exposure.left_out(who) for exposure, who in zip(self.exposures, self.names, strict=True)
        ]
        unchecked = dict.fromkeys(
            exposure.not_looked_for(self.seen is not None) for exposure in self.exposures
        )
        more = filter(None, [*unchecked, *left, self.exposure.copies_left_out])
        return "; ".join([self.part, *sentences, *more])

    @property
    def exposure(self) -> Exposure:
        """The exposure of the first network."""
        return self.exposures[0]


def choose_images(
    source: Data,
    description: Description,
    split: str,
    *,
    file: Path | None = None,
    skip_unreadable: bool = False,
    only_new: bool = False,
) -> EvaluationImages:
    """The images on which to evaluate a network, with labels numbered as its logits are.

    Args:
        source: as for `open_data`.
        description: of the network; where it was trained on this very source, the splits are drawn
            as they were then.
        split: "train", "validation", "test" or "all", which are used as they are; or "auto": the
            test split where the source has one or the network was trained on it, else the
            validation split where the source has one, else all images, without those that the
            network is known to have seen; or `FITTING`, which is "auto" but for a test split that
            is drawn where it would take all images.
        file: of the network; in the folder of its run, it leads to its training images.
        skip_unreadable: leave out images that cannot be read.
        only_new: leave out what the network has seen of a named split as well.

    Raises:
        UsageError: there is no such split or no image that is new, or a class that the network
            does not know.
    """
    try:
        chosen = choose_for_all(
            source,
            [description],
            split,
            files=[file],
            skip_unreadable=skip_unreadable,
            only_new=only_new,
        )
    except NothingNewError as error:
        advice = f"{_cross_validated(description)}{error.advice}"
        raise NothingNewError(error.problem, advice) from None
    names, train, seen = description.class_names, chosen.train, chosen.seen
    return replace(
        chosen,
        images=_relabelled(chosen.images, names),
        train=None if train is None else _relabelled(train, names),
        seen=None if seen is None else _relabelled(seen, names),
    )


def _cross_validated(description: Description) -> str:
    """The figure that a file of `train --folds` holds, in words; empty if it holds none."""
    scores = description.metrics.get("cross_validation")
    if not scores:
        return ""
    right = Proportion(scores["top1"]["count"], scores["top1"]["total"])
    return (
        f"the file holds what {scores['folds']} networks measured, each on images that it was not "
        f"trained on: cross-validation accuracy {right}; "
    )


def choose_for_all(
    source: Data,
    descriptions: Sequence[Description],
    split: str,
    *,
    names: Sequence[str] = ("the network",),
    files: Sequence[Path | None] = (),
    skip_unreadable: bool = False,
    only_new: bool = False,
) -> EvaluationImages:
    """The images on which to evaluate several networks, with the labels of their source.

    Args:
        source: as for `open_data`.
        descriptions: of the networks; an image that any of them has seen counts as seen.
        split: as for `choose_images`.
        names: of the networks, for use in a sentence.
        files: of the networks; see `choose_images`.
        skip_unreadable: leave out images that cannot be read.
        only_new: as for `choose_images`.

    Raises:
        UsageError: there is no such split or no new image, or it is not the same split for all the
            networks.
    """
    selection = _Selection.of(source, descriptions, tuple(names), skip_unreadable)
    chosen = _choose_from(selection, descriptions, split, only_new)
    train, white = chosen.train, descriptions[0].preprocessing.white
    runs = _splits_of_runs(selection, descriptions, files)
    if not selection.same:
        train = next((splits.train for splits in runs if splits is not None), train)
    seen, exposures = _seen_by_all(chosen, selection, runs)
    return replace(
        chosen,
        images=chosen.images.with_white(white),
        exposures=exposures,
        train=None if train is None else train.with_white(white),
        seen=None if seen is None else seen.with_white(white),
    )


def _splits_of_runs(
    selection: "_Selection", descriptions: Sequence[Description], files: Sequence[Path | None]
) -> list[Splits | None]:
    """For each network that was not trained on the source itself, the splits of its run."""
    known = [*files, *[None] * (len(descriptions) - len(files))]
    return [
        None if here else _splits_of_run(file, description)
        for here, file, description in zip(selection.trained_here, known, descriptions, strict=True)
    ]


def _seen_by_all(
    chosen: EvaluationImages, selection: "_Selection", runs: Sequence[Splits | None]
) -> tuple[LabelledImages | None, tuple[Exposure, ...]]:
    """What any of the networks has seen, as far as it is at hand.

    Returns:
        The images, None if there are none; and the exposures, which say whose are missing.
    """
    distinct = {
        str(splits.fingerprints): splits.training_and_validation
        for splits in runs
        if splits is not None
    }
    parts = list(distinct.values())
    if chosen.seen is not None and (selection.same or not parts):
        parts.insert(0, chosen.seen)
    if not parts:
        return None, chosen.exposures
    exposures = [
        exposure
        if here
        or splits is not None
        or (chosen.seen is not None and memory.were_trained_on(chosen.seen))
        else replace(exposure, not_compared=f"the images that {name} was trained on")
        for exposure, name, memory, here, splits in zip(
            chosen.exposures,
            chosen.names,
            selection.memories,
            selection.trained_here,
            runs,
            strict=True,
        )
    ]
    return (parts[0] if len(parts) == 1 else joined(parts)), tuple(exposures)


def without_near_duplicates(
    chosen: EvaluationImages, compared: int = COMPARED, instead: str = _MEASURE_ALL
) -> EvaluationImages:
    """The images that "auto" chose, without those that look like training or validation images.

    A test or validation split of the source's own stays whole, so that its figures can be compared
    with others'.

    Args:
        chosen: as `choose_images` gives it.
        compared: number of training and validation images to compare with; 0: none.
        instead: what to do where no image is left.

    Raises:
        UsageError: no image is left.
    """
    if not chosen.automatic or chosen.split not in ("all", "new") or chosen.seen is None:
        return chosen
    duplicates = find_duplicates(chosen.images, chosen.seen, compared) if compared else None
    if duplicates is None or not duplicates.pairs:
        return chosen
    new = np.ones(len(chosen.images), dtype=np.bool)
    new[[pair.second for pair in duplicates.pairs]] = False
    if not new.any():
        raise UsageError(
            f"{chosen.part}: all of them look like training or validation images; {instead}"
        )
    left = len(duplicates.pairs)
    images, part = chosen.images.subset(new), chosen.part.partition(" images, ")[2]
    if chosen.split == "all":
        part = f"those of {part.removeprefix('all of ')} that look new"
    copies = None if chosen.copies is None else chosen.copies[new]
    more = 0 if copies is None else int((copies - 1).sum())
    seen = tuple(
        replace(exposure, left_similar=left, left_copies=more) for exposure in chosen.exposures
    )
    return replace(
        chosen,
        images=images,
        copies=copies,
        part=f"{plural(len(images), 'image')}, {part}",
        split="new",
        exposures=seen,
    )


def _choose_from(
    selection: "_Selection", descriptions: Sequence[Description], split: str, only_new: bool
) -> EvaluationImages:
    """The images that `choose_for_all` chooses from the source itself."""
    source = selection.data_source.source
    if split == "auto":
        return selection.automatic()
    if split == FITTING:
        return selection.automatic("test")
    if split not in _SPLITS:
        raise UsageError(f"split {split!r}: it is auto, {', '.join(_SPLITS[:-1])} or all")
    settings = {
        (split_settings(description), SplitRule.of(description.data).group_by)
        for description in descriptions
    }
    if split in ("train", "validation") and len(settings) > 1:
        raise UsageError(f"the networks were trained with different {split} splits of {source}")
    part = selection.part(split)
    if part is None:
        raise UsageError(f"{source} has no {split} split; --split all measures every image")
    chosen = selection.chosen(split, part, only_new)
    if chosen is None:
        raise selection.nothing_new(split, part)
    return chosen


def _splits_of_run(file: Path | None, description: Description) -> Splits | None:
    """The images that a network was trained on, if its run and the images still exist.

    Only the folder of a run leads to them: a foreign model file must not make this read any path
    that its header names.
    """
    source = str(description.data.get("source", ""))
    if file is None or not (file.parent / CONFIG).is_file() or source.startswith(HUB):
        return None
    try:
        same, splits = redraw_splits(
            open_source(source, to_learn=False, layout=layout_of_networks(source, [description])),
            description,
        )
    except (ContentError, UsageError, OSError):
        return None  # gone, or no longer what it was
    return splits if same else None


@dataclass(frozen=True)
class _Selection:
    """A source of images, and what is known about the networks' use of it.

    Attributes:
        data_source: the source.
        splits: drawn as when a network was trained on it, if one was.
        trained_here: for each network, whether it was trained on this very source.
        memories: the images that each network has seen.
        names: of the networks, for use in a sentence.
    """

    data_source: DataSource
    splits: Splits
    trained_here: tuple[bool, ...]
    memories: tuple[SeenImages, ...]
    names: tuple[str, ...]

    @classmethod
    def of(
        cls,
        source: Data,
        descriptions: Sequence[Description],
        names: tuple[str, ...],
        skip_unreadable: bool,
    ) -> "_Selection":
        """Open a source and draw its splits as in training."""
        layout = layout_of_networks(source, descriptions)
        data_source = open_source(
            source, skip_unreadable=skip_unreadable, to_learn=False, layout=layout
        )
        drawn = [redraw_splits(data_source, description) for description in descriptions]
        memories = [
            seen_images_of(description, *one)
            for description, one in zip(descriptions, drawn, strict=True)
        ]
        splits = next((one[1] for one in drawn if one[0]), drawn[0][1])
        return cls(data_source, splits, tuple(same for same, _ in drawn), tuple(memories), names)

    @property
    def same(self) -> bool:
        """Whether any network was trained on this very source."""
        return any(self.trained_here)

    def part(self, split: str) -> Checked | None:
        """The images of a split; None if there is no such split."""
        if split == "all":
            return self.data_source.everything()
        if split in self.data_source.checked and not self.same:
            return self.data_source.checked[split]
        splits = self.splits
        images = {"train": splits.train, "validation": splits.validation, "test": splits.test}[
            split
        ]
        if images is None or not len(images):
            return self.data_source.checked.get(split)
        digests = self.splits.digests[split]
        return Checked(images, digests, digests)

    def automatic(self, otherwise: str = "all") -> EvaluationImages:
        """The images that "auto" chooses; see `choose_images`.

        Args:
            otherwise: the split to choose of a source that has no splits of its own.
        """
        splits = self.data_source.checked
        first = otherwise
        if "test" in splits or self.same:
            first = "test"
        elif "validation" in splits:
            first = "validation"
        for split in dict.fromkeys((first, "all")):
            part = self.part(split)
            chosen = None if part is None else self.chosen(split, part, only_new=True)
            if chosen is not None:
                return replace(chosen, automatic=True)
        raise self.nothing_new("all", self.data_source.everything())

    def chosen(self, split: str, part: Checked, only_new: bool) -> EvaluationImages | None:
        """The images of a split, each once; None if none are left.

        Args:
            split: its name.
            part: its images.
            only_new: leave out those that a network has seen.
        """
        members = member_digests(part.images, part.digests)
        once, copies = first_of_copies(members, part.images.labels)
        part = part if once.all() else part.subset(once)
        seen = seen_masks(part.digests, members[once], self.memories)
        new = mask_of_new(seen, len(part.images))
        measured = new if only_new else np.ones_like(new)
        if not measured.any():
            return None
        some = only_new and not new.all()
        images = part.images.subset(measured) if some else part.images
        copies = copies[measured]
        left = int((copies - 1).sum())
        own_warnings = self.data_source.warnings  # not how the splits of a training are drawn
        return EvaluationImages(
            images=images,
            part=f"{plural(len(images), 'image')}, {self.describe(split, some)}",
            split="new" if some and split == "all" else split,
            exposures=tuple(
                replace(exposure_from(masks, memory, measured), left_copies=left)
                for masks, memory in zip(seen, self.memories, strict=True)
            ),
            names=self.names,
            train=self.training_images(split, part, ~new),
            seen=self.seen_images(split, part, ~new),
            warnings=self.splits.warnings if self.same and split != "all" else own_warnings,
            skipped=self.data_source.skipped,
            copies=copies,
        )

    def describe(self, split: str, some: bool) -> str:
        """A split of the source in words; `some` if the seen images are left out."""
        source = self.data_source.source
        if split == "all":
            return (
                f"those of {source} that are new to {self.networks}" if some else f"all of {source}"
            )
        part = f"the {split} split of {source}"
        return f"those of {part} that are new to {self.networks}" if some else part

    @property
    def networks(self) -> str:
        """The networks in a sentence."""
        return self.names[0] if len(self.names) == 1 else "the networks"

    def training_images(self, split: str, part: Checked, seen: Mask) -> LabelledImages | None:
        """The training images of the source outside a split; of all images, those seen."""
        if split == "all":
            return part.images.subset(seen) if seen.any() and not seen.all() else None
        train = self.splits.train
        return None if split == "train" or not len(train) else train

    def seen_images(self, split: str, part: Checked, seen: Mask) -> LabelledImages | None:
        """The training images, and for a test split the validation images, likewise."""
        train = self.training_images(split, part, seen)
        if train is None or split != "test":
            return train
        return self.splits.training_and_validation

    def nothing_new(self, split: str, part: Checked) -> NothingNewError:
        """The error where no image is left."""
        counts = [
            f"{who} was {exposure.counts_in_words()}"
            for exposure, who in zip(self.exposures_of(part), self.names, strict=True)
            if exposure.seen
        ]
        return NothingNewError(
            f"{self.data_source.source}: none of the {plural(len(part.images), 'image')} is new "
            f"({'; '.join(counts)})",
            f"--split {split} measures them anyway, or give other images",
        )

    def exposures_of(self, part: Checked) -> list[Exposure]:
        """How many images of a split each network has seen."""
        members = member_digests(part.images, part.digests)
        seen = seen_masks(part.digests, members, self.memories)
        return [exposure_from(*pair) for pair in zip(seen, self.memories, strict=True)]


def _relabelled(images: LabelledImages, class_names: tuple[str, ...]) -> LabelledImages:
    """The images with labels that are class numbers of the network, matched by name.

    Classes of ImageNet may be called by their synset ids or one of their names, too.

    Raises:
        UsageError: a class has a name that the network does not know.
    """
    if images.class_names == class_names:
        return images
    numbers = class_numbers(images.class_names, class_names)
    unknown = [
        name for name, number in zip(images.class_names, numbers, strict=True) if number is None
    ]
    if unknown:
        advice = (
            "where the data's classes are these under their numbers, call them by their names (in "
            "Python, numbers as labels are understood too)"
        )
        hint = f"; {advice}" if unknown[0].isdecimal() else ""
        raise UsageError(
            f"the network does not know the class {unknown[0]!r} "
            f"(unknown: {len(unknown)} of {plural(len(images.class_names), 'class')}); "
            f"{known_in_words(unknown[0], class_names)}{hint}"
        )
    return images.other(np.array(numbers)[images.labels], class_names, images.indices)
