"""A bar that shows how many images are done."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO, TypeVar

from resnets.images.stderr import silent_decoders

_T = TypeVar("_T")

SEVERAL = 20  # images from which on progress is shown


@contextmanager
def progress_bar(total: int) -> Iterator[Callable[[int], None]]:
    """A function that moves a bar at a terminal, and does nothing elsewhere."""
    with silent_decoders() as stream:
        if not stream.isatty():
            yield lambda _: None
            return
        from rich.console import Console
        from rich.progress import Progress

        with Progress(console=Console(file=stream), transient=True) as progress:
            task = progress.add_task("images", total=total)
            yield lambda count: progress.advance(task, count)


def with_progress(predictions: Iterator[_T], total: int, stream: TextIO) -> Iterator[_T]:
    """Pass predictions on, with a progress bar if the stream is a terminal."""
    if total < SEVERAL or not stream.isatty():
        yield from predictions
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(predictions, "images", total, console=Console(file=stream))
