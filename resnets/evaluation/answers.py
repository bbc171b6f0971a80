"""Predictions of a network: a class, its calibrated probability, and whether to rely on it.

Shapes: B images of a batch, C channels, S the side that the network sees, K classes.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from resnets.errors import UsageError
from resnets.evaluation.calibration import Calibration
from resnets.evaluation.logits import log_softmax
from resnets.model_file import Description

Ranking = tuple[tuple[str, float], ...]  # classes and their probabilities, most probable first
Status = Literal["ok", "unsure", "unfamiliar", "unreadable"]


@dataclass(frozen=True)
class Prediction:
    """What a network predicts for one image, and whether to rely on it.

    Attributes:
        image: its name.
        prediction: the most probable class; None if the image cannot be read.
        probability: of that class, calibrated, 0 to 1; None if the image cannot be read.
        status: "ok"; "unsure" where the probability is below the threshold in the model file,
            which was fitted for a target error rate; "unfamiliar" where the image is unlike the
            images that the network was trained for; "unreadable" where there is no prediction. It
            is apart from `prediction`, as a class may have any name.
        top: the most probable classes with their probabilities, most probable first.
        error: why the image cannot be read.
    """

    image: str
    prediction: str | None = None
    probability: float | None = None
    status: Status = "unreadable"
    top: Ranking = ()
    error: str | None = None

    @property
    def answer(self) -> str | None:
        """Deprecated: `prediction` where the status is "ok", else "unknown" (None if unreadable).

        A class may be called "unknown" too, so this does not tell the two apart.
        """
        warnings.warn(
            "Prediction.answer is deprecated and goes with the next release: use .prediction (the "
            'class) and .status ("ok", "unsure", "unfamiliar", "unreadable")',
            DeprecationWarning,
            stacklevel=2,
        )
        return self.prediction if self.status in ("ok", "unreadable") else "unknown"

    def row(self) -> dict[str, Any]:
        """As one flat row of a table."""
        flat: dict[str, Any] = {
            "image": self.image,
            "prediction": self.prediction,
            "probability": self.probability,
            "status": self.status,
        }
        for rank, (name, probability) in enumerate(self.top, 1):
            flat |= {f"top{rank}": name, f"probability{rank}": probability}
        return flat | {"error": self.error}


def predicted(name: str, status: Status, listed: Ranking) -> Prediction:
    """The prediction for an image that could be read."""
    return Prediction(name, *listed[0], status, listed)


def check_top(top: int, description: Description) -> None:
    """Refuse more classes than there are, or none."""
    classes = len(description.class_names)
    if not 1 <= top <= classes:
        raise UsageError(f"top is {top}; the network has {classes} classes: it is 1 to {classes}")


def ranked(
    probabilities: NDArray[np.floating[Any]],
    description: Description,
    top: int,
    familiar: NDArray[np.bool_] | None = None,
) -> list[tuple[Status, Ranking]]:
    """The status of each image, and its most probable classes.

    Args:
        probabilities: (B, K).
        description: of the network.
        top: how many classes to list.
        familiar: (B,), whether the features of each image are familiar; None where nobody knows.
    """
    names = description.class_names
    if top == 1:  # sorting would be slow for the most frequent case
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
    found = statuses([row[0][1] for row in rows], description, familiar)
    return list(zip(found, rows, strict=True))


def statuses(
    confidence: Sequence[float],
    description: Description,
    familiar: NDArray[np.bool_] | None = None,
) -> list[Status]:
    """The status of each image from the probability of its most probable class, B of them.

    What is not familiar is unfamiliar, however probable: a network may be sure of nonsense.
    """
    threshold = description.calibration.get("threshold", 0.0)
    least = 2.0 if threshold is None else threshold  # None: nothing is sure enough
    known = [True] * len(confidence) if familiar is None else familiar.tolist()
    return [
        ("ok" if share >= least else "unsure") if near else "unfamiliar"
        for share, near in zip(confidence, known, strict=True)
    ]


def interpret(
    logits: NDArray[np.float32], description: Description
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Probabilities (B, K), and whether each row reaches the threshold (B,)."""
    if description.calibration:
        calibration = Calibration.from_dict(description.calibration)
        probabilities = calibration.probabilities(logits)
        return probabilities, calibration.known(probabilities)
    return np.exp(log_softmax(logits)), np.ones(len(logits), np.bool_)
