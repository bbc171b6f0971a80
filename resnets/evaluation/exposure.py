"""How many of the evaluated images a network was trained or validated on.

Such images do not show how it does on new ones.

Shapes: N images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnets.data.digests import digests_of_bytes
from resnets.data.grouping import GroupingError
from resnets.data.labelled import LabelledImages
from resnets.data.membership import (
    Generation,
    Members,
    TrainedOn,
    content_member,
    encoded_members,
    member_digests,
    union,
)
from resnets.data.sources.opening import DataSource, Splits
from resnets.data.splits import Digests, FoldsError, SplitRule
from resnets.data.storage import Pixels
from resnets.errors import ContentError
from resnets.format import plural
from resnets.images.opening import contents
from resnets.model_file import Description

Mask = NDArray[np.bool]
_NO_DIGESTS = "its file has no digests of its training images, and these are other images"
_SAMPLE = 64  # images by which a data set is recognised
_NOT_LOOKED_FOR = "duplicates in another format or rendering were not looked for"


@dataclass(frozen=True)
class Exposure:
    """How many of the evaluated images a network has seen.

    Attributes:
        trained: number that it was trained on, as far as is known; None if nothing is known.
        validated: number of others that chose its epoch, temperature or threshold; None likewise.
        left_trained: number left out because it was trained on them.
        left_validated: number left out because it was validated on them.
        left_similar: number left out because they look like training or validation images.
        left_copies: number left out because they are exact copies of those that are measured.
        unknown: why it cannot be checked for all images; empty where it can.
        not_compared: images that were trained on and are not among those in which copies in another
            format were looked for, in words; empty if there are none.
    """

    trained: int | None = None
    validated: int | None = None
    left_trained: int = 0
    left_validated: int = 0
    left_similar: int = 0
    left_copies: int = 0
    unknown: str = _NO_DIGESTS
    not_compared: str = ""

    @property
    def seen(self) -> bool:
        """Whether some of the images are known not to be new."""
        return bool(self.trained or self.validated)

    def counts_in_words(self) -> str:
        """How many of the images were seen, and for what, without those that are none.

        >>> Exposure(0, 120).counts_in_words()
        'validated or calibrated on 120'
        """
        counts = {"trained on": self.trained, "validated or calibrated on": self.validated}
        return " and ".join(f"{use} {count:,}" for use, count in counts.items() if count)

    def in_words(self, who: str = "the network") -> str:
        """A clause that follows the description of the images."""
        if self.trained is None:
            return f"it cannot be checked whether {who} was trained on them ({self.unknown})"
        number = f"{self.trained:,}" if self.trained else "no exact duplicate"
        text = f"{who} was trained on {number} of them"
        if self.validated:
            text += f" and validated on {self.validated:,}{'' if self.trained else ' of them'}"
        if self.unknown:
            text += f", as far as is known ({self.unknown})"
        if self.seen:
            text += ", so this does not measure how it does on new images"
        return text

    def not_looked_for(self, at_hand: bool) -> str:
        """That only exact duplicates were looked for, and of what; empty where that is not so.

        Args:
            at_hand: whether there are training images to compare with.
        """
        if self.trained != 0:
            return ""
        if not at_hand:
            return f"{_NOT_LOOKED_FOR}: no training images are at hand"
        return f"{_NOT_LOOKED_FOR} among {self.not_compared}" if self.not_compared else ""

    def left_out(self, who: str = "the network") -> str:
        """How many images were left out, in words; empty if none were."""
        left = self.left_trained + self.left_validated + self.left_similar
        if not left:
            return ""
        others = "others are left out because they are"
        if left == 1:
            others = "other is left out because it is"
        similar = f", {self.left_similar:,} that look like training or validation images"
        return (
            f"{left:,} {others} not new: {self.left_trained:,} that "
            f"{who} was trained on, {self.left_validated:,} that it was validated on"
            f"{similar if self.left_similar else ''}"
        )

    @property
    def copies_left_out(self) -> str:
        """How many exact copies were left out, in words; empty if there are none."""
        return copies_in_words(self.left_copies) if self.left_copies else ""

    def to_dict(self) -> dict[str, Any]:
        """For JSON: plain values only."""
        return {
            "trained_on": self.trained,
            "validated_on": self.validated,
            "left_out": {
                "trained_on": self.left_trained,
                "validated_on": self.left_validated,
                "near_duplicates": self.left_similar,
                "exact_copies": self.left_copies,
            },
            "cannot_be_checked": self.unknown or None,
            "not_compared": self.not_compared or None,
        }


def copies_in_words(left: int, which: str = "these images") -> str:
    """That exact copies are left out of what is measured, as a clause.

    >>> copies_in_words(1)
    '1 exact copy of these images is left out: each image counts once'
    """
    are = "is" if left == 1 else "are"
    copies = plural(left, "exact copy", "exact copies")
    return f"{copies} of {which} {are} left out: each image counts once"


@dataclass(frozen=True)
class SeenImages:
    """What is known about the images that a network has seen.

    Attributes:
        history: digests and counts of the images.
        encoded: whether the digests are those of the encoded content, as splits that were drawn
            again have them, and not those of the pixels.
    """

    history: TrainedOn
    encoded: bool = False

    def seen(self, members: Members) -> tuple[Mask, Mask] | None:
        """Which images it was trained on, and which others validated on, (N,) each.

        Args:
            members: (N,), digests of encoded content if `encoded`, else of pixels.

        Returns:
            The two masks; None if nothing is known.
        """
        if not any(not generation.unknown for generation in self.history.generations):
            return None
        trained = np.isin(members, self.history.trained)
        return trained, np.isin(members, self.history.validated) & ~trained

    def were_trained_on(self, images: LabelledImages) -> bool:
        """Whether these are the network's own training images, judged by a sample of them."""
        if not self.history or self.encoded:
            return False
        if len(images) < self.history.generations[0].train:
            return False
        sample = np.linspace(0, len(images) - 1, min(_SAMPLE, len(images))).astype(np.int64)
        known = union([self.history.trained, self.history.validated])
        return bool(np.isin(members_of(images.subset(sample)), known).all())


def split_settings(description: Description) -> tuple[float, int]:
    """The fraction and the seed by which the validation split of a network was drawn.

    Raises:
        ContentError: the header's record of them is damaged.
    """
    recipe = description.recipe
    fraction, seed = recipe.get("validation", 0.1), recipe.get("seed", 0)
    if type(fraction) not in (int, float) or not 0 <= fraction < 1 or type(seed) is not int:
        raise ContentError(
            f"its record of the validation split is damaged: fraction {fraction!r}, seed {seed!r}"
        )
    return fraction, seed


def redraw_splits(data_source: DataSource, description: Description) -> tuple[bool, Splits]:
    """Draw the splits of a source as when the network was trained.

    Returns:
        Whether the network was trained on this very source, and the splits.

    Raises:
        ContentError: the header's record of the training images or of their splits is damaged.
    """
    earlier = TrainedOn.from_dict(description.trained_on).ancestors
    split_rule = SplitRule.of(description.data)
    try:
        splits, same = (
            data_source.splits(split_settings(description), split_rule=split_rule, avoid=earlier),
            True,
        )
    except (GroupingError, FoldsError):
        # another source, or the same images without what grouped them
        alone = SplitRule(split_rule.rule)
        splits, same = (
            data_source.splits(split_settings(description), split_rule=alone, avoid=earlier),
            False,
        )
    start = description.data.get("start_network") or {}
    if not isinstance(start, Mapping):
        raise ContentError(f"its record of the start network is damaged: {start!r:.60}")
    lost = bool(start.get("trained_on")) and not len(union([earlier.trained, earlier.validated]))
    return same and splits.are_those_of(description.data) and not lost, splits


def seen_images_of(description: Description, same: bool, splits: Splits) -> SeenImages:
    """What is known about the images that a network has seen.

    Args:
        description: of the network.
        same: whether it was trained on the very source of `splits`.
        splits: drawn as when it was trained.
    """
    history = TrainedOn.from_dict(description.trained_on)
    if not same or (history and not history.generations[0].unknown):
        return SeenImages(history)
    if not history:
        return SeenImages(TrainedOn((own_generation(splits, encoded=True),)), encoded=True)
    return SeenImages(TrainedOn((own_generation(splits), *history.generations[1:])))


def seen_kind(description: Description, split: str) -> str:
    """Which images a network may have seen besides those of a split: training ones, or both."""
    history = TrainedOn.from_dict(description.trained_on)
    validated = not history or any(one.validation for one in history.generations)
    return "training or validation" if validated and split != "validation" else "training"


def own_generation(splits: Splits, encoded: bool = False) -> Generation:
    """The record of a training on these splits."""
    members = {}
    for name, images in (("train", splits.train), ("validation", splits.validation)):
        if images is not None:
            digests = splits.digests[name]
            members[name] = encoded_members(digests) if encoded else member_digests(images, digests)
    none = np.zeros(0, np.uint64)
    return Generation.of(
        str(splits.split.get("source", "")), members["train"], members.get("validation", none)
    )


def seen_masks(
    digests: Digests, members: Members, memories: Sequence[SeenImages]
) -> list[tuple[Mask, Mask] | None]:
    """For each network, which images it has seen; see `SeenImages.seen`.

    Args:
        digests: (N, 32), of the content of each image.
        members: (N,), what each is recognised by.
        memories: of the networks.
    """
    known = {False: members, True: encoded_members(digests)}
    return [memory.seen(known[memory.encoded]) if memory.history else None for memory in memories]


def mask_of_new(seen: Sequence[tuple[Mask, Mask] | None], total: int) -> Mask:
    """Which of N images no network is known to have seen, (N,)."""
    new = np.ones(total, dtype=np.bool)
    for masks in seen:
        if masks is not None:
            new &= ~(masks[0] | masks[1])
    return new


def exposure_from(
    masks: tuple[Mask, Mask] | None, memory: SeenImages, measured: Mask | None = None
) -> Exposure:
    """The exposure from the masks of a network, on the measured images (by default all)."""
    unknown = memory.history.unknown
    if masks is None:
        return Exposure(unknown=unknown if memory.history else _NO_DIGESTS)
    trained, validated = masks
    if measured is None:
        return Exposure(
            int(trained.sum()),
            int(validated.sum()),
            unknown=unknown,
            not_compared=_start_images(memory.history),
        )
    return replace(
        exposure_from((trained[measured], validated[measured]), memory),
        left_trained=int(trained[~measured].sum()),
        left_validated=int(validated[~measured].sum()),
    )


def _start_images(history: TrainedOn) -> str:
    """What earlier networks were trained on and this one was not, in words; empty if nothing.

    Only the folder of its own run leads to the images of a network.
    """
    if not history:
        return ""
    latest, earlier = history.generations[0], history.ancestors
    again = int(np.isin(earlier.trained, latest.trained).sum())
    again += latest.train - len(latest.trained)  # files do not list them again
    if len(earlier.trained) <= again:
        return ""
    others = [each.in_words() for each in earlier.generations if len(each.trained)]
    return f"the images of the start network ({', '.join(others)})"


def exposure_of_members(members: Members, description: Description) -> Exposure:
    """How many images without a data set a network has seen.

    Args:
        members: (N,), what each is recognised by; see `member_of`.
        description: of the network.
    """
    memory = SeenImages(TrainedOn.from_dict(description.trained_on))
    return exposure_from(memory.seen(members) if memory.history else None, memory)


def members_of(images: LabelledImages) -> Members:
    """The digest that each image is recognised by, (N,)."""
    digests = []
    with images.cached_digests() as look:
        for own in look(range(len(images))):
            if isinstance(own, ContentError):
                raise own
            digests.append(np.frombuffer(own.digest, np.uint8))
    return member_digests(images, np.stack(digests))


def member_of(content: Path | bytes | Pixels) -> int:
    """The digest that an image is recognised by: a path, encoded bytes or pixels."""
    data = contents(content) if isinstance(content, Path) else content
    digest = b"" if isinstance(data, np.ndarray) else digests_of_bytes(data).digest
    return content_member(data, digest)
