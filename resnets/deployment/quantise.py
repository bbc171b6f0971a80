"""Exports in whole numbers of 8 bits, which are kept only if they classify nearly as well.

The float32 file of `export` is quantised by its runtime's own tool, with real images, and both are
run on labelled images that took no part in it.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnets.data.sources import LabelledImages
from resnets.deployment import quantise_onnx, quantise_openvino
from resnets.deployment.engine import framed
from resnets.deployment.exported import read_onnx
from resnets.deployment.quantise_onnx import Choice
from resnets.deployment.writing import (
    Write,
    opened,
    publish,
    read_openvino,
    save_onnx,
    save_openvino,
    size,
    with_report,
)
from resnets.errors import ContentError, UsageError, require
from resnets.evaluation.paired import Comparison, compare
from resnets.images import Pixels, Preprocessing

MAX_LOSS = 0.5  # points of accuracy
CALIBRATION = 256  # images, spread evenly over those given
BATCH = 16  # images of a batch of the calibration; of the comparison 16 times as many


@dataclass(frozen=True)
class Quantisation:
    """What the step to 8 bits did.

    Attributes:
        comparison: A is the file in float32, B the one in 8 bits.
        images: on which they were compared, in words.
        calibration: how many images the scales were taken from.
        choice: which layers stayed in float32, and why.
        bytes_before: size of the file in float32.
        bytes_after: size of the file in 8 bits.
    """

    comparison: Comparison
    images: str
    calibration: int
    choice: Choice
    bytes_before: int
    bytes_after: int

    @property
    def loss(self) -> float:
        """Points of accuracy lost; negative where 8 bits are better."""
        return -100 * self.comparison.pairs.difference

    def to_dict(self) -> dict[str, Any]:
        """For the metadata of the file: plain values only."""
        before, after = self.comparison.accuracies
        pairs = self.comparison.pairs
        return {
            "images": self.images,
            "calibration_images": self.calibration,
            "float32_layers": list(self.choice.in_float),
            "accuracy_before": before.to_dict(),
            "accuracy_after": after.to_dict(),
            "loss": self.loss,
            "interval": [-100 * end for end in reversed(pairs.interval)],
            "p_value": pairs.p_value,
            "bytes_before": self.bytes_before,
            "bytes_after": self.bytes_after,
        }

    def in_words(self) -> str:
        """For a person."""
        before, after = self.comparison.accuracies
        layers = " and ".join(self.choice.in_float)
        kept = f"the {layers} layer in float32" if layers else "no layer in float32"
        return (
            f"int8: {kept}, calibrated on {self.calibration} images; "
            f"{self.bytes_after:,} bytes instead of {self.bytes_before:,}\n"
            f"  accuracy in float32  {before}\n"
            f"  accuracy in int8     {after}\n"
            f"  {self.comparison.verdict('float32', 'int8')} ({self.images})"
        )


def quantise(
    source: Path,
    target: Path,
    calibration: LabelledImages,
    test: tuple[LabelledImages, str],
    max_loss: float = MAX_LOSS,
) -> Quantisation:
    """Write an exported file in 8 bits, if it classifies nearly as well as in float32.

    Args:
        source: what `export` wrote for ONNX Runtime or OpenVINO.
        target: where to; with the same ending. An existing file is replaced.
        calibration: images that the network may have learnt from.
        test: images that it has not learnt from, and what they are in words.
        max_loss: most points of accuracy that may be lost.

    Raises:
        UsageError: `max_loss` is not from 0 to 100, the file is of another runtime, or there are
            too few images.
        ContentError: more would be lost; nothing is written.
        MissingExtra: the runtime, or NNCF for OpenVINO, is not installed.
    """
    check_loss(max_loss)
    if source.suffix not in MAKERS or target.suffix != source.suffix:
        raise UsageError(f"{target}: 8 bits are written to {' or '.join(MAKERS)}")
    images, what = test
    preprocessing = opened(source).description.preprocessing
    batches = list(frames(evenly(calibration, CALIBRATION), preprocessing, BATCH))
    write, choice = MAKERS[source.suffix](source, batches)
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder) / target.name
        write(trial, {})
        said = answers(source, trial, images)
        done = Quantisation(
            compare(*said, images.labels, images.class_names),
            what,
            sum(map(len, batches)),
            choice,
            size(source),
            size(trial),
        )
        if done.loss > max_loss:
            raise ContentError(
                f"{target} is not written: 8 bits lose {done.loss:.2f} points of accuracy, "
                f"{max_loss:g} are allowed (--max-loss). {done.in_words()}"
            )
        write(trial, {"int8": done.to_dict()})
        publish(trial, target)
    return done


def check_loss(max_loss: float) -> None:
    """Refuse what is no number of points.

    Raises:
        UsageError: it is not from 0 to 100.
    """
    if not 0 <= max_loss <= 100:
        raise UsageError(f"max loss {max_loss}: it is 0 to 100 points of accuracy")


def make_onnx(source: Path, batches: Sequence[Pixels]) -> tuple[Write, Choice]:
    """Writer of an .onnx file in 8 bits, with the metadata of the one in float32."""
    onnx = require("onnx", "onnx")
    content, header = read_onnx(source)
    quantised, choice = quantise_onnx.to_int8(content, batches)
    model = onnx.load_from_string(quantised)
    return lambda path, report: save_onnx(model, path, with_report(header, report)), choice


def make_openvino(source: Path, batches: Sequence[Pixels]) -> tuple[Write, Choice]:
    """Writer of an .xml file in 8 bits and its .bin, with the metadata of the one in float32."""
    model, header = read_openvino(source)
    quantised, choice = quantise_openvino.to_int8(model, batches)
    return lambda path, report: save_openvino(quantised, path, with_report(header, report)), choice


MAKERS: dict[str, Callable[[Path, Sequence[Pixels]], tuple[Write, Choice]]] = {
    ".onnx": make_onnx,
    ".xml": make_openvino,
}


def evenly(images: LabelledImages, number: int) -> LabelledImages:
    """So many of the images, or all, spread over them."""
    return images.subset(np.unique(np.linspace(0, len(images) - 1, number).astype(int)))


def frames(
    images: LabelledImages, preprocessing: Preprocessing, batch_size: int
) -> Iterator[Pixels]:
    """Batches (B, R, R, C) of what an engine passes to its graph as it is."""
    images = images.with_white(preprocessing.white)
    for start in range(0, len(images), batch_size):
        places = range(start, min(start + batch_size, len(images)))
        decoded = (images.image(place, preprocessing.channels) for place in places)
        yield np.concatenate([framed(image[None], preprocessing) for image in decoded])


def answers(
    source: Path, trial: Path, images: LabelledImages
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The likeliest classes (N,) by the file in float32 and by the one in 8 bits."""
    engines = [opened(file) for file in (source, trial)]
    found: list[list[NDArray[np.int64]]] = [[], []]
    for batch in frames(images, engines[0].description.preprocessing, 16 * BATCH):
        for engine, answered in zip(engines, found, strict=True):
            answered.append(engine.probabilities(batch).argmax(axis=1))
    before, after = (np.concatenate(answered) for answered in found)
    return before, after
