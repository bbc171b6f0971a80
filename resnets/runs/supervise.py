"""Follows a training: writes down what it tells, saves its state in time, stops it when asked."""

import dataclasses
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import FrameType, TracebackType
from typing import Any

from resnets.errors import ContentError
from resnets.runs.budget import Budget
from resnets.runs.checkpoint import fitting, random_state, set_random_state
from resnets.runs.folder import RunFolder
from resnets.runs.loggers import JsonLines, Logger, LogRecord
from resnets.training.parallel import any_process, from_all, from_first
from resnets.training.trainer import Epoch, Interval, Record, Score, Step, Trainer, Validating


class StopSignals:
    """Notes SIGINT and SIGTERM while it lasts; a second one ends the process at once.

    Attributes:
        received: the number of the first signal that came, or None.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.before: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        for number in (signal.SIGINT, signal.SIGTERM):
            self.before[number] = signal.signal(number, self.note)
        return self

    def note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Handle a signal."""
        if self.received is not None:
            os._exit(128 + number)
        self.received = number

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.before.clear()


class Logbook:
    """Writes a run's records, with the speed at which it went."""

    def __init__(self, lines: JsonLines, loggers: Sequence[Logger], elapsed: float = 0.0) -> None:
        self.lines, self.loggers = lines, loggers
        self.began = time.monotonic() - elapsed
        self.images, self.seconds, self.waiting = 0, 0.0, 0.0

    @property
    def elapsed(self) -> float:
        """Seconds that the run has taken, over all its parts."""
        return round(time.monotonic() - self.began, 2)

    def note(self, record: Record) -> None:
        """Take a record of the trainer."""
        if isinstance(record, Step):
            self.images += record.images
            self.seconds += record.seconds
            self.waiting += record.waiting
        elif isinstance(record, Interval | Epoch):
            self.write(as_dict(record) | self.speed())

    def speed(self) -> dict[str, float]:
        """Of the steps since the last record."""
        if not self.images:
            return {"seconds": self.elapsed}
        speed = {
            "seconds": self.elapsed,
            "images_per_second": round(self.images / self.seconds, 1),
            "waiting_share": round(self.waiting / self.seconds, 3),
        }
        self.images, self.seconds, self.waiting = 0, 0.0, 0.0
        return speed

    def write(self, record: LogRecord) -> None:
        """Write a record to the file and to every logger."""
        for logger in (self.lines, *self.loggers):
            logger.write(record)

    def close(self) -> None:
        """Close the file and every logger."""
        for logger in (self.lines, *self.loggers):
            logger.close()


def as_dict(record: Interval | Epoch) -> dict[str, Any]:
    """A record as it stands in the log."""
    values: dict[str, Any] = {"kind": type(record).__name__.lower()}
    for item in dataclasses.fields(record):
        value = getattr(record, item.name)
        if isinstance(value, Score):
            value = dataclasses.asdict(value) | {"accuracy": value.accuracy}
        if value is not None:
            values[item.name] = value
    return values


@dataclass
class Keeper:
    """Saves the state of a run in time.

    Attributes:
        trainer: whose state it is.
        folder: where to; None in all processes but the first.
        logbook: likewise.
        identity: what a state must share with the run that goes on from it.
        steps: weight updates between two states, or None.
        seconds: time between two states, or None.
        budget: keeps the run within a time; None where it may take any.
    """

    trainer: Trainer
    folder: RunFolder | None
    logbook: Logbook | None
    identity: dict[str, Any]
    steps: int | None = None
    seconds: float | None = None
    budget: Budget | None = None
    saved: float = field(default_factory=time.monotonic)

    def note(self, record: Record) -> None:
        """Take a record of the trainer."""
        if self.logbook is not None:
            self.logbook.note(record)
        if self.budget is not None:
            trainer = self.trainer
            self.budget.note(record, trainer.recipe, trainer.batches.steps_per_epoch)

    def late(self, record: Record) -> bool:
        """Whether the length of the run is to be planned anew."""
        return self.budget is not None and (isinstance(record, Epoch) or self.budget.late)

    def replan(self) -> None:
        """Change the length of the run to what its time allows. All processes call it together."""
        if self.budget is None or self.trainer.finished:
            return
        trainer, step = self.trainer, self.trainer.step
        per_epoch = trainer.batches.steps_per_epoch
        total = from_first(self.budget.total(trainer.recipe, per_epoch, step, trainer.epoch))
        if total == trainer.steps:
            return
        trainer.replan(total)
        if self.logbook is not None:
            seconds = self.logbook.elapsed
            plan = {"kind": "plan", "step": step, "steps": total, "seconds": seconds}
            self.logbook.lines.write(plan)

    def due(self) -> bool:
        """Whether it is time, as the first process sees it."""
        if self.folder is None:
            return False
        if self.steps is not None and self.trainer.step % self.steps == 0:
            return True
        return self.seconds is not None and time.monotonic() - self.saved >= self.seconds

    def save(self) -> None:
        """Save the state. All processes call it together; the first writes.

        Raises:
            OSError: if it cannot be written. What was saved before is untouched.
        """
        randoms = from_all(random_state())
        state = self.trainer.state()
        if self.folder is not None and self.logbook is not None:
            try:
                self.write(self.folder, self.logbook, {"trainer": state, "random": randoms})
            except OSError as error:
                raise OSError(
                    f"the state of step {self.trainer.step} could not be saved in "
                    f"{self.folder.checkpoints.folder} ({error.strerror}). What was saved before "
                    f"is whole: make room, then resnets train --resume {self.folder.path}"
                ) from error
        self.saved = time.monotonic()

    def write(self, folder: RunFolder, logbook: Logbook, state: dict[str, Any]) -> None:
        """Write a state, with how far the log is."""
        log: dict[str, Any] = {"log": logbook.lines.size(), "seconds": logbook.elapsed}
        log |= {} if self.budget is None else {"budget": self.budget.state()}
        best = self.trainer.best_step or None
        folder.checkpoints.save(state | log | self.identity, self.trainer.step, best)


def follow(
    trainer: Trainer, keeper: Keeper, show: Callable[[Record], None], signals: StopSignals
) -> signal.Signals | None:
    """Train to the end, or until a signal asks to stop; the state is saved either way.

    Args:
        trainer: trains.
        keeper: saves its state.
        show: shows every record to a person.
        signals: tells whether to stop.

    Returns:
        The signal that ended it, None at the end.
    """
    alone = trainer.batches.place.world_size == 1
    if keeper.budget is not None:
        keeper.budget.start()
    for record in trainer.run():
        show(record)
        keeper.note(record)
        if isinstance(record, Interval):
            continue  # its step follows
        stop, due = signals.received is not None, isinstance(record, Epoch) or keeper.due()
        if isinstance(record, Validating):  # processes may have different numbers of batches
            stop, due, late = stop and alone, False, False
        else:
            stop, due, late = any_process(stop, due, keeper.late(record))
        if late:
            keeper.replan()
        if stop or due:
            keeper.save()
        if keeper.budget is not None and isinstance(record, Epoch):
            keeper.budget.saved()
        if stop:
            return signal.Signals(signals.received or signal.SIGTERM)
    return None


def restore(trainer: Trainer, state: dict[str, Any], fingerprint: str) -> None:
    """Go on from a saved state.

    Args:
        trainer: freshly made; gets the state.
        state: what a `Keeper` saved.
        fingerprint: of the images.

    Raises:
        ContentError: if the images are not those that the state was reached with.
    """
    if state["fingerprint"] != fingerprint:
        raise ContentError(
            "the images have changed since the run began (fingerprint "
            f"{fingerprint[:12]}, it was {state['fingerprint'][:12]}): start a new run"
        )
    with fitting("the run"):
        trainer.load_state(state["trainer"])
        rank = trainer.batches.place.rank
        if rank < len(state["random"]):
            set_random_state(state["random"][rank])
