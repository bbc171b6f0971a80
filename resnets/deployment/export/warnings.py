"""Suppression of other libraries' warnings that do not concern a user who exports a network."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def suppress_warnings(name: str) -> Iterator[None]:
    """Hide all warnings, and show only errors of a logger (name empty: the root logger)."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
