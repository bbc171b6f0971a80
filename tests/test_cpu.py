import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from resnets.machine import cores, settle_threads


@pytest.mark.parametrize(
    ("text", "expected"),
    [("50000 100000\n", 1), ("100000 100000\n", 1), ("6400000 100000\n", None), ("max 1\n", None)],
)
def test_a_quota_lowers_the_number_of_cores(
    text: str, expected: int | None, tmp_path: Path
) -> None:
    (tmp_path / "cpu.max").write_text(text, encoding="utf-8")
    everything = cores(tmp_path / "nothing")
    assert cores(tmp_path / "cpu.max") == (expected or everything)


def test_without_a_quota_there_are_as_many_cores_as_the_process_may_run_on(tmp_path: Path) -> None:
    command = "from resnets.machine import cores; print(cores())"
    first = str(min(os.sched_getaffinity(0)))
    pinned = ["taskset", "-c", first, sys.executable, "-c", command]
    assert subprocess.run(pinned, capture_output=True, text=True, check=True).stdout == "1\n"


def test_threads_are_as_asked_and_by_default_no_more_than_cores() -> None:
    before = torch.get_num_threads()
    try:
        settle_threads(3)
        assert torch.get_num_threads() == 3
        settle_threads()
        assert torch.get_num_threads() == min(3, cores())
    finally:
        torch.set_num_threads(before)
