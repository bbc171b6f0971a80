"""Exports in whole numbers of 8 bits, which are kept only if they classify nearly as well.

The float32 file of `export` is quantised by its runtime's own tool, with real images, and both are
run on labelled images that took no part in it. Temperature and thresholds are fitted anew: 8 bits
change how sure a network is.
"""

import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnets.data.sources.opening import LabelledImages
from resnets.deployment.export import int8_onnx, int8_openvino
from resnets.deployment.export.files import (
    opened,
    publish,
    read_openvino,
    save_onnx,
    save_openvino,
    size,
    with_report,
)
from resnets.deployment.export.int8_onnx import Choice
from resnets.deployment.exported.reading import read_onnx
from resnets.errors import ContentError, UsageError, require
from resnets.evaluation import recalibration
from resnets.evaluation.calibration import Calibration
from resnets.evaluation.eager import logits_by
from resnets.evaluation.engine import Engine, frames_of
from resnets.evaluation.familiarity import familiarity_of
from resnets.evaluation.metrics import measure
from resnets.evaluation.paired import NORMAL, Comparison, compare
from resnets.images import Pixels, Preprocessing
from resnets.json_text import to_json
from resnets.model_file import Description

MAX_LOSS = 0.5  # points of accuracy
_MAX_DOUBT = 5.0  # points of loss that may be possible, if nobody says --force


@dataclass(frozen=True)
class _Scales:
    """What the scales of the activations were taken from.

    Attributes:
        images: how many.
        classes: how many of the network's classes are among them.
        of: how many classes the network has.
        held_out: other images, by which the layers that stay in float32 were chosen.
    """

    images: int
    classes: int
    of: int
    held_out: int

    def __str__(self) -> str:
        which = f"all {self.of}" if self.classes == self.of else f"{self.classes} of {self.of}"
        return f"{self.images} images of {which} classes"


@dataclass(frozen=True)
class _Quantisation:
    """What the step to 8 bits did.

    Attributes:
        comparison: A is the file in float32, B the one in 8 bits.
        images: on which they were compared, in words.
        scales: what the scales were taken from.
        choice: which layers stayed in float32, and why.
        bytes_before: size of the file in float32.
        bytes_after: size of the file in 8 bits.
        calibration: on what the file's own temperature and thresholds were fitted, in words.
    """

    comparison: Comparison
    images: str
    scales: _Scales
    choice: Choice
    bytes_before: int
    bytes_after: int
    calibration: str

    @property
    def loss(self) -> float:
        """Points of accuracy lost on the images; negative where 8 bits are better."""
        return 0.0 - 100 * self.comparison.pairs.difference

    @property
    def worst(self) -> float:
        """The largest loss that the images do not exclude: the end of its 95 % interval."""
        return -100 * self.comparison.pairs.interval[0]

    def to_dict(self) -> dict[str, Any]:
        """For the metadata of the file: plain values only."""
        before, after = self.comparison.accuracies
        pairs = self.comparison.pairs
        return {
            "images": self.images,
            "calibration_images": self.scales.images,
            "calibration_classes": self.scales.classes,
            "held_out_images": self.scales.held_out,
            "float32_layers": list(self.choice.in_float),
            "accuracy_before": before.to_dict(),
            "accuracy_after": after.to_dict(),
            "loss": self.loss,
            "interval": [-100 * end for end in reversed(pairs.interval)],
            "p_value": pairs.p_value,
            "bytes_before": self.bytes_before,
            "bytes_after": self.bytes_after,
            "temperature_and_thresholds": self.calibration,
        }

    def in_words(self, max_loss: float) -> str:
        """For a person, with what the images do not exclude."""
        before, after = self.comparison.accuracies
        layers = " and ".join(self.choice.in_float)
        kept = f"the {layers} layer in float32" if layers else "no layer in float32"
        lines = [
            f"int8: {kept}, scales from {self.scales}; "
            f"{self.bytes_after:,} bytes instead of {self.bytes_before:,}",
            f"  accuracy in float32  {before}",
            f"  accuracy in int8     {after}",
            f"  {self.comparison.verdict('float32', 'int8')} ({self.images})",
        ]
        if self.worst > max_loss:
            lines.append(f"  {self.doubt()} (allowed: {max_loss:g})")
        return "\n".join([*lines, f"  temperature and thresholds: {self.calibration}"])

    def doubt(self) -> str:
        """What cannot be excluded."""
        total = self.comparison.pairs.total
        return f"a loss of up to {self.worst:.1f} points cannot be excluded on {total:,} images"

    def accuracies(self) -> str:
        """Both, and on which images, in one short sentence."""
        before, after = self.comparison.accuracies
        return f"Right: {before.count:,} in float32, {after.count:,} in int8 ({self.images})"

    def refuse(self, target: str, max_loss: float, force: bool) -> None:
        """Refuse a file that loses too much, or of which too little is known.

        Raises:
            ContentError: more points are lost than `max_loss`; or more than both `max_loss` and
                `_MAX_DOUBT` may be lost, and nobody said `force`.
        """
        if self.loss > max_loss:
            raise ContentError(
                f"{target} is not written: 8 bits lose {self.loss:.2f} points of accuracy, "
                f"{max_loss:g} are allowed (--max-loss). {self.accuracies()}"
            )
        limit = max(max_loss, _MAX_DOUBT)
        if self.worst > limit and not force:
            raise ContentError(
                f"{target} is not written: {self.doubt()}; give {_needed(limit):,} or more "
                f"labelled images with --data, or --force. {self.accuracies()}"
            )


def _needed(points: float) -> int:
    """Images that exclude a loss of more than so many points, if both files agree on all of them.

    The end of Tango's interval is then z^2 / (n + z^2).

    >>> _needed(5.0), _needed(0.5)
    (73, 765)
    """
    share = points / 100
    return math.ceil(NORMAL**2 * (1 - share) / share) if share < 1 else 1


def check_loss(max_loss: float) -> None:
    """Refuse what is no number of points.

    Raises:
        UsageError: it is not from 0 to 100.
    """
    if not 0 <= max_loss <= 100:
        raise UsageError(f"max loss {max_loss}: it is 0 to 100 points of accuracy")


_CALIBRATION = 256  # images for the scales, or one of each class if these are more
_BATCH = 16  # images of a batch of the calibration; of the comparison 16 times as many
_SEED = 0  # of the order in which images are drawn
_Logits = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Quantised:
    """A model in 8 bits that is not written yet.

    Attributes:
        model: the runtime's own.
        header: the metadata, at first those of the file in float32.
        choice: which layers stayed in float32.
        save: writes a model with metadata to a path.
        rescaled: makes the same model with logits times a number.
    """

    model: Any
    header: Mapping[str, str]
    choice: Choice
    save: Callable[[Any, Path, Mapping[str, str]], None]
    rescaled: Callable[[Any, float], Any]


def quantise(
    source: Path,
    target: Path,
    calibration: LabelledImages,
    test: tuple[LabelledImages, str],
    max_loss: float = MAX_LOSS,
    validation: recalibration.CalibrationImages | None = None,
    force: bool = False,
) -> _Quantisation:
    """Write an exported file in 8 bits, if it classifies nearly as well as in float32.

    Args:
        source: what `export` wrote for ONNX Runtime or OpenVINO.
        target: where to; with the same ending. An existing file is replaced.
        calibration: images that the network may have been trained on, for the scales.
        test: images that it was not trained on, and what they are in words.
        max_loss: most points of accuracy that may be lost.
        validation: other such images, for temperature and thresholds.
        force: write the file although too few images were compared.

    Raises:
        UsageError: `max_loss` is not from 0 to 100, the file is of another runtime, or there are
            too few images.
        ContentError: more would or may be lost; nothing is written.
        MissingExtra: the runtime, or NNCF for OpenVINO, is not installed.
    """
    check_loss(max_loss)
    if source.suffix not in _MAKERS or target.suffix != source.suffix:
        raise UsageError(f"{target}: 8 bits are written to {' or '.join(_MAKERS)}")
    images, what = test
    float32 = opened(source)
    drawn = _in_turn(calibration, _number_to_draw(len(calibration.class_names)))
    batches = list(_frames(drawn, float32.description.preprocessing, _BATCH))
    made = _MAKERS[source.suffix](source, batches)
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder) / target.name
        made.save(made.model, trial, made.header)
        rounded = opened(trial)
        made = _familiar_again(made, float32, rounded, validation)
        made, fitted = _recalibrated(made, rounded, validation)
        made.save(made.model, trial, made.header)
        int8 = opened(trial)
        before, after = _logits_of([float32, int8], images)
        done = _Quantisation(
            compare(before.argmax(1), after.argmax(1), images.labels, images.class_names),
            what,
            _scales(made.choice, batches, drawn),
            made.choice,
            size(source),
            size(trial),
            fitted,
        )
        done.refuse(target.name, max_loss, force)
        header = _with_metrics(made.header, int8, {"test": (images, after)}, validation)
        made.save(made.model, trial, with_report(header, {"int8": done.to_dict()}))
        publish(trial, target)
    return done


def _number_to_draw(classes: int) -> int:
    """Images to draw, so that `_CALIBRATION` of them, or one a class, are for the scales.

    >>> _number_to_draw(10)  # 16 batches for the scales, 5 held out
    336
    """
    for_scales = -(-max(_CALIBRATION, classes) // _BATCH)
    return _BATCH * (for_scales + round(for_scales / 3))


def _scales(choice: Choice, batches: Sequence[Pixels], drawn: LabelledImages) -> _Scales:
    """What the scales were taken from: the first of the drawn images."""
    used = sum(len(batch) for batch in batches[: choice.batches])
    seen = len(np.unique(drawn.labels[:used]))
    return _Scales(used, seen, len(drawn.class_names), len(drawn) - used)


def _recalibrated(
    made: Quantised, engine: Engine, validation: recalibration.CalibrationImages | None
) -> tuple[Quantised, str]:
    """The model with a temperature of its own in its graph, and in words what it was fitted on.

    Args:
        made: with the temperature of the network in float32.
        engine: runs it.
        validation: images that the network was not trained on; None if there are none.
    """
    old = engine.description
    if not old.calibration:
        return made, "none, as in float32"
    if validation is None:
        header = {**made.header, "calibration": to_json(_unpromised(old), sort=True)}
        kept = Quantised(made.model, header, made.choice, made.save, made.rescaled)
        return kept, "those of float32, not measured in int8: there are no validation images"
    images = validation.images
    (logits,) = _logits_of([engine], images)
    target = float(old.calibration.get("max_error", recalibration.MAX_ERROR))
    what = f"{validation.what}, in int8"
    new = recalibration.recalibrate(
        old, logits, images.labels, what, target, validation.candidates
    ).calibration
    factor = float(old.calibration["temperature"]) / float(new["temperature"])
    header = {**made.header, "calibration": to_json(new, sort=True)}
    model = made.model if factor == 1 else made.rescaled(made.model, factor)
    return Quantised(model, header, made.choice, made.save, made.rescaled), f"fitted on {what}"


def _familiar_again(
    made: Quantised, float32: Engine, int8: Engine, validation: recalibration.CalibrationImages | None
) -> Quantised:
    """The same with a threshold of familiarity that loses as many validation images as before."""
    known = familiarity_of(float32.description.familiarity)
    if known is None or validation is None:
        return made
    preprocessing, images = float32.description.preprocessing, validation.images
    before, after = (
        np.concatenate([engine.features(batch) for batch in _frames(images, preprocessing, _BATCH)])
        for engine in (float32, int8)
    )
    moved = known.moved(before, after).to_dict()
    header = {**made.header, "familiarity": to_json(moved, sort=True)}
    return Quantised(made.model, header, made.choice, made.save, made.rescaled)


def _unpromised(description: Description) -> dict[str, Any]:
    """A calibration that was measured in float32: for 8 bits it promises nothing."""
    known = Calibration.from_dict(description.calibration)
    return known.without_promises("it was measured in float32").to_dict()


def _with_metrics(
    header: Mapping[str, str],
    engine: Engine,
    measured: Mapping[str, tuple[LabelledImages, _Logits]],
    validation: recalibration.CalibrationImages | None,
) -> dict[str, str]:
    """The metadata with the file's own figures instead of those of the network in float32."""
    every = dict(measured)
    if validation is not None:
        every["validation"] = (validation.images, _logits_of([engine], validation.images)[0])
    figures = {}
    for name, (images, logits) in every.items():
        found = measure(logits, images.labels)
        figures[name] = {"top1": found.top1.to_dict(), "loss": found.loss}
    return {**header, "metrics": to_json(figures, sort=True)}


def _make_onnx(source: Path, batches: Sequence[Pixels]) -> Quantised:
    """An .onnx file in 8 bits, with the metadata of the one in float32."""
    onnx = require("onnx", "onnx")
    content, header = read_onnx(source)
    quantised, choice = int8_onnx.to_int8(content, batches)
    model = onnx.load_from_string(quantised)
    return Quantised(model, header, choice, save_onnx, int8_onnx.rescaled)


def _make_openvino(source: Path, batches: Sequence[Pixels]) -> Quantised:
    """An .xml file in 8 bits and its .bin, with the metadata of the one in float32."""
    model, header = read_openvino(source)
    quantised, choice = int8_openvino.to_int8(model, batches)
    return Quantised(quantised, header, choice, save_openvino, int8_openvino.rescaled)


_MAKERS: dict[str, Callable[[Path, Sequence[Pixels]], Quantised]] = {
    ".onnx": _make_onnx,
    ".xml": _make_openvino,
}


def _in_turn(images: LabelledImages, number: int) -> LabelledImages:
    """At most so many of the images, drawn at random, one of every class after the other."""
    order = np.random.default_rng(_SEED).permutation(len(images))
    labels = images.labels[order]
    by_class = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[by_class], labels[by_class])
    turns = np.empty(len(order), np.int64)
    turns[by_class] = np.arange(len(order)) - starts
    return images.subset(order[np.argsort(turns, kind="stable")][:number])


def _frames(
    images: LabelledImages, preprocessing: Preprocessing, batch_size: int
) -> Iterator[Pixels]:
    """Batches (B, R, R, C) of what an engine passes to its graph as it is."""
    images = images.with_white(preprocessing.white)
    for start in range(0, len(images), batch_size):
        places = range(start, min(start + batch_size, len(images)))
        decoded = (images.image(place, preprocessing.channels) for place in places)
        yield np.concatenate([frames_of(image[None], preprocessing) for image in decoded])


def _logits_of(engines: Sequence[Engine], images: LabelledImages) -> list[_Logits]:
    """Logits before calibration, (N, K), by each engine."""
    found: list[list[_Logits]] = [[] for _ in engines]
    for batch in _frames(images, engines[0].description.preprocessing, 16 * _BATCH):
        for engine, logits in zip(engines, found, strict=True):
            logits.append(logits_by(engine, batch))
    return [np.concatenate(logits) for logits in found]
