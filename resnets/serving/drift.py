"""Drift: whether the images that come are still like the validation images, by their features.

Two figures tell: how many of the latest images are unfamiliar, beside the validation images of
which so many were; and how far the mean of their features has moved.

Shapes: F features.
"""

import math
from collections import deque
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from resnets.evaluation.familiarity import Familiarity
from resnets.evaluation.proportion import Proportion
from resnets.matrices import product
from resnets.serving.events import Answered, Event

if TYPE_CHECKING:
    from resnets.evaluation.predict import Status

_RECENT = 1000  # images in the mean, the newest of which count most
_LATEST = 500  # images of which the unfamiliar ones are counted


class Drift:
    """Whether the images that a model answers are like the validation images.

    The distance is that of the mean of recent features to the mean of the validation images', each
    image's features scaled to length 1. It is in units of the usual (root mean square) distance of
    one validation image to their mean, so that 0 is no drift, and the mean of n images like them is
    about 1 / sqrt(n) away.

    Args:
        familiarity: with the mean of the validation images; None: nothing is known.
    """

    def __init__(self, familiarity: Familiarity | None) -> None:
        self._usual = None if familiarity is None else familiarity.lost
        self._center = None if familiarity is None else familiarity.center
        self._mean: NDArray[np.float64] | None = None
        self._statuses: deque[Status] = deque(maxlen=_LATEST)
        self.images = 0

    def observe(self, event: Event) -> None:
        """Count the images that were answered, each once."""
        if not isinstance(event, Answered) or event.repeated:
            return
        for answer in event.answers:
            if answer.outputs is not None:
                self._statuses.append(answer.prediction.status)
                if answer.outputs.features is not None:
                    self.add(answer.outputs.features)

    def add(self, features: NDArray[np.float32]) -> None:
        """Count the features (F,) of an image."""
        if self._center is None:
            return
        unit = features / max(float(np.linalg.norm(features)), 1e-12)
        self.images += 1
        before = np.zeros(len(unit)) if self._mean is None else self._mean
        self._mean = before + (unit - before) / min(self.images, _RECENT)

    @property
    def unfamiliar(self) -> Proportion | None:
        """The share of unfamiliar images among the latest ones; None if it is not known."""
        if self._usual is None or not self._statuses:
            return None
        return Proportion(self._statuses.count("unfamiliar"), len(self._statuses))

    @property
    def seen(self) -> bool:
        """Whether more of the latest images are unfamiliar than chance explains."""
        now, usual = self.unfamiliar, self._usual
        return now is not None and usual is not None and now.interval[0] > usual.interval[1]

    @property
    def distance(self) -> float | None:
        """How far the recent images are; None if it is not known."""
        if self._center is None or self._mean is None:
            return None
        usual = math.sqrt(max(1 - float(product(self._center, self._center)), 1e-12))
        return float(np.linalg.norm(self._mean - self._center)) / usual
