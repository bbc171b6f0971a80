"""Which machine this is, how much of it this process may use, and where it may keep things."""

import ctypes
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from resnets.files import read_text

_ROOT = Path("/")
INFO = Path("/proc/cpuinfo")


def settle_threads(threads: int = 0) -> None:
    """Set how many threads torch computes with: so many, or by default at most one per core.

    torch counts the cores that it sees, which in a container may be more than it may use; threads
    beyond that wait for each other.
    """
    import torch  # predicting with an exported file does without it

    torch.set_num_threads(threads or min(torch.get_num_threads(), cores()))


def cores(root: Path = _ROOT) -> int:
    """CPU cores that this process may use: those it may run on, or fewer by a container's quota.

    Args:
        root: of the file system that tells the quota; a test passes another one.

    >>> cores() >= 1
    True
    """
    quotas = [round(quota) for quota in _quotas(root)]
    return max(1, min([_runnable_cores(), *quotas]))


def limit_threads() -> None:
    """Tell libraries that are not loaded yet of a container's quota, which they would not see.

    It is said by OMP_NUM_THREADS, unless that is set already. The cores that the process may run
    on they see themselves.
    """
    if cores() < _runnable_cores():
        os.environ.setdefault("OMP_NUM_THREADS", str(cores()))


def reading_threads() -> int:
    """Threads that read and decode files: some wait for the disk, so a few more than cores.

    It is the rule of `concurrent.futures`, for the cores that this process may use.
    """
    return min(32, cores() + 4)


def engine_threads(threads: int = 0) -> int:
    """How many threads a runtime other than torch is told to compute with.

    Those that were asked for. Else 0, its own choice, which leaves out the second thread of a
    core; unless this process may use only some of the machine's cores: a runtime does not know of
    quotas.
    """
    everything = os.cpu_count() or 1
    return threads or (cores() if cores() < everything else 0)


def _runnable_cores() -> int:
    """Cores that the system may run this process on."""
    if sys.platform != "win32" and hasattr(os, "sched_getaffinity"):  # macOS lacks it
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quotas(root: Path) -> Iterator[float]:
    """Cores' worth of time that each control group around this process allows (cgroups(7)).

    The path of its own group is of version 2 or 1, and may be told as the host sees it: then it
    does not exist in the container, whose own group is the top of the tree.
    """
    try:
        groups = read_text(root / "proc/self/cgroup").splitlines()
    except (OSError, ValueError):  # not Linux
        return
    tree = root / "sys/fs/cgroup"
    for number, controllers, path in (line.split(":", 2) for line in groups if ":" in line):
        if number == "0":
            tops, quota = (tree, tree / "unified"), _quota_v2
        elif "cpu" in controllers.split(","):
            tops, quota = (tree / controllers, tree / "cpu"), _quota_v1
        else:
            continue
        inside = PurePosixPath(path.lstrip("/"))
        if ".." in inside.parts:  # a group outside this container's tree
            inside = PurePosixPath()
        folders = {top / each for top in tops for each in (inside, *inside.parents)}
        yield from (share for share in map(quota, folders) if share is not None)


def _quota_v2(folder: Path) -> float | None:
    """Cores by cpu.max: "max 100000", or microseconds of time in a period of so many."""
    return _share(_words(folder / "cpu.max"))


def _quota_v1(folder: Path) -> float | None:
    """Cores by cpu.cfs_quota_us, -1 for no limit, and cpu.cfs_period_us."""
    return _share(_words(folder / "cpu.cfs_quota_us") + _words(folder / "cpu.cfs_period_us"))


def _share(words: list[str]) -> float | None:
    """Time by period; None where there is no limit or it makes no sense."""
    if len(words) != 2 or not all(word.isascii() and word.isdecimal() for word in words):
        return None
    time, period = map(int, words)
    return time / period if period else None


def _words(path: Path) -> list[str]:
    """Those of a small file; none where it cannot be read."""
    try:
        return read_text(path).split()
    except (OSError, ValueError):
        return []


# mallopt(3): numbers from glibc's malloc.h
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEEP = 2**30  # bytes; the largest activations of the networks here are about half of it
_OLD_LIMIT = 2**25  # the highest threshold that glibc before 2.35 takes


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
    large = mallopt(_MMAP_THRESHOLD, _KEEP) or mallopt(_MMAP_THRESHOLD, _OLD_LIMIT)
    return bool(mallopt(_TRIM_THRESHOLD, _KEEP) and large)


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
        "memory_gib": _memory(),
        "system": platform.system(),
    }


def processor(info: Path = INFO) -> str:
    """What the processor calls itself."""
    lines = read_text(info).splitlines() if info.exists() else []
    named = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def _memory() -> float | None:
    """Main memory in GiB; None where the system does not tell (Windows)."""
    gib = None
    if sys.platform != "win32":
        gib = round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    return gib
