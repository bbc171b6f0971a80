"""Evaluation of a network on labelled images: of a data set, or in memory.

Shapes: N images, K classes.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from resnets.data.batches import SINGLE_PROCESS, ProcessRank, evaluation_batches
from resnets.data.membership import Members, first_of_copies
from resnets.data.sources.checks import all_unreadable
from resnets.data.sources.opening import LabelledImages
from resnets.errors import ContentError, UsageError
from resnets.evaluation.calibration import (
    Calibration,
    Reliability,
    is_not_lowered,
    reliability,
)
from resnets.evaluation.doctor.duplicates import (
    COMPARED,
    NearDuplicates,
    find_duplicates,
    near_duplicates,
)
from resnets.evaluation.eager import Eager, logits_by, outputs_by
from resnets.evaluation.engine import (
    Engine,
    batch_size_of,
    batch_size_that_fits,
    finite,
    images_named,
)
from resnets.evaluation.exposure import Exposure, exposure_of_members, member_of
from resnets.evaluation.familiarity import familiarity_of
from resnets.evaluation.logits import Booleans, Integers, log_softmax
from resnets.evaluation.metrics import Metrics, measure
from resnets.evaluation.other_images import Others
from resnets.evaluation.outputs import (
    EvaluationImages,
    Logits,
    logits_and_features,
    logits_and_score,
    logits_of,
)
from resnets.evaluation.predict import batches_of, is_calibrated, read, stacked, statuses
from resnets.evaluation.proportion import Proportion
from resnets.evaluation.source import Source
from resnets.evaluation.statuses import Statuses
from resnets.format import percent, plural
from resnets.images import Pixels
from resnets.images.memory_budget import IN_USE
from resnets.machine import reading_threads
from resnets.model_file import Description, Model, custom_class
from resnets.notebook import html_table

_LARGE = 1 << 32  # bytes that a batch may take when a whole data set is evaluated


@dataclass(frozen=True)
class Evaluation:
    """The figures of a network on some images.

    Attributes:
        images: a phrase that describes them.
        metrics: all figures, of the calibrated probabilities where a temperature was fitted.
        temperature: what the logits were divided by for them; 1 if none was fitted.
        before: accuracy by confidence at temperature 1.
        after: the same at `temperature`.
        statuses: how many images have which status.
        threshold: the least calibrated probability of a prediction that is not unsure; None if
            there is none.
        max_error: target error rate of the threshold: at most this share of the predictions with
            the status ok are wrong; None without threshold.
        promised: whether the target is promised for new images.
        exposure: how many of the images the network has seen; None if that was not asked for.
        warnings: about the images, one sentence each.
        skipped: name and reason of each image that cannot be read.
        near: how many of the images look like training or validation images; None if that was not
            looked for.
        others: which status images of none of the classes get; None if there were none.
        with_copies: accuracy over all images, exact copies included, as published figures count
            them; None if there are no copies. It has no interval, as copies are not independent.
    """

    images: str
    metrics: Metrics
    temperature: float
    before: Reliability
    after: Reliability
    statuses: Statuses
    threshold: float | None = None
    max_error: float | None = None
    promised: bool = False
    exposure: Exposure | None = None
    warnings: tuple[str, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()
    near: NearDuplicates | None = None
    others: Others | None = None
    with_copies: Proportion | None = None

    @property
    def answered(self) -> Proportion:
        """The images whose status is ok."""
        return self.statuses.ok

    @property
    def wrong(self) -> Proportion | None:
        """Of those, the ones with a wrong prediction; None where none is ok."""
        return self.statuses.wrong

    @property
    def error_not_lowered(self) -> bool:
        """Whether the temperature has not lowered the calibration error of these images."""
        return is_not_lowered(self.temperature, self.before.error, self.after.error)

    @property
    def loss_in_words(self) -> str:
        """The loss, and the temperature by which the logits were divided for it."""
        at = "" if self.temperature == 1 else f", at temperature {self.temperature:.2f}"
        return f"{self.metrics.loss:.4f} nats{at}"

    def __repr__(self) -> str:
        error = percent(self.after.error)
        return f"<Evaluation: accuracy {self.metrics.top1}, calibration error {error}>"

    def _repr_html_(self) -> str:
        """For notebooks."""
        never = None if self.statuses.calibrated else self.statuses.not_calibrated
        rows: list[tuple[str, object]] = [
            ("images", self.images),
            ("accuracy", self.metrics.top1),
            ("balanced accuracy", percent(self.metrics.balanced_accuracy, 2)),
            ("loss", self.loss_in_words),
            ("calibration error", percent(self.after.error)),
            ("status ok", self.answered),
            ("of these wrong", self.wrong),
            ("status not calibrated", never),
            *(("warning", text) for text in self.warnings),
        ]
        shown = [row for row in rows if row[1] is not None]
        return html_table(shown, title="Evaluation")

    def to_dict(self) -> dict[str, Any]:
        """For JSON: plain values only."""
        calibration = {
            "temperature": self.temperature,
            "error_before": self.before.error,
            "error_after": self.after.error,
            "threshold": self.threshold,
            "max_error": self.max_error,
            "promised": self.promised,
        }
        about = {
            "images": self.images,
            "seen": None if self.exposure is None else self.exposure.to_dict(),
            "near_duplicates": None if self.near is None else self.near.to_dict(),
            "warnings": list(self.warnings),
            "skipped": [list(pair) for pair in self.skipped],
        }
        rest = {"calibration": calibration, "status": self.statuses.to_dict()}
        others = {} if self.others is None else {"other": self.others.to_dict()}
        whole = self.with_copies
        copies = {
            "top1_with_copies": whole
            and {"count": whole.count, "total": whole.total, "value": whole.value}
        }
        return about | self.metrics.to_dict() | copies | rest | others


class Outputs(NamedTuple):
    """What a network computes for N images.

    Attributes:
        logits: (N, K).
        familiar: (N,), whether each image is familiar; None where the network has no such score.
        features: (N, F), what the classifier sees, where that was asked for; None for a module of
            the user's own, whose features are not known.
    """

    logits: Logits
    familiar: Booleans | None
    features: Logits | None = None

    def subset(self, chosen: Booleans) -> "Outputs":
        """Those of some of the images, by a mask (N,)."""
        familiar = None if self.familiar is None else self.familiar[chosen]
        features = None if self.features is None else self.features[chosen]
        return Outputs(self.logits[chosen], familiar, features)


def evaluate_logits(
    description: Description,
    logits: ArrayLike,
    labels: ArrayLike,
    what: str,
    familiar: Booleans | None = None,
) -> Evaluation:
    """Compute all figures of a network from its logits.

    Args:
        description: of the network: its classes and its temperature.
        logits: (N, K), as the network gives them.
        labels: (N,), 0 ... K-1.
        what: a phrase that describes the images.
        familiar: (N,), see `Outputs`.

    Raises:
        UsageError: the shapes do not fit, or there is no image.
        ContentError: a logit is NaN or infinite.
    """
    calibration = (
        Calibration.from_dict(description.calibration) if description.calibration else None
    )
    temperature = calibration.temperature if calibration else 1.0
    calibrated = np.asarray(logits, dtype=np.float64) / temperature
    metrics = measure(calibrated, labels, description.class_names)
    confidence = np.exp(log_softmax(calibrated)).max(axis=1).tolist()
    correct = calibrated.argmax(axis=1) == np.asarray(labels)
    evaluation = Evaluation(
        images=what,
        metrics=metrics,
        temperature=temperature,
        before=reliability(logits, labels),
        after=reliability(calibrated, labels),
        statuses=Statuses.of(
            statuses(confidence, description, familiar), correct, is_calibrated(description)
        ),
    )
    if calibration is None:
        return evaluation
    return replace(
        evaluation,
        threshold=calibration.threshold,
        max_error=calibration.max_error,
        promised=calibration.promised,
    )


def evaluate_selection(
    description: Description, outputs: Outputs, chosen: EvaluationImages, compared: int = COMPARED
) -> Evaluation:
    """As `evaluate_logits`, with what is known about the images; see `choose_images`.

    Args:
        description: of the network.
        outputs: of the network.
        chosen: the N images.
        compared: number of training and validation images in which to look for near-duplicates, if
            the images are new to the network; 0: none.
    """
    logits, labels = outputs.logits, chosen.images.labels
    evaluation = evaluate_logits(description, logits, labels, chosen.what, outputs.familiar)
    near, right = None, logits.argmax(axis=1) == labels
    if compared and chosen.seen is not None and not chosen.exposure.seen:
        near = near_duplicates(find_duplicates(chosen.images, chosen.seen, compared), right)
    return replace(
        evaluation,
        exposure=chosen.exposure,
        warnings=chosen.warnings,
        skipped=chosen.skipped,
        near=near,
        with_copies=_with_copies(right, chosen.copies),
    )


def _with_copies(right: Booleans, copies: Integers | None) -> Proportion | None:
    """The accuracy where every exact copy counts; None if there are none.

    Args:
        right: (N,), whether each prediction is right.
        copies: (N,), see `EvaluationImages`.
    """
    if copies is None or not (copies > 1).any():
        return None
    return Proportion(int(copies[right].sum()), int(copies.sum()))


def outputs_of(
    engine: Engine,
    images: LabelledImages,
    batch_size: int = 256,
    process: ProcessRank = SINGLE_PROCESS,
) -> Outputs:
    """What an engine computes for labelled images, in their order, in every process.

    Args:
        engine: of `open_engine`; torch computes where its network is.
        images: N of them.
        batch_size: images computed at once in each process.
        process: which of several processes this is; they share the computation of torch.

    Raises:
        ContentError: an image cannot be read; the message names it.
        UsageError: there is no image, or `batch_size` is less than 1.
    """
    if isinstance(engine, Eager):
        return outputs_on(engine.model, images, batch_size, process)
    return _outputs_of_files(engine, images, batch_size)


def outputs_on(
    model: Model,
    images: LabelledImages,
    batch_size: int = 256,
    process: ProcessRank = SINGLE_PROCESS,
) -> Outputs:
    """What a network computes for labelled images, in their order, in every process.

    Args:
        model: its network is used where it is.
        images: N of them.
        batch_size: images computed at once in each process.
        process: which of several processes this is.

    Raises:
        ContentError: an image cannot be read; the message names it.
        UsageError: there is no image, or `batch_size` is less than 1.
    """
    device = next(model.network.parameters()).device
    preprocessing = model.description.preprocessing
    size = batch_size_that_fits(model.description, batch_size, _LARGE)
    batches = evaluation_batches(images, preprocessing, size, process, device=device)
    familiarity = familiarity_of(model.description.familiarity)
    compute = None if familiarity is None else logits_and_score(model.network, familiarity)
    with images_named(images.names), all_unreadable(lambda: [images]):
        rows = finite(logits_of(model.network, batches, len(images), compute))
    if familiarity is None:
        return Outputs(rows, None)
    return Outputs(rows[:, :-1], rows[:, -1] >= familiarity.threshold)


def outputs_and_features(model: Model, images: LabelledImages, batch_size: int = 256) -> Outputs:
    """The outputs of `outputs_on` with the features that they are computed from.

    Raises:
        ContentError: an image cannot be read; the message names it.
        UsageError: there is no image, or `batch_size` is less than 1.
    """
    network, description = model.network, model.description
    if custom_class(description.architecture):
        return outputs_on(model, images, batch_size)
    size = batch_size_that_fits(description, batch_size, _LARGE)
    device = next(network.parameters()).device
    batches = evaluation_batches(images, description.preprocessing, size, device=device)
    with images_named(images.names), all_unreadable(lambda: [images]):
        rows = finite(logits_of(network, batches, len(images), logits_and_features(network)))
    logits, features = np.split(rows, [len(description.class_names)], axis=1)
    familiarity = familiarity_of(description.familiarity)
    return Outputs(
        logits, None if familiarity is None else familiarity.familiar(features), features
    )


def _outputs_of_files(engine: Engine, images: LabelledImages, batch_size: int = 256) -> Outputs:
    """What an engine computes for labelled images, in their order: see `logits_by`.

    Raises:
        ContentError: an image cannot be read; the message names it.
        UsageError: there is no image, or `batch_size` is less than 1.
    """
    if batch_size < 1 or not len(images):
        raise UsageError(
            f"{plural(len(images), 'image')} in batches of {batch_size}: needs at least 1"
        )
    preprocessing = engine.description.preprocessing
    images = images.with_white(preprocessing.white)
    batch_size = batch_size_of(engine, batch_size, _LARGE)

    def frame(index: int) -> Pixels:
        with IN_USE:
            return preprocessing.frame(images.image(index, preprocessing.channels))

    parts = []
    with all_unreadable(lambda: [images]), ThreadPoolExecutor(reading_threads()) as pool:
        for start in range(0, len(images), batch_size):
            batch = range(start, min(start + batch_size, len(images)))
            with images_named([images.names[index] for index in batch]):
                parts.append(_outputs_of_batch(engine, np.stack(list(pool.map(frame, batch)))))
    return _concatenated(parts)


def _outputs_of_batch(engine: Engine, images: Pixels, keep_features: bool = False) -> Outputs:
    """The outputs of an engine for a batch (B, H, W, C) uint8."""
    familiarity = familiarity_of(engine.description.familiarity)
    if familiarity is None and not keep_features:
        return Outputs(logits_by(engine, images), None)
    logits, features = outputs_by(engine, images)
    familiar = None if familiarity is None else familiarity.familiar(features)
    return Outputs(logits, familiar, features if keep_features else None)


def _concatenated(parts: Sequence[Outputs]) -> Outputs:
    """The outputs of several batches as those of one."""
    familiar = [part.familiar for part in parts if part.familiar is not None]
    features = [part.features for part in parts if part.features is not None]
    logits = np.concatenate([part.logits for part in parts])
    return Outputs(
        logits,
        np.concatenate(familiar) if familiar else None,
        np.concatenate(features) if features else None,
    )


def evaluate_sources(
    engine: Engine,
    sources: Sequence[Source],
    labels: Sequence[Any],
    *,
    batch_size: int = 256,
    skip_unreadable: bool = False,
) -> Evaluation:
    """All figures of a network on images without a data set: see `outputs_of_sources`."""
    outputs, numbers, readable = outputs_of_sources(
        engine, sources, labels, batch_size=batch_size, skip_unreadable=skip_unreadable
    )
    members = members_of_readable(sources, readable)
    once, copies = first_of_copies(members, numbers)
    outputs, numbers = outputs.subset(once), numbers[once]
    exposure = replace(
        exposure_of_members(members[once], engine.description),
        left_copies=len(members) - len(numbers),
    )
    clauses = (
        exposure.in_words(),
        exposure.not_looked_for(at_hand=False),
        exposure.copies_left_out,
    )
    what = "; ".join([plural(len(numbers), "image"), *filter(None, clauses)])
    evaluation = evaluate_logits(
        engine.description, outputs.logits, numbers, what, outputs.familiar
    )
    right = outputs.logits.argmax(axis=1) == numbers
    return replace(evaluation, exposure=exposure, with_copies=_with_copies(right, copies))


def members_of_readable(sources: Sequence[Source], readable: NDArray[np.bool]) -> Members:
    """What each image that can be read is recognised by, (N,).

    Args:
        sources: the images.
        readable: a mask of those that can be read, see `outputs_of_sources`.
    """
    pairs = zip(sources, readable.tolist(), strict=True)
    contents = (source.loaded() for source, is_readable in pairs if is_readable)
    return np.array(
        [member_of(each) for each in contents if not isinstance(each, ContentError)], np.uint64
    )


def outputs_of_sources(
    engine: Engine,
    sources: Sequence[Source],
    labels: Sequence[Any],
    *,
    batch_size: int = 256,
    skip_unreadable: bool = False,
    keep_features: bool = False,
) -> tuple[Outputs, NDArray[np.int64], NDArray[np.bool]]:
    """The outputs of a network for images without a data set.

    Args:
        engine: runs the network.
        sources: the images.
        labels: numbers or names of the network's classes, one for each image.
        batch_size: images computed at once.
        skip_unreadable: leave out images that cannot be read.
        keep_features: whether the outputs hold the features too, of a network that has them.

    Returns:
        Outputs and labels (N,) of the N images that can be read; and a mask of these among all.

    Raises:
        ContentError: an image cannot be read and may not be skipped; the message names it.
        UsageError: a label is unknown, there is no image, or not one label for each.
    """
    description = engine.description
    preprocessing = description.preprocessing
    numbers = _numbered_labels(labels, description.class_names)
    if len(numbers) != len(sources):
        raise UsageError(f"{plural(len(sources), 'image')}, but {plural(len(numbers), 'label')}")
    parts, readable = [], []
    size = batch_size_of(engine, batch_size, _LARGE)
    for batch in batches_of(sources, lambda source: read(source, preprocessing), size):
        for source, pixels in batch:
            if isinstance(pixels, str) and not skip_unreadable:
                raise ContentError(f"{source.name}: {pixels} (or skip_unreadable=True)")
            readable.append(not isinstance(pixels, str))
        pixels_read = [pixels for _, pixels in batch if not isinstance(pixels, str)]
        if pixels_read:
            with images_named(
                [source.name for source, pixels in batch if not isinstance(pixels, str)]
            ):
                parts.append(_outputs_of_batch(engine, stacked(pixels_read), keep_features))
    if not parts:
        raise UsageError("there is no image to evaluate the network on")
    mask = np.array(readable)
    return _concatenated(parts), numbers[mask], mask


def _numbered_labels(labels: Sequence[Any], class_names: Sequence[str]) -> NDArray[np.int64]:
    """Labels as class numbers, (N,), from numbers or from names of classes.

    Raises:
        UsageError: a label is neither.
    """
    numbers = {name: index for index, name in enumerate(class_names)}
    class_numbers = []
    for label in np.asarray(labels).tolist():
        number = numbers.get(label) if isinstance(label, str) else label
        if not isinstance(number, int) or not 0 <= number < len(class_names):
            raise UsageError(
                f"label {label!r}: the network has the classes 0 to {len(class_names) - 1}, "
                f"{', '.join(class_names[:10])}{' ...' if len(class_names) > 10 else ''}"
            )
        class_numbers.append(number)
    return np.array(class_numbers, dtype=np.int64)
