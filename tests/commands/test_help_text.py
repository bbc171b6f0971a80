"""`--help` of every command: each flag of the parser, plainly, in the width of the terminal."""

import importlib
import re

import pytest
import tyro

from resnets.cli import COMMANDS, main
from resnets.commands.parser import parser_of

WITH_RECIPE = ("train", "find-lr")


def help_of(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(list(words)) == 0
    return capsys.readouterr().out


@pytest.fixture(autouse=True)
def _columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_flag_of_the_parser_is_there(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = importlib.import_module(f"resnets.commands.{name.replace('-', '_')}")
    target = getattr(module, "Arguments", None) or getattr(module, name.replace("-", "_"))
    parser = parser_of(target, config=(tyro.conf.FlagCreatePairsOff,))
    words = re.findall(r"--[a-z][\w-]*", help_of(capsys, name, "--help-all"))
    for action in parser._actions:
        assert set(action.option_strings) - {"-h", "--help"} <= set(words)


@pytest.mark.parametrize("word", ["--help", "--help-all"])
@pytest.mark.parametrize("name", COMMANDS)
def test_it_is_plain_text_of_80_columns(
    name: str, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = help_of(capsys, name, word)
    assert max(map(len, text.splitlines())) <= 80
    assert text.isascii()  # no frames
    assert not re.search(
        r"None\b|\(default: *\)|\bSTR\b|\bINT\b|\bFLOAT\b|\(required\)|[a-z]_[a-z]+_", text
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_what_is_said_of_a_flag_begins_with_what_it_is(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A docstring's "threads: that compute" has no subject under `--threads N`."""
    text = help_of(capsys, name, "--help-all")
    first_words = re.findall(r"^  -\S.*?(?:  +|\n +)(\w+)", text, re.MULTILINE)
    assert len(first_words) == len(re.findall(r"^  -", text, re.MULTILINE))
    assert not {"that", "of", "whose"} & {word.lower() for word in first_words}


@pytest.mark.parametrize("name", COMMANDS)
def test_it_fits_a_screen(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(help_of(capsys, name, "--help").splitlines()) <= 64


@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - {*WITH_RECIPE, "serve"}))
def test_short_and_long_help_differ_only_where_there_is_more(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert help_of(capsys, name, "--help") == help_of(capsys, name, "--help-all")


def test_what_is_needed_is_in_the_usage(capsys: pytest.CaptureFixture[str]) -> None:
    usage = help_of(capsys, "export", "-h").partition("\n\n")[0]
    assert re.match(r"usage: resnets export MODEL --to \S*onnx\S* \[FLAGS\]", usage)


def test_help_is_asked_for_anywhere_but_after_two_dashes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert "resnet20" not in help_of(capsys, "show", "resnet20", "--help")
    assert main(["show", "--", "--help"]) == 2
