"""Words of a command line: flags in any place and by other projects' names, errors in a line."""

import argparse
import contextlib
import functools
import importlib
import io
import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import tyro

from resnets.commands.help_text import asks_for_help, command_help, usage_of
from resnets.commands.mistakes import (
    Flags,
    Part,
    in_words,
    nearest_flags,
    parts_of,
    refuse_mistakes,
)
from resnets.commands.parser import parser_of
from resnets.errors import RenamedWarning, UsageError
from resnets.escaping import say_text
from resnets.fields import as_flag

_TRAINING = {  # how timm, torchvision, Ultralytics and fastai call it -> how it is called here
    "--lr": "--learning-rate",
    "--batch": "--batch-size",
    "--bs": "--batch-size",
    "--wd": "--weight-decay",
    "--opt": "--optimizer",
    "--img-size": "--image-size",
    "--imgsz": "--image-size",
    "--arch": "--network",
    "--model": "--network",
    "--weights": "--from",
}
_BATCH = {"--batch": "--batch-size", "--bs": "--batch-size"}
_FORMAT = {"--format": "--to"}
_FLAGS = {
    "train": _TRAINING,
    "find-lr": _TRAINING,
    "export": _FORMAT,
    "convert": _FORMAT,
    "list": {"--license": "--licence"},
    "fetch": {"--accept-license": "--accept-licence"},
    "push": {"--license": "--licence"},
}
_PRETRAINED = (
    "--pretrained: name the weights to start from: --from NAME, where NAME is a model file, the "
    "folder of a run, a checkpoint of another project, published weights such as "
    "timm/resnet50.a1_in1k (--from resnet50 takes the recommended ones), or a network of the "
    "package such as resnet20_cifar10"
)
_PLAIN = {  # how Python and tyro say it -> in plain words
    r"invalid literal for int\(\) with base 10: (.*)": r"\1 is not a whole number",
    r"could not convert string to float: (.*)": r"\1 is not a number",
    r"no type matching (?:\{None\}\|)?INT could be instantiated from \[(.*?)\].*": (
        r"\1 is not a whole number"
    ),
    r"no type matching (?:\{None\}\|)?FLOAT could be instantiated from \[(.*?)\].*": (
        r"\1 is not a number"
    ),
    r"no type matching (?:\{None\}\|)?INT\|\{(\w+)\} could be instantiated from \[(.*?)\].*": (
        r"\2 is neither a whole number nor \1"
    ),
    r"no type matching (?:\{None\}\|)?\{(\w+)\}\|INT could be instantiated from \[(.*?)\].*": (
        r"\2 is neither a whole number nor \1"
    ),
    r"no type matching (?:\{None\}\|)?(\S+) could be instantiated from \[(.*?)\].*": (
        r"\2 is not one of \1"
    ),
}
_WRONG_SETTING = r"(?:recipe\.augmentation: augmentation: )?([a-z0-9_]+) is (\S.*?); (.*)"
_TOO_MANY = ": too many words"
_TAKE_MODEL = (
    *("predict", "explain", "evaluate", "calibrate", "report", "export", "bench", "push"),
    *("inspect", "show", "convert", "compare"),
)
_TAKE_DATA = (
    *("train", "find-lr", "doctor", "evaluate", "calibrate", "report", "predict", "explain"),
    "compare",
)


def renamed(command: str, words: Sequence[str]) -> list[str]:
    """The words with this project's names for flags; MODEL and DATA may be given as flags, too.

    >>> renamed("train", ["--data", "photos", "--lr=0.1", "--imgsz", "64"])
    ['--learning-rate=0.1', '--image-size', '64', 'photos']
    >>> renamed("predict", ["--source", "photo.jpg", "--weights", "model.onnx"])
    ['model.onnx', 'photo.jpg']

    Raises:
        UsageError: a flag of another project needs a value that only the user knows.
    """
    names, model, data, rest = _FLAGS.get(command, _BATCH), list[str](), list[str](), list[str]()
    earlier = _earlier_flags() if names is _TRAINING else {}
    waiting = iter(words)
    for word in waiting:
        flag, equals, value = word.partition("=")
        if flag == "--pretrained" and names is _TRAINING:
            raise UsageError(_PRETRAINED)
        place = None
        if flag in ("--model", "--weights") and command in _TAKE_MODEL:
            place = model
        elif flag in ("--data", "--source") and command in _TAKE_DATA:
            place = data
        if place is None and (now := earlier.get(flag.replace("_", "-"))):
            warnings.warn(f"{flag} is called {now} now", RenamedWarning, stacklevel=2)
            rest.append(now + equals + value)
        elif place is None:
            rest.append(names.get(flag, flag) + equals + value)
        else:
            place += [value] if equals else [word for word in (next(waiting, None),) if word]
    return [*model, *rest, *data]


def _earlier_flags() -> dict[str, str]:
    """Flags of an earlier version, and their names today."""
    from resnets.training.recipe import EARLIER_NAMES

    def flag(name: str) -> str:
        return "--" + name.replace("_", "-")

    return {flag(name): flag(now) for name, now in EARLIER_NAMES.items()}


def parse(target: Callable[..., Any], program: str, words: Sequence[str], **options: Any) -> Any:
    """What tyro makes of the words, which may stand in any order: a dataclass, or a call to come.

    Args:
        target: a dataclass, or a function, whose flags these are.
        program: how it is called, such as ``resnets predict``.
        words: what stood after that.
        options: passed to ``tyro.cli`` (``default=...``, ``config=...``).

    Raises:
        UsageError: the words are not what it takes.
        SystemExit: they ask for help, which is printed.
    """
    if asks_for_help(words):
        everything, default = "--help-all" in words, options.get("default")
        text = command_help(target, program, default=default, everything=everything)
        say_text(text.rstrip("\n"))
        raise SystemExit(0)
    actions = parser_of(target, config=tuple(options.get("config", ())))._actions
    flags = _flags_of(actions)
    refuse_mistakes(words, flags, [str(one.metavar) for one in actions if not one.option_strings])
    usage = usage_of(program, actions)
    try:
        return _parsed(target, program, usage, words, **options)
    except UsageError as error:
        if unknown := _unknown(words, flags):
            raise UsageError(_no_such_flags(program, unknown, flags)) from None
        others = _positionals_first(words, flags)
        if others == [*words]:
            raise
        first = error
    try:
        return _parsed(target, program, usage, others, **options)
    except UsageError as error:
        # a word that is no choice of the flag before it is not one word too many
        excess, too_many, _ = str(error).partition(_TOO_MANY)
        raise first if too_many and f"'{excess}' is not one of" in str(first) else error from None


def _flags_of(actions: Sequence[argparse.Action]) -> dict[str, argparse.Action]:
    """The parser's action of each flag."""
    return {name: action for action in actions for name in action.option_strings}


def _parsed(
    target: Callable[..., Any], program: str, usage: str, words: Sequence[str], **options: Any
) -> Any:
    """What tyro makes of the words as they stand, and its error in a line with the usage."""
    parsed = target
    if not isinstance(target, type):

        @functools.wraps(target)
        def parsed(*args: Any, **values: Any) -> Any:
            return functools.partial(target, *args, **values)

    boxes = io.StringIO()
    try:
        with contextlib.redirect_stderr(boxes):
            return tyro.cli(parsed, prog=program, args=[*words], **options)
    except SystemExit as end:
        if not end.code:  # after --help
            raise
        line = _line(boxes.getvalue(), usage)
        raise UsageError(f"{line} ({program} --help tells more)") from None


def _line(boxes: str, usage: str) -> str:
    """What tyro says in boxes, in a line: what is wrong, and what was meant or would do."""
    text = re.sub(r"[\u2500-\u257f]|-{5,}", " ", boxes)  # their frames
    lines = [line.strip(" |+") for line in text.splitlines()]
    lines = [line for line in lines[1:] if line]  # the first one is the title
    if lines and lines[0].startswith("Missing from"):
        return _missing(lines, usage)
    end = next(
        (n for n, line in enumerate(lines) if re.match("For full help|Argument helptext", line)),
        len(lines),
    )
    message = " ".join(lines[:end])
    message = re.sub(r"^Error parsing (recipe: )?", "", message)
    for pattern, plain in _PLAIN.items():
        message = re.sub(pattern, plain, message)
    message = re.sub(
        r"invalid choice (.*) for argument '(.*?)'\. Expected one of \((.*?),?\)",
        lambda match: f"{match[2]}: {match[1]} is not one of " + _choices(match[3]),
        message,
    )
    if missing := re.search(r"(?i)missing value for argument '(.*?)'\.", message):
        return f"{missing[1]} needs a value" + (f": {usage}" if missing[1] in usage else "")
    if words := re.fullmatch(r"Unrecognized options: (.*)", message):
        return f"{words[1]}{_TOO_MANY}; give no more than {usage}"
    message = message.strip().rstrip(".")
    if setting := re.fullmatch(_WRONG_SETTING, message):
        return as_flag(setting[1], setting[2], setting[3].replace("it must be ", "give ", 1))
    if message[:1].isupper() and not message[1:2].isupper():
        message = message[0].lower() + message[1:]
    return message


def _choices(text: str) -> str:
    """The choices that tyro names; not None, which stands for a flag that is not given.

    With None, tyro names them in any order.

    >>> _choices("'torchvision', None, 'timm'")
    'timm, torchvision'
    """
    words = text.replace("'", "").split(", ")
    return ", ".join(sorted(set(words) - {"None"}) if "None" in words else words)


def _missing(lines: Sequence[str], usage: str) -> str:
    """Which words and flags of the usage are missing, by the lines of tyro.

    >>> _missing(["Missing from resnets push:", "OWNER/NAME"], "resnets push RUN OWNER/NAME")
    'OWNER/NAME is missing: resnets push RUN OWNER/NAME'
    """
    end = next((n for n, line in enumerate(lines) if line.startswith("For full help")), len(lines))
    needed = usage.split()
    # each stands on a line of its own, a flag with its value: IMAGE ..., --output FILE
    names = [line.split()[0] for line in lines[:end] if re.match(r"[A-Z_/. ]+$|--", line)]
    names = [name for name in dict.fromkeys(names) if name in needed]
    return f"{in_words(names, 'and')} {'is' if len(names) == 1 else 'are'} missing: {usage}"


def _unknown(words: Sequence[str], flags: Flags) -> list[str]:
    """The flags among the words that the parser does not know: it may stop before it sees them."""
    parts = parts_of(words, flags)
    return [part.flag or part.words[0] for part in parts if _is_unknown_flag(part)]


def _is_unknown_flag(part: Part) -> bool:
    """Whether it looks like a flag, but is none of this command."""
    if part.flag:
        return part.action is None
    return bool(re.match(r"-[A-Za-z]", part.words[0])) and part.words[0] != "-h"


def _no_such_flags(program: str, unknown: Sequence[str], flags: Flags) -> str:
    """What to say of flags that a command does not have: which were meant, or whose they are."""
    sentences = []
    for name in dict.fromkeys(unknown):
        hint = "" if name.startswith("--") else " (flags begin with two hyphens)"
        if near := nearest_flags(name, flags):
            hint += f"; did you mean {in_words(near)}?"
        elif others := _commands_with(name):
            hint += f"; {in_words(others, 'and')} {'has' if len(others) == 1 else 'have'} it"
        sentences.append(f"{name}: no such flag{hint}")
    return f"{'; '.join(sentences)} ({program} --help tells more)"


def _commands_with(flag: str) -> list[str]:
    """The commands that have a flag."""
    folder = Path(__file__).parent
    modules = [
        importlib.import_module(f"resnets.commands.{path.stem}")
        for path in sorted(folder.glob("[a-z]*.py"))
    ]
    return [
        module.__name__.rpartition(".")[2].replace("_", "-")
        for module in modules
        if hasattr(module, "main") and flag in _flags_of_command(module)
    ]


def _flags_of_command(module: ModuleType) -> Flags:
    """The flags of a command by its module."""
    name = module.__name__.rpartition(".")[2]
    target = getattr(module, "Arguments", None) or getattr(module, name)
    return _flags_of(parser_of(target, config=(tyro.conf.FlagCreatePairsOff,))._actions)


def _positionals_first(words: Sequence[str], flags: Flags) -> list[str]:
    """The words with those that belong to no flag in front, as the parser wants them."""
    if "--" in words:  # what follows is meant as it stands
        return [*words]
    parts = list(parts_of(words, flags))
    ordered = [part for part in parts if not part.flag] + [part for part in parts if part.flag]
    return [word for part in ordered for word in part.words]
