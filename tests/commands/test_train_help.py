"""`resnets train --help` fits a screen; `--help-all` has every flag of the parser."""

import subprocess
import sys
from dataclasses import replace

import pytest

from resnets.cli import main
from resnets.commands.help_text import flags_of
from resnets.commands.train import Arguments
from resnets.commands.train_help import _TOPICS, _USUAL, train_help
from resnets.training.recipe import Recipe


def test_every_flag_has_just_one_topic_or_is_named_where_it_also_belongs() -> None:
    flags = set(flags_of(Arguments, Arguments()))
    assert flags == {name for names in _TOPICS.values() for name in names}
    assert set(_USUAL) < flags


def test_help_fits_a_screen_and_leads_to_the_rest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--help"]) == 0
    text = capsys.readouterr().out
    assert len(text.splitlines()) <= 50
    assert "--budget" in text
    assert "--help-all" in text
    assert "--policy-magnitude" not in text


def test_help_of_all_flags_shows_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--help-all"]) == 0
    text = capsys.readouterr().out
    missing = [
        name
        for name in flags_of(Arguments, Arguments())
        if name.startswith("--") and name not in text
    ]
    assert not missing


def test_topics_of_a_few_lines_fit_a_screen_each() -> None:
    text = train_help(Arguments, Arguments(), everything=True)
    topics = text.split("\n\n")
    assert max(len(topic.splitlines()) for topic in topics) <= 48


def test_defaults_are_those_of_the_recipe_that_is_named() -> None:
    default = Arguments(recipe=replace(Recipe(), epochs=123))
    assert "(default: 123)" in train_help(Arguments, default)


def test_help_does_not_wait_for_torch() -> None:
    code = "import sys; from resnets.cli import main; main(['train', '--help'])\n"
    code += "sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
