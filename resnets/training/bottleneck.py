"""What a training spends its time on, and what would make it faster."""

import os

import torch

from resnets.data.batches import TrainingBatches
from resnets.training.recipe import Recipe
from resnets.training.records import Record, Step

FIRST, LAST = 3, 100  # the steps to look at: the first ones allocate memory and compile
ENOUGH = 5.0  # seconds of steps after which to stop looking


class Bottleneck:
    """Looks at the first steps of a training."""

    def __init__(self, recipe: Recipe, batches: TrainingBatches) -> None:
        self.recipe, self.batches = recipe, batches
        self.steps: list[Step] = []
        self.seen, self.told = 0, False

    def note(self, record: Record) -> str | None:
        """Take a record of the trainer; when it is time, a sentence for a person, once."""
        if self.told or not isinstance(record, Step):
            return None
        self.seen += 1
        if self.seen > FIRST:
            self.steps.append(record)
        seconds = sum(step.seconds for step in self.steps)
        if not self.steps or (seconds < ENOUGH and self.seen < LAST):
            return None
        self.told = True
        return advice(sum(step.waiting for step in self.steps) / seconds, self.recipe, self.batches)


def advice(waiting: float, recipe: Recipe, batches: TrainingBatches) -> str:
    """What binds the training, and what would help.

    Args:
        waiting: share of the time that goes into getting images, 0 to 1.
        recipe: how it trains.
        batches: what it trains on.
    """
    if waiting > 0.4:
        helps = for_data(recipe, batches.in_memory)
        return (
            f"Bound by the data: {waiting:.0%} of the time goes into images. Faster with {helps}."
        )
    helps = for_compute(recipe, batches.device)
    threads = torch.get_num_threads()
    cpu = f"{threads} CPU threads" if threads > 1 else "one CPU thread"
    where = "the GPU" if batches.device.type == "cuda" else cpu
    return f"Bound by compute: {1 - waiting:.0%} of the time is arithmetic on {where}. {helps}"


def for_data(recipe: Recipe, in_memory: bool) -> str:
    """What speeds up getting images."""
    if in_memory:
        return "less augmentation" if recipe.augmentation.policy != "none" else "larger batches"
    return (
        f"more cores, as many --workers (now {recipe.workers or os.cpu_count()}), images stored "
        'at about the --resize of the recipe, or `pip install "resnets[fast]"`'
    )


def for_compute(recipe: Recipe, device: torch.device) -> str:
    """What speeds up the arithmetic."""
    if device.type == "cuda":
        helps = [] if recipe.precision == "bf16" else ["--precision bf16"]
        helps += [] if recipe.compile else ["--compile"]
        return "Faster with " + " and ".join([*helps, "a smaller network or --image-size"]) + "."
    return "Faster with a GPU, a smaller network or --image-size; --budget bounds the time."
