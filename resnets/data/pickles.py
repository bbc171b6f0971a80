"""Reading pickles of strangers: plain values and arrays of numbers, and nothing that runs.

A pickle is a program, and loading one may call any function. Here it is looked through first: only
instructions that build plain values pass. The few functions that arrays and byte strings are
pickled as calls of are replaced by stand-ins that keep what they are given; arrays are made of it
afterwards, so that not even NumPy's code is run on a state that a stranger chose.
"""

import io
import pickle
import pickletools
import re
from typing import Any, NoReturn

import numpy as np

from resnets.errors import ContentError

PLAIN = re.compile(  # the instructions that build values, of protocols 0 to 4
    r"PROTO|FRAME|STOP|MARK|NONE|NEWTRUE|NEWFALSE|INT|BININT[12]?|LONG1?|FLOAT|BINFLOAT|"
    r"STRING|BINSTRING|SHORT_BINSTRING|UNICODE|(SHORT_)?BINUNICODE|(SHORT_)?BINBYTES|"
    r"(EMPTY_)?(DICT|LIST|TUPLE)|TUPLE[123]|SETITEMS?|APPENDS?|(LONG_)?(BIN)?(PUT|GET)|MEMOIZE"
)
CALLS = re.compile("GLOBAL|STACK_GLOBAL|REDUCE|BUILD")  # what calls the stand-ins

NUMBER = re.compile("b1|[iu][1248]|f[248]")  # NumPy's names of booleans, integers and floats


class Kept:
    """The arguments of a call and the state set on its result, neither yet believed."""

    def __init__(self, name: str, arguments: tuple[Any, ...]) -> None:
        self.name = name
        self.arguments = arguments
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class StandIn:
    """What a pickle gets for a function it names; cannot be changed by it."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, *arguments: Any) -> Any:
        """Keep the arguments."""
        if self.name == "encode":  # how Python 3 writes byte strings for Python 2
            return arguments[0].encode("latin-1")
        if self.name == "bytes" and not arguments:  # and empty ones
            return b""
        return Kept(self.name, arguments)

    def __setstate__(self, state: Any) -> NoReturn:
        raise pickle.UnpicklingError("sets the state of a function")


STAND_INS = {
    ("numpy.core.multiarray", "_reconstruct"): StandIn("array"),
    ("numpy._core.multiarray", "_reconstruct"): StandIn("array"),
    ("numpy", "ndarray"): StandIn("class"),
    ("numpy", "dtype"): StandIn("type"),
    ("_codecs", "encode"): StandIn("encode"),
    ("__builtin__", "bytes"): StandIn("bytes"),
}


class PlainUnpickler(pickle.Unpickler):
    """Finds the stand-ins and nothing else."""

    def find_class(self, module: str, name: str) -> StandIn:
        """The stand-in for a function; ContentError for any but the few that are allowed."""
        if (module, name) not in STAND_INS:
            raise ContentError(
                f"names {module}.{name}, which is neither a plain value nor an array: this is no "
                "data file, do not open it with anything"
            )
        return STAND_INS[module, name]


def load_dict(data: bytes) -> dict[str, Any]:
    """Read a pickled dict of plain values and NumPy arrays of numbers.

    Strings that Python 2 wrote come as bytes, except for the dict's keys.

    Raises:
        ContentError: it is broken or holds anything else. Nothing of it is run.
    """
    try:
        look_through(data)
        found = PlainUnpickler(io.BytesIO(data), encoding="bytes").load()
        if not isinstance(found, dict):
            raise ContentError(f"holds a {type(found).__name__}, not a dict")
        return {text(key): array_or_plain(value) for key, value in found.items()}
    except ContentError:
        raise
    except Exception as error:  # a broken pickle can raise any
        raise ContentError(f"not a readable pickle ({type(error).__name__}: {error})") from None


def look_through(data: bytes) -> None:
    """Refuse instructions that are not for data, and numbers that would fill the memory."""
    for instruction, argument, _ in pickletools.genops(data):
        name = instruction.name
        if not PLAIN.fullmatch(name) and not CALLS.fullmatch(name):
            raise ContentError(f"holds the instruction {name}, which is not for data")
        if isinstance(argument, int) and "PUT" in name and argument > len(data):
            raise ContentError("asks for more memory than any value in it needs")


def text(value: Any) -> str:
    """A string that Python 2 or 3 wrote."""
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def array_or_plain(value: Any) -> Any:
    """Make the array that was kept; other values as they are."""
    if not isinstance(value, Kept):
        return value
    if value.name != "array" or not isinstance(value.state, tuple):
        raise ContentError("holds an array without its numbers")
    _, shape, kept_type, by_columns, numbers = value.state
    kind = number_type(kept_type)
    size = int(np.prod(shape, dtype=object)) * kind.itemsize
    if not isinstance(numbers, bytes) or len(numbers) != size:
        raise ContentError(f"holds an array {shape} of {kind} without its {size} bytes")
    return np.frombuffer(numbers, kind).reshape(shape, order="F" if by_columns else "C")


def number_type(kept: Any) -> np.dtype[Any]:
    """The type of an array's numbers."""
    name = text(kept.arguments[0]) if isinstance(kept, Kept) and kept.arguments else ""
    if not NUMBER.fullmatch(name):
        raise ContentError(f"holds an array of {name or 'something'}, not of numbers")
    order = text(kept.state[1]) if isinstance(kept.state, tuple) else "|"
    return np.dtype(name).newbyteorder(">" if order == ">" else "<")
