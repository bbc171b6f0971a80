"""Completion, asked of the shells themselves."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from resnets.cli import COMMANDS, main
from resnets.networks import CATALOG

ASK_BASH = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(( $# - 1 ))
spec=$(complete -p resnets); function=${spec##*-F }; ${function% *}
printf '%s\\n' "${COMPREPLY[@]}"
"""
ASK_ZSH = """
compdef() { }; _arguments() { print -rl -- "$@" }; _describe() { }
source $1; print -rl -- ${(Pv)2}
"""
CASES = [
    ("tr", {"train"}),
    ("predict --eng", {"--engine"}),
    ("predict --engine openvino-", {"openvino-gpu", "openvino-npu"}),
    ("train --network resnet2", {name for name in CATALOG if name.startswith("resnet2")}),
    ("show resnet11", {name for name in CATALOG if name.startswith("resnet11")}),
    ("find-lr --learning-r", {"--learning-rate"}),
    ("evaluate photo", {"photo.jpg", "photos"}),
    ("train --recipe p", {"paper", "photo.jpg", "photos"}),
    ("find-lr --recipe im", {"imagenet"}),
    ("--comp", {"--completion"}),
]


def script(shell: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """The script for a shell, in a file, in a folder with something to complete."""
    assert main(["--completion", shell]) == 0
    path = folder / f"completion.{shell}"
    path.write_text(capsys.readouterr().out, encoding="utf-8")
    (folder / "photos").mkdir()
    (folder / "photo.jpg").touch()
    return path


def answer(command: list[str], folder: Path) -> list[str]:
    """The lines that a shell prints without the user's settings."""
    environment = {"HOME": str(folder), "PATH": os.environ["PATH"], "TERM": "dumb"}
    environment |= {name: value for name, value in os.environ.items() if name.startswith("LD_")}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, encoding="utf-8", check=True
    )
    return done.stdout.splitlines()


def found(shell: str) -> str:
    """Where a shell is; skips the test if it is nowhere."""
    return shutil.which(shell) or pytest.skip(f"{shell} is not installed")


def test_bash_completes_commands_flags_choices_and_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bash, path = found("bash"), script("bash", tmp_path, capsys)
    for line, expected in CASES:
        words = ["resnets", *line.split(" ")]
        lines = answer([bash, "--norc", "-c", ASK_BASH, "bash", str(path), *words], tmp_path)
        assert set(lines) == expected, line
    every = answer([bash, "--norc", "-c", ASK_BASH, "bash", str(path), "resnets", ""], tmp_path)
    assert set(every) == set(COMMANDS)


def test_fish_completes_commands_flags_choices_and_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fish, path = found("fish"), script("fish", tmp_path, capsys)
    for line, expected in CASES:
        words = ["--no-config", "-c", f"source {path}; complete -C 'resnets {line}'"]
        lines = answer([fish, *words], tmp_path)
        assert {text.split("\t")[0].rstrip("/") for text in lines} == expected, line
        assert not [text for text in lines if "(required)" in text or "None)" in text]


def test_zsh_reads_the_script_and_finds_each_commands_flags(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    zsh, path = found("zsh"), script("zsh", tmp_path, capsys)
    answer([zsh, "-f", "-n", str(path)], tmp_path)
    for command, flag in (("train", "--learning-rate"), ("find_lr", "--tries")):
        options = f"_shtab_resnets_{command}_options"
        lines = answer([zsh, "-f", "-c", ASK_ZSH, "zsh", str(path), options], tmp_path)
        assert any(line.strip('"').startswith(f"{flag}[") for line in lines)
        assert any("--recipe[" in line and "_recipe" in line.split(":")[-1] for line in lines)
    offer = f"compdef() {{ }}; source {path}; _alternative() {{ print -rl -- $@ }}; "
    lines = answer([zsh, "-f", "-c", f"{offer}_resnets_recipe_or_file"], tmp_path)
    assert any("imagenet" in line for line in lines)
    assert any("_files" in line for line in lines)


def test_another_shell_is_refused_with_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--completion", "tcsh"], ["--completion"]):
        assert main(words) == 2
        message = capsys.readouterr().err
        assert all(shell in message for shell in ("bash", "zsh", "fish"))


def test_completion_does_not_wait_for_torch() -> None:
    code = (
        "import sys; from resnets.cli import main; code = main(['--completion', 'bash']); "
        "sys.exit(code or 'torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=True)
