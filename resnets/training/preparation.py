"""What a run decides from its images before it starts: sizes, colours, whether to mirror."""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from resnets.data.deep import SAMPLE, sampled
from resnets.data.labelled import LabelledImages
from resnets.images import Preprocessing, White
from resnets.images.white import UNKNOWN
from resnets.training.recipe import Recipe

KEPT = 1 << 20  # bytes of an image in the sample that stays in memory
NUMBERS = {"zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"}


class Sample(Sequence[np.ndarray]):
    """Some of the images, evenly spread, (H, W, 3) uint8; large ones are decoded when asked for."""

    def __init__(self, images: LabelledImages, indices: Sequence[int]) -> None:
        self.images, self.indices = images, indices
        self.kept: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, place: Any) -> Any:
        if place in self.kept:
            return self.kept[place]
        image = self.images.image(self.indices[place])
        if image.size <= KEPT:
            self.kept[place] = image
        return image


def sample(images: LabelledImages, count: int = SAMPLE) -> Sample:
    """Some of the images, the same each time."""
    return Sample(images, [int(index) for index in sampled(len(images), count)])


def typical_side(images: Sequence[np.ndarray]) -> int:
    """The median of the images' shorter sides, in pixels; doubled until it is at least 16.

    Networks for small images halve their features twice: of 16 pixels, 4 are left. The embedded
    digits, of 8 pixels, are classified better when they are enlarged so.
    """
    side = int(np.median([min(image.shape[:2]) for image in images]))
    while side < 16:
        side *= 2
    return side


def measured_preprocessing(
    recipe: Recipe, images: Sequence[np.ndarray], white: White = UNKNOWN
) -> Preprocessing:
    """What the network sees of an image, each channel with mean 0 and variance 1.

    Args:
        recipe: with its sizes decided.
        images: (H, W, 3) uint8, some of those to train on.
        white: which value is white in images of 16 or 32 bits a value; they were decoded by it.
    """
    assert recipe.image_size is not None
    assert recipe.resize is not None
    plain = Preprocessing(recipe.image_size, recipe.resize, (0.0,) * 3, (1.0,) * 3, white)
    pixels = np.stack([plain.pixels(image) for image in images]) / 255
    mean, std = pixels.mean((0, 2, 3)), pixels.std((0, 2, 3))
    rounded = [
        tuple(round(float(v), 4) for v in values) for values in (mean, np.maximum(std, 0.01))
    ]
    return replace(plain, mean=rounded[0], std=rounded[1])


def for_training(preprocessing: Preprocessing, recipe: Recipe) -> Preprocessing:
    """The same at the size of the training images."""
    size = recipe.training_size or preprocessing.size
    shorter = max(size, round(preprocessing.resize * size / preprocessing.size))
    return replace(preprocessing, size=size, resize=shorter)


def are_characters(class_names: Sequence[str]) -> bool:
    """Whether the classes are digits or letters, which mirroring makes wrong.

    >>> are_characters(["0", "1", "2"]), are_characters(["3 - three", "4 - four"])
    (True, True)
    >>> are_characters(["cat", "dog"])
    False
    """
    words = [name.casefold().replace("-", " ").split() for name in class_names]
    return all(name and all(len(word) == 1 or word in NUMBERS for word in name) for name in words)


def without_flips(recipe: Recipe) -> Recipe:
    """The recipe with augmentations that do not mirror."""
    return replace(recipe, augmentation=replace(recipe.augmentation, flip="none"))


def seed_all(seed: int, rank: int = 0) -> None:
    """Seed every generator that training may draw from, another way in every process."""
    random.seed(seed + rank)
    np.random.seed((seed + rank) % 2**32)  # noqa: NPY002  (for code that draws from it)
    torch.manual_seed(seed + rank)
