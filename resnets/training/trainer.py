"""How a network learns: the training loop as a generator of records.

It knows no terminal and no file names. Between two records its `state` can be saved, and a trainer
that loads it goes on, bit for bit, as this one would.
"""

import copy
import math
import time
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnets.data.batches import Batch, TrainingBatches
from resnets.errors import ContentError
from resnets.training.optimisation import Loss, clip_gradients, make_optimizer, set_rate
from resnets.training.parallel import distribute, gradients_once, share_buffers, total
from resnets.training.recipe import Recipe
from resnets.training.schedules import make_schedule


@dataclass(frozen=True)
class Score:
    """What a network did on some images.

    Attributes:
        correct: how many it got right, of `images`.
        loss: mean cross-entropy in nats.
    """

    correct: int
    images: int
    loss: float

    @property
    def accuracy(self) -> float:
        """The fraction that is right."""
        return self.correct / self.images


def _nothing(device: torch.device) -> Tensor:
    """The tally of no image: summed loss, right answers and images, (3,) float64."""
    return torch.zeros(3, dtype=torch.float64, device=device)


def _tally(logits: Tensor, targets: Tensor, loss: Tensor) -> Tensor:
    """Summed loss, right answers and images, (3,) float64; stays on the device.

    Args:
        logits: (N, K).
        targets: (N,) labels, or (N, K) probabilities, of which the largest counts as the label.
        loss: summed over the images.
    """
    labels = targets if targets.ndim == 1 else targets.argmax(1)
    correct = (logits.argmax(1) == labels).sum()
    images = torch.full_like(correct, len(logits))
    return torch.stack([loss.detach().double(), correct.double(), images.double()])


def _as_score(tallied: Tensor) -> Score:
    """The score over all processes, from what each has tallied."""
    loss, correct, images = total(tallied.clone()).tolist()
    return Score(int(correct), int(images), loss / images)


@torch.no_grad()
def _scoring(network: nn.Module, batches: Iterable[Batch]) -> Iterator[Tensor]:
    """Tally one batch after the other, so that a caller can do something in between."""
    for batch in batches:
        logits = network(batch.images).float()
        yield _tally(logits, batch.targets, F.cross_entropy(logits, batch.targets, reduction="sum"))


def _score(network: nn.Module, batches: Iterable[Batch], device: torch.device) -> Score:
    """Score a network, which is in evaluation mode, on every image once over all processes."""
    return _as_score(sum(_scoring(network, batches), _nothing(device)))


@dataclass(frozen=True)
class Step:
    """A weight update is done, in so many seconds, of which it was `waiting` for the images."""

    epoch: int
    step: int
    images: int
    seconds: float
    waiting: float


@dataclass(frozen=True)
class Interval:
    """What the network did in training since the last interval, over all processes."""

    epoch: int
    step: int
    training: Score
    learning_rate: float


@dataclass(frozen=True)
class Validating:
    """So many validation batches are done; nothing changed since the last weight update."""

    epoch: int
    step: int
    batches: int


@dataclass(frozen=True)
class Epoch:
    """All training images were seen once more, or the steps ran out, and validation is done.

    Attributes:
        best: whether no epoch before it was as good in validation.
        test: only where the test images are followed, for a curve; nothing is chosen by it.
    """

    epoch: int
    step: int
    training: Score
    validation: Score | None
    best: bool
    test: Score | None = None


TrainerRecord = Step | Interval | Validating | Epoch


class NotFiniteError(ContentError):
    """The loss or a weight became infinite or not a number."""


class _Average:
    """Exponentially weighted mean of a network's parameters and buffers.

    After n updates the mean of a value is ``sum(decay**(n-i) * value_i) / sum(decay**(n-i))``
    over i = 1..n: without a trace of what was there before the first, and the plain mean
    (stochastic weight averaging, arXiv:1803.05407) where ``decay`` is 1. Counters are copied.
    """

    def __init__(self, network: nn.Module, decay: float):
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        """The network with the mean's weights, ready to evaluate after the first update."""
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take in the present weights of ``network``."""
        self.updates += 1
        mean, newest = self.network.state_dict(), network.state_dict()
        averaged = [name for name, value in mean.items() if value.is_floating_point()]
        torch._foreach_lerp_(
            [mean[name] for name in averaged],
            [newest[name] for name in averaged],
            _newest_share(self.decay, self.updates),
        )
        for name in mean.keys() - set(averaged):
            mean[name].copy_(newest[name])

    def state_dict(self) -> dict[str, Any]:
        """All that :meth:`load_state_dict` needs to go on from here, bit for bit."""
        return {"updates": self.updates, "network": self.network.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from the state of an average of the same network."""
        self.updates = state["updates"]
        self.network.load_state_dict(state["network"])


def _newest_share(decay: float, updates: int) -> float:
    """Weight of the newest of ``updates`` values in their mean: 1 / (1 + d + d² + ...).

    >>> [_newest_share(1.0, n) for n in (1, 2, 4)]
    [1.0, 0.5, 0.25]
    """
    return 1 / updates if decay == 1 else (1 - decay) / (1 - decay**updates)


def _due(recipe: Recipe, done: int, steps_per_epoch: int) -> bool:
    """Whether the weights enter the mean when ``done`` weight updates are made."""
    begins = recipe.average_from * recipe.planned_steps(steps_per_epoch)
    if not recipe.average_decay or recipe.position(done, steps_per_epoch) <= begins:
        return False
    return done % recipe.average_every == 0 or done == recipe.total_steps(steps_per_epoch)


_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
_LOOK_EVERY = 20  # steps between looks at the losses on a GPU, each of which waits for it


class Trainer:
    """Trains a network by a recipe.

    Args:
        network: on its device; its weights change in place.
        recipe: all that is tunable.
        batches: the training images, this process's part of every batch.
        loss: the sum over images, of logits (N, K) and targets (N,) or (N, K); see `make_loss` and
            `OwnLoss`.
        validation: the validation images, to go over after every epoch; None if there are none.
        log_every: weight updates between two `Interval` records.
        test: test images to score after every epoch too, for a curve; nothing is chosen by them.

    Attributes:
        recipe: as given, with the changes of its length that were made on the way.
        epoch, step: epochs and weight updates done.
        best_step: when validation was best; `best_accuracy` is what it was.
    """

    def __init__(
        self,
        network: nn.Module,
        recipe: Recipe,
        batches: TrainingBatches,
        loss: Loss,
        validation: Iterable[Batch] | None,
        log_every: int = 50,
        test: Iterable[Batch] | None = None,
    ) -> None:
        self.recipe, self.batches, self.log_every = recipe, batches, log_every
        self.network, self.loss, self.validation, self.test = network, loss, validation, test
        self.device = next(network.parameters()).device
        self.parallel = distribute(network, self.device, recipe.sync_batch_norm)
        self.optimizer = make_optimizer(network, recipe)
        self.average = _Average(network, recipe.average_decay) if recipe.average_decay else None
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=recipe.precision == "fp16")
        self.schedule = make_schedule(recipe, batches.steps_per_epoch)
        self.epoch = self.step = self.best_epoch = self.best_step = 0
        self.best_accuracy = -1.0
        self.epoch_tally, self.interval_tally = _nothing(self.device), _nothing(self.device)
        self.losses: dict[int, Tensor] = {}  # by step, those that nobody has looked at yet

    @property
    def evaluated(self) -> nn.Module:
        """What is validated, and kept in the end: the mean of the weights once there is one."""
        averaged = self.average is not None and self.average.updates > 0
        return self.average.network if self.average and averaged else self.network

    @property
    def finished(self) -> bool:
        """Whether the steps are done, or validation has not improved for too long."""
        stale = 0 < self.recipe.patience <= self.epoch - self.best_epoch
        return stale or self.epoch * self.batches.steps_per_epoch >= self.steps

    @property
    def steps(self) -> int:
        """Weight updates of the whole run, as far as is known by now."""
        return self.recipe.total_steps(self.batches.steps_per_epoch)

    @property
    def epochs(self) -> int:
        """Of the whole run; the last may be cut short."""
        return -(-self.steps // self.batches.steps_per_epoch)

    def replan(self, total: int) -> None:
        """End after so many weight updates; the schedule goes on from where it is."""
        self.follow(self.recipe.replan(self.step, total, self.batches.steps_per_epoch))

    def follow(self, recipe: Recipe) -> None:
        """Go on by a recipe that differs in the changes of its length alone."""
        self.recipe = recipe
        self.schedule = make_schedule(recipe, self.batches.steps_per_epoch)

    @property
    def learning_rate(self) -> float:
        """Of the next step."""
        return self.recipe.learning_rate * self.schedule(self.step)

    def run(self) -> Iterator[TrainerRecord]:
        """Train from here to the end."""
        while not self.finished:
            yield from self.train()
            yield from self.validate()

    def train(self) -> Iterator[Step | Interval]:
        """The rest of an epoch."""
        self.network.train()
        first = self.step - self.epoch * self.batches.steps_per_epoch
        size = self.recipe.size_in(self.epoch, self.batches.steps_per_epoch)
        start = time.perf_counter()
        batches = self.batches.epoch(self.epoch, first, size)
        while self.step < self.steps and (batch := next(batches, None)) is not None:
            waiting = time.perf_counter() - start
            rate = self.learning_rate
            self.update(batch, rate)
            self.step += 1
            seconds = time.perf_counter() - start
            if self.step % self.log_every == 0:
                yield Interval(self.epoch + 1, self.step, self.learnt(), rate)
            yield Step(self.epoch + 1, self.step, self.batches.batch_size, seconds, waiting)
            start = time.perf_counter()

    def update(self, batch: Batch, rate: float) -> None:
        """One weight update, by the mean gradient over a batch, computed in pieces."""
        set_rate(self.optimizer, rate)
        pieces = [part.chunk(self.recipe.accumulate) for part in (batch.images, batch.targets)]
        before = self.epoch_tally[0].clone()
        for number, (images, targets) in enumerate(zip(*pieces, strict=True), 1):
            self.add_gradient(images, targets, last=number == len(pieces[0]))
        self.losses[self.step + 1] = self.epoch_tally[0] - before
        if self.recipe.clip_norm:
            self.scaler.unscale_(self.optimizer)
            clip_gradients(self.network.parameters(), self.recipe.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        if self.average and _due(self.recipe, self.step + 1, self.batches.steps_per_epoch):
            self.average.update(self.network)
        if self.device.type == "cpu" or len(self.losses) == _LOOK_EVERY:
            self.look()

    def add_gradient(self, images: Tensor, targets: Tensor, last: bool) -> None:
        """Add the gradient of a piece of a batch; with its last, processes exchange gradients."""
        share = self.batches.batch_size / self.batches.place.world_size
        dtype = _AUTOCAST.get(self.recipe.precision)
        with gradients_once(self.parallel, last):
            with torch.autocast(self.device.type, dtype, enabled=dtype is not None):
                logits = self.parallel(images)
            loss = self.loss(logits.float(), targets)
            self.scaler.scale(loss / share).backward()  # type: ignore[no-untyped-call]
        tallied = _tally(logits, targets, loss)
        self.epoch_tally += tallied
        self.interval_tally += tallied

    def look(self) -> None:
        """Look at the losses of the last steps.

        Raises:
            NotFiniteError: if one is infinite or not a number; it names the step.
        """
        losses = torch.stack([*self.losses.values()]).tolist() if self.losses else []
        for step, loss in zip(self.losses, losses, strict=True):
            if not math.isfinite(loss):
                raise NotFiniteError(f"step {step}: the loss is {loss}; {_remedy(self.recipe)}")
        self.losses.clear()

    def learnt(self) -> Score:
        """The score of the interval that ends here."""
        self.look()
        score = _as_score(self.interval_tally)
        self.interval_tally.zero_()
        return score

    def validate(self) -> Iterator[Validating | Epoch]:
        """The end of an epoch."""
        validation = yield from self.scored(self.validation)
        test = yield from self.scored(self.test)
        training = _as_score(self.epoch_tally)
        self.epoch_tally.zero_()
        self.epoch += 1
        best = validation is not None and validation.accuracy > self.best_accuracy
        if validation is not None and best:
            self.best_accuracy = validation.accuracy
            self.best_epoch, self.best_step = self.epoch, self.step
        yield Epoch(self.epoch, self.step, training, validation, best, test)

    def scored(self, batches: Iterable[Batch] | None) -> Generator[Validating, None, Score | None]:
        """Go over images without learning from them; the score, or None if there are none."""
        if batches is None:
            return None
        network, tallied = self.evaluated.eval(), _nothing(self.device)
        share_buffers(network)
        for number, part in enumerate(_scoring(network, batches), 1):
            tallied += part
            yield Validating(self.epoch + 1, self.step, number)
        return _as_score(tallied)

    def state(self) -> dict[str, Any]:
        """All that `load_state` needs to go on from here, for `torch.save`.

        Raises:
            NotFiniteError: if a weight is infinite or not a number, so that it is never saved.
        """
        self.look()
        for name, weight in self.network.named_parameters():
            if not weight.isfinite().all():
                text = f"step {self.step}: {name} is no longer finite; {_remedy(self.recipe)}"
                raise NotFiniteError(text)
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average and self.average.state_dict(),
            "scaler": self.scaler.state_dict(),
            "done": [self.epoch, self.step],
            "replanned": list(self.recipe.replanned),
            "best": [self.best_accuracy, self.best_epoch, self.best_step],
            "tallies": [self.epoch_tally, self.interval_tally],
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from a state of a trainer of the same network, recipe and images."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average:
            self.average.load_state_dict(state["average"])
        self.scaler.load_state_dict(state["scaler"])
        self.epoch, self.step = state["done"]
        replanned = state.get("replanned", self.recipe.replanned)  # states of 0.1.0 have none
        self.follow(replace(self.recipe, replanned=tuple(replanned)))
        self.best_accuracy, self.best_epoch, self.best_step = state["best"]
        self.epoch_tally, self.interval_tally = (t.to(self.device) for t in state["tallies"])


def _remedy(recipe: Recipe) -> str:
    """What to try when numbers run away."""
    tries = [f"a lower --learning-rate (it is {recipe.learning_rate:g})"]
    tries += [] if recipe.clip_norm else ["--clip-norm 1"]
    tries += [] if recipe.warmup_epochs else ["a longer warm-up"]
    tries += ["--precision bf16 or float32"] if recipe.precision == "fp16" else []
    return "try " + ", or ".join(tries)
