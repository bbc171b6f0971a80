"""One module per command, each with ``main(argv) -> exit code``."""

from collections.abc import Callable, Sequence
from typing import Any

from resnets.commands.arguments import parse

__all__ = ["run"]


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
