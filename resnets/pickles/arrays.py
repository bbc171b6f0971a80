"""NumPy's arrays and numbers in a pickle, built here from bytes whose number is checked.

NumPy's own functions trust the state that they get: with a type of objects they turn bytes into
addresses. None of them is called here; a type that is not of plain numbers is refused.
"""

import re
from typing import Any

import numpy as np

from resnets.errors import ContentError
from resnets.format import plural
from resnets.pickles.interpreter import Call, Name

NAMES = frozenset(
    {
        "numpy.core.multiarray._reconstruct",
        "numpy.core.multiarray.scalar",
        "numpy.ndarray",
        "numpy.dtype",
    }
)
_NUMBER = re.compile("b1|[iu][1248]|f[248]|c8|c16")  # booleans, integers, floats, complex numbers
_TEXT = re.compile("[SU][0-9]{1,5}")  # byte strings and texts, of a fixed length
_ORDERS = ("<", ">", "|", "=")
_MOST_DIMENSIONS = 32


def array_or_plain(value: Any) -> Any:
    """The array or number that a `Call` describes; other values as they are.

    Raises:
        ContentError: it does not have just the bytes that it needs, or they are not numbers.
    """
    if not isinstance(value, Call):
        return value
    if value.function.path.endswith("multiarray.scalar"):
        return _scalar(value)
    if not value.function.path.endswith("_reconstruct"):
        raise ContentError(f"holds an array without its numbers ({value.function.path})")
    return _array(value)


def check_call(call: Call) -> None:
    """Refuse a call of NumPy that makes anything but numbers.

    Raises:
        ContentError: if it does.
    """
    if call.function.path == "numpy.dtype":
        _number_type(call, _TEXT)
    elif call.function.path in NAMES:
        array_or_plain(call)


def _array(call: Call) -> np.ndarray[Any, Any]:
    """An array, of its shape, type, order and bytes."""
    if not isinstance(call.state, tuple) or len(call.state) != 5:
        raise ContentError("holds an array without its numbers")
    _, shape, dtype_call, by_columns, numbers = call.state
    if (
        not isinstance(shape, tuple)
        or len(shape) > _MOST_DIMENSIONS
        or not all(map(_is_side, shape))
    ):
        raise ContentError("holds an array without its numbers: its shape is none")
    kind = _number_type(dtype_call)
    size = kind.itemsize
    for side in shape:
        size *= side
    if not isinstance(numbers, bytes) or len(numbers) != size:
        raise ContentError(f"holds an array {shape} of {kind} without its {plural(size, 'byte')}")
    return np.frombuffer(numbers, kind).reshape(shape, order="F" if by_columns is True else "C")


def _is_side(value: Any) -> bool:
    """Whether a value can be the length of an array."""
    return type(value) is int and 0 <= value < 1 << 48


def _scalar(call: Call) -> Any:
    """A single number or text, as a value of Python."""
    if len(call.arguments) != 2:
        raise ContentError("holds a number without its bytes")
    kind, content = _number_type(call.arguments[0], _TEXT), call.arguments[1]
    if not isinstance(content, bytes) or len(content) != kind.itemsize:
        raise ContentError(f"holds a number of {kind} without its {plural(kind.itemsize, 'byte')}")
    return np.frombuffer(content, kind)[0].item()


def _number_type(dtype_call: Any, also: re.Pattern[str] | None = None) -> np.dtype[Any]:
    """The type of an array's numbers.

    Args:
        dtype_call: the call of numpy.dtype.
        also: names of types that are allowed besides those of numbers.
    """
    is_type = isinstance(dtype_call, Call) and dtype_call.function == Name("numpy.dtype")
    name = _text(dtype_call.arguments[0]) if is_type and dtype_call.arguments else ""
    if not _NUMBER.fullmatch(name) and not (also and also.fullmatch(name)):
        kinds = {"O": "Python objects", "S": "texts", "U": "texts", "M": "dates", "m": "durations"}
        kind = kinds.get(name.lstrip("<>|=")[:1], f"{name[:20]!r}" if name else "an unknown type")
        raise ContentError(f"holds an array of {kind}, not of numbers")
    order = "|"
    if dtype_call.state is not None:
        order = _text(dtype_call.state[1]) if _is_dtype_state(dtype_call.state) else ""
    if order not in _ORDERS:
        raise ContentError(f"holds an array of {name} in no known order of bytes")
    return np.dtype(name).newbyteorder(">" if order == ">" else "<")


def _is_dtype_state(state: Any) -> bool:
    """Whether a type has neither fields, nor parts, nor objects: only an order of bytes."""
    return isinstance(state, tuple) and len(state) >= 5 and state[2:5] == (None, None, None)


def _text(value: Any) -> str:
    """A string that Python 2 or 3 wrote; empty if it is none."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, str) else ""
