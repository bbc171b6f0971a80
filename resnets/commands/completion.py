"""``resnets --completion``: a script by which a shell completes commands, flags and their values.

The flags come from the signatures that make them, so no list of them is kept; torch is not loaded.
"""

import argparse
import importlib
from collections.abc import Mapping

import shtab
import tyro

from resnets.commands.help_text import meaning_of
from resnets.commands.parser import parser_of
from resnets.errors import UsageError
from resnets.networks import CATALOG
from resnets.training.named_recipes import RECIPES

_SHELLS = ("bash", "zsh", "fish")
_NAMES = " ".join(RECIPES)
_RECIPE_OR_FILE = {  # bash marks folders where a function has "file" in its name
    "bash": "_resnets_recipe_or_file",
    "zsh": "_resnets_recipe_or_file",
    "fish": f"{_NAMES} (__fish_complete_path (commandline -ct))",
    "preamble": {
        "bash": (
            f'_resnets_recipe_or_file() {{ compgen -W "{_NAMES}" -- "$1"; compgen -f -- "$1"; }}'
        ),
        "zsh": (
            "_resnets_recipe_or_file() { "
            f"_alternative 'recipes:recipe:({_NAMES})' 'files:file:_files'; }}"
        ),
    },
}


def completion(shell: str, commands: Mapping[str, str]) -> str:
    """A script for one of `_SHELLS`.

    Args:
        shell: its name.
        commands: what each command does, by its name.

    Raises:
        UsageError: there is no script for this shell.
    """
    if shell not in _SHELLS:
        allowed = " or ".join(_SHELLS)
        raise UsageError(f"{shell or 'no shell'!r} is not one of the shells: give {allowed}")
    parser = argparse.ArgumentParser("resnets")
    parser.add_argument("--version", action="store_true", help="print the version")
    parser.add_argument("--completion", choices=_SHELLS, help="print a script like this one")
    added = parser.add_subparsers()
    for name, purpose in commands.items():
        parents = [_parser(name)]  # which have a --help of their own
        added.add_parser(name, parents=parents, add_help=False, help=purpose)
    return shtab.complete(parser, shell)


def _parser(name: str) -> argparse.ArgumentParser:
    """The flags of a command, whose values have choices or may be files."""
    module = importlib.import_module(f"resnets.commands.{name.replace('-', '_')}")
    function = getattr(module, "Arguments", None) or getattr(module, name.replace("-", "_"))
    parser = parser_of(function, config=(tyro.conf.FlagCreatePairsOff,))
    names = {name for action in parser._actions for name in action.option_strings}
    for action in parser._actions:
        _describe(action)
        if action.help:
            action.help = meaning_of(action, names, short=True)
    return parser


def _describe(action: argparse.Action) -> None:
    """Say what an argument takes: a network of the catalog, a recipe, a number or a file."""
    metavar = str(action.metavar)
    if "--recipe" in action.option_strings:
        action.complete = _RECIPE_OR_FILE  # type: ignore[attr-defined]
    elif "NETWORK" in metavar or "--network" in action.option_strings:
        action.choices = tuple(CATALOG)
    elif action.nargs != 0 and not action.choices and not metavar.endswith(("INT", "FLOAT")):
        action.complete = shtab.FILE  # type: ignore[attr-defined]
