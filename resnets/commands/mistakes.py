"""Mistakes on a command line that a parser takes as something else, or does not explain."""

import argparse
import difflib
import re
import sys
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from resnets.errors import UsageError
from resnets.escaping import say

_NEAR = 0.6  # similarity from which on a flag may be what was meant
_NEAREST = 3  # flags that are suggested
_VALUE = 30  # characters of a value in a message
_MINUS = "\u2212"  # the sign of a formula, which is no dash by its category
EMPTY = "no value given for {}: it is empty (is a variable of the shell not set?)"

Flags = Mapping[str, argparse.Action]  # the parser's action of each flag


@dataclass(frozen=True)
class Part:
    """A positional word, or a flag with its values.

    Attributes:
        words: as they stand.
        flag: by its full name; empty for a positional word.
        action: of a flag that the parser knows.
    """

    words: tuple[str, ...]
    flag: str = ""
    action: argparse.Action | None = None

    @property
    def values(self) -> tuple[str, ...]:
        """What the flag was given; of a positional word, the word itself."""
        if not self.flag:
            return self.words
        _, equals, value = self.words[0].partition("=")
        return (value, *self.words[1:]) if equals else self.words[1:]


def parts_of(words: Sequence[str], flags: Flags) -> Iterator[Part]:
    """The words in the groups that belong together; what follows `--` is positional."""
    place = 0
    while place < len(words):
        word = words[place]
        if word == "--":
            yield from (Part((value,)) for value in words[place + 1 :])
            return
        name, equals, _ = word.partition("=")
        name = name.replace("_", "-")
        action = flags.get(name)
        taken = 0 if equals or action is None else _taken(action, words[place + 1 :])
        group = tuple(words[place : place + 1 + taken])
        yield Part(group, name, action) if word.startswith("--") else Part((word,))
        place += 1 + taken


def _taken(action: argparse.Action, words: Sequence[str]) -> int:
    """How many of the words that follow a flag are its values."""
    if isinstance(action.nargs, int):
        return action.nargs
    if action.nargs is None:
        return 1
    numbers = "INT" in str(action.metavar) or "FLOAT" in str(action.metavar)
    count = 0
    for word in words:
        fits = bool(re.fullmatch(r"-?[\d.]+(e-?\d+)?", word)) if numbers else True
        if action.choices:
            fits = word in action.choices
        if word.startswith("--") or not fits:
            break
        count += 1
    return count


def refuse_mistakes(words: Sequence[str], flags: Flags, positionals: Sequence[str]) -> None:
    """Refuse words that a parser would take as something that was not meant.

    Of a flag that is there twice the last value counts, so that the flags of a script can be
    changed behind them; a line on standard error says so.

    Args:
        words: what stood after the command's name.
        flags: of the command.
        positionals: what its positional words are called, such as MODEL and DATA.

    Raises:
        UsageError: a word is empty, or begins with another dash than that of a keyboard; a switch
            has a value; a flag that takes several values is there twice.
    """
    parts = list(parts_of(words, flags))
    for part in parts:
        if not part.flag:
            _refuse_long_dash(part.words[0], flags)
        elif part.action is not None and part.action.nargs == 0 and "=" in part.words[0]:
            switch = " or ".join(part.action.option_strings)
            raise UsageError(f"{part.flag} takes no value; give {switch} alone")
    _refuse_empty(parts, positionals)
    for line in _repetitions(parts):
        say(line, file=sys.stderr)


def _refuse_long_dash(word: str, flags: Flags) -> None:
    """Refuse a flag whose dash was replaced by a longer one, as programs for texts do."""
    dash = word[:1]
    if not dash or dash == "-" or not (dash == _MINUS or unicodedata.category(dash) == "Pd"):
        return
    if Path(word).exists():
        return
    name = "--" + word.lstrip(dash + "-").partition("=")[0]
    meant = name if name in flags else next(iter(nearest_flags(name, flags)), name)
    raise UsageError(
        f"{word} begins with another dash ({unicodedata.name(dash).lower()}) instead of two "
        f"hyphens, as copied text often does; type {meant}"
    )


def _refuse_empty(parts: Sequence[Part], positionals: Sequence[str]) -> None:
    """Refuse empty words: a path of that would be the current folder."""
    place = 0
    for part in parts:
        name = part.flag or positionals[min(place, len(positionals) - 1)] if positionals else ""
        place += not part.flag
        if "" in part.values:
            plain = " or ".join(re.findall("[A-Z_]+|--.*", name)) or "an argument"
            raise UsageError(EMPTY.format(plain))


def _repetitions(parts: Sequence[Part]) -> Iterator[str]:
    """What to say of flags that are there twice with different values.

    Raises:
        UsageError: one of them takes several values, which may have been meant all.
    """
    earlier: dict[str, Part] = {}
    for part in parts:
        if part.action is None:
            continue
        before = earlier.get(part.action.dest, part)
        earlier[part.action.dest] = part
        if (before.flag, before.values) == (part.flag, part.values):
            continue
        first, second = (
            " ".join(occurrence.values)[:_VALUE] or occurrence.flag for occurrence in (before, part)
        )
        if part.action.nargs not in (None, 0, 1):
            raise UsageError(
                f"{part.flag} is given twice, {first} and {second}; give it once, with all its "
                "values"
            )
        yield f"{before.flag} is given twice: {second} counts, not {first}"


def nearest_flags(name: str, flags: Flags) -> list[str]:
    """The flags that may have been meant by one that does not exist, best match first.

    >>> nearest_flags("--size", dict.fromkeys(["--image-size", "--epochs", "--seed"]))
    ['--image-size']
    """
    typed = name.strip("-").replace("_", "-").lower()

    def likeness(flag: str) -> float:
        flag_name = flag.strip("-")
        ratio = difflib.SequenceMatcher(None, typed, flag_name).ratio()
        words = set(flag_name.split("-"))
        shares = len(typed) > 2 and (flag_name.startswith(typed) or words & set(typed.split("-")))
        return max(ratio, _NEAR + ratio / 4) if shares else ratio

    ranked = sorted(flags, key=likeness, reverse=True)
    return [flag for flag in ranked[:_NEAREST] if typed and likeness(flag) >= _NEAR]


def in_words(names: Sequence[str], last: str = "or") -> str:
    """Names as a sentence lists them.

    >>> in_words(["--a", "--b", "--c"])
    '--a, --b or --c'
    """
    *most, end = names
    return f"{', '.join(most)} {last} {end}" if most else end
