"""Where the boxes of random resized crops lie."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from resnets.data.augmentation.draws import Draws

_ATTEMPTS = 10


@dataclass(frozen=True)
class ResizedCrop:
    """An area and a shape at random, wherever they fit.

    The area is uniform from a smallest fraction of the image to all of it, the logarithm of width
    over height from 1/ratio to ratio. The first of ten that fits is taken; if none does, the
    largest box in the middle whose shape is allowed (as torchvision does).
    """

    smallest: float
    ratio: float

    def boxes(self, draws: Draws, sizes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Top, left, height and width, (B, 4), for images of the given height and width, (B, 2)."""
        uniform = draws.uniform("resized crop", 2 * _ATTEMPTS + 2).astype(np.float64)
        full = sizes.astype(np.float64)
        fractions = self.smallest + (1 - self.smallest) * uniform[:, :_ATTEMPTS]
        areas = fractions * full.prod(1, keepdims=True)
        shapes = self.ratio ** (2 * uniform[:, _ATTEMPTS:-2] - 1)
        tries = np.rint(np.sqrt(np.stack([areas / shapes, areas * shapes], axis=2)))
        fits = ((tries >= 1) & (tries <= full[:, None])).all(2)
        first = np.take_along_axis(tries, fits.argmax(1)[:, None, None], axis=1)[:, 0]
        largest = np.rint(np.minimum(full, full[:, ::-1] * self.ratio))
        found = fits.any(1)[:, None]
        extents = np.where(found, first, largest)
        room = full - extents
        corners = np.floor(np.where(found, uniform[:, -2:] * (room + 1), room / 2))
        return np.concatenate([corners, extents], axis=1).astype(np.int64)
