"""What people type: flags between positionals, other projects' names, and mistakes."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import tyro

from resnets.cli import COMMANDS, main
from resnets.commands.arguments import parse, renamed
from resnets.commands.bench import bench
from resnets.commands.evaluate import evaluate
from resnets.commands.predict import predict
from resnets.commands.train import Arguments, recipe_of
from resnets.commands.train import _parse as parse_train

Words = Sequence[str]
PLAIN = (tyro.conf.FlagCreatePairsOff,)


def values(function: Callable[..., object], words: Words) -> dict[str, object]:
    """The arguments that a function would be called with."""
    program = f"resnets {function.__name__}"
    call = parse(function, program, renamed(function.__name__, words), config=PLAIN)
    return dict(call.keywords)


@pytest.mark.parametrize(
    ("function", "words", "usual"),
    [
        (predict, "M --top 2 photo.jpg", "M photo.jpg --top 2"),
        (predict, "M --json photo.jpg", "M photo.jpg --json"),
        (predict, "--top=2 M a.jpg --json b.jpg", "M a.jpg b.jpg --top 2 --json"),
        (predict, "--source photo.jpg --weights M", "M photo.jpg"),
        (predict, "photo.jpg --model=M", "M photo.jpg"),
        (bench, "--threads 2 M", "M --threads 2"),
        (
            bench,
            "--threads 1 2 --engines eager torch M N",
            "M N --threads 1 2 --engines eager torch",
        ),
        (evaluate, "--batch 8 M --csv D", "M D --batch-size 8 --csv"),
        (evaluate, "--data D --model M", "M D"),
        (evaluate, "M --data D", "M D"),
    ],
)
def test_flags_stand_anywhere_and_have_the_names_of_other_projects(
    function: Callable[..., object], words: str, usual: str
) -> None:
    assert values(function, words.split()) == values(function, usual.split())


@pytest.mark.parametrize(
    ("words", "usual"),
    [
        ("digits --lr 0.1 --imgsz 32", "digits --learning-rate 0.1 --image-size 32"),
        ("--epochs 3 digits --batch 64", "digits --epochs 3 --batch-size 64"),
        ("--model resnet14 --weights W --data digits", "digits --network resnet14 --from W"),
        ("--milestones 0.5 0.7 digits", "digits --milestones 0.5 0.7"),
        ("--log-to wandb mlflow digits", "digits --log-to wandb mlflow"),
    ],
)
def test_a_training_is_asked_for_as_elsewhere(words: str, usual: str) -> None:
    asked = []
    for text in (words, usual):
        each = renamed("train", text.split())
        asked.append(parse_train(each, Arguments(recipe=recipe_of(each))))
    assert asked[0] == asked[1]


MISTAKES = [
    ("evaluate", "DATA"),
    ("evaluate M D --nope", "--nope"),
    ("evaluate M D --batch-size many", "--batch-size: 'many'"),
    ("evaluate M D --split sideways", "sideways.* auto, train, validation, test, all"),
    ("evaluate M D --batch-siz 3", "did you mean --batch-size"),
    ("train digits --epochs -1", "epochs is -1"),
    ("train digits --learning-rat 1", "did you mean --learning-rate"),
    ("train digits --imgsz large", "--image-size: 'large'"),
    ("find-lr digits --lr fast", "--learning-rate: 'fast'"),
    ("reproduce he2015-table6 --nope", "--nope"),
    ("nope", "nope"),
]


@pytest.mark.parametrize(("words", "named"), MISTAKES, ids=[words for words, _ in MISTAKES])
def test_a_mistake_is_told_in_one_line_with_exit_code_2(
    words: str, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words.split()) == 2
    message = capsys.readouterr().err
    command = words.split()[0]
    assert message.startswith(f"resnets {command}: " if command in COMMANDS else "resnets: ")
    assert message.count("\n") == 1
    assert re.search(named, message), message


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["export", "model", "--format", "foo"], ["unrecognized", "--format", "--to", "missing"]),
        (["show", "--depth", "17"], ["network", "missing"]),
    ],
)
def test_an_unknown_flag_is_not_called_missing(
    words: list[str], parts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    message = capsys.readouterr().err
    assert all(part in message for part in parts)
    assert "Expected 1 values" not in message


@pytest.mark.parametrize("command", ["predict", "explain", "evaluate", "report", "doctor", "train"])
def test_an_empty_word_is_not_the_current_folder(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """As from a variable of a shell that is not set."""
    monkeypatch.chdir(tmp_path)
    model = [] if command in ("doctor", "train") else ["resnet14_cifar10"]
    assert main([command, *model, ""]) == 2
    assert "given" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
