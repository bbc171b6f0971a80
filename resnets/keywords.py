"""Messages in the words of Python: they name flags, and a caller from Python has keywords."""

import functools
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

from resnets.errors import ContentError, UsageError

_P = ParamSpec("_P")
_T = TypeVar("_T")

# code in backticks and commands to type stay as they are; what else is a flag may be a keyword
_FLAG = re.compile(r"`[^`]*`|\bresnets [a-z-]+ [^;,()]*|(?<![\w-])--(no-)?([a-z][a-z0-9-]*)")
_OTHER_NAMES = {"from": "start"}  # `from` is no name in Python
_FUNCTIONS = {"resume": "resnets.resume"}


def _in_keywords(text: str, keywords: Mapping[str, object]) -> str:
    """A message with its flags as keywords, as far as they are.

    Args:
        text: the message.
        keywords: their defaults by name.

    >>> _in_keywords("--budget 9 s is short; pass --no-report", {"budget": None, "report": True})
    '`budget` 9 s is short; pass `report=False`'
    """

    def keyword(match: re.Match[str]) -> str:
        negated, flag = match[1], match[2]
        name = _OTHER_NAMES.get(flag, flag.replace("-", "_")) if flag else ""
        if flag in _FUNCTIONS:
            return f"`{_FUNCTIONS[flag]}`"
        if name not in keywords:
            return match[0]
        switch = isinstance(keywords[name], bool)
        return f"`{name}={negated is None}`" if switch else f"`{name}`"

    return _FLAG.sub(keyword, text)


def naming_keywords(
    **changes: Any,
) -> Callable[[Callable[_P, _T]], Callable[_P, _T]]:
    """A decorator: errors of a function name its keywords where they would name flags.

    Args:
        changes: defaults of keywords that its signature does not list.
    """

    def decorated(function: Callable[_P, _T]) -> Callable[_P, _T]:
        listed = inspect.signature(function).parameters.values()
        keywords = changes | {parameter.name: parameter.default for parameter in listed}

        @functools.wraps(function)
        def called(*args: _P.args, **kwargs: _P.kwargs) -> _T:
            try:
                return function(*args, **kwargs)
            except (UsageError, ContentError) as error:
                error.args = (_in_keywords(str(error), keywords), *error.args[1:])
                raise

        return called

    return decorated
