"""Comparison of two networks on the same labelled images: predictions, cost and accuracy.

Shapes: N images.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from resnets.data.sources.opening import Data, LabelledImages
from resnets.errors import UsageError
from resnets.evaluation.doctor.duplicates import (
    COMPARED,
    NearDuplicates,
    find_duplicates,
    near_duplicates,
)
from resnets.evaluation.engine import Engine
from resnets.evaluation.evaluate import outputs_of
from resnets.evaluation.outputs import EvaluationImages, choose_for_all, without_near_duplicates
from resnets.evaluation.paired import Comparison, compare
from resnets.evaluation.predict import Status, interpret, is_calibrated, statuses
from resnets.evaluation.statuses import Statuses
from resnets.format import plural
from resnets.integrity import DIGEST
from resnets.model_file import is_model_file, read_header
from resnets.networks import Architecture
from resnets.networks.catalog import display_name
from resnets.networks.profile import profile
from resnets.pretrained.names import class_numbers, known_in_words

_WARM_UP = 3  # calls before the timed ones


def _same_network(files: Sequence[Path]) -> list[str]:
    """A warning where two files hold the same network, so that there is nothing to compare."""
    a, b = files
    if a.samefile(b):
        return ["A and B are the same file: a network is compared with itself"]
    digests = [_digest_of(file) for file in files]
    if digests[0] is not None and digests[0] == digests[1]:
        return ["A and B are copies of one file: a network is compared with itself"]
    return []


def _digest_of(file: Path) -> str | None:
    """The digest of weights and description that a model file carries; None of other files."""
    return read_header(file).get(DIGEST) if is_model_file(file) else None


@dataclass(frozen=True)
class Latency:
    """Seconds that one call takes: the median and the quartiles of `calls` calls."""

    median: float
    quartiles: tuple[float, float]
    calls: int


def _latencies(
    functions: Sequence[Callable[[], object]], seconds: float = 2.0, least: int = 5
) -> list[Latency]:
    """Time functions in turns, call by call, so that what slows the machine slows all of them.

    Args:
        functions: to be timed.
        seconds: how long to measure.
        least: number of calls of each, however long they take.
    """
    for function in functions:
        for _ in range(_WARM_UP):
            function()
    durations: list[list[float]] = [[] for _ in functions]
    end = time.perf_counter() + seconds
    while len(durations[0]) < least or time.perf_counter() < end:
        for function, times in zip(functions, durations, strict=True):
            start = time.perf_counter()
            function()
            times.append(time.perf_counter() - start)
    return [_summary(times) for times in durations]


def _summary(times: Sequence[float]) -> Latency:
    """Median and quartiles.

    >>> _summary([3.0, 1.0, 2.0, 5.0, 4.0])
    Latency(median=3.0, quartiles=(2.0, 4.0), calls=5)
    """
    low, median, high = statistics.quantiles(times, n=4, method="inclusive")
    return Latency(median, (low, high), len(times))


@dataclass(frozen=True)
class Cost:
    """The cost of running a network.

    Attributes:
        name: by which the user calls it.
        engine: that runs it: torch, onnxruntime or openvino.
        network: name of its architecture.
        file_bytes: size of its file.
        parameters: number of its weights.
        multiply_adds: of convolutions and fully connected layers, for one image.
        size: side of the image that it sees, in pixels.
        latency: of one image; None if it was not measured.
    """

    name: str
    engine: str
    network: str
    file_bytes: int
    parameters: int
    multiply_adds: int
    size: int
    latency: Latency | None


@dataclass(frozen=True)
class _PredictedClasses:
    """Predictions of a network for N images: class names, calibrated probabilities, statuses."""

    classes: tuple[str, ...]
    probabilities: tuple[float, ...]
    statuses: tuple[Status, ...]
    calibrated: bool = True


@dataclass(frozen=True)
class Difference:
    """An image for which two networks predict different classes.

    Attributes:
        index: of the image.
        image: its name.
        label: the true class.
        a: the class that A predicts.
        probability_a: of that class, 0 to 1.
        status_a: of A's prediction, see `predict.Prediction`.
        b: the class that B predicts.
        probability_b: of that class, 0 to 1.
        status_b: of B's prediction.
    """

    index: int
    image: str
    label: str
    a: str
    probability_a: float
    status_a: Status
    b: str
    probability_b: float
    status_b: Status

    @property
    def right(self) -> str:
        """Who is right: "a", "b" or "neither"."""
        return "a" if self.a == self.label else "b" if self.b == self.label else "neither"

    @property
    def surest_mistake(self) -> float:
        """The greatest probability of a wrong prediction."""
        wrong = [(self.a, self.probability_a), (self.b, self.probability_b)]
        return max(share for name, share in wrong if name != self.label)


def _predict_classes(
    engine: Engine, images: LabelledImages, batch_size: int = 256, known_as: Sequence[str] = ()
) -> _PredictedClasses:
    """The predictions of a network for images.

    Args:
        engine: that runs the network.
        images: whose names of classes the predictions have, where the network knows those classes.
        batch_size: images that are computed at once.
        known_as: another name of each class, by which the network may know it: a synset id of
            ImageNet, say, or what other networks call it.
    """
    outputs = outputs_of(engine, images, batch_size)
    probabilities, _ = interpret(outputs.logits, engine.description)
    best = outputs.logits.argmax(axis=1)
    names = list(engine.description.class_names)
    numbers = class_numbers(known_as or images.class_names, engine.description.class_names)
    for number, name in zip(numbers, images.class_names, strict=True):
        if number is not None:
            names[number] = name
    confidence = probabilities[np.arange(len(best)), best].tolist()
    return _PredictedClasses(
        classes=tuple(names[number] for number in best),
        probabilities=tuple(confidence),
        statuses=tuple(statuses(confidence, engine.description, outputs.familiar)),
        calibrated=is_calibrated(engine.description),
    )


def _count_statuses(images: LabelledImages, predictions: _PredictedClasses) -> Statuses:
    """How many predictions have which status, and how many of those that are ok are wrong."""
    labels = [images.class_names[label] for label in images.labels]
    correct = np.array(predictions.classes) == np.array(labels)
    return Statuses.of(predictions.statuses, correct, predictions.calibrated)


def _renamed(images: LabelledImages, class_names: tuple[str, ...]) -> LabelledImages:
    """The images with their classes called as a network calls them; as they are if it cannot.

    A synset id or a single name of ImageNet's becomes the whole name, such as "ant, emmet,
    pismire".
    """
    numbers = class_numbers(images.class_names, class_names)
    names = [class_names[number] for number in numbers if number is not None]
    if len(set(names)) < len(numbers):
        return images
    return images.other(images.labels, names, images.indices)


def _refuse_unknown(images: LabelledImages, class_names: Sequence[str], network: str) -> None:
    """Refuse images of classes that a network does not have.

    Raises:
        UsageError: it names such a class and the network's classes.
    """
    numbers = class_numbers(images.class_names, tuple(class_names))
    pairs = zip(images.class_names, numbers, strict=True)
    unknown = [name for name, number in pairs if number is None]
    if unknown:
        raise UsageError(
            f"{network} does not know the class {unknown[0]!r} (unknown: {len(unknown)} of the "
            f"{plural(len(images.class_names), 'class')} of the images); "
            + known_in_words(unknown[0], class_names)
        )


def _compare_predictions(
    images: LabelledImages, a: _PredictedClasses, b: _PredictedClasses
) -> Comparison:
    """Compare the predictions of two networks by class names, as their order may differ.

    A prediction that is none of the images' classes is wrong.
    """
    every = dict.fromkeys([*images.class_names, *a.classes, *b.classes])
    numbers = {name: number for number, name in enumerate(every)}
    numbers_a, numbers_b = ([numbers[name] for name in predicted.classes] for predicted in (a, b))
    return compare(numbers_a, numbers_b, images.labels, images.class_names)


def _differences(
    images: LabelledImages, a: _PredictedClasses, b: _PredictedClasses, comparison: Comparison
) -> list[Difference]:
    """The images for which they predict different classes, in the images' order."""
    return [
        Difference(
            index,
            images.names[index],
            images.class_names[images.labels[index]],
            a.classes[index],
            a.probabilities[index],
            a.statuses[index],
            b.classes[index],
            b.probabilities[index],
            b.statuses[index],
        )
        for index in sorted([*comparison.decisive, *comparison.otherwise_wrong])
    ]


@dataclass(frozen=True)
class ComparedNetworks:
    """Two networks, A and B, that have predicted the same images.

    Attributes:
        images: the images, N, with their classes called as A calls them.
        what: a phrase that describes them, with how many the networks have seen before.
        comparison: who is right how often: `comparison.pairs` has the counts, the p-value of
            McNemar's exact test, and B's accuracy minus A's with its 95 % interval.
        differences: the images for which they predict different classes.
        statuses: of the predictions of A, and of B.
        near: how many images look like training or validation images; None if that is unknown.
        warnings: about the data, one sentence each.
        skipped: name and reason of each image that cannot be read.
    """

    images: LabelledImages
    what: str
    comparison: Comparison
    differences: tuple[Difference, ...]
    statuses: tuple[Statuses, Statuses]
    near: NearDuplicates | None
    warnings: tuple[str, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()

    def __repr__(self) -> str:
        return f"<ComparedNetworks: {self.comparison.verdict()}>"


def images_for_both(
    engines: Sequence[Engine],
    data: Data,
    split: str,
    files: Sequence[Path | None],
    *,
    skip_unreadable: bool = False,
    compared: int = COMPARED,
    before_comparing: Callable[[EvaluationImages], object] = lambda _: None,
) -> EvaluationImages:
    """The images that are new to both networks, as far as `split` does not name others.

    Args:
        engines: of the networks.
        data: as for `open_data`.
        split: as for `choose_images`.
        files: of the networks; None where one has none.
        skip_unreadable: leave out images that cannot be read.
        compared: number of training and validation images to decode; 0: none.
        before_comparing: called with the images before any are decoded to find near-duplicates.

    Raises:
        UsageError: as `choose_for_all` does.
    """
    chosen = choose_for_all(
        data,
        [engine.description for engine in engines],
        split,
        names=("A", "B"),
        files=files,
        skip_unreadable=skip_unreadable,
    )
    before_comparing(chosen)
    chosen = without_near_duplicates(chosen, compared)
    both = [file for file in files if file is not None]
    same = _same_network(both) if len(both) == len(files) else []
    return replace(chosen, warnings=(*same, *chosen.warnings))


def compare_networks(
    engines: Sequence[Engine],
    names: Sequence[str],
    chosen: EvaluationImages,
    batch_size: int = 256,
    compared: int = COMPARED,
) -> ComparedNetworks:
    """Have two networks predict the same images.

    Args:
        engines: of the networks.
        names: by which the user calls them.
        chosen: the images, as `images_for_both` gives them.
        batch_size: images computed at once.
        compared: number of training and validation images to decode; 0: none.

    Raises:
        UsageError: a network does not know a class of the images.
    """
    images = _renamed(chosen.images, engines[0].description.class_names)
    for engine, name in zip(engines, names, strict=True):
        _refuse_unknown(chosen.images, engine.description.class_names, name)
    near = _near_duplicates_of(chosen, compared)
    names_in_data = chosen.images.class_names
    a, b = (_predict_classes(engine, images, batch_size, names_in_data) for engine in engines)
    comparison = _compare_predictions(images, a, b)
    return ComparedNetworks(
        images,
        chosen.what,
        comparison,
        tuple(_differences(images, a, b, comparison)),
        (_count_statuses(images, a), _count_statuses(images, b)),
        near,
        chosen.warnings,
        chosen.skipped,
    )


def _near_duplicates_of(
    chosen: EvaluationImages, compared: int = COMPARED
) -> NearDuplicates | None:
    """How many of the images look like training or validation images; None if there are none.

    Args:
        chosen: the images.
        compared: number of training and validation images to decode; 0: none.
    """
    if not compared or chosen.seen is None or any(exposure.seen for exposure in chosen.exposures):
        return None
    return near_duplicates(find_duplicates(chosen.images, chosen.seen, compared), None)


def costs_of(
    engines: Sequence[Engine], files: Sequence[Path], names: Sequence[str], seconds: float
) -> list[Cost]:
    """The cost of each of several networks; their latency is measured in turns.

    Args:
        engines: that run them.
        files: their model files or exported files.
        names: by which the user calls them.
        seconds: how long to measure the latency of all together; 0 skips that.
    """
    measured: Sequence[Latency | None] = [None] * len(engines)
    if seconds > 0:
        measured = _latencies([_prediction_of_one_image(engine) for engine in engines], seconds)
    return [
        _cost_of(engine, file, name, latency)
        for engine, file, name, latency in zip(engines, files, names, measured, strict=True)
    ]


def _cost_of(engine: Engine, file: Path, name: str, latency: Latency | None) -> Cost:
    """The cost of running a network."""
    architecture = Architecture.from_dict(engine.description.architecture)
    size = engine.description.preprocessing.size
    cost = profile(architecture, size)
    return Cost(
        name=name,
        engine=engine.name,
        network=display_name(architecture),
        file_bytes=sum(part.stat().st_size for part in _files_of(file)),
        parameters=cost.parameters,
        multiply_adds=cost.multiply_adds,
        size=size,
        latency=latency,
    )


def _files_of(file: Path) -> list[Path]:
    """A file, and the weights file beside it in the case of OpenVINO."""
    weights = file.with_suffix(".bin")
    return [file, weights] if file.suffix == ".xml" and weights.is_file() else [file]


def _prediction_of_one_image(engine: Engine) -> Callable[[], object]:
    """A function that predicts one decoded image of the network's size."""
    preprocessing = engine.description.preprocessing
    side = preprocessing.resize
    image = np.zeros((1, side, side, preprocessing.channels), np.uint8)
    return lambda: engine.probabilities(image)
