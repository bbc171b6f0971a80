"""Standard error without the messages that C libraries print about damaged images."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO


@contextmanager
def silent_decoders() -> Iterator[TextIO]:
    """Drop what C libraries print on standard error, such as libtiff's warnings.

    Yields:
        A stream that still leads to standard error.
    """
    sys.stderr.flush()
    with os.fdopen(os.dup(2), "w", encoding="utf-8") as stream:
        with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        try:
            yield stream
        finally:
            os.dup2(stream.fileno(), 2)
