import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from resnets.training.cpu import cores, settle_threads

RESIDENT = """
import resource, sys, torch
from pathlib import Path
from resnets.training.cpu import settle_memory
if sys.argv[1] == "settled":
    assert settle_memory()
def resident():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20
before = resident()
activation = torch.ones(24 * 2**18)
held = resident()
del activation
print(held - before, resident() - before)
"""


def resident(how: str) -> list[float]:
    """MiB that a process has while it holds a tensor of 24 MiB, and once it has freed it.

    This size is above any threshold of glibc's defaults, and below the highest that an old one
    takes. What a process has does not depend on the size of a page or the number of cores.
    """
    command = [sys.executable, "-c", RESIDENT, how]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [float(word) for word in done.stdout.split()]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_memory_that_is_freed_stays_with_the_process_for_the_next_step() -> None:
    held, kept = resident("settled")
    assert min(held, kept) >= 20
    held, kept = resident("as it is")
    assert held >= 20
    assert kept <= 4


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
