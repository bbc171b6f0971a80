"""Export in int8, which is kept only if it classifies nearly as well as float32.

The float32 file of `export` is quantised by its runtime's own tool, with real images. Both files
are evaluated on other labelled images. Temperature and thresholds are fitted again, since
quantisation changes the confidence of a network.
"""

import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnets.data.sources.opening import LabelledImages
from resnets.deployment.export import int8_onnx, int8_openvino
from resnets.deployment.export.files import (
    open_exported,
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
from resnets.format import byte_size, plural
from resnets.golden import golden_from, golden_image
from resnets.images import Pixels, Preprocessing
from resnets.json_text import to_json
from resnets.model_file import Description

MAX_LOSS = 0.5  # percentage points of accuracy
_MAX_POSSIBLE_LOSS = 5.0  # end of the 95 % interval, in percentage points, unless --force


@dataclass(frozen=True)
class _Scales:
    """The images from which the scales of the activations were computed.

    Attributes:
        images: number of images.
        classes: number of the network's classes among them.
        of: number of the network's classes.
        held_out: number of other images, by which the layers in float32 were chosen.
    """

    images: int
    classes: int
    of: int
    held_out: int

    def __str__(self) -> str:
        some = "all " if self.classes == self.of else f"{self.classes} of "
        return f"{plural(self.images, 'image')} of {some}{plural(self.of, 'class')}"


@dataclass(frozen=True)
class Quantisation:
    """The effect of quantisation.

    Attributes:
        comparison: A is the file in float32, B the one in int8.
        images: a description of the images on which they were compared.
        scales: the images from which the scales were computed.
        choice: the layers that stayed in float32, and why.
        bytes_before: size of the file in float32.
        bytes_after: size of the file in int8.
        calibration: how temperature and thresholds of the file were fitted, in words.
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
        """Loss of accuracy on the images in percentage points; negative where int8 is better."""
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
        """A summary of several lines, with the loss that cannot be excluded."""
        before, after = self.comparison.accuracies
        layers = " and ".join(self.choice.in_float)
        in_float = f"the {layers} layer in float32" if layers else "no layer in float32"
        lines = [
            f"int8: {in_float}, scales from {self.scales}; {byte_size(self.bytes_after)} instead "
            f"of {byte_size(self.bytes_before)}",
            f"  accuracy in float32  {before}",
            f"  accuracy in int8     {after}",
            f"  {self.comparison.verdict('float32', 'int8')} ({self.images})",
        ]
        if self.worst > max_loss:
            lines.append(f"  {self.possible_loss()} (allowed: {max_loss:g})")
        return "\n".join([*lines, f"  temperature and thresholds: {self.calibration}"])

    def possible_loss(self) -> str:
        """The loss that cannot be excluded, as a clause."""
        total = self.comparison.pairs.total
        return (
            f"a loss of up to {self.worst:.1f} points cannot be excluded on "
            f"{plural(total, 'image')}"
        )

    def accuracies(self) -> str:
        """Both accuracies, and on which images, in one short sentence."""
        before, after = self.comparison.accuracies
        return f"Right: {before.count:,} in float32, {after.count:,} in int8 ({self.images})"

    def refuse(self, target: str, max_loss: float, force: bool) -> None:
        """Refuse a file whose loss is too large, or not known well enough.

        Raises:
            ContentError: the loss is above `max_loss`; or a loss above both `max_loss` and
                `_MAX_POSSIBLE_LOSS` cannot be excluded, and `force` is not set.
        """
        if self.loss > max_loss:
            raise ContentError(
                f"{target} is not written: int8 loses {self.loss:.2f} points of accuracy, "
                f"{max_loss:g} are allowed (--max-loss). {self.accuracies()}"
            )
        limit = max(max_loss, _MAX_POSSIBLE_LOSS)
        if self.worst > limit and not force:
            raise ContentError(
                f"{target} is not written: {self.possible_loss()}; give {_images_needed(limit):,} "
                f"or more labelled images with --data, or --force. {self.accuracies()}"
            )


def _images_needed(points: float) -> int:
    """Number of images to exclude a loss of more than `points`, if the files agree on all of them.

    The end of Tango's interval is then z^2 / (n + z^2).

    >>> _images_needed(5.0), _images_needed(0.5)
    (73, 765)
    """
    share = points / 100
    return math.ceil(NORMAL**2 * (1 - share) / share) if share < 1 else 1


def check_loss(max_loss: float) -> None:
    """Check a largest allowed loss of accuracy.

    Raises:
        UsageError: it is not from 0 to 100.
    """
    if not 0 <= max_loss <= 100:
        raise UsageError(
            f"max loss {max_loss}: it must be from 0 to 100 percentage points of accuracy"
        )


_CALIBRATION = 256  # images for the scales, or one per class if there are more classes
_BATCH = 16  # images in a batch of the calibration; 16 times as many in the comparison
_SEED = 0  # of the order of the images
_Logits = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class _QuantisedModel:
    """A model in int8 that is not written yet.

    Attributes:
        model: an object of the runtime.
        header: the metadata, at first those of the file in float32.
        choice: the layers that stayed in float32.
        save: writes a model with metadata to a path.
        rescaled: multiplies the logits of a model by a number.
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
) -> Quantisation:
    """Write an exported file in int8, if it classifies nearly as well as in float32.

    Args:
        source: a file that `export` wrote for ONNX Runtime or OpenVINO.
        target: the file to write, with the same suffix; an existing one is replaced.
        calibration: images for the scales; the network may have been trained on them.
        test: images that it was not trained on, and a description of them.
        max_loss: largest allowed loss of accuracy, in percentage points.
        validation: other such images, for temperature and thresholds.
        force: write the file even if too few images were compared.

    Raises:
        UsageError: `max_loss` is not from 0 to 100, the file is for another runtime, or there are
            too few images.
        ContentError: the loss is or may be larger; nothing is written.
        MissingExtra: the runtime, or NNCF for OpenVINO, is not installed.
    """
    check_loss(max_loss)
    if source.suffix not in _MAKERS or target.suffix != source.suffix:
        raise UsageError(f"{target}: int8 is written to {' or '.join(_MAKERS)}")
    images, description = test
    float32 = open_exported(source)
    drawn = _balanced_sample(calibration, _number_to_draw(len(calibration.class_names)))
    batches = list(_frames(drawn, float32.description.preprocessing, _BATCH))
    quantised = _MAKERS[source.suffix](source, batches)
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder) / target.name
        quantised.save(quantised.model, trial, quantised.header)
        rounded = open_exported(trial)
        quantised = _with_familiarity(quantised, float32, rounded, validation)
        quantised, calibration_words = _with_calibration(quantised, rounded, validation)
        quantised.save(quantised.model, trial, quantised.header)
        int8 = open_exported(trial)
        before, after = _logits_of([float32, int8], images)
        quantisation = Quantisation(
            compare(before.argmax(1), after.argmax(1), images.labels, images.class_names),
            description,
            _scales(quantised.choice, batches, drawn),
            quantised.choice,
            size(source),
            size(trial),
            calibration_words,
        )
        quantisation.refuse(target.name, max_loss, force)
        header = _with_metrics(quantised.header, int8, {"test": (images, after)}, validation)
        quantised.save(
            quantised.model, trial, with_report(header, {"int8": quantisation.to_dict()})
        )
        publish(trial, target)
    return quantisation


def _number_to_draw(classes: int) -> int:
    """Number of images to draw, so that `_CALIBRATION` or one per class are for the scales.

    >>> _number_to_draw(10)  # 16 batches for the scales, 5 held out
    336
    """
    for_scales = -(-max(_CALIBRATION, classes) // _BATCH)
    return _BATCH * (for_scales + round(for_scales / 3))


def _scales(choice: Choice, batches: Sequence[Pixels], drawn: LabelledImages) -> _Scales:
    """The images from which the scales were computed: the first of the drawn ones."""
    used = sum(len(batch) for batch in batches[: choice.batches])
    classes = len(np.unique(drawn.labels[:used]))
    return _Scales(used, classes, len(drawn.class_names), len(drawn) - used)


def _with_calibration(
    quantised: _QuantisedModel, engine: Engine, validation: recalibration.CalibrationImages | None
) -> tuple[_QuantisedModel, str]:
    """The model with a temperature fitted in int8, and how that was fitted, in words.

    Args:
        quantised: with the temperature of the network in float32.
        engine: runs it.
        validation: images that the network was not trained on; None if there are none.
    """
    description = engine.description
    if not description.calibration:
        return quantised, "none, as in float32"
    if validation is None:
        calibration = to_json(_without_guarantees(description), sort=True)
        header = {**quantised.header, "calibration": calibration}
        words = "those of float32, not measured in int8, because validation images are missing"
        return replace(quantised, header=header), words
    images = validation.images
    (logits,) = _logits_of([engine], images)
    target = float(description.calibration.get("max_error", recalibration.MAX_ERROR))
    words = f"{validation.what}, in int8"
    new = recalibration.recalibrate(
        description, logits, images.labels, words, target, validation.candidates
    ).calibration
    factor = float(description.calibration["temperature"]) / float(new["temperature"])
    header = {**quantised.header, "calibration": to_json(new, sort=True)}
    model = quantised.model if factor == 1 else quantised.rescaled(quantised.model, factor)
    return replace(quantised, model=model, header=header), f"fitted on {words}"


def _with_familiarity(
    quantised: _QuantisedModel,
    float32: Engine,
    int8: Engine,
    validation: recalibration.CalibrationImages | None,
) -> _QuantisedModel:
    """The model with a familiarity threshold that rejects as many validation images as before."""
    familiarity = familiarity_of(float32.description.familiarity)
    if familiarity is None or validation is None:
        return quantised
    preprocessing, images = float32.description.preprocessing, validation.images
    before, after = (
        np.concatenate([engine.features(batch) for batch in _frames(images, preprocessing, _BATCH)])
        for engine in (float32, int8)
    )
    adjusted = familiarity.moved(before, after).to_dict()
    header = {**quantised.header, "familiarity": to_json(adjusted, sort=True)}
    return replace(quantised, header=header)


def _without_guarantees(description: Description) -> dict[str, Any]:
    """The calibration of float32 without its guarantees, which do not hold for int8."""
    calibration = Calibration.from_dict(description.calibration)
    return calibration.without_promises("it was measured in float32").to_dict()


def _with_metrics(
    header: Mapping[str, str],
    engine: Engine,
    measured: Mapping[str, tuple[LabelledImages, _Logits]],
    validation: recalibration.CalibrationImages | None,
) -> dict[str, str]:
    """The metadata with metrics and golden image of int8 instead of those of float32."""
    splits = dict(measured)
    if validation is not None:
        splits["validation"] = (validation.images, _logits_of([engine], validation.images)[0])
    figures = {}
    for name, (images, logits) in splits.items():
        figures[name] = measure(logits, images.labels).for_header()
    golden = engine.probabilities(golden_image(engine.description.preprocessing)[None])[0]
    return {
        **header,
        "metrics": to_json(figures, sort=True),
        "golden": to_json(golden_from(golden), sort=True),
    }


def _make_onnx(source: Path, batches: Sequence[Pixels]) -> _QuantisedModel:
    """An .onnx file in int8, with the metadata of the one in float32."""
    onnx = require("onnx", "onnx")
    content, header = read_onnx(source)
    quantised, choice = int8_onnx.to_int8(content, batches)
    model = onnx.load_from_string(quantised)
    return _QuantisedModel(model, header, choice, save_onnx, int8_onnx.rescale_logits)


def _make_openvino(source: Path, batches: Sequence[Pixels]) -> _QuantisedModel:
    """An .xml file in int8 and its .bin, with the metadata of the one in float32."""
    model, header = read_openvino(source)
    quantised, choice = int8_openvino.to_int8(model, batches)
    return _QuantisedModel(quantised, header, choice, save_openvino, int8_openvino.rescale_logits)


_MAKERS: dict[str, Callable[[Path, Sequence[Pixels]], _QuantisedModel]] = {
    ".onnx": _make_onnx,
    ".xml": _make_openvino,
}


def _balanced_sample(images: LabelledImages, number: int) -> LabelledImages:
    """At most `number` of the images, drawn at random with the classes balanced."""
    order = np.random.default_rng(_SEED).permutation(len(images))
    labels = images.labels[order]
    by_class = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[by_class], labels[by_class])
    ranks = np.empty(len(order), np.int64)
    ranks[by_class] = np.arange(len(order)) - starts
    return images.subset(order[np.argsort(ranks, kind="stable")][:number])


def _frames(
    images: LabelledImages, preprocessing: Preprocessing, batch_size: int
) -> Iterator[Pixels]:
    """Batches (B, R, R, C) at the network's size, which an engine passes to its graph unchanged."""
    images = images.with_white(preprocessing.white)
    for start in range(0, len(images), batch_size):
        indices = range(start, min(start + batch_size, len(images)))
        decoded = (images.image(index, preprocessing.channels) for index in indices)
        yield np.concatenate([frames_of(image[None], preprocessing) for image in decoded])


def _logits_of(engines: Sequence[Engine], images: LabelledImages) -> list[_Logits]:
    """Logits before calibration, (N, K), by each engine."""
    batches: list[list[_Logits]] = [[] for _ in engines]
    for batch in _frames(images, engines[0].description.preprocessing, 16 * _BATCH):
        for engine, logits in zip(engines, batches, strict=True):
            logits.append(logits_by(engine, batch))
    return [np.concatenate(logits) for logits in batches]
