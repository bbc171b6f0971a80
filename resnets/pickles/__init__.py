"""Pickles, read without running them: `read_pickle`, and what arrays in them are."""

from resnets.pickles.arrays import array_or_plain, check_call
from resnets.pickles.interpreter import (
    Call,
    Cursor,
    ForbiddenNameError,
    Name,
    Reference,
    read_pickle,
)

__all__ = [
    "Call",
    "Cursor",
    "ForbiddenNameError",
    "Name",
    "Reference",
    "array_or_plain",
    "check_call",
    "read_pickle",
]
