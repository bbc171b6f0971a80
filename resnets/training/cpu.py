"""How many cores this process may use, and how many threads compute."""

import os
import sys
from pathlib import Path

import torch

from resnets.files import read_text

QUOTA = Path("/sys/fs/cgroup/cpu.max")  # "max 100000", or microseconds of time in a period


def settle_threads(threads: int = 0) -> None:
    """Set how many threads compute: so many, or by default at most one per core.

    torch counts the cores that it sees, which in a container may be more than it may use; threads
    beyond that wait for each other.
    """
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
