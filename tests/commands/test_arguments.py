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
from resnets.commands.compare import compare
from resnets.commands.convert import convert
from resnets.commands.evaluate import evaluate
from resnets.commands.export import export
from resnets.commands.inspect import inspect
from resnets.commands.predict import predict
from resnets.commands.push import push
from resnets.commands.show import show
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
        (inspect, "--json --model M", "M --json"),
        (show, "--model M --size 32", "M --size 32"),
        (convert, "--to timm --weights M", "M --to timm"),
        (compare, "--model M --model N --data D", "M N D"),
        (compare, "--model M N D", "M N D"),
        (push, "--model M a/b --private", "M a/b --private"),
        (export, "--model=M --to onnx", "M --to onnx"),
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
    ("train digits --epochs -1", "--epochs -1: .* >= 0"),
    ("train digits --learning-rat 1", "did you mean --learning-rate"),
    ("train digits --imgsz large", "--image-size: 'large'"),
    ("find-lr digits --lr fast", "--learning-rate: 'fast'"),
    ("reproduce he2015-table6 --nope", "--nope"),
    ("nope", "nope"),
]


@pytest.mark.parametrize(("words", "pattern"), MISTAKES, ids=[words for words, _ in MISTAKES])
def test_a_mistake_is_told_in_one_line_with_exit_code_2(
    words: str, pattern: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words.split()) == 2
    message = capsys.readouterr().err
    command = words.split()[0]
    assert message.startswith(f"resnets {command}: " if command in COMMANDS else "resnets: ")
    assert message.count("\n") == 1
    assert re.search(pattern, message), message


WRONG = [  # what is typed, and what the line names: the word, and what would do
    ("train digits --epochs", ["--epochs", "value"]),
    ("train digits --epochs --batch-size 3", ["--epochs", "value"]),
    ("train digits --epochs 3.5", ["--epochs", "3.5", "whole number"]),
    ("train digits --log-to wandb --log-to mlflow", ["--log-to", "twice", "all its values"]),
    ("train digits --report=yes", ["--report", "no value", "--no-report"]),
    ("train digits \u2013epochs 3", ["en dash", "type --epochs"]),
    ("predict photo.jpg \u2014json", ["em dash", "type --json"]),
    ("predict photo.jpg \u2212top=3", ["minus", "type --top"]),
    ("train digits -epochs 3", ["-epochs", "two hyphens", "mean --epochs"]),
    ("predict photo.jpg -top 3", ["-top", "two hyphens", "mean --top"]),
    ("train digits --size 3", ["--size", "--image-size", "--batch-size"]),
    ("evaluate M D --out x", ["--out: no such flag"]),
    ("calibrate M D --out x", ["--out: no such flag", "mean --output"]),
    ("train digits --top 3", ["--top", "predict has it"]),
    ("predict photo.jpg --epochs 3", ["--epochs", "train", "have it"]),
    ("train digits more words", ["more", "words", "too many", "train DATA"]),
    ("evaluate M D more", ["more", "too many", "evaluate MODEL DATA"]),
    ("evaluate M", ["DATA is missing", "evaluate MODEL DATA"]),
    ("compare", ["MODEL_A, MODEL_B and DATA are missing"]),
    ("push M", ["OWNER/NAME is missing", "push RUN_OR_MODEL OWNER/NAME"]),
    ("merge", ["FOLDER and --output are missing", "merge FOLDER --output FILE"]),
    ("export M", ["--to is missing", "onnx|openvino|torch|triton"]),
    ("export M --to", ["--to", "value", "onnx|openvino|torch|triton"]),
    ("train digits --log-to nothing", ["--log-to", "'nothing'", "tensorboard, wandb, mlflow"]),
    ("train --log-to wandb digits more", ["more", "too many"]),
    ("export M --type foo", ["--type: no such flag"]),
    ("show --depth 17", ["--depth: no such flag"]),
    ("train digits --pretrained", ["--pretrained", "--from NAME"]),
    ("find-lr digits --pretrained=True", ["--pretrained", "--from NAME"]),
    ("train --resume a --resume b", ["--resume", "twice"]),
]


@pytest.mark.parametrize(("words", "parts"), WRONG, ids=[words for words, _ in WRONG])
def test_the_line_names_the_wrong_word_and_what_would_do(
    words: str, parts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words.split()) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert [part for part in parts if part not in printed.err] == []


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ("--epochs 3 --epochs 5", ["--epochs", "twice", "5 counts, not 3"]),
        ("--lr 0.1 --learning-rate 0.2", ["--learning-rate", "twice", "0.2 counts, not 0.1"]),
        ("--report --no-report", ["--report", "--no-report counts"]),
        ("--epochs 3 --epochs=3", []),
    ],
)
def test_of_a_repeated_flag_the_last_value_counts_and_a_line_says_so(
    words: str, parts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []
    for text in (words, words.rsplit("--", 1)[1]):
        flags = renamed("train", [*(f"--{text}" if text != words else text).split()])
        asked.append(parse_train(["digits", *flags], Arguments(recipe=recipe_of(flags))))
    assert asked[0] == asked[1]
    line = capsys.readouterr().err
    assert line.count("\n") == bool(parts)
    assert [part for part in parts if part not in line] == []


def test_a_file_whose_name_begins_with_a_dash_of_another_kind_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("\u2013top.jpg").touch()
    call = parse(predict, "resnets predict", ["\u2013top.jpg"], config=PLAIN)
    assert call.args == (("\u2013top.jpg",),)


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["evaluate", "", "digits"], "MODEL"),
        (["evaluate", "M", ""], "DATA"),
        (["evaluate", "--batch-size", "3", "M", ""], "DATA"),
        (["export", "", "--to", "onnx"], "MODEL"),
        (["export", "M", "--to", "onnx", "--output", ""], "--output"),
        (["export", "M", "--to", "onnx", "--output="], "--output"),
        (["predict", "photo.jpg", "--parquet", ""], "--parquet"),
        (["convert", "M", "--to", "timm", "--class-names", ""], "--class-names"),
        (["compare", "M", "", "digits"], "MODEL_B"),
        (["bench", "M", ""], "MODEL"),
        (["show", ""], "NETWORK"),
        (["train", "digits", "--from", ""], "--from"),
        (["train", "digits", "--output", ""], "--output"),
        (["train", "--resume", ""], "--resume"),
        (["find-lr", "digits", "--plot", ""], "--plot"),
        (["reproduce", "he2015-table6", "--data", ""], "--data"),
    ],
)
def test_an_empty_word_is_refused_in_one_wording_that_names_the_argument(
    words: list[str], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert f"no value given for {name}: it is empty" in capsys.readouterr().err


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
