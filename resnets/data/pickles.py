"""Pickled dicts of data sets: plain values and arrays of numbers, and nothing that runs."""

from typing import Any

from resnets.errors import ContentError
from resnets.pickles import array_or_plain, check_call, read_pickle
from resnets.pickles.arrays import NAMES

ALLOWED = NAMES | {"_codecs.encode", "builtins.bytes"}


def load_dict(data: bytes) -> dict[str, Any]:
    """Read a pickled dict of plain values and NumPy arrays of numbers.

    Strings that Python 2 wrote come as bytes, except for the dict's keys.

    Raises:
        ContentError: it is broken or holds anything else. Nothing of it is run.
    """
    found = read_pickle(data, ALLOWED.__contains__, check=check_call)
    if not isinstance(found, dict):
        raise ContentError(f"holds a {type(found).__name__}, not a dict")
    return {text(key): array_or_plain(value) for key, value in found.items()}


def text(value: Any) -> str:
    """A string that Python 2 or 3 wrote."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
