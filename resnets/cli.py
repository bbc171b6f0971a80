"""The ``resnets`` command: finds the sub-command, runs it, and turns errors into one clear line."""

import contextlib
import difflib
import errno
import importlib
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

from resnets.errors import (
    Advice,
    CacheWarning,
    ContentError,
    GuessWarning,
    RenamedWarning,
    UsageError,
    WrongSetting,
)
from resnets.escaping import escaped, say_text
from resnets.files.writing import NO_ROOM
from resnets.interrupting import Signalled
from resnets.machine import limit_threads
from resnets.torchrun import leave_reason, let_first_say_it, speaks_for_machine

COMMANDS = {  # name: what it does; its code is in resnets/commands/NAME.py
    "list": "print the networks that have a name",
    "show": "print a network's parts, what they cost and what was published",
    "fetch": "download published weights, into the cache or a folder to take along",
    "push": "publish a network on the hub, with a model card",
    "inspect": "tell whose checkpoint a file is, and which network it holds",
    "convert": "write a checkpoint under another project's names",
    "export": "write a network as a checked file for ONNX Runtime, OpenVINO or PyTorch",
    "train": "train a network on labelled images",
    "launch": "train on many machines, by SLURM or Kubernetes",
    "plan": "estimate time, cost and memory of a training on many GPUs",
    "find-lr": "run a learning-rate range test and suggest a rate",
    "doctor": "find broken, unusual and duplicate images and unsound classes before training",
    "shard": "write images as a few large files, for training from any storage",
    "predict": "classify images, with calibrated probabilities",
    "merge": "join the parts of a prediction that ran on several machines",
    "serve": "answer images over HTTP",
    "demo": "try a network in the browser, with example images",
    "explain": "show where in images a network sees the class",
    "evaluate": "measure a network on labelled images, with intervals",
    "calibrate": "fit temperature and thresholds anew on your own images, without training",
    "report": "write a page that says whether to rely on a network, and why",
    "reproduce": "train a published experiment again and show the figures side by side",
    "bench": "measure latency and throughput of a network by engine, batch size and threads",
    "compare": "tell whether one network is better than another, by how much and where",
}

_SIGPIPE = 13  # the number of the signal on POSIX; Windows has no name for it

_USAGE = """usage: resnets COMMAND [ARGUMENTS ...]

{commands}

resnets COMMAND --help shows the arguments of a command. --debug shows the traceback of an error.
resnets --completion bash (or zsh, fish) prints a script that completes commands and flags: save it
as ~/.local/share/bash-completion/completions/resnets, as a file _resnets on zsh's fpath, or as
~/.config/fish/completions/resnets.fish.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the words after ``resnets``; those of this process by default.

    Returns:
        The exit code: 0, 1 for a fault, 2 for wrong usage, 130 when interrupted, 141 when the
        reader of what is printed has gone.
    """
    _settle_streams()
    warnings.formatwarning = _format_warning
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    has_command = bool(words) and words[0] in COMMANDS
    return _guarded(f"resnets {words[0]}" if has_command else "resnets", lambda: _run(words), debug)


def _usage() -> str:
    """The list of commands, for ``resnets --help``."""
    widest = max(map(len, COMMANDS))
    rows = [f"  {name:{widest}}  {what}" for name, what in COMMANDS.items()]
    return _USAGE.format(commands="\n".join(rows)).rstrip()


def _settle_streams() -> None:
    """Let anything be printed: to a stream that is closed, and in an encoding that lacks it."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed before this process began, or there is no console
            stream = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  (it stays open)
            setattr(sys, name, stream)
        elif hasattr(stream, "reconfigure"):  # a notebook's cannot be, and takes everything
            stream.reconfigure(errors="backslashreplace")


def _format_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    line: str | None = None,
) -> str:
    """What concerns users is told in one line; other warnings with their place."""
    if issubclass(category, GuessWarning | CacheWarning):
        return f"warning: {escaped(str(message))}\n"
    if issubclass(category, RenamedWarning):
        return f"{escaped(str(message))}\n"
    source = "" if line is None else f"  {line.strip()}\n"
    return escaped(f"{filename}:{lineno}: {category.__name__}: {message}\n{source}", keep="\n")


def _run(words: Sequence[str]) -> int:
    """Run the command that the words name. Returns the exit code."""
    name, *rest = words or [""]
    if name in ("-h", "--help", "help") and not rest:
        print(_usage())
        return 0
    if name in ("help", "-V", "--version") and len(rest) > (name == "help"):
        raise UsageError(f"{' '.join(rest)}: too many words behind {name}; leave them out")
    if name == "help":  # of a command
        return _command(rest[0])(["--help"])
    if not name:
        print(_usage())
        return 2
    if name in ("-V", "--version"):
        print(f"resnets {version('resnets')}")
        return 0
    if name == "--completion":
        from resnets.commands.completion import completion

        print(completion(" ".join(rest), COMMANDS))
        return 0
    main = _command(name)
    from resnets.commands.arguments import renamed

    return main(renamed(name, rest))


def _command(name: str) -> Callable[[list[str]], int]:
    """The main function of a command.

    Raises:
        UsageError: there is no such command.
    """
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(COMMANDS)}"
        raise UsageError(f"no command {name!r}; {hint}")
    limit_threads()
    module = importlib.import_module(f"resnets.commands.{name.replace('-', '_')}")
    return module.main  # type: ignore[no-any-return]


def _guarded(name: str, run: Callable[[], int], debug: bool) -> int:
    """The exit code of a command; what it raises is reported in one line."""
    try:
        code = _with_exits(run)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt as stop:
        with contextlib.suppress(OSError):
            print(escaped(f"{name}: {str(stop) or 'interrupted'}"), file=sys.stderr, flush=True)
        return 128 + (stop.signal if isinstance(stop, Signalled) else signal.SIGINT)
    except Exception as error:
        _drop_output()
        if _reader_has_gone(error):  # as with `| head`
            return 128 + _SIGPIPE
        line = escaped(f"{name}: {_describe(error)}")
        leave_reason(line)
        if isinstance(error, ChildProcessError):
            if not speaks_for_machine():
                return 1  # all who waited for the lost process would say the same
        elif isinstance(error, UsageError | ContentError | OSError):
            let_first_say_it()
        with contextlib.suppress(OSError):  # the code tells, where nothing can be printed
            if debug:
                say_text(traceback.format_exc().rstrip("\n"), file=sys.stderr)
            else:
                notes = getattr(error, "__notes__", ())
                advice = (escaped(note) for note in notes if isinstance(note, Advice))
                print(line, *advice, sep="\n", file=sys.stderr, flush=True)
        return 2 if isinstance(error, UsageError) else 1


def _with_exits(run: Callable[[], int]) -> int:
    """The code of a function that returns it, or ends with it, as a parser does after --help."""
    try:
        return run()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)


def _reader_has_gone(error: Exception) -> bool:
    """Whether the reader of standard output has gone; Windows calls that an invalid argument."""
    return isinstance(error, BrokenPipeError) or (
        sys.platform == "win32"
        and isinstance(error, OSError)
        and error.errno == errno.EINVAL
        and error.filename is None
    )


def _drop_output() -> None:
    """Print what is left, or drop it where that fails, so that Python need not try at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _describe(error: Exception) -> str:
    """One line for the user. An unforeseen error also says how to see more."""
    message = error.at_command_line if isinstance(error, WrongSetting) else str(error)
    text = " ".join(message.split()) or type(error).__name__
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    if isinstance(error, OSError) and error.strerror:
        printed = error.errno in NO_ROOM and not sys.stdout.isatty()  # files have their names
        return f"standard output: {error.strerror}" if printed else error.strerror
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"{text} (installing resnets with all that it depends on brings it)"
    if isinstance(error, ValueError | OSError | ImportError):
        return text
    if type(error).__name__ == "OutOfMemoryError":  # torch's, which is not imported for this
        return f"the memory of the GPU is full: try --device cpu, or smaller images ({text[:80]})"
    return f"{type(error).__name__}: {text} (this should not happen; --debug shows where)"
