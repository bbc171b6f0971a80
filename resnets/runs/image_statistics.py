"""Statistics of a sample of images: their typical side, mean and deviation of each channel."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from resnets.data.labelled import LabelledImages
from resnets.data.white_level import SAMPLE, sampled
from resnets.images import Preprocessing, White
from resnets.images.white import UNKNOWN
from resnets.training.recipe import Recipe

_KEPT = 1 << 20  # bytes of an image in the sample that stays in memory


class ImageSample(Sequence[np.ndarray]):
    """Some of the images, evenly spread, (H, W, C) uint8; large ones are decoded when asked for."""

    def __init__(self, images: LabelledImages, indices: Sequence[int], channels: int = 3) -> None:
        self.images, self.indices, self.channels = images, indices, channels
        self.cache: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, place: Any) -> Any:
        if place in self.cache:
            return self.cache[place]
        image = self.images.image(self.indices[place], self.channels)
        if image.size <= _KEPT:
            self.cache[place] = image
        return image


def sample_images(images: LabelledImages, count: int = SAMPLE, channels: int = 3) -> ImageSample:
    """Some of the images, the same each time."""
    indices = sampled(len(images), count)
    images.expect(indices)
    return ImageSample(images, indices, channels)


def median_side(images: Sequence[np.ndarray]) -> int:
    """The median of the images' shorter sides, in pixels."""
    return int(np.median([min(image.shape[:2]) for image in images]))


def typical_side(images: Sequence[np.ndarray]) -> int:
    """The median of the images' shorter sides, in pixels; doubled until it is at least 16.

    Networks for small images halve their features twice: of 16 pixels, 4 are left. The embedded
    digits, of 8 pixels, are classified better when they are enlarged so.
    """
    side = median_side(images)
    while side < 16:
        side *= 2
    return side


def plain_preprocessing(recipe: Recipe, channels: int, white: White = UNKNOWN) -> Preprocessing:
    """Images at the sizes of the recipe, which are decided, each channel from 0 to 1."""
    assert recipe.image_size is not None
    assert recipe.resize is not None
    zero, one = (0.0,) * channels, (1.0,) * channels
    return Preprocessing(recipe.image_size, recipe.resize, zero, one, white)


def measured_preprocessing(
    recipe: Recipe, images: Sequence[np.ndarray], white: White = UNKNOWN
) -> Preprocessing:
    """What the network sees of an image, each channel with mean 0 and variance 1.

    Args:
        recipe: with its sizes decided.
        images: (H, W, C) uint8, some of those to train on.
        white: which value is white in images of 16 or 32 bits a value; they were decoded by it.
    """
    plain = plain_preprocessing(recipe, images[0].shape[-1], white)
    pixels = np.stack([plain.pixels(image) for image in images]) / 255
    mean, std = pixels.mean((0, 2, 3)), pixels.std((0, 2, 3))
    rounded = [
        tuple(round(float(v), 4) for v in values) for values in (mean, np.maximum(std, 0.01))
    ]
    return replace(plain, mean=rounded[0], std=rounded[1])
