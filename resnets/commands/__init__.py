"""One module per command, each with ``main(argv) -> exit code``."""

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from resnets.commands.arguments import parse
from resnets.errors import UsageError

__all__ = ["refuse_closed_output", "run"]


def run(function: Callable[..., int | None], argv: Sequence[str], **options: Any) -> int:
    """Call a command's function with the flags that tyro makes from its signature and docstring.

    Args:
        function: the command; its name, with dashes, is the name that people type.
        argv: what stood after the command's name.
        options: passed to ``tyro.cli`` (``default=...``, ``config=...``).

    Returns:
        The exit code: what the function returned, None meaning 0.
    """
    program = "resnets " + function.__name__.replace("_", "-")
    return parse(function, program, argv, **options)() or 0


def refuse_closed_output(instead: str) -> None:
    """Refuse to compute for long what nobody could read.

    Args:
        instead: what to do.

    Raises:
        UsageError: standard output was closed when this process began, as by ``>&-``.
    """
    replaced = getattr(sys.stdout, "name", None) == os.devnull  # as the command line does
    if sys.__stdout__ is None and replaced:
        raise UsageError(f"standard output is closed, so that nothing could be printed: {instead}")
