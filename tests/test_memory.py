import platform
import subprocess
import sys

import pytest

RESIDENT = """
import resource, sys, torch
from pathlib import Path
from resnets.machine import settle_memory
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


@pytest.mark.soak
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_memory_that_is_freed_stays_with_the_process_for_the_next_step() -> None:
    held, kept = resident("settled")
    assert min(held, kept) >= 20
    held, kept = resident("as it is")
    assert held >= 20
    assert kept <= 4
