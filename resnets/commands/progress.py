"""A bar that shows how many images are done."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from resnets.images.stderr import silent_decoders


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
