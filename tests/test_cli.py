import importlib
import io
import re
import subprocess
import sys

import pytest

from resnets.cli import COMMANDS, main


def resnets(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "resnets", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


def test_help_lists_every_command_without_importing_torch() -> None:
    code = (
        "import sys; from resnets.cli import main; main(['--help']); 'torch' in sys.modules and 1/0"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for name in COMMANDS:
        assert f"\n  {name} " in run.stdout


@pytest.mark.parametrize("command", ["train", "find-lr"])
def test_the_help_of_what_trains_does_not_wait_for_torch(command: str) -> None:
    code = (
        "import atexit, sys; from resnets.cli import main; "
        "atexit.register(lambda: print('torch' in sys.modules)); main([sys.argv[1], '--help'])"
    )
    words = [sys.executable, "-c", code, command]
    run = subprocess.run(words, capture_output=True, text=True, check=True)
    assert "--learning-rate" in run.stdout
    assert run.stdout.endswith("\nFalse\n")


def test_no_command_is_a_usage_error_that_shows_the_commands() -> None:
    run = resnets()
    assert run.returncode == 2
    assert "train" in run.stdout


def test_an_unknown_command_names_the_known_ones() -> None:
    run = resnets("trian")
    assert run.returncode == 2
    assert "trian" in run.stderr
    assert "did you mean train?" in run.stderr
    assert "Traceback" not in run.stderr


def test_version_is_that_of_the_distribution(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("resnets 0.")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_main(name: str) -> None:
    module = importlib.import_module(f"resnets.commands.{name.replace('-', '_')}")
    assert callable(module.main)


def test_an_unknown_flag_is_a_usage_error_of_every_command() -> None:
    """In one process, for the sake of time: most of it is the import of torch."""
    code = """
import sys
from resnets.cli import COMMANDS, main
for name in COMMANDS:
    try:
        code = main([name, "--no-such-flag"])
    except SystemExit as end:
        code = end.code
    print(name, code)
"""
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert run.stdout.splitlines() == [f"{name} 2" for name in COMMANDS], run.stderr
    hints = re.findall(r"run resnets ([\w-]+) --help", run.stderr)  # a missing word comes first
    assert hints == list(COMMANDS), run.stderr
    assert "no-such-flag" in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize("encoding", ["ascii", "cp437"])
def test_a_terminal_without_a_character_gets_its_number(
    encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding))
    assert main(["list"]) == 0
    assert "resnet20" in written.getvalue().decode(encoding)
    assert "\\u2013" in written.getvalue().decode(encoding)
