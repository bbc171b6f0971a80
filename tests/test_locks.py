"""One process at a time works in a folder; others are real processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from resnets.errors import FolderInUse
from resnets.locks import LOCK, locked

TRIES = """
import sys
from pathlib import Path
from resnets.errors import FolderInUse
from resnets.locks import locked
try:
    with locked(Path(sys.argv[1])):
        print("alone")
except FolderInUse as error:
    print(error)
"""


def from_outside(folder: Path) -> str:
    """What another process finds that tries to work in the folder."""
    words = [sys.executable, "-c", TRIES, str(folder)]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("numbers_change", [False, True])
def test_others_are_kept_out_until_it_ends_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, numbers_change: bool
) -> None:
    """Also on a mount that numbers a file anew each time that it is looked at."""
    if numbers_change:
        monkeypatch.setattr(os.path, "samestat", lambda *_: False)
    with locked(tmp_path):
        assert "in use by another process" in from_outside(tmp_path)
    assert not (tmp_path / LOCK).exists()
    assert from_outside(tmp_path) == "alone"


def test_a_killed_process_keeps_nobody_out(tmp_path: Path) -> None:
    program = TRIES.replace('print("alone")', 'print("alone", flush=True); sys.stdin.read()')
    words = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "alone\n"
        with pytest.raises(FolderInUse), locked(tmp_path):
            pass
        other.kill()
        other.wait()
    with locked(tmp_path):
        assert "in use" in from_outside(tmp_path)
