"""What a person sees of a training: a progress bar at a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from resnets.escaping import escaped, say
from resnets.training.trainer import Epoch, Interval, Record, Step, Validating

PLAIN_EVERY = 30.0  # seconds between two plain lines within an epoch


@dataclass
class Pace:
    """How fast a training goes and how long it has to go.

    Attributes:
        steps: weight updates of the whole run.
        epochs: passes over the training images of the whole run.
        ahead: of a step, how many like it would take as long as those to come.
    """

    steps: int
    epochs: int
    ahead: Callable[[int], float]
    step: int = 0
    images_per_second: float = 0.0
    step_seconds: float = 0.0
    clock: float = 0.0

    def note(self, step: Step) -> None:
        """Take in a step; the speed is a running mean over some fifty of them."""
        share = 1.0 if self.step_seconds == 0 else 0.02
        speed = step.images / step.seconds
        self.images_per_second += share * (speed - self.images_per_second)
        now = time.perf_counter()
        between = now - self.clock if self.clock else step.seconds
        self.step_seconds += share * (between - self.step_seconds)
        self.step, self.clock = step.step, now

    @property
    def left(self) -> str:
        """Time to go."""
        return duration(self.step_seconds * self.ahead(self.step))


def duration(seconds: float) -> str:
    """Hours, minutes and seconds.

    >>> duration(75), duration(7265)
    ('1:15', '2:01:05')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def epoch_line(epoch: Epoch, pace: Pace) -> str:
    """What an epoch came to, in one line."""
    line = f"epoch {epoch.epoch:{len(str(pace.epochs))}}/{pace.epochs}"
    line += f"  training loss {epoch.training.loss:.3f} accuracy {epoch.training.accuracy:.2%}"
    if epoch.validation is not None:
        score = epoch.validation
        line += f"  validation loss {score.loss:.3f} accuracy {score.accuracy:.2%}"
        line += f" ({score.correct}/{score.images}){' best' if epoch.best else '     '}"
    if epoch.test is not None:
        score = epoch.test
        line += f"  test accuracy {score.accuracy:.2%} ({score.correct}/{score.images})"
    return f"{line}  {pace.images_per_second:,.0f} images/s  {pace.left} left"


class Screen(Protocol):
    """What a person sees of a run."""

    def say(self, text: str) -> None:
        """Show a line."""

    def show(self, record: Record) -> None:
        """Show where the training is."""

    def close(self) -> None:
        """The training is over."""


class Lines:
    """Plain lines, for a log file or a pipe."""

    def __init__(self, pace: Pace) -> None:
        self.pace = pace
        self.last = time.monotonic()

    def say(self, text: str) -> None:
        """Print a line."""
        say(text, flush=True)

    def show(self, record: Record) -> None:
        """Print a line for an epoch, and one now and then within a long one."""
        if isinstance(record, Step):
            self.pace.note(record)
        elif isinstance(record, Epoch):
            self.say(epoch_line(record, self.pace))
            self.last = time.monotonic()
        elif isinstance(record, Interval) and time.monotonic() - self.last > PLAIN_EVERY:
            self.say(
                f"step {record.step}/{self.pace.steps}  loss {record.training.loss:.3f}  "
                f"accuracy {record.training.accuracy:.2%}  rate {record.learning_rate:.3g}  "
                f"{self.pace.images_per_second:,.0f} images/s  {self.pace.left} left"
            )
            self.last = time.monotonic()

    def close(self) -> None:
        """Nothing is left to do."""


class Silence:
    """Nothing, for every process but the first."""

    def say(self, text: str) -> None:
        """Say nothing."""

    def show(self, record: Record) -> None:
        """Show nothing."""

    def close(self) -> None:
        """Nothing is left to do."""


class Bar:
    """A progress bar over the run, below a line for each epoch."""

    def __init__(self, pace: Pace) -> None:
        self.pace = pace
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[figures]}"),
            console=Console(highlight=False),
            refresh_per_second=4,
            transient=True,
        )
        self.learnt = ""
        self.task = self.progress.add_task("starting", total=pace.steps, figures="")
        self.progress.start()

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self.progress.console.print(Text(escaped(text)))

    def show(self, record: Record) -> None:
        """Move the bar; print a line for an epoch."""
        if isinstance(record, Interval):
            score = record.training
            self.learnt = f"loss {score.loss:.3f}  accuracy {score.accuracy:.1%}  "
            self.learnt += f"rate {record.learning_rate:.3g}  "
        elif isinstance(record, Step):
            self.pace.note(record)
            self.move(f"epoch {record.epoch}/{self.pace.epochs}", record.step)
        elif isinstance(record, Validating):
            self.move("validating", record.step)
        else:
            self.say(epoch_line(record, self.pace))

    def move(self, what: str, step: int) -> None:
        """Show what is going on, and how far it is."""
        figures = f"{self.learnt}{self.pace.images_per_second:,.0f} images/s  {self.pace.left} left"
        self.progress.update(
            self.task, description=what, total=self.pace.steps, completed=step, figures=figures
        )

    def close(self) -> None:
        """Take the bar away."""
        self.progress.stop()


def open_screen(pace: Pace, first: bool) -> Screen:
    """A bar at a terminal, lines elsewhere; nothing in any process but the first."""
    if not first:
        return Silence()
    return Bar(pace) if sys.stdout.isatty() else Lines(pace)
