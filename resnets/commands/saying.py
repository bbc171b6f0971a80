"""What commands print: texts with names in them, of which a terminal shows every character."""

import sys
from typing import TextIO

from resnets.escaping import escaped


def say(line: object = "", *, file: TextIO | None = None, flush: bool = False) -> None:
    """Print one line; what a terminal would obey, line breaks included, is written out."""
    print(escaped(str(line)), file=file or sys.stdout, flush=flush)


def say_text(text: object, *, file: TextIO | None = None, flush: bool = False) -> None:
    """Print a text of several lines; names in it that may hold line breaks must be escaped."""
    print(escaped(str(text), keep="\n"), file=file or sys.stdout, flush=flush)
