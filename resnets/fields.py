"""What the fields of a dataclass may hold, and the dataclass as TOML and back."""

import dataclasses
import difflib
import math
import tomllib
import types
import typing
from dataclasses import dataclass
from typing import Any, TypeVar, get_args, get_origin

from resnets.errors import ContentError, UsageError
from resnets.json_text import to_json

Value = TypeVar("Value")
LONGEST = 1 << 20  # characters of a file of settings; the longest real one has 3,000
MOST_DOTS = 2000  # in a line of it; names of names of names take the square of their number


@dataclass(frozen=True)
class Between:
    """The finite numbers from low to high, both allowed: ``Annotated[int, Between(1)]``."""

    low: float
    high: float = math.inf

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high and math.isfinite(value)

    def __str__(self) -> str:
        return f"from {self.low:g} to {self.high:g}" if self.high < math.inf else f">= {self.low:g}"


def check(value: object) -> None:
    """Compare every field of a dataclass with its annotation.

    Raises:
        UsageError: names the first field that does not fit, its value, and what would.
    """
    for name, annotation in typing.get_type_hints(type(value), include_extras=True).items():
        given = getattr(value, name)
        if not fits(given, annotation):
            raise UsageError(f"{name} is {given!r}; it must be {describe(annotation)}")


def fits(value: Any, annotation: Any) -> bool:
    """Whether the annotation allows the value. An integer will do for a float."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is typing.Annotated:
        return fits(value, arguments[0]) and value in arguments[1]
    if origin is typing.Literal:
        return value in arguments
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, option) for option in arguments)
    if origin is tuple:  # of any length: tuple[item, ...]
        return isinstance(value, tuple) and all(fits(item, arguments[0]) for item in value)
    if annotation in (int, float) and isinstance(value, bool):
        return False
    return isinstance(value, (int, float) if annotation is float else annotation)


def describe(annotation: Any) -> str:
    """In words, what :func:`fits` allows.

    >>> describe(tuple[typing.Annotated[float, Between(0, 1)], ...])
    'a tuple, each item a number from 0 to 1'
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is typing.Annotated:
        return f"{describe(arguments[0])} {arguments[1]}"
    if origin is typing.Literal:
        return "one of " + ", ".join(map(str, arguments))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe(option) for option in arguments)
    if origin is tuple:
        return f"a tuple, each item {describe(arguments[0])}"
    nouns = {
        int: "an integer",
        float: "a number",
        str: "a text",
        bool: "true or false",
        types.NoneType: "unset",
    }
    return nouns.get(annotation, f"of type {getattr(annotation, '__name__', annotation)}")


def to_toml(value: Any, where: str = "") -> str:
    """A dataclass as TOML: a table for every nested one; what is None is left out.

    A class whose keys have changed their meaning says by a plain attribute ``FORMAT`` the number
    of the format that this version writes; it becomes the first line. See `from_table`.

    Args:
        value: the dataclass.
        where: what stands before the names of its tables, such as ``recipe.``.
    """
    lines, tables = [], []
    if hasattr(value, "FORMAT"):
        lines.append(f"format = {value.FORMAT}\n")
    for field in dataclasses.fields(value):
        item = getattr(value, field.name)
        if dataclasses.is_dataclass(item):
            name = f"{where}{field.name}"
            tables.append(f"\n[{name}]\n{to_toml(item, f'{name}.')}")
        elif item is not None:
            lines.append(f"{field.name} = {toml_value(item)}\n")
    return "".join(lines + tables)


def toml_value(value: bool | float | str | tuple[Any, ...]) -> str:
    """A value as TOML writes it.

    >>> toml_value((True, 2, 1e-05, "a"))
    '[true, 2, 1e-05, "a"]'
    """
    if isinstance(value, tuple):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    return to_json(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def from_toml(cls: type[Value], text: str) -> Value:
    """The dataclass that a TOML text describes; what the text leaves out has its default.

    Raises:
        ContentError: if the text is no TOML, or a key or value does not fit; it names them.
    """
    try:
        return from_table(cls, parse_toml(text))
    except UsageError as error:
        raise ContentError(str(error)) from None


def parse_toml(text: str) -> dict[str, Any]:
    """The table of a TOML text, if it is not absurdly long or deep.

    Raises:
        ContentError: it is none.
    """
    if len(text) > LONGEST:
        raise ContentError(f"not TOML of settings: {len(text):,} characters; {LONGEST:,} at most")
    if any(line.count(".") > MOST_DOTS for line in text.split("\n")):
        raise ContentError(f"not TOML of settings: a line of more than {MOST_DOTS:,} dots")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ContentError("not TOML: nested too deep") from None
    except (ValueError, TypeError, KeyError, IndexError) as error:  # as long whole numbers
        raise ContentError(f"not TOML: {error}") from None


def from_table(cls: type[Value], table: dict[str, Any], where: str = "") -> Value:
    """The dataclass with the fields of a TOML table, nested tables included.

    A class with a number ``FORMAT`` has a method ``upgraded(table, format)``, which gives a table
    of an earlier format (1 where the table does not say) the keys and values of today's.
    """
    latest = getattr(cls, "FORMAT", None)
    if latest is not None:
        table = dict(table)
        form = table.pop("format", 1)
        if not fits(form, int) or not 1 <= form <= latest:
            raise ContentError(
                f"{where}format is {form!r}; this version reads 1 to {latest}: a later one reads it"
            )
        table = cls.upgraded(table, form)  # type: ignore[attr-defined]
    annotations = typing.get_type_hints(cls, include_extras=True)
    values = {}
    for key, item in table.items():
        if key not in annotations:
            key = key[:80]  # comparing long texts takes long
            nearest = difflib.get_close_matches(key, annotations, n=1, cutoff=0.0)[0]
            raise ContentError(f"{where}{key}: no such setting; the nearest is {where}{nearest}")
        values[key] = from_item(annotations[key], item, f"{where}{key}")
    return cls(**values)


def from_item(annotation: Any, item: Any, name: str) -> Any:
    """A TOML value as a field holds it: a list as a tuple, a nested table as its dataclass."""
    if dataclasses.is_dataclass(annotation) and isinstance(item, dict):
        return from_table(typing.cast("type[Any]", annotation), item, f"{name}.")
    value = tuple(item) if isinstance(item, list) else item
    if not fits(value, annotation):
        raise ContentError(f"{name} is {value!r}; it must be {describe(annotation)}")
    return value
