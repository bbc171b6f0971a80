"""Keeping what C libraries print of damaged images out of a command's messages."""

import contextlib
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def without_library_noise() -> Iterator[None]:
    """Discard what is written to the process's standard error behind Python's back.

    libtiff prints a line for every odd tag. What Python writes to ``sys.stderr`` still arrives.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    ours, sys.stderr = sys.stderr, open(kept, "w", closefd=False)  # noqa: SIM115
    try:
        yield
    finally:
        sys.stderr.flush()
        sys.stderr = ours
        os.dup2(kept, 2)
        os.close(kept)
