import os
import pty
import re
import subprocess
import sys

import pytest

from resnets.commands.tables import print_table

ROWS = [("total", 25557032, "one"), ("–", 7, "two")]


def test_a_pipe_gets_plain_aligned_columns(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("what", "number", "word"), ROWS, title="Figures")
    assert capsys.readouterr().out.splitlines() == [
        "Figures",
        "what       number  word",
        "total  25,557,032  one",
        "–               7  two",
    ]


def terminal(words: list[str], columns: int) -> str:
    """What a command prints to a terminal, without colours."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm"}
    command = [sys.executable, "-m", "resnets", *words]
    process = subprocess.Popen(command, stdout=theirs, env=environment)
    os.close(theirs)
    chunks = []
    try:
        while chunk := os.read(ours, 65536):
            chunks.append(chunk)
    except OSError:  # how Linux says that the other end is closed
        pass
    finally:
        os.close(ours)
    assert process.wait(timeout=300) == 0
    return re.sub(r"\x1b\[[0-9;]*m", "", b"".join(chunks).decode())


def test_a_terminal_of_80_columns_shows_every_figure_in_full() -> None:
    printed = terminal(["show", "resnet101"], 80)
    assert "…" not in printed
    assert "44,549,160" in printed
    table = [line for line in printed.splitlines() if line.startswith(" ")]
    assert max(map(len, table)) <= 80


def test_a_narrow_terminal_wraps_only_the_last_column() -> None:
    printed = terminal(["list", "rs200"], 80)
    assert "…" not in printed.split("\n\n")[0]
    words = printed.split()
    for word in ("resnetrs200", "93.2", "20.2", "deep_strided,", "reduction"):
        assert word in words
