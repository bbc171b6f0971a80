"""Two networks on the same labelled images: what each says, what it costs, and who is better.

Shapes: N images.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from resnets.data.sources.opening import LabelledImages
from resnets.errors import UsageError
from resnets.evaluation.doctor.duplicates import (
    COMPARED,
    NearDuplicates,
    find_duplicates,
    near_duplicates,
)
from resnets.evaluation.engine import Engine
from resnets.evaluation.evaluate import outputs_of
from resnets.evaluation.outputs import EvaluationImages
from resnets.evaluation.paired import Comparison, compare
from resnets.evaluation.predict import Status, interpret, statuses
from resnets.evaluation.statuses import Statuses
from resnets.networks import Architecture
from resnets.networks.catalog import display_name
from resnets.networks.profile import profile

_WARM_UP = 3  # calls that are not counted


@dataclass(frozen=True)
class Latency:
    """Seconds that one call takes: the median of `calls`, and the middle half of them."""

    median: float
    quartiles: tuple[float, float]
    calls: int


def _latencies(
    contenders: Sequence[Callable[[], object]], seconds: float = 2.0, least: int = 5
) -> list[Latency]:
    """Time contenders that take turns, call by call, so that what slows the machine slows all.

    Args:
        contenders: each does its work when it is called.
        seconds: how long to go on.
        least: calls of each, however long they take.
    """
    for contender in contenders:
        for _ in range(_WARM_UP):
            contender()
    found: list[list[float]] = [[] for _ in contenders]
    end = time.perf_counter() + seconds
    while len(found[0]) < least or time.perf_counter() < end:
        for contender, times in zip(contenders, found, strict=True):
            start = time.perf_counter()
            contender()
            times.append(time.perf_counter() - start)
    return [_summary(times) for times in found]


def _summary(times: Sequence[float]) -> Latency:
    """Median and quartiles.

    >>> _summary([3.0, 1.0, 2.0, 5.0, 4.0])
    Latency(median=3.0, quartiles=(2.0, 4.0), calls=5)
    """
    low, median, high = statistics.quantiles(times, n=4, method="inclusive")
    return Latency(median, (low, high), len(times))


@dataclass(frozen=True)
class Cost:
    """What a network costs.

    Attributes:
        name: what a person calls it.
        engine: what runs it: torch, onnxruntime or openvino.
        network: its kind and depth, as `Architecture` tells it.
        file_bytes: size of its file.
        parameters: how many numbers it has learnt.
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
class PredictedClasses:
    """What a network predicts for N images: classes by name, calibrated probabilities, statuses."""

    answers: tuple[str, ...]
    probabilities: tuple[float, ...]
    statuses: tuple[Status, ...]


@dataclass(frozen=True)
class Difference:
    """An image of which two networks say different things.

    Attributes:
        index: of the image.
        image: its name.
        label: the true class.
        a: what A says.
        probability_a: how sure A is, 0 to 1.
        status_a: of A's prediction, see `answers.Prediction.status`.
        b: what B says.
        probability_b: how sure B is, 0 to 1.
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
        """Probability of the surest wrong answer."""
        wrong = [(self.a, self.probability_a), (self.b, self.probability_b)]
        return max(share for name, share in wrong if name != self.label)


def predict_classes(
    engine: Engine, images: LabelledImages, batch_size: int = 256
) -> PredictedClasses:
    """What a network says of images."""
    found = outputs_of(engine, images, batch_size)
    probabilities, _ = interpret(found.logits, engine.description)
    best = found.logits.argmax(axis=1)
    names = engine.description.class_names
    shares = probabilities[np.arange(len(best)), best].tolist()
    return PredictedClasses(
        answers=tuple(names[number] for number in best),
        probabilities=tuple(shares),
        statuses=tuple(statuses(shares, engine.description, found.familiar)),
    )


def count_statuses(images: LabelledImages, said: PredictedClasses) -> Statuses:
    """How many predictions have which status, and how many of those that are ok are wrong."""
    labels = [images.class_names[label] for label in images.labels]
    return Statuses.of(said.statuses, np.array(said.answers) == np.array(labels))


def refuse_unknown(images: LabelledImages, class_names: Sequence[str], network: str) -> None:
    """Refuse images of classes that a network does not know.

    Raises:
        UsageError: naming a class and what the network knows.
    """
    unknown = [name for name in images.class_names if name not in class_names]
    if unknown:
        raise UsageError(
            f"{network} does not know the class {unknown[0]!r} ({len(unknown)} of the "
            f"{len(images.class_names)} classes of the images are unknown to it); it knows "
            f"{', '.join(class_names[:10])}{' ...' if len(class_names) > 10 else ''}"
        )


def compare_predictions(
    images: LabelledImages, a: PredictedClasses, b: PredictedClasses
) -> Comparison:
    """Compare what two networks say, by the names of the classes: their order may differ.

    An answer that is none of the images' classes is wrong, whichever it is.
    """
    every = dict.fromkeys([*images.class_names, *a.answers, *b.answers])
    numbers = {name: number for number, name in enumerate(every)}
    said_a, said_b = ([numbers[name] for name in said.answers] for said in (a, b))
    return compare(said_a, said_b, images.labels, images.class_names)


def differences(
    images: LabelledImages, a: PredictedClasses, b: PredictedClasses, found: Comparison
) -> list[Difference]:
    """The images of which they say different things, in the images' order."""
    return [
        Difference(
            index,
            images.names[index],
            images.class_names[images.labels[index]],
            a.answers[index],
            a.probabilities[index],
            a.statuses[index],
            b.answers[index],
            b.probabilities[index],
            b.statuses[index],
        )
        for index in sorted([*found.decisive, *found.otherwise_wrong])
    ]


def near_duplicates_of(chosen: EvaluationImages, compared: int = COMPARED) -> NearDuplicates | None:
    """Which of the images look like training images at hand; None if none can be looked for.

    Args:
        chosen: the images.
        compared: training images to decode; 0: none.
    """
    if not compared or chosen.train is None or any(each.seen for each in chosen.exposures):
        return None
    return near_duplicates(find_duplicates(chosen.images, chosen.train, compared), None)


def costs_of(
    engines: Sequence[Engine], files: Sequence[Path], names: Sequence[str], seconds: float
) -> list[Cost]:
    """What each of several networks costs; their latency is measured in turns, for some seconds.

    Args:
        engines: what runs them.
        files: their model files or exported files.
        names: what a person calls them.
        seconds: how long to measure all of them together; with 0 latency is not measured.
    """
    measured: Sequence[Latency | None] = [None] * len(engines)
    if seconds > 0:
        measured = _latencies([_prediction_of_one_image(engine) for engine in engines], seconds)
    return [
        _cost_of(engine, file, name, latency)
        for engine, file, name, latency in zip(engines, files, names, measured, strict=True)
    ]


def _cost_of(engine: Engine, file: Path, name: str, latency: Latency | None) -> Cost:
    """What a network costs."""
    architecture = Architecture.from_dict(engine.description.architecture)
    size = engine.description.preprocessing.size
    cost = profile(architecture, size)
    return Cost(
        name=name,
        engine=engine.name,
        network=display_name(architecture),
        file_bytes=sum(each.stat().st_size for each in _files_of(file)),
        parameters=cost.parameters,
        multiply_adds=cost.multiply_adds,
        size=size,
        latency=latency,
    )


def _files_of(file: Path) -> list[Path]:
    """A file, and the weights beside it where it is OpenVINO's."""
    weights = file.with_suffix(".bin")
    return [file, weights] if file.suffix == ".xml" and weights.is_file() else [file]


def _prediction_of_one_image(engine: Engine) -> Callable[[], object]:
    """What a network does to answer one image of the right size, once it is decoded."""
    preprocessing = engine.description.preprocessing
    side = preprocessing.resize
    image = np.zeros((1, side, side, preprocessing.channels), np.uint8)
    return lambda: engine.probabilities(image)
