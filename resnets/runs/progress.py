"""The progress that users see: a bar at a terminal and in a notebook, plain lines elsewhere.

Each of these is a callback of `resnets.runs.callbacks`, and a context that takes the bar away.
"""

import html
import importlib
import sys
import time
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from resnets.escaping import escaped, say
from resnets.format import duration, fraction, per_second, percent
from resnets.runs.callbacks import (
    Epoch,
    FeaturePass,
    Interval,
    Notice,
    Plan,
    Record,
    Step,
    Validating,
)
from resnets.training.trainer import Score

_PLAIN_EVERY = 30.0  # seconds between two plain lines within an epoch
_NOTEBOOK_EVERY = 0.25  # seconds between two changes of a notebook's bar
_EPOCH_WIDTH = 3  # columns of the number of an epoch where the last one is not known
_SHARE = 0.02  # of a step in the running mean of the speed


def open_display() -> "Display":
    """The display for a notebook, a terminal or a file."""
    if _in_notebook():
        return _NotebookBar()
    return _TerminalBar() if sys.stdout.isatty() else _PlainLines()


def _in_notebook() -> bool:
    """Whether this process is the kernel of a notebook, found out without importing IPython."""
    get_ipython = getattr(sys.modules.get("IPython"), "get_ipython", None)
    return get_ipython is not None and hasattr(get_ipython(), "kernel")


class _Pace:
    """How fast a training goes and how long it has to go."""

    def __init__(self) -> None:
        self.plan: Plan | None = None
        self.step = self.steps_seen = self.epochs_seen = 0
        self.seconds_per_image = self.step_seconds = self.pause_seconds = self.clock = 0.0

    def note(self, step: Step) -> None:
        """Take in a step; the speed is a mean over all so far, a running one from the fiftieth on.

        The first step, which takes far longer, counts until there is another.
        """
        self.steps_seen += 1
        share = max(_SHARE, 1 / max(1, self.steps_seen - 1))
        # not the mean of speeds: a GPU's steps take the host no time, until one waits for them all
        self.seconds_per_image += share * (step.seconds / step.images - self.seconds_per_image)
        now = time.perf_counter()
        between = now - self.clock if self.clock else step.seconds
        self.step_seconds += share * (between - self.step_seconds)
        self.step, self.clock = step.step, now

    def note_pause(self) -> None:
        """Take in what an epoch took after its last step, such as the validation."""
        now = time.perf_counter()
        if self.clock:
            self.epochs_seen += 1
            self.pause_seconds += (now - self.clock - self.pause_seconds) / self.epochs_seen
            self.clock = now

    @property
    def steps(self) -> int:
        """Steps of the whole run; 1 before it is planned."""
        return self.plan.steps if self.plan else 1

    @property
    def epochs(self) -> int:
        """Passes over the training images of the whole run; 1 before it is planned."""
        return self.plan.epochs if self.plan else 1

    @property
    def is_fit(self) -> bool:
        """Whether only a classifier is fitted to features, which has neither steps nor epochs."""
        return self.plan is not None and self.plan.recipe.freeze == "all"

    def epoch_in_words(self, epoch: int) -> str:
        """Which pass over the training images it is; of a fit, that it is one.

        A budget changes the number of all epochs on the way, so there only the time left is shown.

        Args:
            epoch: its number, from 1.
        """
        if self.is_fit:
            return "classifier fitted:"
        if self.has_budget:
            return f"epoch {epoch:{_EPOCH_WIDTH}}"
        return f"epoch {epoch:{len(str(self.epochs))}}/{self.epochs}"

    def step_in_words(self, step: int) -> str:
        """Which step it is, and of how many where that does not change on the way."""
        return f"step {step}" if self.has_budget else f"step {step}/{self.steps}"

    @property
    def has_budget(self) -> bool:
        """Whether the length of the run changes on the way."""
        return self.plan is not None and self.plan.budget is not None

    @property
    def left(self) -> str:
        """Time to go: the steps, and the pauses of the epochs that have not ended."""
        if self.plan is None or not self.step:
            return duration(0)
        ended = self.step // self.plan.steps_per_epoch
        steps = self.step_seconds * self.plan.ahead(self.step)
        return duration(round(steps + self.pause_seconds * (self.plan.epochs - ended)))

    def __str__(self) -> str:
        if not self.steps_seen or self.is_fit:  # a run that goes on may begin with a validation
            return ""
        return f"{per_second(self.images_per_second)}  {self.left} left"

    @property
    def images_per_second(self) -> float:
        """Training images a second; 0 before the first step."""
        return 1 / self.seconds_per_image if self.seconds_per_image else 0.0


def _epoch_line(epoch: Epoch, pace: _Pace) -> str:
    """The figures of an epoch, in one line."""
    line = pace.epoch_in_words(epoch.epoch)
    line += f"  training {_score(epoch.training)}"
    if epoch.validation is not None:
        score = epoch.validation
        line += f"  validation {_score(score)} ({fraction(score.correct, score.images)})"
        line += " best" if epoch.best and not pace.is_fit else "     "
    if epoch.test is not None:
        score = epoch.test
        line += f"  test accuracy {percent(score.accuracy, 2)}"
        line += f" ({fraction(score.correct, score.images)})"
    return f"{line}  {pace}".rstrip()


def _score(score: Score) -> str:
    """Loss and accuracy."""
    return f"loss {score.loss:.3f} accuracy {percent(score.accuracy, 2)}"


def _interval_figures(interval: Interval) -> str:
    """The figures of the last interval."""
    score = interval.training
    return (
        f"loss {score.loss:.3f}  accuracy {percent(score.accuracy)}  "
        f"rate {interval.learning_rate:.3g}"
    )


def _pass_figures(record: FeaturePass) -> str:
    """How far the pass of `--freeze all` over the images is.

    >>> _pass_figures(FeaturePass(1, 0, 1200, 4000, 100.0))
    '1,200/4,000 images  100 images/s  28 s left'
    >>> _pass_figures(FeaturePass(1, 0, 1200, 4000, 100.0, mirrored=True))
    '1,200/4,000 images and mirror images  100 images/s  28 s left'
    """
    what = "images and mirror images" if record.mirrored else "images"
    return (
        f"{fraction(record.images, record.total)} {what}  "
        f"{per_second(record.images_per_second)}  {duration(round(record.seconds_left))} left"
    )


class Display:
    """A line for each notice and each epoch; what else is shown is up to its kinds."""

    def __init__(self) -> None:
        self.pace = _Pace()
        self.latest = ""  # figures of the last interval

    def __call__(self, record: Record) -> None:
        """Show a record."""
        if isinstance(record, Notice):
            self.say(record.text)
        elif isinstance(record, Plan):
            self.pace.plan = record
        elif isinstance(record, Interval):
            self.latest = _interval_figures(record)
        elif isinstance(record, Step):
            self.pace.note(record)
        elif isinstance(record, Epoch):
            self.pace.note_pause()
            self.say(_epoch_line(record, self.pace))
        self.show(record)

    def say(self, line: str) -> None:
        """Show a line."""
        say(line, flush=True)

    def show(self, record: Record) -> None:
        """Show where the training is, after a record."""

    def close(self) -> None:
        """The run is over, or failed."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _PlainLines(Display):
    """Plain lines, for a log file or a pipe: within a long epoch, one now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.last = time.monotonic()

    def show(self, record: Record) -> None:
        """Print a line if there was none for long."""
        if isinstance(record, Epoch):
            self.last = time.monotonic()
        elif time.monotonic() - self.last <= _PLAIN_EVERY:
            return
        elif isinstance(record, Interval) and record.step < self.pace.steps:
            self.say(f"{self.pace.step_in_words(record.step)}  {self.latest}  {self.pace}")
            self.last = time.monotonic()
        elif isinstance(record, FeaturePass):
            self.say(f"features  {_pass_figures(record)}")
            self.last = time.monotonic()


class _TerminalBar(Display):
    """A progress bar over the run, below the lines."""

    def __init__(self) -> None:
        super().__init__()
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[figures]}"),
            console=Console(highlight=False),
            refresh_per_second=4,
            transient=True,
        )
        self.task = self.progress.add_task("starting", total=None, figures="")

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self.progress.console.print(Text(escaped(line)))

    def show(self, record: Record) -> None:
        """Move the bar, which is there from the first plan on."""
        if isinstance(record, Plan):
            self.progress.start()
        elif isinstance(record, Epoch) and record.step >= self.pace.steps:
            self.progress.update(self.task, description="scoring", figures="")
        elif isinstance(record, Step | Validating):
            epoch = self.pace.epoch_in_words(record.epoch)
            self.progress.update(
                self.task,
                description=epoch if isinstance(record, Step) else "validating",
                total=self.pace.steps,
                completed=record.step,
                figures=f"{self.latest}  {self.pace}".strip(),
            )
        elif isinstance(record, FeaturePass):
            self.progress.update(
                self.task,
                description="features",
                total=record.total,
                completed=record.images,
                figures=_pass_figures(record),
            )

    def close(self) -> None:
        """Take the bar away."""
        self.progress.stop()


class _NotebookBar(Display):
    """A progress bar in the output of a notebook's cell, above the lines."""

    def __init__(self) -> None:
        super().__init__()
        self.handle: Any = None
        self.last = 0.0

    def show(self, record: Record) -> None:
        """Move the bar, a few times a second at most."""
        if isinstance(record, FeaturePass):
            self.move("features", record.images, record.total, _pass_figures(record))
        elif isinstance(record, Step | Validating):
            epoch = self.pace.epoch_in_words(record.epoch)
            what = epoch if isinstance(record, Step) else "validating"
            self.move(what, record.step, self.pace.steps, f"{self.latest}  {self.pace}")

    def move(self, what: str, done: int, total: int, figures: str) -> None:
        """Draw the bar anew, unless that was done just before and it is not at its end."""
        if time.monotonic() - self.last < _NOTEBOOK_EVERY and done < total:
            return
        self.last = time.monotonic()
        self.draw(
            f'<progress value="{done}" max="{total}"></progress> '
            f"{html.escape(f'{what}  {figures}')}"
        )

    def draw(self, content: str) -> None:
        """Show HTML in place of what was shown before."""
        show: Any = importlib.import_module("IPython.display")  # a kernel has it, others need not
        if self.handle is None:
            self.handle = show.display(show.HTML(content), display_id=True)
        else:
            self.handle.update(show.HTML(content))

    def close(self) -> None:
        """Take the bar away."""
        if self.handle is not None:
            self.draw("")
