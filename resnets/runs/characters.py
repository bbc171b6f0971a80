"""Classes that are digits or letters: mirroring makes others of them, or none."""

from collections.abc import Sequence
from dataclasses import replace

from resnets.training.recipe import Recipe

_NUMBERS = {"zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"}


def are_characters(class_names: Sequence[str]) -> bool:
    """Whether the classes are digits or letters, which mirroring makes wrong.

    >>> are_characters(["0", "1", "2"]), are_characters(["3 - three", "4 - four"])
    (True, True)
    >>> are_characters(["cat", "dog"])
    False
    """
    words = [name.casefold().replace("-", " ").split() for name in class_names]
    return all(name and all(len(word) == 1 or word in _NUMBERS for word in name) for name in words)


def without_flips(recipe: Recipe) -> Recipe:
    """The recipe with augmentations that do not mirror."""
    return replace(recipe, augmentation=replace(recipe.augmentation, flip="none"))
