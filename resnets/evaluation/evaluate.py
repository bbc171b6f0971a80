"""How good a network is on labelled images, wherever they are.

Shapes: N images, K classes.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from resnets.data.batches import FIRST, Place, evaluation_batches
from resnets.data.sources.opening import LabelledImages
from resnets.errors import ContentError, UsageError
from resnets.evaluation.calibration import Calibration, Reliability, reliability
from resnets.evaluation.doctor.duplicates import (
    COMPARED,
    NearDuplicates,
    find_duplicates,
    near_duplicates,
)
from resnets.evaluation.eager import Eager, logits_by, outputs_by
from resnets.evaluation.engine import Engine, at_once, finite, images_named
from resnets.evaluation.exposure import Exposure, exposure_of_contents
from resnets.evaluation.familiarity import familiarity_of
from resnets.evaluation.logits import Booleans, log_softmax
from resnets.evaluation.metrics import Metrics, measure
from resnets.evaluation.other_images import Others
from resnets.evaluation.outputs import EvaluationImages, Logits, logits_and_score, logits_of
from resnets.evaluation.predict import Source, batches_of, read, stacked, statuses
from resnets.evaluation.proportion import Proportion
from resnets.evaluation.statuses import Statuses
from resnets.format import percent
from resnets.images import Pixels
from resnets.images.room import IN_USE
from resnets.machine import reading_threads
from resnets.model_file import Description, Model
from resnets.notebook import html_table

_LARGE = 1 << 32  # bytes that a batch may take when a whole data set is measured


@dataclass(frozen=True)
class Evaluation:
    """How good a network is on some images.

    Attributes:
        images: which ones, in words.
        metrics: all figures, of the calibrated probabilities where a temperature was fitted.
        temperature: what the logits were divided by for them; 1 if none was fitted.
        before: how right the answers of each confidence are at temperature 1.
        after: the same at `temperature`.
        threshold: the least calibrated probability of a prediction that is not unsure; None if
            there is none.
        statuses: how many images are ok, unsure and unfamiliar; None where the model file has
            neither a threshold nor a familiarity score.
        max_error: what the threshold was fitted for: at most this share of the predictions that are
            ok are wrong; None if there is none.
        promised: whether that is promised for new images.
        exposure: how many of the images the network has seen before; None if nobody asked.
        warnings: about the images, one sentence each.
        skipped: name and reason of each image that cannot be read.
        near: which of the images look like training images; None if that was not looked for.
        others: which status images of none of the classes get; None where none were given.
    """

    images: str
    metrics: Metrics
    temperature: float
    before: Reliability
    after: Reliability
    threshold: float | None = None
    statuses: Statuses | None = None
    max_error: float | None = None
    promised: bool = False
    exposure: Exposure | None = None
    warnings: tuple[str, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()
    near: NearDuplicates | None = None
    others: Others | None = None

    @property
    def answered(self) -> Proportion | None:
        """The images whose status is ok."""
        return None if self.statuses is None else self.statuses.ok

    @property
    def wrong(self) -> Proportion | None:
        """Of those, the ones with a wrong prediction; None where there is none."""
        return None if self.statuses is None else self.statuses.wrong

    def _repr_html_(self) -> str:
        """For notebooks."""
        rows: list[tuple[str, object]] = [
            ("images", self.images),
            ("accuracy", self.metrics.top1),
            ("balanced accuracy", percent(self.metrics.balanced_accuracy, 2)),
            ("loss", f"{self.metrics.loss:.4f}"),
            ("calibration error", percent(self.after.error)),
            ("status ok", self.answered),
            ("of these wrong", self.wrong),
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
            "skipped": [list(each) for each in self.skipped],
        }
        rest = {"calibration": calibration, "status": self.statuses and self.statuses.to_dict()}
        others = {} if self.others is None else {"other": self.others.to_dict()}
        return about | self.metrics.to_dict() | rest | others


class Outputs(NamedTuple):
    """What a network computes for N images.

    Attributes:
        logits: (N, K).
        familiar: (N,), whether each image is familiar; None where the network has no such score.
    """

    logits: Logits
    familiar: Booleans | None


def evaluate_logits(
    description: Description,
    logits: ArrayLike,
    labels: ArrayLike,
    what: str,
    familiar: Booleans | None = None,
) -> Evaluation:
    """All figures of a network, from what it says of some images.

    Args:
        description: of the network: its classes and its temperature.
        logits: (N, K), as the network gives them.
        labels: (N,), 0 ... K-1.
        what: which images, in words.
        familiar: (N,), see `Outputs`.

    Raises:
        UsageError: the shapes do not fit, or there is no image.
        ContentError: a logit is NaN or infinite.
    """
    fitted = Calibration.from_dict(description.calibration) if description.calibration else None
    temperature = fitted.temperature if fitted else 1.0
    calibrated = np.asarray(logits, dtype=np.float64) / temperature
    found = Evaluation(
        images=what,
        metrics=measure(calibrated, labels, description.class_names),
        temperature=temperature,
        before=reliability(logits, labels),
        after=reliability(calibrated, labels),
    )
    if fitted is None and familiar is None:
        return found
    confidence = np.exp(log_softmax(calibrated)).max(axis=1).tolist()
    correct = calibrated.argmax(axis=1) == np.asarray(labels)
    counted = Statuses.of(statuses(confidence, description, familiar), correct)
    if fitted is None:
        return replace(found, statuses=counted)
    return replace(
        found,
        threshold=fitted.threshold,
        statuses=counted,
        max_error=fitted.max_error,
        promised=fitted.promised,
    )


def evaluate_selection(
    description: Description, outputs: Outputs, chosen: EvaluationImages, compared: int = COMPARED
) -> Evaluation:
    """As `evaluate_logits`, with what is known of the images; see `choose`.

    Args:
        description: of the network.
        outputs: of the network.
        chosen: the N images.
        compared: training images in which to look for near-duplicates, if the images are new to
            the network; 0: none.
    """
    logits, labels = outputs.logits, chosen.images.labels
    found = evaluate_logits(description, logits, labels, chosen.what, outputs.familiar)
    near = None
    if compared and chosen.train is not None and not chosen.exposure.seen:
        right = logits.argmax(axis=1) == labels
        near = near_duplicates(find_duplicates(chosen.images, chosen.train, compared), right)
    return replace(
        found,
        exposure=chosen.exposure,
        warnings=chosen.warnings,
        skipped=chosen.skipped,
        near=near,
    )


def outputs_of(
    engine: Engine, images: LabelledImages, batch_size: int = 256, place: Place = FIRST
) -> Outputs:
    """What an engine computes for labelled images, in their order, in every process.

    Args:
        engine: of `open_engine`; torch computes where its network is.
        images: N of them.
        batch_size: images computed at once in each process.
        place: which of several processes this is; they share what torch computes.

    Raises:
        ContentError: an image cannot be read; the message names it.
        UsageError: there is no image, or `batch_size` is less than 1.
    """
    if isinstance(engine, Eager):
        return outputs_on(engine.model, images, batch_size, place)
    return _outputs_of_files(engine, images, batch_size)


def logits_on(
    model: Model, images: LabelledImages, batch_size: int = 256, place: Place = FIRST
) -> Logits:
    """The logits of `outputs_on` alone, (N, K)."""
    return outputs_on(model, images, batch_size, place).logits


def outputs_on(
    model: Model, images: LabelledImages, batch_size: int = 256, place: Place = FIRST
) -> Outputs:
    """What a network computes for labelled images, in their order, in every process.

    Args:
        model: its network is used where it is.
        images: N of them.
        batch_size: images computed at once in each process.
        place: which of several processes this is.

    Raises:
        ContentError: an image cannot be read; the message names it.
        UsageError: there is no image, or `batch_size` is less than 1.
    """
    device = next(model.network.parameters()).device
    preprocessing = model.description.preprocessing
    size = at_once(model.description, batch_size, _LARGE)
    batches = evaluation_batches(images, preprocessing, size, place, device=device)
    known = familiarity_of(model.description.familiarity)
    compute = None if known is None else logits_and_score(model.network, known)
    with images_named(images.names):
        found = finite(logits_of(model.network, batches, len(images), compute))
    if known is None:
        return Outputs(found, None)
    return Outputs(found[:, :-1], found[:, -1] >= known.threshold)


def _outputs_of_files(engine: Engine, images: LabelledImages, batch_size: int = 256) -> Outputs:
    """What an engine computes for labelled images, in their order: see `logits_by`.

    Raises:
        ContentError: an image cannot be read; the message names it.
        UsageError: there is no image, or `batch_size` is less than 1.
    """
    if batch_size < 1 or not len(images):
        raise UsageError(f"{len(images)} images in batches of {batch_size}: needs at least 1")
    preprocessing = engine.description.preprocessing
    images = images.with_white(preprocessing.white)
    batch_size = at_once(engine.description, batch_size, _LARGE)

    def frame(index: int) -> Pixels:
        with IN_USE:
            return preprocessing.frame(images.image(index, preprocessing.channels))

    parts = []
    with ThreadPoolExecutor(reading_threads()) as pool:
        for start in range(0, len(images), batch_size):
            batch = range(start, min(start + batch_size, len(images)))
            with images_named([images.names[index] for index in batch]):
                parts.append(_outputs_of_batch(engine, np.stack(list(pool.map(frame, batch)))))
    return _concatenated(parts)


def _outputs_of_batch(engine: Engine, images: Pixels) -> Outputs:
    """What an engine computes for a batch (B, H, W, C) uint8."""
    known = familiarity_of(engine.description.familiarity)
    if known is None:
        return Outputs(logits_by(engine, images), None)
    logits, features = outputs_by(engine, images)
    return Outputs(logits, known.familiar(features))


def _concatenated(parts: Sequence[Outputs]) -> Outputs:
    """Batches of one network as one."""
    familiar = [each.familiar for each in parts if each.familiar is not None]
    logits = np.concatenate([each.logits for each in parts])
    return Outputs(logits, np.concatenate(familiar) if familiar else None)


def evaluate_sources(
    engine: Engine,
    sources: Sequence[Source],
    labels: Sequence[Any],
    *,
    batch_size: int = 256,
    skip_unreadable: bool = False,
) -> Evaluation:
    """All figures of a network on images without a data set: see `outputs_of_sources`."""
    found, numbers, readable = outputs_of_sources(
        engine, sources, labels, batch_size=batch_size, skip_unreadable=skip_unreadable
    )
    seen = [each.content for each, kept in zip(sources, readable, strict=True) if kept]
    exposure = exposure_of_contents(seen, engine.description)
    said = filter(None, (exposure.in_words(), exposure.not_looked_for(at_hand=False)))
    what = "; ".join([f"{len(numbers):,} images", *said])
    judged = evaluate_logits(engine.description, found.logits, numbers, what, found.familiar)
    return replace(judged, exposure=exposure)


def outputs_of_sources(
    engine: Engine,
    sources: Sequence[Source],
    labels: Sequence[Any],
    *,
    batch_size: int = 256,
    skip_unreadable: bool = False,
) -> tuple[Outputs, NDArray[np.int64], NDArray[np.bool]]:
    """What a network computes for images that need no source of their own.

    Args:
        engine: runs the network.
        sources: the images.
        labels: numbers or names of the network's classes, one for each image.
        batch_size: images computed at once.
        skip_unreadable: leave out images that cannot be read.

    Returns:
        Of the N that can be read, what was computed and labels (N,); and which of all these are.

    Raises:
        ContentError: an image cannot be read and none may be skipped; the message names it.
        UsageError: a label is unknown, there is no image, or not one label for each.
    """
    description = engine.description
    preprocessing = description.preprocessing
    numbers = _numbered_labels(labels, description.class_names)
    if len(numbers) != len(sources):
        raise UsageError(f"{len(sources)} images, but {len(numbers)} labels")
    parts, readable = [], []
    size = at_once(engine.description, batch_size, _LARGE)
    for batch in batches_of(sources, lambda source: read(source, preprocessing), size):
        for source, pixels in batch:
            if isinstance(pixels, str) and not skip_unreadable:
                raise ContentError(f"{source.name}: {pixels} (or skip_unreadable=True)")
            readable.append(not isinstance(pixels, str))
        seen = [pixels for _, pixels in batch if not isinstance(pixels, str)]
        if seen:
            with images_named(
                [source.name for source, pixels in batch if not isinstance(pixels, str)]
            ):
                parts.append(_outputs_of_batch(engine, stacked(seen)))
    if not parts:
        raise UsageError("there is no image to evaluate the network on")
    mask = np.array(readable)
    return _concatenated(parts), numbers[mask], mask


def _numbered_labels(labels: Sequence[Any], class_names: Sequence[str]) -> NDArray[np.int64]:
    """Labels as numbers of classes, (N,), whether given so or as the classes' names.

    Raises:
        UsageError: a label is neither.
    """
    numbers = {name: number for number, name in enumerate(class_names)}
    found = []
    for label in np.asarray(labels).tolist():
        known = numbers.get(label) if isinstance(label, str) else label
        if not isinstance(known, int) or not 0 <= known < len(class_names):
            raise UsageError(
                f"label {label!r}: the network has the classes 0 to {len(class_names) - 1}, "
                f"{', '.join(class_names[:10])}{' ...' if len(class_names) > 10 else ''}"
            )
        found.append(known)
    return np.array(found, dtype=np.int64)
