"""Pictures of images with heat maps. Pixels are (H, W, 3) uint8."""

import numpy as np
from numpy.typing import NDArray

from resnets.images import Box, Pixels
from resnets.images.resizing import bordered_square, resized_to

SIDE = 384  # pixels, of a picture that shows one image
_COLOURS = "turbo"  # matplotlib's, for 0..1
_HOTTEST = 0.9  # greatest colour used: the dark red of the last tenth looks cold
_OPACITY = 0.65  # where the heat is greatest


def overlay(pixels: Pixels, heat: NDArray[np.float32]) -> Pixels:
    """A heat map over an image, the more opaque the greater the heat.

    Args:
        pixels: (H, W, 3) uint8.
        heat: of 0..1, of any size; it is enlarged to the image's.

    Returns:
        (H, W, 3) uint8.
    """
    import matplotlib

    height, width, _ = pixels.shape
    large = resized_to(heat.astype(np.float32)[..., None], height, width, "bicubic")
    values = np.clip(large[..., 0], 0, 1)
    colours = matplotlib.colormaps[_COLOURS](_HOTTEST * values)[..., :3] * 255
    opacity = _OPACITY * values[..., None]
    mixed: Pixels = np.rint(opacity * colours + (1 - opacity) * pixels).astype(np.uint8)
    return mixed


def square_picture(pixels: Pixels, box: Box, side: int) -> Pixels:
    """A part of an image as a square picture, (side, side, 3); black where there is no image."""
    return bordered_square(pixels, box, side, "lanczos")
