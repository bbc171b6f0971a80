"""Learning-rate schedules as functions of the step, so that resuming needs no scheduler state."""

import math
from collections.abc import Callable

from resnets.training.recipe import Recipe

_Schedule = Callable[[int], float]


def make_schedule(recipe: Recipe, steps_per_epoch: int) -> _Schedule:
    """The factor on the recipe's learning rate as a function of the step.

    If ``--budget`` changes the length during the run, the factor continues from its present value
    and reaches its end with the new length (`Recipe.position`).

    Args:
        recipe: its schedule, warm-up and length are used.
        steps_per_epoch: steps in a pass over the training images.

    Returns:
        A function from the step (0 is the first) to a factor from 0 to 1. After the end of the
        run it keeps its last value.

    >>> rate = make_schedule(Recipe(schedule="cosine", epochs=2), steps_per_epoch=50)
    >>> [round(rate(step), 3) for step in (0, 25, 50, 100)]
    [1.0, 0.854, 0.5, 0.0]
    """
    total = recipe.planned_steps(steps_per_epoch)
    warmup = recipe.warmup_length(steps_per_epoch)

    def factor(step: int) -> float:
        at = recipe.position(step, steps_per_epoch)
        if at < warmup:
            return _warmup_factor(recipe, at / warmup)
        after = (at - warmup) / (total - warmup) if warmup < total else 1.0
        return _decay_factor(recipe, min(at / total, 1.0), min(after, 1.0))

    return factor


def _warmup_factor(recipe: Recipe, progress: float) -> float:
    """The factor during the warm-up, of which the fraction ``progress`` is over."""
    if recipe.warmup == "constant" and recipe.schedule != "one-cycle":
        return recipe.first_rate
    return recipe.first_rate + (1 - recipe.first_rate) * progress


def _decay_factor(recipe: Recipe, run: float, progress: float) -> float:
    """The factor after the warm-up.

    Args:
        recipe: its schedule is used.
        run: fraction of the whole run that is over.
        progress: fraction of the part after the warm-up that is over.
    """
    shapes: dict[str, Callable[[], float]] = {
        "constant": lambda: 1.0,
        "step": lambda: recipe.gamma ** sum(run >= milestone for milestone in recipe.milestones),
        "linear": lambda: _interpolate(1 - progress, recipe.final_rate),
        "one-cycle": lambda: _interpolate(1 - progress, recipe.final_rate),
        "cosine": lambda: _interpolate((1 + math.cos(math.pi * progress)) / 2, recipe.final_rate),
    }
    return shapes[recipe.schedule]()


def _interpolate(height: float, low: float) -> float:
    """Linear interpolation between ``low`` (at height 0) and 1 (at height 1)."""
    return low + (1 - low) * height
