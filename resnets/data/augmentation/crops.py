"""The boxes of random resized crops."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from resnets.data.augmentation.draws import Draws

_ATTEMPTS = 10


@dataclass(frozen=True)
class ResizedCrop:
    """A random resized crop: a box of random area, shape and position.

    The area is uniform from the smallest fraction of the image to all of it; the logarithm of
    width over height is uniform between those of 1/ratio and ratio. The first of ten boxes that
    fits is used; if none does, the largest centred box of an allowed shape (as in torchvision).
    """

    smallest: float
    ratio: float

    def boxes(self, draws: Draws, sizes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Boxes (B, 4): top, left, height, width. sizes (B, 2): the images' heights and widths."""
        uniform = draws.uniform("resized crop", 2 * _ATTEMPTS + 2).astype(np.float64)
        full = sizes.astype(np.float64)
        fractions = self.smallest + (1 - self.smallest) * uniform[:, :_ATTEMPTS]
        areas = fractions * full.prod(1, keepdims=True)
        shapes = self.ratio ** (2 * uniform[:, _ATTEMPTS:-2] - 1)
        tries = np.rint(np.sqrt(np.stack([areas / shapes, areas * shapes], axis=2)))
        fits = ((tries >= 1) & (tries <= full[:, None])).all(2)
        first = np.take_along_axis(tries, fits.argmax(1)[:, None, None], axis=1)[:, 0]
        largest = np.rint(np.minimum(full, full[:, ::-1] * self.ratio))
        any_fits = fits.any(1)[:, None]
        extents = np.where(any_fits, first, largest)
        margins = full - extents
        corners = np.floor(np.where(any_fits, uniform[:, -2:] * (margins + 1), margins / 2))
        return np.concatenate([corners, extents], axis=1).astype(np.int64)
