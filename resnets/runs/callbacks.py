"""What a run reports while it goes on, and how callbacks can stop it.

A callback is a callable that takes one record after the other. The progress bar is one.

    def early_stop(record):
        if isinstance(record, resnets.Epoch) and record.validation.accuracy > 0.99:
            raise resnets.StopTraining("99 % is enough")

    resnets.train("digits", callbacks=[early_stop])
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from resnets.model_file import Model
from resnets.training.recipe import Recipe
from resnets.training.trainer import Epoch, FeaturePass, Interval, Step, Validating

__all__ = [
    "Callback",
    "CallbackList",
    "End",
    "Epoch",
    "FeaturePass",
    "Interval",
    "Notice",
    "Plan",
    "Record",
    "Step",
    "StopTraining",
    "Validating",
]


@dataclass(frozen=True)
class Notice:
    """A line for the user: about the data, the network, the speed or the scores."""

    text: str


@dataclass(frozen=True)
class Plan:
    """Training begins or goes on, or the time that it may take has changed its length.

    Attributes:
        step: steps done.
        steps_per_epoch: steps in a pass over the training images.
        recipe: how it trains, with all that was left open decided.
        model: makes a copy of the network as it is when this is called, for a callback that
            measures something of its own: the other functions of this package take it.
        budget: seconds that the run may take, by which its length changes on the way; None if any.
    """

    step: int
    steps_per_epoch: int
    recipe: Recipe
    model: Callable[[], Model] = field(repr=False, compare=False)
    budget: float | None = None

    @property
    def steps(self) -> int:
        """Steps of the whole run, as far as is known by now."""
        return self.recipe.total_steps(self.steps_per_epoch)

    @property
    def epochs(self) -> int:
        """Of the whole run; the last may be cut short."""
        return -(-self.steps // self.steps_per_epoch)

    def ahead(self, step: int) -> float:
        """How many steps like that one would take as long as those after it."""
        share = self.recipe.share_in((step - 1) // self.steps_per_epoch, self.steps_per_epoch)
        return self.recipe.work(self.steps_per_epoch, step) / share


@dataclass(frozen=True)
class End:
    """The network is trained, scored and, if the run has a folder, saved.

    Attributes:
        step: steps done.
        metrics: as `Run.metrics`: plain numbers by name, such as test_accuracy.
        path: the run's folder; None where nothing is written.
        stopped: why it ended before its last step; None if it did not.
    """

    step: int
    metrics: Mapping[str, float]
    path: Path | None = None
    stopped: str | None = None


Record: TypeAlias = Notice | Plan | Step | Interval | Validating | FeaturePass | Epoch | End
Callback: TypeAlias = Callable[[Record], object]  # its return value is ignored


class StopTraining(Exception):  # noqa: N818  (a request, as StopIteration is)
    """A callback raises this to end training after the present step.

    The network is then scored and saved as at the end of any run; the message says why, and
    stands in `Run.stopped`. In a fold of a cross-validation it ends the run with UsageError.
    """


class CallbackList:
    """The callbacks of a run.

    Attributes:
        stop_request: the first StopTraining that one of them raised; None until then.
    """

    def __init__(self, callbacks: Iterable[Callback]) -> None:
        self.callbacks = tuple(callbacks)
        self.stop_request: StopTraining | None = None

    def add(self, callback: Callback) -> None:
        """Add a callback, which gets the records from now on."""
        self.callbacks = (*self.callbacks, callback)

    def tell(self, record: Record) -> None:
        """Pass a record to every callback. Exceptions other than StopTraining are raised."""
        for callback in self.callbacks:
            try:
                callback(record)
            except StopTraining as request:
                self.stop_request = self.stop_request or request

    def notify(self, text: str) -> None:
        """Pass a line for the user to every callback."""
        self.tell(Notice(text))
