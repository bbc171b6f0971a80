"""How long a run may take: durations, and the number of epochs that fit into one."""

import bisect
import math
import re
import time
from dataclasses import dataclass, replace

from resnets.errors import UsageError
from resnets.training.parallel import any_process
from resnets.training.recipe import Recipe
from resnets.training.records import Step
from resnets.training.trainer import Trainer

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
SPARE = 0.97  # of the budget is planned; the rest is for saving and for what varies
SHORTEST, LONGEST = 3.0, 60.0  # seconds to measure for, a twentieth of the budget in between
EPOCHS, MOST = 10, 10_000  # from so many on, whole epochs are planned; never more
FORWARD = 0.4  # a forward pass beside forward, backward and update


def seconds(duration: str) -> float:
    """The seconds of a duration.

    >>> seconds("20m"), seconds("1h30m"), seconds("90s")
    (1200.0, 5400.0, 90.0)

    Raises:
        UsageError: if it is none.
    """
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", duration)
    if not parts or "".join(number + unit for number, unit in parts) != duration:
        raise UsageError(f"{duration!r}: not a duration; write 90s, 20m, 1h30m or 2d")
    total = sum(float(number) * UNITS[unit] for number, unit in parts)
    if total == 0:
        raise UsageError(f"{duration!r}: no time at all")
    return total


def cadence(text: str) -> tuple[int | None, float | None]:
    """How often to save: a number of steps, or seconds.

    >>> cadence("100"), cadence("90s")
    ((100, None), (None, 90.0))

    Raises:
        UsageError: if it is neither.
    """
    if text.isdecimal() and int(text):
        return int(text), None
    return None, seconds(text)


@dataclass(frozen=True)
class Speed:
    """How long a weight update and a validation take (seconds).

    Attributes:
        step: a weight update, by images at training_size.
        validation: all of it.
        first: a weight update by images as small as at the start; None if they do not grow.
    """

    step: float
    validation: float
    first: float | None = None

    def of(self, recipe: Recipe, steps_per_epoch: int) -> float:
        """Seconds of a whole run by a recipe."""
        validations = math.ceil(recipe.total_steps(steps_per_epoch) / steps_per_epoch)
        return self.of_updates(recipe, steps_per_epoch) + validations * self.validation

    def of_updates(self, recipe: Recipe, steps_per_epoch: int) -> float:
        """Seconds of its weight updates: each a fixed time, and one that grows with the pixels."""
        steps, saved = recipe.total_steps(steps_per_epoch), 0.0
        if self.first is not None and recipe.first_share < 1:
            by_pixels = max(0.0, self.step - self.first) / (1 - recipe.first_share)
            saved = by_pixels * (steps - recipe.work(steps_per_epoch))
        return steps * self.step - saved


def measure(trainer: Trainer, budget: float, validation_images: int) -> Speed:
    """Train a little to see how fast it goes. The trainer is of no use afterwards.

    A validation is not run but reckoned: as long to get each image, and for its forward pass
    `FORWARD` of what an update takes.

    Args:
        trainer: a fresh one, of a copy of the network, whose images do not grow.
        budget: seconds that the run may take, of which measuring uses a small part.
        validation_images: how many, over all processes.
    """
    limit, start = min(max(budget / 20, SHORTEST), LONGEST), time.perf_counter()
    steps: list[Step] = []
    for record in trainer.train():
        if isinstance(record, Step):
            steps.append(record)
        late = len(steps) >= 4 and time.perf_counter() - start > limit
        if isinstance(record, Step) and any(any_process(late)):
            break
    settled = steps[len(steps) // 4 :]  # the first steps allocate memory and compile
    whole, waiting = (
        sum(getattr(step, name) for step in settled) / len(settled)
        for name in ("seconds", "waiting")
    )
    batches = validation_images / trainer.batches.batch_size
    return Speed(whole, batches * (waiting + FORWARD * (whole - waiting)))


def fitted(recipe: Recipe, speed: Speed, budget: float, steps_per_epoch: int) -> Recipe:
    """The recipe with as many epochs as the budget has time for; with fewer than ten, in steps.

    Args:
        recipe: its schedule follows the new length.
        speed: what was measured.
        budget: seconds.
        steps_per_epoch: weight updates in a pass over the training images.

    Raises:
        UsageError: if not one weight update fits.
    """

    def in_epochs(epochs: int) -> Recipe:
        return replace(recipe, epochs=epochs, steps=0)

    def in_steps(steps: int) -> Recipe:
        return replace(recipe, epochs=0, steps=steps)

    def seconds_of(planned: Recipe) -> float:
        return speed.of(planned, steps_per_epoch)

    limit = SPARE * budget
    if seconds_of(in_epochs(EPOCHS)) <= limit:
        many = range(EPOCHS + 1, MOST + 1)
        more = bisect.bisect(many, limit, key=lambda epochs: seconds_of(in_epochs(epochs)))
        return in_epochs(EPOCHS + more)
    few = range(1, EPOCHS * steps_per_epoch)
    steps = bisect.bisect(few, limit, key=lambda steps: seconds_of(in_steps(steps)))
    if steps < 1:
        raise UsageError(
            f"--budget of {budget:.0f} s: one weight update takes {speed.step:.1f} s and a "
            f"validation {speed.validation:.1f} s; give it more, or a smaller network"
        )
    return in_steps(steps)
