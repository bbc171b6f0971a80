"""Exports in whole numbers of 8 bits, which are kept only if they classify nearly as well.

The float32 file of `export` is quantised by its runtime's own tool, with real images, and both are
run on labelled images that took no part in it. Temperature and thresholds are fitted anew: 8 bits
change how sure a network is.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnets.data.sources import LabelledImages
from resnets.deployment import quantise_onnx, quantise_openvino
from resnets.deployment.engine import Engine, framed
from resnets.deployment.exported import read_onnx
from resnets.deployment.quantisation import MAX_LOSS, Quantisation, Scales, check_loss
from resnets.deployment.quantise_onnx import Choice
from resnets.deployment.writing import (
    opened,
    publish,
    read_openvino,
    save_onnx,
    save_openvino,
    size,
    with_report,
)
from resnets.errors import UsageError, require
from resnets.evaluation import calibrating
from resnets.evaluation.calibration import Calibration
from resnets.evaluation.engines import logits_by
from resnets.evaluation.familiarity import familiarity_of
from resnets.evaluation.metrics import measure
from resnets.evaluation.paired import compare
from resnets.images import Pixels, Preprocessing
from resnets.json_text import to_json
from resnets.model_file import Description

CALIBRATION = 256  # images for the scales, or one of each class if these are more
BATCH = 16  # images of a batch of the calibration; of the comparison 16 times as many
SEED = 0  # of the order in which images are drawn
Logits = NDArray[np.floating[Any]]


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
    validation: calibrating.Chosen | None = None,
    force: bool = False,
) -> Quantisation:
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
    if source.suffix not in MAKERS or target.suffix != source.suffix:
        raise UsageError(f"{target}: 8 bits are written to {' or '.join(MAKERS)}")
    images, what = test
    float32 = opened(source)
    drawn = in_turn(calibration, number_to_draw(len(calibration.class_names)))
    batches = list(frames(drawn, float32.description.preprocessing, BATCH))
    made = MAKERS[source.suffix](source, batches)
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder) / target.name
        made.save(made.model, trial, made.header)
        rounded = opened(trial)
        made = familiar_again(made, float32, rounded, validation)
        made, fitted = recalibrated(made, rounded, validation)
        made.save(made.model, trial, made.header)
        int8 = opened(trial)
        before, after = logits_of([float32, int8], images)
        done = Quantisation(
            compare(before.argmax(1), after.argmax(1), images.labels, images.class_names),
            what,
            scales(made.choice, batches, drawn),
            made.choice,
            size(source),
            size(trial),
            fitted,
        )
        done.refuse(target.name, max_loss, force)
        header = with_metrics(made.header, int8, {"test": (images, after)}, validation)
        made.save(made.model, trial, with_report(header, {"int8": done.to_dict()}))
        publish(trial, target)
    return done


def number_to_draw(classes: int) -> int:
    """Images to draw, so that `CALIBRATION` of them, or one a class, are for the scales.

    >>> number_to_draw(10)  # 16 batches for the scales, 5 held out
    336
    """
    for_scales = -(-max(CALIBRATION, classes) // BATCH)
    return BATCH * (for_scales + round(for_scales / 3))


def scales(choice: Choice, batches: Sequence[Pixels], drawn: LabelledImages) -> Scales:
    """What the scales were taken from: the first of the drawn images."""
    used = sum(len(batch) for batch in batches[: choice.batches])
    seen = len(np.unique(drawn.labels[:used]))
    return Scales(used, seen, len(drawn.class_names), len(drawn) - used)


def recalibrated(
    made: Quantised, engine: Engine, validation: calibrating.Chosen | None
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
        header = {**made.header, "calibration": to_json(unpromised(old), sort=True)}
        kept = Quantised(made.model, header, made.choice, made.save, made.rescaled)
        return kept, "those of float32, not measured in int8: there are no validation images"
    images = validation.images
    (logits,) = logits_of([engine], images)
    target = float(old.calibration.get("max_error", calibrating.MAX_ERROR))
    what = f"{validation.what}, in int8"
    new = calibrating.recalibrated(
        old, logits, images.labels, what, target, validation.candidates
    ).calibration
    factor = float(old.calibration["temperature"]) / float(new["temperature"])
    header = {**made.header, "calibration": to_json(new, sort=True)}
    model = made.model if factor == 1 else made.rescaled(made.model, factor)
    return Quantised(model, header, made.choice, made.save, made.rescaled), f"fitted on {what}"


def familiar_again(
    made: Quantised, float32: Engine, int8: Engine, validation: calibrating.Chosen | None
) -> Quantised:
    """The same with a threshold of familiarity that loses as many validation images as before."""
    known = familiarity_of(float32.description.familiarity)
    if known is None or validation is None:
        return made
    preprocessing, images = float32.description.preprocessing, validation.images
    before, after = (
        np.concatenate([engine.features(batch) for batch in frames(images, preprocessing, BATCH)])
        for engine in (float32, int8)
    )
    moved = known.moved(before, after).to_dict()
    header = {**made.header, "familiarity": to_json(moved, sort=True)}
    return Quantised(made.model, header, made.choice, made.save, made.rescaled)


def unpromised(description: Description) -> dict[str, Any]:
    """A calibration that was measured in float32: for 8 bits it promises nothing."""
    known = Calibration.from_dict(description.calibration)
    return known.without_promises("it was measured in float32").to_dict()


def with_metrics(
    header: Mapping[str, str],
    engine: Engine,
    measured: Mapping[str, tuple[LabelledImages, Logits]],
    validation: calibrating.Chosen | None,
) -> dict[str, str]:
    """The metadata with the file's own figures instead of those of the network in float32."""
    every = dict(measured)
    if validation is not None:
        every["validation"] = (validation.images, logits_of([engine], validation.images)[0])
    figures = {}
    for name, (images, logits) in every.items():
        found = measure(logits, images.labels)
        figures[name] = {"top1": found.top1.to_dict(), "loss": found.loss}
    return {**header, "metrics": to_json(figures, sort=True)}


def make_onnx(source: Path, batches: Sequence[Pixels]) -> Quantised:
    """An .onnx file in 8 bits, with the metadata of the one in float32."""
    onnx = require("onnx", "onnx")
    content, header = read_onnx(source)
    quantised, choice = quantise_onnx.to_int8(content, batches)
    model = onnx.load_from_string(quantised)
    return Quantised(model, header, choice, save_onnx, quantise_onnx.rescaled)


def make_openvino(source: Path, batches: Sequence[Pixels]) -> Quantised:
    """An .xml file in 8 bits and its .bin, with the metadata of the one in float32."""
    model, header = read_openvino(source)
    quantised, choice = quantise_openvino.to_int8(model, batches)
    return Quantised(quantised, header, choice, save_openvino, quantise_openvino.rescaled)


MAKERS: dict[str, Callable[[Path, Sequence[Pixels]], Quantised]] = {
    ".onnx": make_onnx,
    ".xml": make_openvino,
}


def in_turn(images: LabelledImages, number: int) -> LabelledImages:
    """At most so many of the images, drawn at random, one of every class after the other."""
    order = np.random.default_rng(SEED).permutation(len(images))
    labels = images.labels[order]
    by_class = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[by_class], labels[by_class])
    turns = np.empty(len(order), np.int64)
    turns[by_class] = np.arange(len(order)) - starts
    return images.subset(order[np.argsort(turns, kind="stable")][:number])


def frames(
    images: LabelledImages, preprocessing: Preprocessing, batch_size: int
) -> Iterator[Pixels]:
    """Batches (B, R, R, C) of what an engine passes to its graph as it is."""
    images = images.with_white(preprocessing.white)
    for start in range(0, len(images), batch_size):
        places = range(start, min(start + batch_size, len(images)))
        decoded = (images.image(place, preprocessing.channels) for place in places)
        yield np.concatenate([framed(image[None], preprocessing) for image in decoded])


def logits_of(engines: Sequence[Engine], images: LabelledImages) -> list[Logits]:
    """Logits before calibration, (N, K), by each engine."""
    found: list[list[Logits]] = [[] for _ in engines]
    for batch in frames(images, engines[0].description.preprocessing, 16 * BATCH):
        for engine, logits in zip(engines, found, strict=True):
            logits.append(logits_by(engine, batch))
    return [np.concatenate(logits) for logits in found]
