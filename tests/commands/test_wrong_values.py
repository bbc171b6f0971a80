"""Values that no command can use: one line that names them and what would do, nothing changed."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from resnets import load
from resnets.commands.parser import parser_of
from resnets.commands.train import Arguments
from resnets.errors import UsageError
from tests.in_process import call

CASES = [  # words, and what the line names
    ("evaluate MODEL digits --threads -2", ["threads is -2", "0"]),
    ("evaluate MODEL digits --diagram x.png", ["--diagram x.png", ".svg"]),
    ("evaluate MODEL digits --batch-size 0", ["batch size 0", "1"]),
    ("predict PHOTO --engine torch --threads 999999", ["threads is 999999", "1,024"]),
    ("train digits --freeze everything", ["--freeze", "everything", "whole number", "all"]),
    ("train digits --batch-size many", ["--batch-size", "many", "whole number", "auto"]),
    ("predict PHOTO --top 1.5", ["--top", "1.5", "whole number"]),
    ("predict MODEL --top x PHOTO", ["--top", "'x'", "whole number"]),
    ("bench --seconds x MODEL", ["--seconds", "'x'", "number"]),
    ("train digits --threads 100000", ["--threads 100000", "1024"]),
    ("train digits --workers 100000", ["--workers 100000", "1024"]),
    ("train digits --freeze 9", ["--freeze 9", "stage from 0"]),
    ("train digits --folds 1", ["--folds 1", "whole number >= 2"]),
    ("train digits --accumulate 1000000", ["--accumulate 1000000", "at most"]),
    ("train digits --milestones 0.5 7", ["--milestones 0.5 7.0", "from 0 to 1"]),
    ("train digits --recipe TEXT", ["TEXT", "no such recipe", "quick", ".toml"]),
    ("train --resume TEXT", ["TEXT", "not the folder of a run"]),
    ("train --resume FOLDER", ["FOLDER", "no run to resume"]),
    ("bench MODEL --threads 100000", ["threads is 100000", "1,024"]),
    ("report MODEL digits --output x.pdf", ["--output x.pdf", ".html"]),
    ("show resnet20 --print --json", ["--print", "--json", "choose one"]),
    ("show FOLDER", ["FOLDER is not the folder of a run"]),
    ("evaluate MODEL digits --cache 10", ["--cache 10", "50GB"]),
    ("bench MODEL --limit soon", ["--limit 'soon'", "20m"]),
    ("doctor digits --images -1", ["--images -1", "0 or more"]),
    ("doctor digits --class-level 2", ["digits", "--class-level"]),
    ("calibrate MODEL digits --output FOLDER", ["--output FOLDER", ".safetensors"]),
    ("export MODEL --to onnx --output FOLDER", ["--output FOLDER", ".onnx"]),
    ("explain MODEL PHOTO --output TEXT", ["TEXT", "not a folder"]),
    ("compare MODEL MODEL digits --output TEXT", ["TEXT", "not a folder"]),
    ("convert MODEL --to huggingface --output TEXT", ["TEXT", "not a folder"]),
    ("reproduce he2015-table6 --rows twenty", ["twenty", "20, 32"]),
    ("help train more", ["more", "too many words"]),
    ("--version more", ["more", "too many words"]),
]


@pytest.mark.parametrize(("words", "parts"), CASES, ids=[words for words, _ in CASES])
def test_a_value_that_cannot_be_used_is_wrong_usage_told_in_a_line(
    words: str,
    parts: list[str],
    untrained: Callable[..., Path],
    tmp_path: Path,
    draw_noise: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    draw_noise(tmp_path / "PHOTO.png")
    (tmp_path / "TEXT").write_text("hello", encoding="utf-8")
    (tmp_path / "FOLDER").mkdir()
    before = sorted(path.name for path in tmp_path.rglob("*"))
    meant = {"MODEL": str(untrained(tuple("0123456789"))), "PHOTO": "PHOTO.png"}
    done = call(*(meant.get(word, word) for word in words.split()))
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.count("\n") == 1
    assert [part for part in parts if part not in done.stderr] == []
    assert sorted(path.name for path in tmp_path.rglob("*")) == before
    assert (tmp_path / "TEXT").read_text(encoding="utf-8") == "hello"


def _numeric_flags() -> list[str]:
    """The flags of train whose help says that a number follows."""
    actions = parser_of(Arguments)._actions
    numbers = [one for one in actions if re.search("INT|FLOAT", str(one.metavar))]
    return [name for one in numbers for name in one.option_strings if name.startswith("--")]


def test_a_bad_number_behind_any_flag_of_train_is_answered_by_the_flag() -> None:
    flags = _numeric_flags()
    assert len(flags) > 40
    for flag in flags:
        done = call("train", "digits", flag, "-7")
        assert done.returncode == 2, flag
        assert f"{flag} -7" in done.stderr or f"{flag}: '-7'" in done.stderr, done.stderr
        assert not re.search("None|unset|integer|tuple|_", done.stderr), done.stderr


def test_python_refuses_a_number_of_threads_that_would_end_the_process(
    untrained: Callable[..., Path],
) -> None:
    with pytest.raises(UsageError, match="999999"):
        load(untrained(tuple("ab")), engine="torch", threads=999_999)


def test_a_resumed_run_stays_in_its_folder_and_says_what_it_does_not_use(tmp_path: Path) -> None:
    run = tmp_path / "run"
    quick = ("--network", "resnet14", "--epochs", "0", "--steps", "1", "--no-report")
    assert call("train", "digits", *quick, "--output", run).returncode == 0
    refused = call("train", "--resume", run, "--output", tmp_path / "other")
    assert refused.returncode == 2
    assert str(run) in refused.stderr
    again = call("train", "--resume", run, "--output", run, "--recipe", "paper")
    assert again.returncode == 0, again.stderr
    assert "--recipe is not used" in again.stderr
