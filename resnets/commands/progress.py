"""A bar that shows how many images are done; lines, where there is no terminal."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO, TypeVar

from resnets.escaping import say
from resnets.format import duration, fraction, per_second
from resnets.images.stderr import silent_decoders

_T = TypeVar("_T")

SEVERAL = 20  # images from which on progress is shown
_EVERY = 30.0  # seconds between two lines where there is no terminal


class _Lines:
    """A line now and then that says how many images are done, for a log file or a pipe."""

    def __init__(self, total: int, stream: TextIO) -> None:
        self.total, self.stream, self.done = total, stream, 0
        self.began = self.last = time.monotonic()

    def advance(self, count: int = 1) -> None:
        """Count images that are done."""
        self.done += count
        now = time.monotonic()
        if now - self.last < _EVERY or not 0 < self.done < self.total:
            return
        self.last, speed = now, self.done / (now - self.began)
        left = duration(round((self.total - self.done) / speed))
        images = fraction(self.done, self.total)
        say(f"{images} images  {per_second(speed)}  {left} left", file=self.stream, flush=True)


def say_meanwhile(line: str) -> None:
    """Print a line on standard error while progress is shown there: above a bar."""
    if hasattr(sys.stderr, "rich_proxied_file"):  # rich prints it where the bar was
        say(line, file=sys.stderr, flush=True)
        return
    with silent_decoders() as stream:
        say(line, file=stream, flush=True)


@contextmanager
def progress_bar(total: int) -> Iterator[Callable[[int], None]]:
    """A function that moves a bar at a terminal; elsewhere it prints a line now and then."""
    with silent_decoders() as stream:
        if not stream.isatty():
            yield _Lines(total, stream).advance
            return
        from rich.console import Console
        from rich.progress import Progress

        with Progress(console=Console(file=stream), transient=True) as progress:
            task = progress.add_task("images", total=total)
            yield lambda count: progress.advance(task, count)


def with_progress(predictions: Iterator[_T], total: int, stream: TextIO) -> Iterator[_T]:
    """Pass predictions on, with a progress bar at a terminal, and with lines elsewhere."""
    if not stream.isatty():
        lines = _Lines(total, stream)
        for prediction in predictions:
            lines.advance()
            yield prediction
        return
    if total < SEVERAL:
        yield from predictions
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(predictions, "images", total, console=Console(file=stream))
