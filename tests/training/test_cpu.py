import os
import platform
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from resnets.training.cpu import cores, settle_threads

FAULTS = """
import resource, sys, torch
from resnets.training.cpu import settle_memory
torch.set_num_threads(1)
if sys.argv[1] == "settled":
    assert settle_memory()
def step():
    return [torch.ones(2**21) for _ in range(4)]  # 8 MiB each
for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(how: str) -> int:
    """Page faults of ten steps that allocate 32 MiB each, counted by the kernel."""
    command = [sys.executable, "-c", FAULTS, how]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_memory_freed_by_one_step_is_used_by_the_next() -> None:
    pages = 10 * 4 * 2**23 // resource.getpagesize()
    assert page_faults("as it is") > 0.9 * pages
    assert page_faults("settled") < 0.1 * pages


@pytest.mark.parametrize(
    ("text", "expected"),
    [("50000 100000\n", 1), ("100000 100000\n", 1), ("6400000 100000\n", None), ("max 1\n", None)],
)
def test_a_quota_lowers_the_number_of_cores(
    text: str, expected: int | None, tmp_path: Path
) -> None:
    (tmp_path / "cpu.max").write_text(text)
    everything = cores(tmp_path / "nothing")
    assert cores(tmp_path / "cpu.max") == (expected or everything)


def test_without_a_quota_there_are_as_many_cores_as_the_process_may_run_on(tmp_path: Path) -> None:
    command = "from resnets.training.cpu import cores; print(cores())"
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
