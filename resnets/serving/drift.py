"""Drift: whether the images that come are still like the validation images, by their features.

Shapes: F features.
"""

import math

import numpy as np
from numpy.typing import NDArray

from resnets.evaluation.familiarity import Familiarity

_RECENT = 1000  # images in the mean, the newest of which count most


class Drift:
    """The distance of the mean of recent features to that of the validation images.

    Each image's features are scaled to length 1. The distance is in units of the usual (root mean
    square) distance of one validation image to their mean, so that 0 is no drift, and the mean of n
    images like them is about 1 / sqrt(n) away.

    Args:
        familiarity: with the mean of the validation images.
    """

    def __init__(self, familiarity: Familiarity | None) -> None:
        self._center = None if familiarity is None else familiarity.center
        self._mean: NDArray[np.float64] | None = None
        self.images = 0

    def add(self, features: NDArray[np.float32]) -> None:
        """Count the features (F,) of an image."""
        if self._center is None:
            return
        unit = features / max(float(np.linalg.norm(features)), 1e-12)
        self.images += 1
        before = np.zeros(len(unit)) if self._mean is None else self._mean
        self._mean = before + (unit - before) / min(self.images, _RECENT)

    @property
    def distance(self) -> float | None:
        """How far the recent images are; None if it is not known."""
        if self._center is None or self._mean is None:
            return None
        usual = math.sqrt(max(1 - float(self._center @ self._center), 1e-12))
        return float(np.linalg.norm(self._mean - self._center)) / usual
