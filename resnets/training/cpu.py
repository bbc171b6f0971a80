"""What makes arithmetic on a CPU faster without changing a result."""

import ctypes
import os
import sys
from pathlib import Path

import torch

# mallopt(3): numbers from glibc's malloc.h
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
KEEP = 2**30  # bytes; the largest activations of the networks here are about half of it
OLD_LIMIT = 2**25  # the highest threshold that glibc before 2.35 takes

QUOTA = Path("/sys/fs/cgroup/cpu.max")  # "max 100000", or microseconds of time in a period


def settle_memory() -> bool:
    """Let this process keep the memory that it frees, for the next step to use.

    Each training step allocates the same large activations as the one before. glibc hands blocks
    above a threshold back to the kernel when they are freed, and the kernel clears each of their
    pages before handing them out again, in every step anew. This raises the thresholds for good.

    Returns:
        Whether it was done: False where the C library is not glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    large = mallopt(MMAP_THRESHOLD, KEEP) or mallopt(MMAP_THRESHOLD, OLD_LIMIT)
    return bool(mallopt(TRIM_THRESHOLD, KEEP) and large)


def settle_threads(threads: int = 0) -> None:
    """Set how many threads compute: so many, or by default at most one per core.

    torch counts the cores that it sees, which in a container may be more than it may use; threads
    beyond that wait for each other.
    """
    torch.set_num_threads(threads or min(torch.get_num_threads(), cores()))


def cores(quota: Path = QUOTA) -> int:
    """Cores that this process may use: those it may run on, or fewer by its container's quota."""
    affinity = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    try:
        time, period = quota.read_text().split()
    except (OSError, ValueError):  # no such quota on this system
        return affinity
    return affinity if time == "max" else max(1, min(affinity, round(int(time) / int(period))))
