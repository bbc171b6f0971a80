"""MODEL and DATA in the wrong order, recognised by what the two words name."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from resnets.deployment.exported.reading import is_exported
from resnets.errors import UsageError
from resnets.model_path import names_model

_DATA_SETS = ("digits", "hub:")  # how names of data begin that are not paths


def refuse_swapped(models: Iterable[Any], data: Iterable[Any]) -> None:
    """Refuse data where a model belongs, if there is a model where the data belong.

    Args:
        models: what was given as MODEL; only words and paths are looked at.
        data: what was given as DATA, or as images.

    Raises:
        UsageError: it names the two.
    """
    wrong = [word for word in _words(models) if _is_data(word)]
    right = [word for word in _words(data) if is_model(word)]
    if wrong and right:
        raise UsageError(
            f"{wrong[0]} is data, and {right[0]} a model: swap them (MODEL comes first)"
        )


def is_model(word: str) -> bool:
    """Whether a word names a model, judged by its ending, its name, or what is in the folder."""
    return bool(word) and (is_exported(word) or names_model(word))


def _is_data(word: str) -> bool:
    """Whether a word names data or images that are there, and no model."""
    there = word.startswith(_DATA_SETS) or Path(word).exists()
    return bool(word) and there and not is_model(word)


def _words(values: Iterable[Any]) -> list[str]:
    """Those of the values that are words or paths."""
    return [os.fspath(value) for value in values if isinstance(value, str | os.PathLike)]
