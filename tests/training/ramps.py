"""Two classes of small images that a network tells apart within a few steps."""

import numpy as np

from resnets.data.labelled import LabelledImages
from resnets.data.storage import PixelStorage


def ramps(count: int, seed: int = 0) -> LabelledImages:
    """Noise, brighter to the left for one class and to the right for the other."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    ramp = np.linspace(60, 190, 8)[None, None, :, None] * np.ones((count, 8, 1, 3))
    pixels = np.where(labels[:, None, None, None] == 0, ramp, ramp[:, :, ::-1])
    pixels = (pixels + rng.normal(0, 20, pixels.shape)).clip(0, 255).astype(np.uint8)
    return LabelledImages(PixelStorage(pixels, "ramps"), labels, ["left", "right"])
