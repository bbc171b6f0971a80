import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from resnets.cli import main
from tests.in_process import call_script

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "ray_predict.py"


class InThisProcess:
    """Stands for a process: the command runs here, but for Ray's, which is only noted."""

    seen: list[list[str]]

    def __init__(self, line: list[str], **_: Any) -> None:
        self.seen.append(line[3:])
        self.returncode = 0 if "--on" in line else main(line[3:])

    def communicate(self) -> tuple[None, str]:
        return None, "failed"


def test_the_ways_take_turns_and_a_run_that_was_ended_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    InThisProcess.seen = []
    monkeypatch.setattr(subprocess, "Popen", InThisProcess)
    file = tmp_path / "ray.json"
    words = ("--images", 12, "--processes", 2, "--json-file", file)
    assert call_script(SCRIPT, *words, "--rounds", 1).returncode == 0
    lines = InThisProcess.seen
    assert [("--part" in line, "--on" in line) for line in lines] == [
        *((False, False), (True, False), (True, False), (False, True)),
    ]
    assert call_script(SCRIPT, *words, "--rounds", 1).returncode == 0
    assert len(lines) == 4
    seconds = json.loads(file.read_text(encoding="utf-8"))["seconds"]
    assert {way: len(values) for way, values in seconds.items()} == {
        **{"one process": 1, "processes": 1, "ray": 1},
    }
    other = call_script(SCRIPT, "--images", 13, "--json-file", file)
    assert (other.returncode, "other settings" in other.stderr) == (1, True)
