"""Ranges of a dataclass's fields, and its way to TOML and back."""

import dataclasses
import difflib
import json
import math
import tomllib
import types
import typing
from dataclasses import dataclass
from typing import Any, TypeVar, Union, get_args, get_origin

from resnets.errors import ContentError, UsageError

Value = TypeVar("Value")


@dataclass(frozen=True)
class Between:
    """The numbers from low to high, both allowed; goes into ``Annotated[int, Between(1)]``."""

    low: float
    high: float = math.inf

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high and math.isfinite(value)

    def __str__(self) -> str:
        return (
            f"of at least {self.low:g}"
            if self.high == math.inf
            else f"from {self.low:g} to {self.high:g}"
        )


def checked(value: object) -> None:
    """Compare every field of a dataclass with its annotation.

    Raises:
        UsageError: names the first field that does not fit, its value, and what would.
    """
    for name, annotation in typing.get_type_hints(type(value), include_extras=True).items():
        given = getattr(value, name)
        if not fits(given, annotation):
            raise UsageError(f"{name} is {given!r}; it must be {describe(annotation)}")


def fits(value: object, annotation: Any) -> bool:
    """Whether a value is one that the annotation allows. An integer counts as a float."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is typing.Annotated:
        return fits(value, arguments[0]) and value in arguments[1]
    if origin is typing.Literal:
        return value in arguments
    if origin in (Union, types.UnionType):
        return any(fits(value, option) for option in arguments)
    if origin is tuple:
        return isinstance(value, tuple) and all(fits(item, arguments[0]) for item in value)
    if annotation is bool or isinstance(value, bool):
        return annotation is bool and isinstance(value, bool)
    if annotation is float:
        return isinstance(value, int | float)
    return isinstance(value, annotation)


NOUNS = {int: "an integer", float: "a number", str: "a text", bool: "true or false"}


def describe(annotation: Any) -> str:
    """In words, what :func:`fits` allows."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is typing.Annotated:
        return f"{describe(arguments[0])} {arguments[1]}"
    if origin is typing.Literal:
        return "one of " + ", ".join(map(str, arguments))
    if origin in (Union, types.UnionType):
        return " or ".join(describe(option) for option in arguments)
    if origin is tuple:
        return f"a list, each item {describe(arguments[0])}"
    if annotation is types.NoneType:
        return "unset"
    return NOUNS.get(annotation, f"of type {getattr(annotation, '__name__', annotation)}")


def to_toml(value: Any) -> str:
    """A dataclass as TOML: a table for every nested one; what is None is left out."""
    plain, tables = [], []
    for field in dataclasses.fields(value):
        item = getattr(value, field.name)
        if dataclasses.is_dataclass(item):
            tables.append(f"\n[{field.name}]\n{to_toml(item)}")
        elif item is not None:
            plain.append(f"{field.name} = {toml_value(item)}\n")
    return "".join(plain + tables)


def toml_value(value: bool | float | str | tuple[Any, ...]) -> str:
    """A value as TOML writes it.

    >>> toml_value((1, 2.5, "a"))
    '[1, 2.5, "a"]'
    """
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def from_toml(cls: type[Value], text: str) -> Value:
    """The dataclass that a TOML text describes; what it leaves out has its default.

    Raises:
        ContentError: if the text is no TOML, or a key or value does not fit; it names them.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ContentError(f"not TOML: {error}") from None
    try:
        return from_table(cls, table)
    except UsageError as error:
        raise ContentError(str(error)) from None


def from_table(cls: type[Value], table: dict[str, Any], where: str = "") -> Value:
    """The dataclass with the fields of a table, nested tables included."""
    hints = typing.get_type_hints(cls)
    values = {}
    for key, value in table.items():
        if key not in hints:
            near = difflib.get_close_matches(key, hints, n=1, cutoff=0.0)[0]
            raise ContentError(f"{where}{key}: no such setting; the nearest is {where}{near}")
        values[key] = converted(hints[key], value, f"{where}{key}")
    return cls(**values)


def converted(hint: Any, value: Any, name: str) -> Any:
    """A TOML value as the field's type: lists become tuples, integers of float fields floats."""
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise ContentError(f"{name} is {value!r}; it must be a table")
        return from_table(typing.cast("type[Any]", hint), value, f"{name}.")
    if isinstance(value, list):
        inner = (*get_args(hint), None)[0]
        return tuple(converted(inner, item, name) for item in value)
    if type(value) is int and float in (hint, *get_args(hint)):
        return float(value)
    return value
