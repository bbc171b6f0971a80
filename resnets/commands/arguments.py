"""Words of a command line: flags in any place and by other projects' names, errors in a line."""

import argparse
import contextlib
import functools
import io
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import tyro

from resnets.commands.help_text import asks_for_help, command_help
from resnets.commands.parser import parser_of
from resnets.errors import RenamedWarning, UsageError
from resnets.escaping import say_text

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
_FLAGS = {"train": _TRAINING, "find-lr": _TRAINING}
_BATCH = {"--batch": "--batch-size", "--bs": "--batch-size"}
_TAKE_MODEL = ("predict", "explain", "evaluate", "calibrate", "report", "export", "bench")
_TAKE_DATA = ("train", "find-lr", "doctor", "evaluate", "calibrate", "report", "predict", "explain")


def renamed(command: str, words: Sequence[str]) -> list[str]:
    """The words with this project's names for flags; MODEL and DATA may be given as flags, too.

    >>> renamed("train", ["--data", "photos", "--lr=0.1", "--imgsz", "64"])
    ['--learning-rate=0.1', '--image-size', '64', 'photos']
    >>> renamed("predict", ["--source", "photo.jpg", "--weights", "model.onnx"])
    ['model.onnx', 'photo.jpg']
    """
    names, model, data, rest = _FLAGS.get(command, _BATCH), list[str](), list[str](), list[str]()
    earlier = _earlier_flags() if command in _FLAGS else {}
    waiting = iter(words)
    for word in waiting:
        flag, equals, value = word.partition("=")
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
            place += [value] if equals else [each for each in (next(waiting, None),) if each]
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
    try:
        return _parsed(target, program, words, **options)
    except UsageError as error:
        unknown = _unknown(target, words, options.get("config", ()))
        if unknown and not any(flag in str(error) for flag in unknown):
            raise UsageError(f"unrecognized options: {', '.join(unknown)}; {error}") from None
        others = _positionals_first(target, words, options.get("config", ()))
        if others == [*words]:
            raise
        try:
            return _parsed(target, program, others, **options)
        except UsageError:
            raise error from None


def _flags(target: Callable[..., Any], config: Sequence[Any]) -> dict[str, argparse.Action]:
    """The parser's action of each flag."""
    parser = parser_of(target, config=tuple(config))
    return {name: action for action in parser._actions for name in action.option_strings}


def _parsed(target: Callable[..., Any], program: str, words: Sequence[str], **options: Any) -> Any:
    """What tyro makes of the words as they stand, and its error in a line."""
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
        raise UsageError(f"{_line(boxes.getvalue())} ({program} --help tells more)") from None


def _line(boxes: str) -> str:
    """What tyro says in boxes, in a line: what is wrong, and what was meant or would do."""
    text = re.sub(r"[\u2500-\u257f]|-{5,}", " ", boxes)  # their frames
    lines = [line.strip(" |+") for line in text.splitlines()]
    lines = [line for line in lines[1:] if line]  # the first one is the title
    if lines and lines[0].startswith("Missing from"):
        return _missing(lines)
    end = next(
        (n for n, line in enumerate(lines) if re.match("For full help|Argument helptext", line)),
        len(lines),
    )
    message = " ".join(lines[:end])
    message = re.sub(r"^Error parsing (recipe: )?", "", message)
    message = re.sub(
        r"invalid literal for int\(\) with base 10: (.*)", r"\1 is no whole number", message
    )
    message = re.sub(r"could not convert string to float: (.*)", r"\1 is no number", message)
    message = re.sub(
        r"no type matching (?:\{None\}\|)?(\S+) could be instantiated from \[(.*?)\].*",
        r"\2 is no \1",
        message,
    )
    message = re.sub(
        r"invalid choice (.*) for argument '(.*?)'\. Expected one of \((.*?),?\)",
        lambda match: f"{match[2]}: {match[1]} is not one of " + match[3].replace("'", ""),
        message,
    )
    message = re.sub(r"(?i)missing value for argument '(.*?)'\..*", r"\1 missing", message)
    nearest = re.search(r"Perhaps you meant:\s*(--[\w-]+)", message)
    message = message.split("Perhaps you meant")[0].strip().rstrip(".")
    if message[:1].isupper() and not message[1:2].isupper():
        message = message[0].lower() + message[1:]
    return f"{message}; did you mean {nearest[1]}?" if nearest else message


def _missing(lines: Sequence[str]) -> str:
    """What is missing, after what is there but unknown: the unknown may be the cause."""
    names = list[str]()
    unknown = list[str]()
    into = names
    for line in lines:
        if line.startswith("Unrecognized"):
            into = unknown
        elif line.startswith("For full help"):
            break
        elif into is unknown or re.fullmatch(r"[A-Z][A-Z_. ]*|--[\w-]+.*", line):
            into.append(line)
    parts = [f"unrecognized options: {', '.join(unknown)}"] if unknown else []
    return "; ".join([*parts, f"{', '.join(names)} missing"])


def _unknown(target: Callable[..., Any], words: Sequence[str], config: Sequence[Any]) -> list[str]:
    """The flags among the words that the parser does not know: it may stop before it sees them."""
    own = words[: list(words).index("--")] if "--" in words else words
    typed = [word.partition("=")[0] for word in own if re.match(r"--[a-z]", word)]
    known = _flags(target, config)
    return [flag for flag in typed if flag.replace("_", "-") not in known]


def _positionals_first(
    target: Callable[..., Any], words: Sequence[str], config: Sequence[Any]
) -> list[str]:
    """The words with those that belong to no flag in front, as the parser wants them."""
    if "--" in words:  # what follows is meant as it stands
        return [*words]
    flags = _flags(target, config)
    positionals, rest = list[str](), list[str]()
    place = 0
    while place < len(words):
        word = words[place]
        flag, equals, _ = word.partition("=")
        action = flags.get(flag.replace("_", "-"))
        count = 0 if equals or action is None else _taken(action, words[place + 1 :])
        (rest if word.startswith("--") else positionals).extend(words[place : place + 1 + count])
        place += 1 + count
    return positionals + rest


def _taken(action: Any, words: Sequence[str]) -> int:
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
