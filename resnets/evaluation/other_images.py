"""How a network handles images of none of its classes.

Shapes: O images, K classes, F features.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from resnets.data.labelled import LabelledImages
from resnets.data.membership import Members, TrainedOn, union
from resnets.data.sources.hub import HUB
from resnets.data.sources.opening import open_data
from resnets.errors import ContentError, UsageError
from resnets.evaluation.doctor.duplicates import COMPARED, find_duplicates
from resnets.evaluation.eager import outputs_by
from resnets.evaluation.engine import Engine, Floats, images_named
from resnets.evaluation.exposure import member_of
from resnets.evaluation.familiarity import familiarity_of
from resnets.evaluation.finding_images import find_images, images_below
from resnets.evaluation.predict import (
    Status,
    batches_of,
    decoded,
    interpret,
    is_calibrated,
    read,
    stacked,
    statuses,
)
from resnets.evaluation.proportion import Proportion
from resnets.evaluation.source import Source
from resnets.format import plural
from resnets.images import Pixels, Preprocessing
from resnets.images.memory_budget import IN_USE

_T = TypeVar("_T")

_MOST = 10_000  # other images that are used; of more, a random sample of this size


def open_others(source: str, seed: int = 0) -> list[Source]:
    """Images of none of the classes: in a folder at any depth, or of a data set.

    Args:
        source: a folder of images, an image or a pattern, or labelled images as for `open_data`,
            whose labels are ignored.
        seed: draws 10,000 of them where there are more.

    Raises:
        UsageError: there is none.
        ContentError: a data set is broken.
    """
    path = Path(source)
    if (path.is_dir() and images_below(path)) or not (path.exists() or _is_labelled_source(source)):
        return _sample(find_images([source]), seed)
    try:
        splits = open_data(source, validation=0, test=0, to_learn=False)
    except ContentError:
        if not path.is_dir():
            raise
        raise UsageError(f"{source}: no images in this folder or below it") from None
    items = []
    for images in (splits.train, splits.validation, splits.test):
        numbers = range(0 if images is None else len(images))
        items += [(images, number) for number in numbers]
    return [
        Source(images.names[number], images.encoded(number))
        for images, number in _sample(items, seed)
        if images is not None
    ]


def without_seen(sources: Sequence[Source], seen: Members, source: str) -> list[Source]:
    """Other images without those that a network has seen: they are images of its classes.

    Args:
        sources: as `open_others` gives them.
        seen: digests of the images that the network was trained, validated or tested on.
        source: where they are from.

    Raises:
        UsageError: no image is left.
    """
    if not len(seen):
        return list(sources)
    new = [source for source in sources if not _is_among(source, seen)]
    if not new:
        raise UsageError(
            f"--other {source}: none of the {plural(len(sources), 'image')} is new to the network, "
            "which was trained, validated or tested on them; give images of none of its classes"
        )
    return new


@dataclass(frozen=True)
class _Pictures:
    """Sources as images that are compared by their pixels."""

    sources: Sequence[Source]
    preprocessing: Preprocessing

    def __len__(self) -> int:
        return len(self.sources)

    def image(self, index: int, /) -> Pixels:
        """The pixels of an image, see `predict.decoded`."""
        try:
            return decoded(self.sources[index], self.preprocessing)
        except OSError as error:
            raise ContentError(error.strerror or str(error)) from None


def without_similar(
    sources: Sequence[Source],
    train: LabelledImages | None,
    preprocessing: Preprocessing,
    source: str,
    compared: int = COMPARED,
) -> list[Source]:
    """Other images without those that look like images of the classes: see `find_duplicates`.

    Args:
        sources: as `without_seen` gives them.
        train: training and validation images, or others of the classes; None if they are not at
            hand, and then all images stay.
        preprocessing: of the network.
        source: where the images are from.
        compared: number of these to compare with; 0: none.

    Raises:
        UsageError: no image is left.
    """
    if train is None or not compared:
        return list(sources)
    duplicates = find_duplicates(_Pictures(sources, preprocessing), train, compared)
    if duplicates is None:
        return list(sources)
    repeated = {pair.second for pair in duplicates.pairs}
    new = [source for number, source in enumerate(sources) if number not in repeated]
    if not new:
        raise UsageError(
            f"--other {source}: each of the {plural(len(sources), 'image')} looks like an image "
            "that the network was trained or is evaluated on; give images of none of its classes"
        )
    return new


def _is_among(source: Source, seen: Members) -> bool:
    """Whether a network has seen an image; False if it cannot be read."""
    try:
        with IN_USE:
            content = source.loaded()
            if isinstance(content, ContentError):
                return False
            member = np.uint64(member_of(content))
    except ContentError:
        return False
    return bool(np.isin(member, seen))


def left_out_in_words(count: int) -> str:
    """How many other images are left out, in words."""
    are = "is" if count == 1 else "are"
    return (
        f"{count:,} more {are} left out: the network was trained, validated or tested on them, or "
        "on images that look like them"
    )


def _is_labelled_source(source: str) -> bool:
    """Whether a name that is not a path stands for labelled images."""
    return source == "digits" or source.startswith(HUB)


def _sample(items: Sequence[_T], seed: int) -> list[_T]:
    """A random sample of at most `_MOST` items, in their order."""
    if len(items) <= _MOST:
        return list(items)
    chosen = np.random.default_rng(seed).choice(len(items), _MOST, replace=False)
    return [items[place] for place in sorted(chosen.tolist())]


@dataclass(frozen=True)
class OtherOutputs:
    """The outputs of a network for O other images that could be read.

    Attributes:
        logits: (O, K).
        features: (O, F).
        unreadable: number of further images that could not be read.
    """

    logits: Floats
    features: Floats
    unreadable: int


def compute_outputs(
    engine: Engine, sources: Sequence[Source], batch_size: int = 64
) -> OtherOutputs:
    """Compute the outputs of a network for images.

    Raises:
        UsageError: none of them can be read.
        ContentError: an output is not finite.
    """
    preprocessing, parts = engine.description.preprocessing, []
    unreadable = 0
    for batch in batches_of(sources, lambda source: read(source, preprocessing), batch_size):
        frames = [frame for _, frame in batch if not isinstance(frame, str)]
        unreadable += len(batch) - len(frames)
        with images_named([source.name for source, frame in batch if not isinstance(frame, str)]):
            parts += [outputs_by(engine, stacked(frames))] if frames else []
    if not parts:
        raise UsageError(f"none of the {plural(len(sources), 'other image')} can be read")
    logits, features = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return OtherOutputs(logits, features, unreadable)


@dataclass(frozen=True)
class Others:
    """The statuses that a network gives images of none of its classes.

    `ok` and `not_calibrated` are failures here: such a prediction is taken for one of the classes.

    Attributes:
        source: where they are from.
        ok: share with a prediction that one would rely on.
        not_calibrated: share with a prediction that nothing speaks against, as there is no
            threshold.
        unsure: share recognised by the probability.
        unfamiliar: share recognised by the familiarity score.
        unreadable: number of further images that could not be read.
        seen: number of further images left out, as the network was trained or validated on them,
            or as they look like such images.
        calibrated: whether the network has a threshold, so that an image can be ok or unsure.
    """

    source: str
    ok: Proportion
    unsure: Proportion
    unfamiliar: Proportion
    not_calibrated: Proportion
    unreadable: int = 0
    seen: int = 0
    calibrated: bool = True

    @classmethod
    def of(
        cls,
        engine: Engine,
        sources: Sequence[Source],
        source: str,
        own: Sequence[LabelledImages | None] = (),
        compared: int = COMPARED,
    ) -> "Others":
        """Count the statuses that a network gives the images of a source (`open_others`).

        Args:
            engine: of the network.
            sources: the images.
            source: where they are from.
            own: images of the classes, whose near-duplicates are left out: the training and
                validation images, if they are at hand, and those that the network is evaluated on.
            compared: how many of each to compare with; 0: none.

        Raises:
            UsageError: none of them can be read, or the network has seen them all.
            ContentError: the model file's calibration or familiarity is damaged.
        """
        history = TrainedOn.from_dict(engine.description.trained_on)
        new = without_seen(sources, union([history.trained, history.validated]), source)
        for images in own:
            new = without_similar(new, images, engine.description.preprocessing, source, compared)
        outputs = compute_outputs(engine, new)
        status = statuses_of(engine, outputs)

        def share(name: Status) -> Proportion:
            return Proportion(status.count(name), len(status))

        return cls(
            source,
            ok=share("ok"),
            unsure=share("unsure"),
            unfamiliar=share("unfamiliar"),
            not_calibrated=share("not calibrated"),
            unreadable=outputs.unreadable,
            seen=len(sources) - len(new),
            calibrated=is_calibrated(engine.description),
        )

    def in_words(self) -> str:
        """Several lines for a user."""
        unread = f"; {self.unreadable:,} more cannot be read" if self.unreadable else ""
        left_out = f"; {left_out_in_words(self.seen)}" if self.seen else ""
        accepted = "these would be accepted as one of the classes"
        shares = (
            [f"status ok          {self.ok}: {accepted}", f"status unsure      {self.unsure}"]
            if self.calibrated
            else [f"not calibrated     {self.not_calibrated}: {accepted}"]
        )
        head = f"{plural(self.ok.total, 'other image')}, of {self.source}{unread}{left_out}"
        return "\n  ".join([head, *shares, f"status unfamiliar  {self.unfamiliar}"])

    def to_dict(self) -> dict[str, object]:
        """For JSON: plain values only."""
        return {
            "source": self.source,
            "ok": self.ok.to_dict(),
            "unsure": self.unsure.to_dict(),
            "unfamiliar": self.unfamiliar.to_dict(),
            "not_calibrated": self.not_calibrated.to_dict(),
            "unreadable": self.unreadable,
            "left_out": self.seen,
        }


def statuses_of(engine: Engine, seen: OtherOutputs) -> list[Status]:
    """The status of each of the images."""
    description = engine.description
    familiarity = familiarity_of(description.familiarity)
    confidence = interpret(seen.logits, description)[0].max(axis=1).tolist()
    familiar = None if familiarity is None else familiarity.familiar(seen.features)
    return statuses(confidence, description, familiar)
