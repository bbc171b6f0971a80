import errno
import importlib
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from resnets.cli import COMMANDS, main
from tests.in_process import call as resnets
from tests.spread import spread


def test_help_lists_every_command_without_importing_torch() -> None:
    code = (
        "import sys; from resnets.cli import main; main(['--help']); 'torch' in sys.modules and 1/0"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for name in COMMANDS:
        assert f"\n  {name} " in run.stdout


def test_the_help_of_no_command_imports_torch_or_another_slow_library() -> None:
    """All helps in one process, which tells after each what was imported for it."""
    code = """
import contextlib, io, sys
from resnets.cli import COMMANDS, main
for name in COMMANDS:
    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.suppress(SystemExit):
        main([name, "--help"])
    slow = {"torch", "scipy", "sklearn", "matplotlib", "pyarrow", "onnx", "datasets"}
    print(name, "--" in printed.getvalue(), *sorted(slow & {*sys.modules}))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == [f"{name} True" for name in COMMANDS]


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


@pytest.mark.parametrize("name", COMMANDS)
def test_an_unknown_flag_is_a_usage_error_of_every_command(name: str) -> None:
    run = resnets(name, "--no-such-flag")
    assert run.returncode == 2
    assert run.stdout == ""
    assert run.stderr.count("\n") == 1
    assert re.findall(r"\(resnets ([\w-]+) --help", run.stderr) == [name]
    assert re.search("no-such-flag|missing value", run.stderr)


def shell(command: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """A command line whose output goes where it says, with $RESNETS for this program."""
    environment = os.environ | {"RESNETS": f"{sys.executable} -m resnets"} | changes
    return subprocess.run(
        ["sh", "-c", command],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
        check=False,
    )


posix = pytest.mark.skipif(os.name != "posix", reason="redirects as a POSIX shell does")
PRINTING = ("list", "--help", "list --help", "help list", "--version", "show resnet20")


@posix
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("words", spread(PRINTING, every=2))
def test_output_that_finds_no_room_is_one_line_and_exit_code_1(words: str) -> None:
    done = shell(f"$RESNETS {words} > /dev/full")
    assert done.returncode == 1
    assert "standard output: No space left" in done.stderr
    assert done.stderr.count("\n") == 1


@posix
@pytest.mark.parametrize("words", PRINTING[:3])
def test_a_closed_output_is_no_error(words: str) -> None:
    done = shell(f"$RESNETS {words} >&-")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert shell("$RESNETS trian 2>&-").returncode == 2


@posix
@pytest.mark.parametrize(
    "words", spread(["predict photo.jpg --csv", "evaluate model.safetensors digits"])
)
def test_nothing_is_computed_that_a_closed_output_would_lose(words: str) -> None:
    done = shell(f"$RESNETS {words} >&-")
    assert done.returncode == 2
    assert "standard output is closed" in done.stderr


@posix
def test_a_reader_that_has_gone_ends_a_command_quietly_with_the_code_of_the_shell() -> None:
    code = (
        "import os, sys; read, write = os.pipe(); os.close(read); os.dup2(write, 1); "
        "from resnets.cli import main; sys.exit(main(['list']))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (run.returncode, run.stderr) == (128 + 13, b"")


def test_a_reader_that_has_gone_is_an_invalid_argument_on_windows(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> str:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr("resnets.cli._usage", fail)
    assert main(["--help"]) == 1
    assert capsys.readouterr().err == "resnets: Invalid argument\n"
    monkeypatch.setattr(sys, "platform", "win32")
    assert main(["--help"]) == 128 + 13
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp437", "utf-8"])
def test_output_in_an_encoding_that_lacks_a_character_escapes_it(
    encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a console of Windows is redirected, or under LC_ALL=C."""
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, encoding, errors="strict"))
    monkeypatch.setattr("resnets.cli._usage", lambda: "caf\u00e9 \u2192 \u4e2d")
    assert main(["--help"]) == 0
    text = printed.getvalue().decode(encoding)
    assert text.strip().encode(encoding) == "caf\u00e9 \u2192 \u4e2d".encode(
        encoding, "backslashreplace"
    )


def test_help_of_a_command_has_two_spellings(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--help"]) == 0
    expected = capsys.readouterr().out
    assert main(["help", "list"]) == 0
    assert capsys.readouterr().out == expected
    assert main(["help", "lisst"]) == 2
    assert "did you mean list?" in capsys.readouterr().err


def test_a_key_of_an_earlier_version_is_taken_and_told_in_one_line(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("speed = 0.1\n", encoding="utf-8")
    code = (
        "import sys; from resnets import fields; from resnets.cli import main;"
        "fields._RENAMED['Recipe.speed'] = 'learning_rate';"
        f"sys.exit(main(['train', 'nowhere', '--recipe', {str(recipe)!r}]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False
    )
    note, *_, fault = done.stderr.splitlines()
    assert note == "speed is called learning_rate now"
    assert "nowhere" in fault
    assert done.returncode == 2
