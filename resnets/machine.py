"""Which machine this is: a time or a speed says nothing without it."""

import ctypes
import os
import platform
import sys
from pathlib import Path
from typing import Any

from resnets.files import read_text

QUOTA = Path("/sys/fs/cgroup/cpu.max")  # "max 100000", or microseconds of time in a period


def settle_threads(threads: int = 0) -> None:
    """Set how many threads compute: so many, or by default at most one per core.

    torch counts the cores that it sees, which in a container may be more than it may use; threads
    beyond that wait for each other.
    """
    import torch  # predicting with an exported file does without it

    torch.set_num_threads(threads or min(torch.get_num_threads(), cores()))


def cores(quota: Path = QUOTA) -> int:
    """Cores that this process may use: those it may run on, or fewer by its container's quota."""
    if sys.platform == "linux":
        affinity = len(os.sched_getaffinity(0))
    else:
        affinity = os.cpu_count() or 1
    try:
        time, period = read_text(quota).split()
    except (OSError, ValueError):  # no such quota on this system
        return affinity
    return affinity if time == "max" else max(1, min(affinity, round(int(time) / int(period))))


# mallopt(3): numbers from glibc's malloc.h
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
KEEP = 2**30  # bytes; the largest activations of the networks here are about half of it
OLD_LIMIT = 2**25  # the highest threshold that glibc before 2.35 takes


def settle_memory() -> bool:
    """Let this process keep the memory that it frees, for the next step to use.

    Each training step allocates the same large activations as the one before, and each image that
    a worker decodes is about as large as the last. glibc hands blocks above a threshold back to
    the kernel when they are freed, and the kernel clears each of their pages before handing them
    out again, every time anew. This raises the thresholds for good.

    Returns:
        Whether it was done: False where the C library is not glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    large = mallopt(MMAP_THRESHOLD, KEEP) or mallopt(MMAP_THRESHOLD, OLD_LIMIT)
    return bool(mallopt(TRIM_THRESHOLD, KEEP) and large)


INFO = Path("/proc/cpuinfo")


def machine() -> dict[str, Any]:
    """What a run writes down of the machine that it runs on; None where that cannot be told.

    >>> sorted(machine())
    ['cores', 'instructions', 'memory_gib', 'processor', 'system']
    """
    import torch  # which a benchmark of other engines, that asks for the processor, does without

    return {
        "processor": processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": cores(),
        "memory_gib": memory(),
        "system": platform.system(),
    }


def processor(info: Path = INFO) -> str:
    """What the processor calls itself."""
    lines = read_text(info).splitlines() if info.exists() else []
    named = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def memory() -> float | None:
    """Main memory in GiB; None where the system does not tell (Windows)."""
    gib = None
    if sys.platform != "win32":
        gib = round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    return gib
