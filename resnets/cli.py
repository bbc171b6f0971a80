"""The ``resnets`` command: finds the sub-command, runs it, and turns errors into one clear line."""

import difflib
import importlib
import io
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib.metadata import version

from resnets.errors import UsageError
from resnets.escaping import escaped
from resnets.machine import limit_threads

COMMANDS = {  # name: what it does; its code is in resnets/commands/NAME.py
    "list": "print the networks that have a name",
    "show": "print a network's parts, what they cost and what was published",
    "inspect": "tell whose checkpoint a file is, and which network it holds",
    "convert": "write a checkpoint under another project's names",
    "export": "write a network as a checked file for ONNX Runtime, OpenVINO or PyTorch",
    "train": "train a network on labelled images",
    "find-lr": "try learning rates from tiny to far too large and suggest one",
    "doctor": "find broken, odd and repeated images and unsound classes before training",
    "predict": "tell what is on images, with calibrated probabilities",
    "explain": "show where in images a network sees what it says",
    "evaluate": "measure a network on labelled images, with intervals",
    "calibrate": "fit temperature and thresholds anew on your own images, without training",
    "report": "write a page that says whether to rely on a network, and why",
    "reproduce": "train a published experiment again and show the figures side by side",
    "bench": "measure latency and throughput of a network by engine, batch size and threads",
    "compare": "tell whether one network is better than another, by how much and where",
}

SIGPIPE = 13  # the number of the signal on POSIX; Windows has no name for it

USAGE = """usage: resnets COMMAND [ARGUMENTS ...]

{commands}

resnets COMMAND --help tells what a command takes. --debug shows the traceback of an error.
resnets --completion bash (or zsh, fish) prints a script that completes commands and flags; into
~/.local/share/bash-completion/completions/resnets, or a file _resnets on zsh's fpath, or
~/.config/fish/completions/resnets.fish with it.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the words after ``resnets``; those of this process by default.

    Returns:
        The exit code: 0, 1 for a fault, 2 for wrong usage, 130 when interrupted.
    """
    escape_what_cannot_be_printed()
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if words else 2
    if words[0] in ("-V", "--version"):
        print(f"resnets {version('resnets')}")
        return 0
    if words[0] == "--completion":
        return guarded("--completion", lambda: print_completion(words[1:]), debug)
    return call(words[0], words[1:], debug)


def escape_what_cannot_be_printed() -> None:
    r"""Print a character that the terminal's encoding lacks as \uXXXX, as in Windows' old ones."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def usage() -> str:
    """The list of commands, for ``resnets --help``."""
    widest = max(map(len, COMMANDS))
    rows = [f"  {name:{widest}}  {what}" for name, what in COMMANDS.items()]
    return USAGE.format(commands="\n".join(rows)).rstrip()


def print_completion(shells: Sequence[str]) -> int:
    """Print the script by which a shell completes what this command takes."""
    from resnets.commands.completion import completion

    print(completion(" ".join(shells), COMMANDS))
    return 0


def call(name: str, argv: Sequence[str], debug: bool) -> int:
    """Run the command ``name``, if there is one."""
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(COMMANDS)}"
        print(f"resnets: no command {name!r}; {hint}", file=sys.stderr)
        return 2
    limit_threads()
    module = importlib.import_module(f"resnets.commands.{name.replace('-', '_')}")
    return guarded(name, lambda: module.main(list(argv)), debug)


def guarded(name: str, run: Callable[[], int], debug: bool) -> int:
    """The exit code of a command; what it raises is reported in one line."""
    try:
        code = run()
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:  # the reader of our output has gone, as with `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + SIGPIPE
    except Exception as error:
        if debug:
            traceback.print_exc()
        else:
            print(escaped(f"resnets {name}: {describe(error)}"), file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1


def describe(error: Exception) -> str:
    """One line for a person. An error that nobody foresaw also says how to see more."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"{text} (installing resnets with all that it depends on brings it)"
    if isinstance(error, ValueError | OSError | ImportError):
        return text
    return f"{type(error).__name__}: {text} (this should not happen; --debug shows where)"
