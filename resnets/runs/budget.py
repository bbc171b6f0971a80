"""How long a run may take: durations, the epochs that fit into one, and keeping to it."""

import bisect
import sys
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass, replace
from typing import Any

import torch

from resnets.data.batches import TrainingBatches
from resnets.errors import UsageError, install_hint
from resnets.format import duration, parse_duration, percent
from resnets.training.devices import computes_bf16
from resnets.training.parallel import any_process
from resnets.training.recipe import LEAST_STEPS, Recipe
from resnets.training.trainer import TIMED, Epoch, Step, Trainer, TrainerRecord

_FIRST, _LAST = 3, TIMED  # the steps to look at: the first ones allocate memory and compile
_ENOUGH = 5.0  # seconds of steps after which to stop looking


class Bottleneck:
    """Looks at the first steps of a training."""

    def __init__(self, recipe: Recipe, batches: TrainingBatches) -> None:
        self.recipe, self.batches = recipe, batches
        self.steps: list[Step] = []
        self.steps_seen, self.advised = 0, False

    def note(self, record: object) -> str | None:
        """Take a record of the run; when it is time, a sentence for the user, once."""
        if self.advised or not isinstance(record, Step):
            return None
        self.steps_seen += 1
        if self.steps_seen > _FIRST:
            self.steps.append(record)
        seconds = sum(step.seconds for step in self.steps)
        if not self.steps or (seconds < _ENOUGH and self.steps_seen < _LAST):
            return None
        self.advised = True
        return _advice(
            sum(step.waiting for step in self.steps) / seconds, self.recipe, self.batches
        )


def _advice(waiting: float, recipe: Recipe, batches: TrainingBatches) -> str:
    """What binds the training, and what would help.

    Args:
        waiting: share of the time that goes into getting images, 0 to 1.
        recipe: how it trains.
        batches: what it trains on.
    """
    if waiting > 0.4:
        helps = _for_data(recipe, batches)
        share = percent(waiting, 0)
        return f"Bound by the data: {share} of the time goes into images. Faster with {helps}."
    helps = _for_compute(recipe, batches.device)
    threads = torch.get_num_threads()
    cpu = f"{threads} CPU threads" if threads > 1 else "one CPU thread"
    where = cpu if batches.device.type == "cpu" else "the GPU"
    return (
        f"Bound by compute: {percent(1 - waiting, 0)} of the time is arithmetic on {where}. {helps}"
    )


def _for_data(recipe: Recipe, batches: TrainingBatches) -> str:
    """What speeds up getting images."""
    if batches.in_memory:
        return "less augmentation" if recipe.augmentation.policy != "none" else "larger batches"
    helps = [f"more cores, as many --workers (now {batches.process.workers(recipe.workers)})"]
    if recipe.augmentation.resized_crop is None:  # else images must have one size to be held
        helps += [f"a larger --memory-gb (now {recipe.memory_gb:g}) if memory has room for all"]
    helps += ["images stored at about the --resize of the recipe", f"or {install_hint('fast')}"]
    return ", ".join(helps)


def _for_compute(recipe: Recipe, device: torch.device) -> str:
    """What speeds up the arithmetic."""
    plain, smaller = recipe.precision == "float32", "a smaller network or --image-size"
    if device.type == "cpu":
        helps = ["--precision bf16"] if plain and computes_bf16(device) else []
        return f"Faster with {', '.join([*helps, 'a GPU', smaller])}; --budget bounds the time."
    helps = [f"--precision {'bf16' if computes_bf16(device) else 'fp16'}"] if plain else []
    helps += [] if recipe.compile else ["--compile"]
    return "Faster with " + " and ".join([*helps, smaller]) + "."


_Clock = Callable[[], float]  # seconds since whenever

_SPARE = 0.97  # of the time that is left is planned; the rest is for what varies
_PARTS = 20  # a run is planned anew after each epoch, and after such a part of the budget
_AMPLE = 1.5  # times what a run needs: measuring takes up to a quarter of a short budget
_CLOSE = 0.02  # of the time that is left: a plan so near to the best one stays
_SHORTEST, _LONGEST = 3.0, 60.0  # seconds to measure for, a twentieth of the time in between
_STEPS = 4  # to measure at least, or two where they take twice as long
_EPOCHS, _MOST = 10, 10_000  # at or above EPOCHS, whole epochs are planned; never more than MOST
_MEASURING = 1 / 8  # of a budget: when measuring has taken it, the rest is estimated
_PREPARING = 0.25  # of the budget, that may go into reading before the first step ...
_ENDING = 0.25  # ... and that is kept for scores and the report
_REPORT = 3.0  # seconds to write a report
_FORWARD = 0.4  # a forward pass beside forward, backward and update


def checkpoint_interval(text: str) -> tuple[int | None, float | None]:
    """How often to save: a number of steps, or seconds.

    >>> checkpoint_interval("100"), checkpoint_interval("90s")
    ((100, None), (None, 90.0))

    Raises:
        UsageError: if it is neither.
    """
    if text.isdecimal() and int(text):
        return int(text), None
    return None, parse_duration(text)


@dataclass(frozen=True)
class Speed:
    """How long the parts of a run take (seconds).

    Attributes:
        step: a step, by images at training_size.
        validation: all of it, and saving the state.
        first: a step by images as small as at the start; None if they do not grow.
        final: scoring the finished network on the validation and test images.
    """

    step: float
    validation: float
    first: float | None = None
    final: float = 0.0

    def of(self, recipe: Recipe, steps_per_epoch: int, step: int = 0, epoch: int = 0) -> float:
        """Seconds of a run by a recipe, from a step within an epoch (both from 0) to its end."""
        validations = recipe.validations(steps_per_epoch, epoch)
        updates = self.of_updates(recipe, steps_per_epoch, step)
        return updates + validations * self.validation + self.final

    def of_updates(self, recipe: Recipe, steps_per_epoch: int, step: int = 0) -> float:
        """Seconds of its steps: each a fixed time, and one that grows with the pixels."""
        steps = recipe.total_steps(steps_per_epoch) - step
        saved = self.by_pixels(recipe) * (steps - recipe.work(steps_per_epoch, step))
        return steps * self.step - saved

    def by_pixels(self, recipe: Recipe) -> float:
        """The part of an update's time that goes with the pixels of the images."""
        if self.first is None or recipe.first_share == 1:
            return 0.0
        return max(0.0, self.step - self.first) / (1 - recipe.first_share)

    def of_step(self, recipe: Recipe, steps_per_epoch: int, epoch: int) -> float:
        """Seconds of a step in an epoch (from 0)."""
        share = recipe.share_in(epoch, steps_per_epoch)
        return self.step - self.by_pixels(recipe) * (1 - share)

    def times(self, updates: float) -> "Speed":
        """The speed when every step takes this many times as long."""
        first = None if self.first is None else self.first * updates
        return replace(self, step=self.step * updates, first=first)

    def with_pixels(self, share: float) -> "Speed":
        """An estimate of the speed by images with this share of the pixels."""
        return Speed(self.step * share, self.validation * share, final=self.final * share)


def measure(
    trainer: Trainer,
    budget: float,
    validation_images: int,
    final_images: int = 0,
    clock: _Clock = time.perf_counter,
) -> Speed:
    """Train a little to see how fast it goes. The trainer is of no use afterwards.

    A validation is not run but estimated: as long to get each image, and for its forward pass
    `_FORWARD` of what an update takes. A short measurement is enough for a short budget: the plan
    is made anew on the way.

    Args:
        trainer: a fresh one, of a copy of the network, whose images do not grow.
        budget: seconds that the run may take, of which measuring uses a small part.
        validation_images: how many are scored after each epoch, over all processes.
        final_images: how many are scored when the training is over.
        clock: in seconds.
    """
    limit = min(max(budget / 20, min(_SHORTEST, budget / 8)), _LONGEST)
    trainer.timed = sys.maxsize
    start = clock()
    ends: list[float] = []
    steps: list[Step] = []
    for record in trainer.train():
        if isinstance(record, Step):
            steps.append(record)
            ends.append(clock())
        took = clock() - start
        late = took > limit * (1 if len(steps) >= _STEPS else 2) and len(steps) > 1
        if isinstance(record, Step) and any(any_process(late)):
            break
    slow = max(len(steps) // 4, int(len(steps) > 1))  # the first steps allocate memory and compile
    settled = steps[slow:]
    waiting = sum(step.waiting for step in settled) / len(settled)
    whole = (ends[-1] - (ends[-len(settled) - 1] if settled != steps else start)) / len(settled)
    seconds_per_image = (
        waiting + _FORWARD * max(0.0, whole - waiting)
    ) / trainer.batches.batch_size
    return Speed(
        whole, validation_images * seconds_per_image, final=final_images * seconds_per_image
    )


def measured_enough(budget: float, spent: float) -> bool:
    """Whether measuring has taken so much of the budget that other sizes are estimated by it."""
    return spent > _MEASURING * budget


def fitted(
    recipe: Recipe, speed: Speed, budget: float, steps_per_epoch: int, spent: float = 0.0
) -> Recipe:
    """The recipe with as many epochs as the budget has time for; with fewer than ten, in steps.

    Args:
        recipe: its schedule follows the new length.
        speed: what was measured.
        budget: seconds.
        steps_per_epoch: steps in a pass over the training images.
        spent: seconds of the budget that measuring took.

    Raises:
        UsageError: if not one step fits.
    """
    often = replace(recipe, validation_every=recipe.validation_every or 1)
    longest = _fitted(often, speed, budget, steps_per_epoch, spent)
    period = recipe.validation_every or longest.usual_validation_period(steps_per_epoch)
    if period == often.validation_every:
        return longest
    seldom = replace(recipe, validation_every=period)
    return _fitted(seldom, speed, budget, steps_per_epoch, spent)


def _fitted(
    recipe: Recipe, speed: Speed, budget: float, steps_per_epoch: int, spent: float
) -> Recipe:
    """The same for a recipe that says how often it validates, so that longer runs take longer."""

    def in_epochs(epochs: int) -> Recipe:
        return replace(recipe, epochs=epochs, steps=0, replanned=())

    def in_steps(steps: int) -> Recipe:
        return replace(recipe, epochs=0, steps=steps, replanned=())

    def seconds_of(planned: Recipe) -> float:
        return speed.of(planned, steps_per_epoch)

    limit = _SPARE * (budget - spent)
    if seconds_of(in_epochs(_EPOCHS)) <= limit:
        many = range(_EPOCHS + 1, _MOST + 1)
        more = bisect.bisect(many, limit, key=lambda epochs: seconds_of(in_epochs(epochs)))
        return in_epochs(_EPOCHS + more)
    few = range(1, _EPOCHS * steps_per_epoch)
    steps = bisect.bisect(few, limit, key=lambda steps: seconds_of(in_steps(steps)))
    if steps < 1:
        least, epoch = seconds_of(in_steps(1)), seconds_of(in_epochs(1))
        raise UsageError(_too_short(budget, spent, least, epoch))
    return in_steps(steps)


_SIZES = (192, 160, 128, 96)  # pixels that photos may be reduced to, so that more steps fit


def fitting_size(recipe: Recipe, speed: Speed, seconds: float) -> int:
    """The largest side in pixels by which `LEAST_STEPS` fit in the time, or the smallest.

    Args:
        recipe: with its sizes chosen for photos; those of small images stay.
        speed: at these sizes; a step takes time in proportion to the pixels.
        seconds: for all of training.
    """
    size = recipe.training_size or 0
    for smaller in (size, *(side for side in _SIZES if side < size)):
        fitting = smaller
        if LEAST_STEPS * speed.step * (smaller / size) ** 2 <= _SPARE * seconds:
            break
    return fitting


def preparing(limit: float, seconds: float) -> float:
    """The seconds of a budget that reading the data counts for, which may have taken longer."""
    return min(seconds, _PREPARING * limit)


def with_ending(speed: Speed, limit: float, passes: float, *, report: bool) -> Speed:
    """The speed with what follows the scores: statistics, familiarity and the report.

    Args:
        speed: as measured.
        limit: the budget, of which at most a quarter is kept for the end.
        passes: how many times as many images as for the scores are computed in all.
        report: whether one is written.
    """
    ending = speed.final * passes + (_REPORT if report else 0.0)
    return replace(speed, final=max(speed.final, min(ending, _ENDING * limit)))


def _too_short(budget: float, spent: float, least: float, epoch: float) -> str:
    """What to say where no training fits. All in seconds; `least` is a run of one step."""
    shortest = "the shortest run (one step, validation, the scores at the end) takes"
    parts = f"{shortest} {duration(least)}"
    if spent:
        together = duration(_as_shown(spent) + _as_shown(least))
        parts = f"measuring the speed took {duration(spent)} and {parts}, together {together}"
    return (
        f"--budget {duration(budget)} is too short here: {parts}. With half of that in reserve, "
        f"give it {duration(_AMPLE * (spent + least))} or more (a whole epoch takes "
        f"{duration(epoch)}: {duration(_AMPLE * (spent + epoch))} then), or take a smaller network "
        "or --image-size"
    )


def _as_shown(seconds: float) -> float:
    """Seconds as `duration` rounds them, so that the sum of what is shown is what is shown."""
    shown = duration(seconds)
    return 0.0 if shown == duration(0) else parse_duration(shown)


_SEEN = ("took", "expected", "saving", "validating")


class Budget:
    """Keeps a run within its time: watches the clock and changes the length on the way.

    The run is planned anew after every epoch and every twentieth part of the time, from what the
    steps, the validation and saving took since the last plan. It holds for one process;
    of several, all must take the decision of the first.

    Args:
        limit: seconds that the run may take, with the scores at the end.
        speed: measured before it began.
        clock: in seconds.
        spent: seconds that the run has taken before this moment.
        preparing: seconds that may still go into what is read and made before the first step; what
            takes longer does not count.
    """

    def __init__(
        self,
        limit: float,
        speed: Speed,
        clock: _Clock = time.monotonic,
        spent: float = 0.0,
        preparing: float = 0.0,
    ) -> None:
        self.limit, self.speed, self.clock, self.preparing = limit, speed, clock, preparing
        self.created = clock()
        self.last = self.created  # the end of the last step, or of the last pause between epochs
        self.began = self.last - spent
        self.planned = self.last  # when the run was planned last
        self.took = self.expected = 0.0  # of the steps since then
        self.saving = self.validating = 0.0  # of the last epoch

    def start(self) -> None:
        """Training begins now: what was read and made since this was made counts in part."""
        pause = self.clock() - self.created
        self.began += max(0.0, pause - self.preparing)
        self.last, self.planned = self.last + pause, self.planned + pause

    @property
    def spent(self) -> float:
        """Seconds that the run has taken."""
        return self.clock() - self.began

    @property
    def late(self) -> bool:
        """Whether it is time to plan anew within an epoch."""
        return self.clock() - self.planned > self.limit / _PARTS and self.expected > 0

    def note(self, record: TrainerRecord, recipe: Recipe, steps_per_epoch: int) -> None:
        """Take a record of a trainer by this recipe."""
        if isinstance(record, Step):
            self.expected += self.speed.of_step(recipe, steps_per_epoch, record.epoch - 1)
            now = self.clock()
            self.took, self.last = self.took + now - self.last, now
        elif isinstance(record, Epoch) and recipe.validates(record.epoch - 1, steps_per_epoch):
            now = self.clock()
            self.validating, self.last = now - self.last, now
            before = self.speed.validation - self.saving
            ratio = self.validating / before if before > 0 else 1.0
            final = self.speed.final * (ratio if record.validation is not None else 1.0)
            validation = self.validating + self.saving
            self.speed = replace(self.speed, validation=validation, final=final)

    def saved(self) -> None:
        """The state that is saved after an epoch is on the disk."""
        now = self.clock()
        self.saving, self.last = now - self.last, now
        self.speed = replace(self.speed, validation=self.validating + self.saving)

    def learn(self) -> None:
        """Take in how long the steps since the last plan took."""
        if self.expected > 0:
            ratio = self.took / self.expected
            weight = min(1.0, self.took / (self.limit / _PARTS))  # few steps say little
            self.speed = self.speed.times(1 - weight + weight * ratio)
        self.took = self.expected = 0.0
        self.planned = self.clock()

    def total(self, recipe: Recipe, steps_per_epoch: int, step: int, epoch: int) -> int:
        """Steps of the whole run that fit into the time, by what was seen since last time.

        Args:
            recipe: with the present length.
            steps_per_epoch: steps in a pass over the training images.
            step: steps done.
            epoch: epochs done.
        """
        self.learn()
        left = self.limit - self.spent

        def takes(total: int) -> float:
            changed = recipe.replan(step, total, steps_per_epoch)
            return self.speed.of(changed, steps_per_epoch, step, epoch)

        present = recipe.total_steps(steps_per_epoch)
        whole = recipe.planned_steps(steps_per_epoch) >= _EPOCHS * steps_per_epoch
        if not whole and (1 - _CLOSE) * _SPARE * left <= takes(present) <= left:
            return present
        # as far again as the run is long now; a later plan may go further
        most = epoch + _EPOCHS + present // steps_per_epoch
        if whole:
            ends = range((epoch + 1) * steps_per_epoch, most * steps_per_epoch + 1, steps_per_epoch)
            fit = bisect.bisect(ends, _SPARE * left, key=takes)
            if fit:
                return ends[fit - 1]
        further = range(step + 1, most * steps_per_epoch + 1)
        return step + bisect.bisect(further, _SPARE * left, key=takes)

    def state(self) -> dict[str, Any]:
        """What `resumed` needs to go on as if the run had not stopped."""
        now = self.clock()
        since = {"spent": now - self.began, "planned": now - self.planned, "last": now - self.last}
        seen = {name: getattr(self, name) for name in _SEEN}
        return {"speed": list(astuple(self.speed)), "since": since, "seen": seen}

    @classmethod
    def resumed(
        cls, limit: float, state: dict[str, Any], clock: _Clock = time.monotonic
    ) -> "Budget":
        """The budget of a run that goes on; the time between its parts does not count."""
        since = state["since"]
        budget = cls(limit, Speed(*state["speed"]), clock, since["spent"])
        budget.planned, budget.last = budget.last - since["planned"], budget.last - since["last"]
        for name, value in state["seen"].items():
            setattr(budget, name, value)
        return budget
