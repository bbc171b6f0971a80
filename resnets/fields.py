"""Validation of dataclass fields, and conversion of dataclasses to and from TOML and JSON."""

import dataclasses
import difflib
import math
import re
import tomllib
import types
import typing
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, get_args, get_origin

from resnets.errors import ContentError, RenamedWarning, UsageError, WrongSetting
from resnets.json_text import to_json

_Value = TypeVar("_Value")
_MAX_LENGTH = 1 << 20  # characters of a file of settings; the longest real one has 3,000
_LARGEST_INTEGER = 1 << 63
_MAX_DOTS = 2000  # in one line; dotted keys take time that grows with their square


_FLAGS = {"start": "from"}  # of settings that are called otherwise at the command line
_RENAMED: dict[str, str] = {}  # "Class.key" of earlier versions: today's key


@dataclass(frozen=True)
class Between:
    """Finite numbers from low to high, both included: ``Annotated[int, Between(1)]``."""

    low: float
    high: float = math.inf

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high and is_finite(value)

    def __str__(self) -> str:
        return f"from {self.low:g} to {self.high:g}" if self.high < math.inf else f">= {self.low:g}"


def check(value: object) -> None:
    """Check every field of a dataclass against its annotation.

    Raises:
        WrongSetting: names the first field that does not fit, its value, and the allowed values.
    """
    for name, annotation in typing.get_type_hints(type(value), include_extras=True).items():
        item = getattr(value, name)
        if not _fits(item, annotation):
            allowed = _describe(annotation)
            raise WrongSetting(
                f"{name} is {short(item)}; it must be {allowed}",
                as_flag(name, short(item), f"give {allowed}"),
            )


def as_flag(name: str, value: str, remedy: str) -> str:
    """What is wrong with a setting, for who typed it as a flag.

    Args:
        name: of the setting.
        value: of it, as Python shows it.
        remedy: what is allowed.

    >>> as_flag("folds", "1", "give an integer >= 2 or unset")
    '--folds 1: give a whole number >= 2'
    >>> as_flag("milestones", "(-7.0,)", "give a tuple, each item a number from 0 to 1")
    '--milestones -7.0: give numbers, each a number from 0 to 1'
    """
    typed = value.strip("'(),").replace(", ", " ")
    return f"--{_FLAGS.get(name, name).replace('_', '-')} {typed}: {_without_unset(remedy)}"


def _without_unset(allowed: str) -> str:
    """What `_describe` says, for who types a flag: one that is unset is not typed.

    >>> _without_unset("an integer >= 1, the word auto, or unset")
    'a whole number >= 1 or the word auto'
    """
    text = re.sub(r",? or unset$", "", allowed).replace("an integer", "a whole number")
    text = text.replace("a tuple, each item ", "numbers, each ")
    if ", or unset" not in allowed:
        return text
    first, _, last = text.rpartition(", ")
    return f"{first} or {last}"


def _fits(value: Any, annotation: Any) -> bool:
    """Whether the annotation allows the value.

    An integer is allowed for a float. No number may be NaN, infinite, or have more than 63 bits.
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is typing.Annotated:
        return _fits(value, arguments[0]) and value in arguments[1]
    if origin is typing.Literal:
        return value in arguments
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, option) for option in arguments)
    if origin is tuple:  # of any length: tuple[item, ...]
        return isinstance(value, tuple) and all(_fits(item, arguments[0]) for item in value)
    if origin is dict:
        allowed = arguments[1]
        return isinstance(value, dict) and (
            allowed is Any or all(_fits(entry, allowed) for entry in value.values())
        )
    if annotation is float:
        return is_finite(value)
    if annotation is int:
        return isinstance(value, int) and is_finite(value)
    return isinstance(value, annotation)


def is_finite(value: object) -> bool:
    """Whether a value is a number that is finite, not NaN, and of at most 63 bits."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < _LARGEST_INTEGER if isinstance(value, int) else math.isfinite(value)


def _describe(annotation: Any) -> str:
    """The values that :func:`_fits` allows, in words.

    >>> _describe(tuple[typing.Annotated[float, Between(0, 1)], ...])
    'a tuple, each item a number from 0 to 1'
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is typing.Annotated:
        return f"{_describe(arguments[0])} {arguments[1]}"
    if origin is typing.Literal:
        if len(arguments) == 1:
            return f"the word {arguments[0]}"
        return "one of " + ", ".join(map(str, arguments))
    if origin in (typing.Union, types.UnionType):
        *first, last = (_describe(option) for option in arguments)
        return f"{', '.join(first)}{',' if len(first) > 1 else ''} or {last}"
    if origin is tuple:
        return f"a tuple, each item {_describe(arguments[0])}"
    if origin is dict or dataclasses.is_dataclass(annotation):
        return "a table"
    nouns = {
        int: "an integer",
        float: "a number",
        str: "a text",
        bool: "true or false",
        types.NoneType: "unset",
    }
    return nouns.get(annotation, f"of type {getattr(annotation, '__name__', annotation)}")


def to_toml(value: Any, where: str = "") -> str:
    """A dataclass as TOML: a table for each nested dataclass; fields that are None are left out.

    A class whose keys have changed their meaning has a plain attribute ``FORMAT``, the number of
    the format that this version writes; it becomes the first line. See `from_table`.

    Args:
        value: the dataclass.
        where: prefix of the names of its tables, such as ``recipe.``.
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
            lines.append(f"{field.name} = {_toml_value(item)}\n")
    return "".join(lines + tables)


def _toml_value(value: bool | float | str | tuple[Any, ...]) -> str:
    """A value as TOML writes it.

    >>> _toml_value((True, 2, 1e-05, "a"))
    '[true, 2, 1e-05, "a"]'
    """
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_toml_value, value)) + "]"
    return to_json(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def from_toml(cls: type[_Value], text: str) -> _Value:
    """The dataclass that a TOML text describes; missing keys get their defaults.

    Raises:
        ContentError: the text is not TOML, or a key or value does not fit; names them.
    """
    return from_table(cls, parse_toml(text))


def parse_toml(text: str) -> dict[str, Any]:
    """The table of a TOML text.

    Raises:
        ContentError: the text is not TOML, or far too long or too deeply nested.
    """
    if len(text) > _MAX_LENGTH:
        raise ContentError(f"not settings: {len(text):,} characters; at most {_MAX_LENGTH:,}")
    if any(line.count(".") > _MAX_DOTS for line in text.split("\n")):
        raise ContentError(f"not settings: a line has more than {_MAX_DOTS:,} dots")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ContentError("not TOML: nested too deep") from None
    except (ValueError, TypeError, KeyError, IndexError) as error:  # such as very long integers
        raise ContentError(f"not TOML: {error}") from None


def from_table(cls: type[_Value], table: Any, where: str = "") -> _Value:
    """The dataclass that a table of TOML or JSON describes, nested ones included.

    All settings and descriptions in files are read by this function, so all of them refuse the
    same content: anything but a table, a key that is unknown (a later version may know it, but this
    one cannot interpret it) or missing, and a value that the field's annotation does not allow,
    such as NaN, infinity or a huge integer. `_RENAMED` maps keys of earlier versions.

    A class with a number ``FORMAT`` has a method ``upgraded(table, format)``, which converts a
    table of an earlier format (1 if the table has no format) to today's keys and values.

    Args:
        cls: its annotations define the allowed values: numbers, strings, booleans, `Literal`,
            `Annotated` with `Between`, tuples, dicts, dataclasses, and unions of these.
        table: the keys and values.
        where: prefix of the keys in messages, such as ``recipe.``.

    Raises:
        ContentError: it does not fit; names the key, its value, and the allowed values.
    """
    if not isinstance(table, Mapping):
        raise ContentError(f"{where.rstrip('.') or 'this'} is {short(table)}; it must be a table")
    table = _with_current_keys(cls, table, where)
    annotations = typing.get_type_hints(cls, include_extras=True)
    values = {}
    for key, item in table.items():
        if key not in annotations:
            key = key[:80]  # comparing long strings is slow
            nearest = difflib.get_close_matches(key, annotations, n=1, cutoff=0.0)[0]
            raise ContentError(
                f"{where}{key}: no such setting; the nearest is {where}{nearest} (if a later "
                "version wrote it: pip install --upgrade resnets)"
            )
        values[key] = from_item(annotations[key], item, f"{where}{key}")
    if missing := [name for name in _required_fields(cls) if name not in values]:
        raise ContentError(f"{where}{f', {where}'.join(missing)} must be given")
    try:
        return cls(**values)
    except UsageError as error:  # a wrong value in a file is wrong content
        raise ContentError(f"{where.rstrip('.')}: {error}" if where else str(error)) from None


def _with_current_keys(cls: type, table: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The table with the keys of this version."""
    renamed: dict[str, Any] = {}
    for key, item in table.items():
        new = _RENAMED.get(f"{cls.__name__}.{key}", str(key))
        if new != key:
            warnings.warn(f"{where}{key} is called {where}{new} now", RenamedWarning, stacklevel=3)
        renamed[new] = item
    latest = getattr(cls, "FORMAT", None)
    if latest is None:
        return renamed
    version = renamed.pop("format", 1)
    if not _fits(version, int) or not 1 <= version <= latest:
        raise ContentError(f"{where}format is {short(version)}; this version reads 1 to {latest}")
    return cls.upgraded(renamed, version)  # type: ignore[attr-defined,no-any-return]


def _required_fields(cls: Any) -> list[str]:
    """The names of the fields without a default."""
    without = dataclasses.MISSING
    return [
        field.name
        for field in dataclasses.fields(cls)
        if field.default is without and field.default_factory is without
    ]


def from_item(annotation: Any, item: Any, name: str) -> Any:
    """A value of TOML or JSON converted for a field: a list to a tuple, a table to a dataclass.

    Args:
        annotation: of the field.
        item: the value.
        name: of the field, for messages.

    Raises:
        ContentError: the annotation does not allow it.
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (typing.Union, types.UnionType) and item is not None:
        tables = [option for option in arguments if dataclasses.is_dataclass(option)]
        annotation = tables[0] if tables else annotation
    if dataclasses.is_dataclass(annotation):
        return from_table(typing.cast("type[Any]", annotation), item, f"{name}.")
    if (
        origin is tuple
        and isinstance(item, list | tuple)
        and dataclasses.is_dataclass(arguments[0])
    ):
        return tuple(
            from_item(arguments[0], entry, f"{name}[{index}]") for index, entry in enumerate(item)
        )
    value = tuple(item) if isinstance(item, list) and _allows_tuple(annotation) else item
    if not _fits(value, annotation):
        raise ContentError(f"{name} is {short(item)}; it must be {_describe(annotation)}")
    return value


def _allows_tuple(annotation: Any) -> bool:
    """Whether the annotation allows a tuple."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (typing.Union, types.UnionType, typing.Annotated):
        return any(map(_allows_tuple, arguments))
    return origin is tuple


def check_known(table: object, key: str, known: str, where: str) -> None:
    """Refuse a table whose values mean something that only a later version knows.

    Args:
        table: as it was read.
        key: says what the other values mean.
        known: what it says where this version wrote the table.
        where: what stands before the key in the message, such as ``trained_on.``.

    Raises:
        ContentError: it says something else, or nothing.
    """
    value = table.get(key) if isinstance(table, Mapping) else None
    if value != known:
        raise ContentError(
            f"{where}{key} is {short(value)}, which this version does not know (it knows {known}; "
            "if a later version wrote it: pip install --upgrade resnets)"
        )


def short(value: object) -> str:
    """A value as text for a message, shortened to 80 characters."""
    if isinstance(value, int) and not -_LARGEST_INTEGER < value < _LARGEST_INTEGER:
        return "far too large"
    try:
        shown = repr(value)
    except (RecursionError, ValueError):  # deeply nested, or with a huge integer inside
        return f"a {type(value).__name__}"
    return shown if len(shown) <= 80 else f"{shown[:77]}..."


def differences(value: Any, other: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """The fields of a dataclass that differ from another's; those of nested ones by dotted name.

    Yields:
        The name of each, and its value in the first.
    """
    for field in dataclasses.fields(value):
        mine, theirs = getattr(value, field.name), getattr(other, field.name)
        if dataclasses.is_dataclass(mine):
            yield from differences(mine, theirs, f"{where}{field.name}.")
        elif mine != theirs:
            yield f"{where}{field.name}", mine
