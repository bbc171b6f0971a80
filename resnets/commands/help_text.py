"""The text of `--help`: what a command does, and each flag with its meaning and default.

The flags are those of tyro's parser; its boxes and `{None}|INT (default: None)` are not shown.
"""

import argparse
import inspect
import re
import shutil
import textwrap
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

import tyro

from resnets.commands.parser import parser_of
from resnets.format import NO_BREAK

_WIDEST = 100  # columns
_ASKED = ("-h", "--help", "--help-all")
_MORE = "{program} --help-all lists all {count} flags."
_VALUES = {  # what stands for the value of a flag that takes any text
    **dict.fromkeys(
        ("--other", "--train-folder", "--validation-folder", "--test-folder"), "FOLDER"
    ),
    **{"--device": "DEVICE", "--network": "NAME", "--checkpoint-every": "TIME|STEPS"},
    **{"--data": "DATA", "--rows": "LAYERS", "--target": "CLASS", "--plot": "FILE"},
}
_NUMBERS = {"INT": "N", "FLOAT": "NUMBER"}
_NO_DEFAULTS = (  # said of flags that are left out, or are switches
    *(" (required)", " (default: None)", " (default: '')", " (default: )"),
    *(" (default: False)", " (default: True)"),
)


def asks_for_help(words: Sequence[str]) -> bool:
    """Whether one of the words before a ``--`` asks for help."""
    words = words[: [*words, "--"].index("--")]
    return any(word in _ASKED for word in words)


def command_help(
    target: Callable[..., Any], program: str, *, default: Any = None, everything: bool = False
) -> str:
    """The help of a command.

    Args:
        target: the dataclass or function that the flags are made of.
        program: how it is called, such as ``resnets predict``.
        default: an instance of a dataclass, whose values are shown.
        everything: show also the flags of the recipe, where the command takes one.
    """
    groups = _groups(target, default)
    own = {title: flags for title, flags in groups.items() if title in ("arguments", "flags")}
    hidden = 0 if everything else sum(map(len, groups.values())) - sum(map(len, own.values()))
    count = sum(len(flags) for title, flags in groups.items() if title != "arguments")
    more = _MORE.format(program=program, count=count) if hidden else None
    return help_text(target, program, groups if everything else own, epilog=more)


def help_text(
    target: Callable[..., Any],
    program: str,
    groups: Mapping[str, Sequence[argparse.Action]],
    *,
    short: bool = False,
    epilog: str | None = None,
) -> str:
    """The usage, the docstring and groups of flags, as wide as the terminal, at most 100 columns.

    Args:
        target: has the docstring.
        program: how it is called.
        groups: flags by the titles that they stand under.
        short: only the first sentence about each.
        epilog: the last line.
    """
    flags = [flag for group in groups.values() for flag in group]
    width = max(60, min(_WIDEST, shutil.get_terminal_size().columns))
    parser = argparse.ArgumentParser(
        program,
        usage=f"{usage_of(program, flags)} [FLAGS]",
        description=_description(target, width),
        epilog=epilog,
        formatter_class=lambda prog: _Formatter(prog, max_help_position=24, width=width),
        add_help=False,
    )
    names = {name for flag in flags for name in flag.option_strings}
    for title, group in groups.items():
        section = parser.add_argument_group(title)
        for flag in group:
            _add(section, flag, meaning_of(flag, names, short))
    return parser.format_help()


def usage_of(program: str, flags: Sequence[argparse.Action]) -> str:
    """The command with the arguments and flags that it needs."""
    words = [str(flag.metavar) for flag in flags if not flag.option_strings]
    needed = [flag for flag in flags if flag.option_strings and "(required)" in str(flag.help)]
    words += [f"{flag.option_strings[0]} {_metavar(flag)}" for flag in needed]
    return " ".join([program, *words])


def flags_of(target: Callable[..., Any], default: Any = None) -> dict[str, argparse.Action]:
    """Each flag by its first name, and each other argument by its own, as tyro has them."""
    return {
        (flag.option_strings or [flag.dest])[0]: flag
        for group in _groups(target, default).values()
        for flag in group
    }


def meaning_of(flag: argparse.Action, names: Set[str], short: bool) -> str:
    """What a flag does and its default; other flags are called as users type them.

    Args:
        flag: tyro's action.
        names: of all flags of the command.
        short: only the first sentence.
    """
    text = " ".join(str(flag.help).split())
    for ending in _NO_DEFAULTS:
        text = text.removesuffix(ending)

    def typed(match: re.Match[str]) -> str:
        name = "--" + match[0].strip("`").replace("_", "-")
        return name if name in names else match[0]

    text = re.sub(r"`[a-z_]+`|\b[a-z]+(?:_[a-z]+)+\b", typed, text)
    text, _, value = text.partition(" (default: ")
    if short:
        text = text.partition(". ")[0].rstrip(".") + "."
    value = re.sub(r"(\.\d{3})\d{3,}", r"\1", value).replace(" ", NO_BREAK)
    return (text + (f" (default:{NO_BREAK}{value}" if value else "")).replace("%", "%%")


def _groups(target: Callable[..., Any], default: Any) -> dict[str, list[argparse.Action]]:
    """The arguments, the flags, and those of the recipe, each with its help; --help is left out."""
    options = {} if default is None else {"default": default}
    parser = parser_of(target, config=(tyro.conf.FlagCreatePairsOff,), **options)
    titles = {"positional arguments": "arguments", "options": "flags"}
    groups = dict[str, list[argparse.Action]]()
    for group in parser._action_groups:
        title = str(group.title)
        title = titles.get(title) or title.removesuffix(" options").replace("recipe.", "")
        flags = [flag for flag in group._group_actions if "--help" not in flag.option_strings]
        if flags:
            groups[title] = flags
    return groups


def _description(target: Callable[..., Any], width: int) -> str:
    """The docstring before its list of arguments; examples, which are indented, as they stand."""
    text = inspect.cleandoc(target.__doc__ or "").partition("\n\nArgs:\n")[0].strip()
    paragraphs = [
        paragraph if paragraph.startswith(" ") else textwrap.fill(paragraph, width)
        for paragraph in text.split("\n\n")
    ]
    return "\n\n".join(paragraphs).replace("%", "%%")


def _add(section: Any, flag: argparse.Action, meaning: str) -> None:
    """Write a flag into a section of the help."""
    if flag.nargs == 0:
        section.add_argument(*_switch(flag), action="store_true", help=meaning)
    else:
        names = flag.option_strings or [flag.dest]
        section.add_argument(*names, metavar=_metavar(flag), help=meaning)


def _switch(flag: argparse.Action) -> list[str]:
    """The names of a switch; both of them where it is on by default."""
    return [
        name
        for option in flag.option_strings
        for name in (
            (option.replace("--no-", "--", 1), option) if option.startswith("--no-") else (option,)
        )
    ]


def _metavar(flag: argparse.Action) -> str:
    """What stands for the value: the choices, or a word.

    >>> def metavar(name, text): return _metavar(argparse.Action([name], "", metavar=text))
    >>> metavar("--seed", "{None}|INT"), metavar("--device", "STR")
    ('N', 'DEVICE')
    >>> metavar("--to", "{None,timm,torchvision}"), metavar("--threads", "[INT [INT ...]]")
    ('timm|torchvision', 'N ...')
    >>> metavar("--mean", "{None}|{[FLOAT [FLOAT ...]]}")
    'NUMBER ...'
    """
    text = str(flag.metavar)
    if not flag.option_strings:
        return text
    text = re.sub(r"\{?\[(.*) \[.*\.\.\.\]\]\}?$", r"\1 ...", text.removeprefix("{None}|"))
    text = re.sub(
        r"\{(.*?)\}",
        lambda match: "|".join(word for word in match[1].split(",") if word != "None"),
        text,
    )
    word, space, more = text.removeprefix("[").removesuffix("]").partition(" ")
    if word == "STR":
        word = _VALUES.get(flag.option_strings[0], "TEXT")
    return "|".join(_NUMBERS.get(kind, kind) for kind in word.split("|")) + space + more


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Breaks lines only at spaces, and not within a default."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        lines = textwrap.wrap(" ".join(text.split(" ")), width, break_on_hyphens=False)
        return [line.replace(NO_BREAK, " ") for line in lines]
