"""The named recipes, one row each."""

from dataclasses import replace

from resnets.data.augment import Augmentation
from resnets.errors import UsageError
from resnets.training.recipe import Recipe

RECIPES = {
    "quick": Recipe(),
}


def named_recipe(name: str, network: str | None = None) -> Recipe:
    """The recipe of that name, as it is for a network.

    Args:
        name: a key of ``RECIPES``.
        network: name of the network to train; the recipe's own where it is None.

    Raises:
        UsageError: if there is no such recipe.
    """
    if name not in RECIPES:
        raise UsageError(f"no recipe {name!r}; there are {', '.join(RECIPES)}")
    return RECIPES[name]
