"""JSON as every command, log and file of this package writes it: never NaN, never Infinity.

RFC 8259 has no such numbers, and strict readers (JavaScript, jq, Go, parquet tools) refuse the
whole text. A figure that is not a number is null here.
"""

import json
import math
from collections.abc import Mapping
from typing import Any


def to_json(value: Any, *, indent: int | None = None, sort: bool = False, **options: Any) -> str:
    """A value of dicts, lists, texts, numbers, booleans and None as JSON text.

    Args:
        value: what to write; NaN and infinite numbers in it become null.
        indent: spaces of each level; None writes one line.
        sort: write the keys of each object in alphabetical order.
        options: of `json.dumps`, such as ``ensure_ascii=False``.

    Raises:
        TypeError: if the value contains anything else.

    >>> to_json({"loss": float("nan"), "rates": (0.5, float("inf"))})
    '{"loss": null, "rates": [0.5, null]}'
    """
    options |= {"indent": indent, "sort_keys": sort, "allow_nan": False}
    try:
        return json.dumps(value, **options)
    except (TypeError, ValueError):  # rare: a number that is not finite, or a mapping of its own
        return json.dumps(_finite(value), **options)


def _finite(value: Any) -> Any:
    """The value with None in place of NaN and infinite numbers."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {_key_of(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def _key_of(key: Any) -> Any:
    """A key that JSON can hold: as text where it is a number that is not finite."""
    return str(key) if isinstance(key, float) and not math.isfinite(key) else key
