"""The answers of a network: a class, a calibrated probability, or that it does not know.

Shapes: B images of a batch, C channels, S the side that the network sees, K classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnets.errors import UsageError
from resnets.evaluation.calibration import Calibration
from resnets.evaluation.engine import Floats
from resnets.evaluation.logits import log_softmax
from resnets.images import Pixels
from resnets.model_file import Description

UNKNOWN = "unknown"
LogitsOf = Callable[[Floats], Floats]  # normalised images (B, C, S, S) to logits (B, K)
Ranking = tuple[tuple[str, float], ...]  # classes and their probabilities, likeliest first


@dataclass(frozen=True)
class Prediction:
    """What a network says of one image.

    Attributes:
        image: its name.
        answer: the likeliest class; "unknown" if its probability is below the threshold that was
            fitted for the wished error rate; None if the image cannot be read.
        probability: of the likeliest class, calibrated, 0 to 1.
        top: the likeliest classes with their probabilities, likeliest first.
        error: why the image cannot be read.
    """

    image: str
    answer: str | None = None
    probability: float | None = None
    top: Ranking = ()
    error: str | None = None

    def row(self) -> dict[str, Any]:
        """As one flat row of a table."""
        flat: dict[str, Any] = {
            "image": self.image,
            "answer": self.answer,
            "probability": self.probability,
        }
        for rank, (name, probability) in enumerate(self.top, 1):
            flat |= {f"top{rank}": name, f"probability{rank}": probability}
        return flat | {"error": self.error}


def answered(name: str, answer: str, listed: Ranking) -> Prediction:
    """What is said of an image that could be read."""
    return Prediction(name, answer, listed[0][1], listed)


def check_top(top: int, description: Description) -> None:
    """Refuse more classes than there are, or none."""
    classes = len(description.class_names)
    if not 1 <= top <= classes:
        raise UsageError(f"top is {top}; the network has {classes} classes: it is 1 to {classes}")


def ranked(
    probabilities: NDArray[np.floating[Any]], description: Description, top: int
) -> list[tuple[str, Ranking]]:
    """The answer for each image from its probabilities (B, K), and its likeliest classes."""
    names = description.class_names
    if top == 1:  # sorting would be slow for the most frequent wish
        rows: list[Ranking] = [
            ((names[index], probabilities.item(row, index)),)
            for row, index in enumerate(probabilities.argmax(1).tolist())
        ]
    else:
        order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
        values = np.take_along_axis(probabilities, order, axis=1)
        rows = [
            tuple((names[index], value) for index, value in zip(*row, strict=True))
            for row in zip(order.tolist(), values.tolist(), strict=True)
        ]
    threshold = description.calibration.get("threshold", 0.0)
    least = 2.0 if threshold is None else threshold  # None: nothing is sure enough
    return [(row[0][0] if row[0][1] >= least else UNKNOWN, row) for row in rows]


def answer(
    logits_of: LogitsOf, description: Description, pixels: Sequence[Pixels], top: int
) -> list[tuple[str, Ranking]]:
    """The answer for each image (C, S, S), and its likeliest classes."""
    logits = logits_of(description.preprocessing.normalise(np.stack(pixels)))
    probabilities, _ = interpret(logits, description)
    return ranked(probabilities, description, top)


def interpret(
    logits: NDArray[np.float32], description: Description
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Probabilities (B, K), and whether each row is sure enough for an answer (B,)."""
    if description.calibration:
        calibration = Calibration.from_dict(description.calibration)
        probabilities = calibration.probabilities(logits)
        return probabilities, calibration.known(probabilities)
    return np.exp(log_softmax(logits)), np.ones(len(logits), np.bool_)
