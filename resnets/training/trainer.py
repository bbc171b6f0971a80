"""The training loop, as a generator of records.

It does no input or output. Between two records its `state` can be saved, and a trainer that loads
it continues, bit for bit, as this one would.
"""

import contextlib
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
from resnets.errors import ContentError, UsageError
from resnets.training.devices import synchronise
from resnets.training.optimisation import (
    Loss,
    clip_gradients,
    load_optimizer,
    make_optimizer,
    set_rate,
)
from resnets.training.parallel import distribute, gradient_exchange, share_buffers, total
from resnets.training.recipe import Recipe
from resnets.training.schedules import make_schedule
from resnets.training.statistics import estimate_statistics, lags
from resnets.training.stragglers import WaitClock


@dataclass(frozen=True)
class Score:
    """Accuracy and loss of a network on some images.

    Attributes:
        correct: number of images classified correctly, of `images`.
        loss: mean cross-entropy in nats.
    """

    correct: int
    images: int
    loss: float

    @property
    def accuracy(self) -> float:
        """The fraction classified correctly."""
        return self.correct / self.images


def _empty_tally() -> Tensor:
    """The tally of no image: summed loss, correct predictions and images, (3,) float64.

    Tallies are added up on the host: Apple's GPUs have no float64.
    """
    return torch.zeros(3, dtype=torch.float64)


def _tally(logits: Tensor, targets: Tensor, loss: Tensor) -> Tensor:
    """Summed loss, correct predictions and images, (3,) of the loss's type; stays on the device.

    In float32 counts are exact up to 16 million images.

    Args:
        logits: (N, K).
        targets: (N,) labels, or (N, K) probabilities, of which the largest is taken as the label.
        loss: summed over the images.
    """
    labels = targets if targets.ndim == 1 else targets.argmax(1)
    correct = (logits.argmax(1) == labels).sum()
    summed = loss.detach().to(torch.promote_types(loss.dtype, torch.float32))
    images = torch.full_like(summed, len(logits))
    return torch.stack([summed, correct.to(summed.dtype), images])


def _add_up(tally: Tensor, parts: list[Tensor]) -> None:
    """Move parts from their device to the tally, in their order, by one copy that waits for it."""
    if parts:
        for part in torch.stack(parts).cpu().double():
            tally += part
    parts.clear()


def _total_score(tally: Tensor) -> Score:
    """The score over all processes, from the tally of each."""
    loss, correct, images = total(tally.clone()).tolist()
    return Score(int(correct), int(images), loss / images)


@torch.no_grad()
def _batch_tallies(network: nn.Module, batches: Iterable[Batch]) -> Iterator[Tensor]:
    """The tally of each batch."""
    for batch in batches:
        logits = network(batch.images).float()
        yield _tally(logits, batch.targets, F.cross_entropy(logits, batch.targets, reduction="sum"))


@dataclass(frozen=True)
class Step:
    """A training step is done.

    Attributes:
        images: number of images in its batch.
        seconds: time that it took.
        waiting: seconds of these spent waiting for the images.
    """

    epoch: int
    step: int
    images: int
    seconds: float
    waiting: float


@dataclass(frozen=True)
class Interval:
    """The score on the training images since the last interval, over all processes."""

    epoch: int
    step: int
    training: Score
    learning_rate: float


@dataclass(frozen=True)
class Validating:
    """Progress of the validation after an epoch: `batches` of it are done."""

    epoch: int
    step: int
    batches: int


@dataclass(frozen=True)
class FeaturePass:
    """Progress of a pass over the images before the classifier is fitted to their features.

    Attributes:
        images: how many have their features by now, those of the cache included; an image and its
            mirror image are two.
        total: how many will have them at the end of the pass.
        images_per_second: of those that are computed; 0 before the first.
        mirrored: whether there are mirror images among them.
    """

    epoch: int
    step: int
    images: int
    total: int
    images_per_second: float
    mirrored: bool = False

    @property
    def seconds_left(self) -> float:
        """At that speed; 0 before it is known."""
        missing = self.total - self.images
        return missing / self.images_per_second if self.images_per_second else 0.0


@dataclass(frozen=True)
class Epoch:
    """An epoch is done, or the last step of the run, and so is the validation after it.

    Attributes:
        validation: None where none follows: without validation images, and see
            `Recipe.validation_every`.
        best: whether its validation accuracy is higher than that of all earlier epochs.
        test: only if test images are scored too, for a curve; nothing is chosen by it.
        order: digest of the order in which the images were used: `TrainingBatches.order_digest`.
    """

    epoch: int
    step: int
    training: Score
    validation: Score | None
    best: bool
    test: Score | None = None
    order: str | None = None


TrainerRecord = Step | Interval | Validating | FeaturePass | Epoch


ONE_VALUE = (
    "batch norm needs more than one value per channel, and got one: take a larger --batch-size, a "
    "larger --image-size or, if you set it, a smaller --accumulate"
)


class NotFiniteError(ContentError):
    """The loss or a weight is infinite or NaN."""


def copied(network: nn.Module, recipe: Recipe) -> nn.Module:
    """A copy of a network, compiled if the recipe says so: `copy.deepcopy` forgets that it was."""
    other = copy.deepcopy(network)
    if recipe.compile:
        other.compile()
    return other


class _Average:
    """Exponential moving average (EMA) of a network's parameters and buffers.

    After n updates the average of a value is ``sum(decay**(n-i) * value_i) / sum(decay**(n-i))``
    over i = 1..n: it has no bias towards the initial value, and with a ``decay`` of 1 it is the
    plain mean (stochastic weight averaging, arXiv:1803.05407). Counters are copied.
    """

    def __init__(self, network: nn.Module, recipe: Recipe):
        self.network = copied(network, recipe).eval().requires_grad_(False)
        """The network with the averaged weights, usable after the first update."""
        self.decay = recipe.average_decay
        self.updates = 0

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Add the current weights of ``network`` to the average."""
        self.updates += 1
        means, newest = ([*part.parameters(), *part.buffers()] for part in (self.network, network))
        floating = [number for number, mean in enumerate(means) if mean.is_floating_point()]
        torch._foreach_lerp_(
            [means[number] for number in floating],
            [newest[number] for number in floating],
            _newest_weight(self.decay, self.updates),
        )
        for mean, value in zip(means, newest, strict=True):
            if not mean.is_floating_point():
                mean.copy_(value)

    def state_dict(self) -> dict[str, Any]:
        """All that :meth:`load_state_dict` needs to continue from here, bit for bit."""
        return {"updates": self.updates, "network": self.network.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from the state of an average of the same network."""
        self.updates = state["updates"]
        self.network.load_state_dict(state["network"])


def _newest_weight(decay: float, updates: int) -> float:
    """The weight of the newest of ``updates`` values in the average: 1 / (1 + d + d² + ...).

    >>> [_newest_weight(1.0, n) for n in (1, 2, 4)]
    [1.0, 0.5, 0.25]
    """
    return 1 / updates if decay == 1 else (1 - decay) / (1 - decay**updates)


def _is_averaging_step(recipe: Recipe, done: int, steps_per_epoch: int) -> bool:
    """Whether the weights are added to the average after ``done`` steps."""
    begins = recipe.average_from * recipe.planned_steps(steps_per_epoch)
    if not recipe.average_decay or recipe.position(done, steps_per_epoch) <= begins:
        return False
    return done % recipe.average_every == 0 or done == recipe.total_steps(steps_per_epoch)


@dataclass(frozen=True)
class Measured:
    """The images of the measurements during a training; None where there are none.

    Attributes:
        validation: scored after every epoch.
        test: scored after every epoch too, for a curve; nothing is chosen by them.
        statistics: training images without augmentation, by which the running statistics of batch
            norms are estimated before a measurement where they lag behind; see
            `statistics.estimate_statistics`.
    """

    validation: Iterable[Batch] | None = None
    test: Iterable[Batch] | None = None
    statistics: Iterable[Batch] | None = None


AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
_LOSS_CHECK_EVERY = 20  # steps between checks of the loss on a GPU: each waits for the GPU
TIMED = 100  # steps from the first on whose parts are timed, for which a GPU must be waited for


class Trainer:
    """Trains a network by a recipe.

    Args:
        network: on its device; its weights change in place.
        recipe: the settings of the run.
        batches: the training images, this process's part of every batch.
        loss: the sum over images, of logits (N, K) and targets (N,) or (N, K); see `make_loss` and
            `CustomLoss`.
        measured: the images to measure the network on.
        log_every: steps between two `Interval` records.

    Attributes:
        recipe: that of the argument, with changes of its length during the run.
        epoch, step: epochs and steps done.
        best_step: the step with the best validation accuracy, which is `best_accuracy`.
        is_in_step: whether a step has begun, and has not ended: what it has by then is no state to
            go on from.
        timed: how many steps from now on wait for the device before the clock is read. Of the
            others, only the time of many steps together says something.
        waits: how long this process waits for the others; None if it is alone.
    """

    descends = True  # by an optimizer; else there is none: making one imports torch's compiler

    def __init__(
        self,
        network: nn.Module,
        recipe: Recipe,
        batches: TrainingBatches,
        loss: Loss,
        measured: Measured = Measured(),
        log_every: int = 50,
    ) -> None:
        self.recipe, self.batches, self.log_every = recipe, batches, log_every
        self.network, self.loss, self.measured = network, loss, measured
        self.device = next(network.parameters()).device
        self.parallel = distribute(network, self.device, recipe)
        self.optimizer = make_optimizer(network, recipe) if self.descends else None
        self.average = _Average(network, recipe) if recipe.average_decay else None
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=recipe.precision == "fp16")
        self.schedule = make_schedule(recipe, batches.steps_per_epoch)
        self.epoch = self.step = self.best_epoch = self.best_step = 0
        self.best_accuracy = -1.0
        self.last_accuracy: float | None = None  # of the last validation
        self.epoch_tally, self.interval_tally = _empty_tally(), _empty_tally()
        self.pending: list[tuple[int, Tensor]] = []  # steps and tallies that are on the device yet
        self.is_in_step = False
        self.timed = TIMED
        self.waits = WaitClock(network) if batches.process.world_size > 1 else None

    @property
    def evaluation_network(self) -> nn.Module:
        """The network to validate and to keep: the averaged one once there is one."""
        averaged = self.average is not None and self.average.updates > 0
        return self.average.network if self.average and averaged else self.network

    @property
    def finished(self) -> bool:
        """Whether all steps are done, or validation has not improved for `patience` epochs."""
        validated = self.measured.validation is not None
        stale = validated and 0 < self.recipe.patience <= self.epoch - self.best_epoch
        return stale or self.epoch * self.batches.steps_per_epoch >= self.steps

    @property
    def steps(self) -> int:
        """Steps of the whole run as planned by now."""
        return self.recipe.total_steps(self.batches.steps_per_epoch)

    @property
    def epochs(self) -> int:
        """Epochs of the whole run; the last may be incomplete."""
        return -(-self.steps // self.batches.steps_per_epoch)

    def replan(self, total: int) -> None:
        """Change the length of the run to ``total`` steps; the schedule continues smoothly."""
        self.use_recipe(self.recipe.replan(self.step, total, self.batches.steps_per_epoch))

    def use_recipe(self, recipe: Recipe) -> None:
        """Continue with a recipe that differs only in its `replanned`."""
        self.recipe = recipe
        self.schedule = make_schedule(recipe, self.batches.steps_per_epoch)

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step."""
        return self.recipe.rate * self.schedule(self.step)

    def run(self) -> Iterator[TrainerRecord]:
        """Train until the run is finished."""
        while not self.finished:
            yield from self.train()
            yield from self.validate()

    def train(self) -> Iterator[Step | Interval]:
        """Train to the end of the epoch."""
        self.network.train()
        first = self.step - self.epoch * self.batches.steps_per_epoch
        size = self.recipe.size_in(self.epoch, self.batches.steps_per_epoch)
        start = self.now()
        batches = self.batches.epoch(self.epoch, first, size)
        while self.step < self.steps and (batch := next(batches, None)) is not None:
            waiting = self.now() - start
            rate = self.learning_rate
            self.is_in_step = True
            self.update(batch, rate)
            self.step += 1
            self.is_in_step = False
            score = self.interval_score() if self.step % self.log_every == 0 else None
            if self.step % self.batches.steps_per_epoch == 0:
                self.check_losses()
            seconds = self.now() - start  # with what the score and the losses have waited for
            if score is not None:
                yield Interval(self.epoch + 1, self.step, score, rate)
            images = self.batches.images_of(self.step - 1)
            yield Step(self.epoch + 1, self.step, images, seconds, waiting)
            self.timed = max(0, self.timed - 1)
            start = self.now()

    def now(self) -> float:
        """Seconds on a clock: while steps are timed, when the device has done all before this."""
        if self.timed:
            synchronise(self.device)
        return time.perf_counter()

    def update(self, batch: Batch, rate: float) -> None:
        """One training step, with the mean gradient over a batch, computed in pieces."""
        assert self.optimizer is not None
        set_rate(self.optimizer, rate)
        pieces = [self.pieces(part) for part in (batch.images, batch.targets)]
        for number, (images, targets) in enumerate(zip(*pieces, strict=True), 1):
            self.add_gradient(images, targets, last=number == len(pieces[0]))
        if self.recipe.clip_norm:
            self.scaler.unscale_(self.optimizer)
            clip_gradients(self.network.parameters(), self.recipe.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        if self.average and _is_averaging_step(
            self.recipe, self.step + 1, self.batches.steps_per_epoch
        ):
            self.average.update(self.network)
        if self.device.type == "cpu" or self.step + 1 - self.pending[0][0] >= _LOSS_CHECK_EVERY:
            self.check_losses()

    def pieces(self, part: Tensor) -> tuple[Tensor, ...]:
        """The images or targets of a batch, in the pieces in which it is computed.

        With even batches, some have an image less than a full one. Where the pieces of a full one
        have two images or more, theirs have, too, as batch norm needs: they may be fewer.
        """
        most = self.recipe.accumulate
        if not self.recipe.even_batches:
            return part.chunk(most)
        full = self.batches.batch_size // self.batches.process.world_size
        least = min(2, max(1, full // most))
        return part.tensor_split(max(1, min(most, len(part) // least)))

    def add_gradient(self, images: Tensor, targets: Tensor, last: bool) -> None:
        """Add the gradient of a piece of a batch; after the last, processes exchange gradients."""
        share = self.batches.images_of(self.step) / self.batches.process.world_size
        dtype = AUTOCAST.get(self.recipe.precision)
        with gradient_exchange(self.parallel, last):
            with (
                torch.autocast(self.device.type, dtype, enabled=dtype is not None),
                _batch_norm_advice(),
            ):
                logits = self.parallel(images)
            loss = self.loss(logits.float(), targets)
            self.scaler.scale(loss / share).backward()  # type: ignore[no-untyped-call]
        if self.waits is not None and last:
            self.waits.exchanged()
        self.pending.append((self.step + 1, _tally(logits, targets, loss)))

    def check_losses(self) -> None:
        """Add the tallies of the last steps up, and check their losses.

        Raises:
            NotFiniteError: a loss is infinite or NaN; the message names the step.
        """
        steps, parts = [step for step, _ in self.pending], [part for _, part in self.pending]
        losses = torch.stack(parts)[:, 0].tolist() if parts else []
        for tally in (self.epoch_tally, self.interval_tally):
            _add_up(tally, list(parts))
        self.pending.clear()
        for step, loss in zip(steps, losses, strict=True):
            if not math.isfinite(loss):
                raise NotFiniteError(
                    f"step {step}: the loss is {loss}; {_divergence_advice(self.recipe)}"
                )

    def interval_score(self) -> Score:
        """The training score since the last interval; starts a new interval."""
        self.check_losses()
        score = _total_score(self.interval_tally)
        self.interval_tally.zero_()
        return score

    def validates(self, epoch: int) -> bool:
        """Whether a validation follows an epoch, counted from 0."""
        return self.recipe.validates(epoch, self.batches.steps_per_epoch)

    def validate(self) -> Iterator[Validating | Epoch]:
        """Validate at the end of an epoch, if it is one with a validation."""
        validation = test = None
        if self.validates(self.epoch):
            self.estimate_statistics()
            validation = yield from self.score(self.measured.validation)
            test = yield from self.score(self.measured.test)
        for name, score in (("validation", validation), ("test", test)):
            if score is not None and not math.isfinite(score.loss):
                raise NotFiniteError(
                    f"step {self.step}: the {name} loss is {score.loss}; "
                    f"{_divergence_advice(self.recipe)}"
                )
        self.check_losses()
        training = _total_score(self.epoch_tally)
        self.epoch_tally.zero_()
        order = self.batches.order_digest(self.epoch)
        self.epoch += 1
        best = validation is not None and validation.accuracy > self.best_accuracy
        if validation is not None:
            self.last_accuracy = validation.accuracy
        if validation is not None and best:
            self.best_accuracy = validation.accuracy
            self.best_epoch, self.best_step = self.epoch, self.step
        yield Epoch(self.epoch, self.step, training, validation, best, test, order)

    def estimate_statistics(self, copied: nn.Module | None = None) -> None:
        """Estimate the running statistics of the network to keep, where they lag behind.

        Training goes on from there: it does not use them, and averages its own into them. The mean
        of statistics is never that of the mean weights (arXiv:1803.05407).

        Args:
            copied: a copy of that network, to be given them in its place.
        """
        network, images = copied or self.evaluation_network, self.measured.statistics
        is_mean = self.evaluation_network is not self.network
        plain_mean = is_mean and self.recipe.average_decay == 1
        if images is not None and (plain_mean or lags(network, self.step)):
            batches = (batch.images for batch in images)
            estimate_statistics(network, batches, compiled=self.recipe.compile)

    def score(self, batches: Iterable[Batch] | None) -> Generator[Validating, None, Score | None]:
        """Score the network on images without training on them; None if there are none."""
        if batches is None:
            return None
        network, tally = self.evaluation_network.eval(), _empty_tally()
        parts: list[Tensor] = []
        share_buffers(network)
        for number, part in enumerate(_batch_tallies(network, batches), 1):
            parts.append(part)
            if len(parts) == _LOSS_CHECK_EVERY:
                _add_up(tally, parts)
            yield Validating(self.epoch + 1, self.step, number)
        _add_up(tally, parts)
        return _total_score(tally)

    def state(self) -> dict[str, Any]:
        """All that `load_state` needs to continue from here, for `torch.save`.

        All processes call it together: the tallies are those of all of them, as another number of
        processes may go on from there.

        Raises:
            NotFiniteError: a weight is infinite or NaN, so that it is never saved.
        """
        self.check_losses()
        for name, weight in self.network.named_parameters():
            if not weight.sum().isfinite() and not weight.isfinite().all():  # the sum is faster
                advice = _divergence_advice(self.recipe)
                raise NotFiniteError(f"step {self.step}: {name} is no longer finite; {advice}")
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer and self.optimizer.state_dict(),
            "average": self.average and self.average.state_dict(),
            "scaler": self.scaler.state_dict(),
            "done": [self.epoch, self.step],
            "carried": self.batches.carried(self.epoch),
            "replanned": list(self.recipe.replanned),
            "best": [self.best_accuracy, self.best_epoch, self.best_step],
            "last": self.last_accuracy,
            "tallies": [total(tally.clone()) for tally in (self.epoch_tally, self.interval_tally)],
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from the state of a trainer of the same network, recipe and images."""
        self.network.load_state_dict(state["network"])
        if self.optimizer is not None:
            load_optimizer(self.optimizer, state["optimizer"])
        if self.average:
            self.average.load_state_dict(state["average"])
        self.scaler.load_state_dict(state["scaler"])
        self.epoch, self.step = state["done"]
        self.batches.go_on(state.get("carried"))  # of older checkpoints: all epochs are drawn again
        replanned = state.get("replanned", self.recipe.replanned)  # checkpoints of 0.1.0 have none
        self.use_recipe(replace(self.recipe, replanned=tuple(replanned)))
        self.best_accuracy, self.best_epoch, self.best_step = state["best"]
        self.last_accuracy = state.get("last")  # earlier checkpoints have none
        if self.batches.process.rank == 0:  # the tallies of all processes are added up again
            self.epoch_tally, self.interval_tally = (t.cpu() for t in state["tallies"])


@contextlib.contextmanager
def _batch_norm_advice() -> Iterator[None]:
    """Tell what to do where batch norm gets one value, of which there is no variance."""
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise UsageError(ONE_VALUE) from error


def _divergence_advice(recipe: Recipe) -> str:
    """Advice for a training that diverges."""
    tries = [f"a lower --learning-rate (it is {recipe.rate:g})"]
    tries += ["--clip-norm 1"] if not recipe.clip_norm or recipe.clip_norm > 1 else []
    tries += [] if recipe.warmup_epochs else ["a longer warm-up"]
    tries += ["--precision bf16 or float32"] if recipe.precision == "fp16" else []
    return "try " + ", or ".join(tries)
