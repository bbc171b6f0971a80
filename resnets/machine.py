"""Properties of this machine, and the cores and memory that this process may use."""

import ctypes
import os
import platform
import re
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from resnets.errors import UsageError
from resnets.files.reading import read_text

_ROOT = Path("/")
INFO = Path("/proc/cpuinfo")
_DRIVER = Path("/proc/driver/nvidia/version")


MOST_THREADS = 1024  # more than any machine has cores; with a million, OpenMP ends the process


def check_threads(threads: int) -> None:
    """Check a number of threads that compute; 0 stands for a runtime's own choice.

    Raises:
        UsageError: it is negative, or more than any machine can use.
    """
    if not 0 <= threads <= MOST_THREADS:
        raise UsageError(
            f"threads is {threads}; it must be from 0 (the runtime chooses) to {MOST_THREADS:,}"
        )


def settle_threads(threads: int = 0) -> None:
    """Set the number of torch's threads; 0: at most one per core that this process may use.

    torch counts all visible cores, of which a container may use only some; with more threads than
    cores, the threads wait for each other.
    """
    import torch  # prediction with an exported file does not need it

    torch.set_num_threads(threads or min(torch.get_num_threads(), cores()))


def cores(root: Path = _ROOT) -> int:
    """Number of CPU cores that this process may use, a container's quota included.

    Args:
        root: of the file system with the quota; tests pass another one.

    >>> cores() >= 1
    True
    """
    quotas = [round(quota) for quota in _quotas(root)]
    return max(1, min([_runnable_cores(), *quotas]))


def limit_threads() -> None:
    """Apply a container's quota to libraries that are not loaded yet, which do not detect it.

    Sets OMP_NUM_THREADS, unless it is set already. Libraries detect the process's CPU affinity
    themselves.
    """
    if cores() < _runnable_cores():
        os.environ.setdefault("OMP_NUM_THREADS", str(cores()))


def reading_threads() -> int:
    """Number of threads that read and decode files: more than cores, as some wait for the disk.

    The rule of `concurrent.futures`, for the cores that this process may use.
    """
    return min(32, cores() + 4)


def engine_threads(threads: int = 0) -> int:
    """Number of threads to set in a runtime other than torch.

    `threads` if it is not 0. Otherwise 0, the runtime's own choice, which uses one thread per
    physical core; but if this process may use only some of the cores, their number, since runtimes
    do not detect quotas.
    """
    all_cores = os.cpu_count() or 1
    return threads or (cores() if cores() < all_cores else 0)


def _runnable_cores() -> int:
    """Number of cores on which the system may run this process."""
    if sys.platform != "win32" and hasattr(os, "sched_getaffinity"):  # macOS lacks it
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quotas(root: Path) -> Iterator[float]:
    """Quotas of the control groups that contain this process, in cores (cgroups(7)).

    The path of its group is of version 2 or 1, and may be that of the host: then it does not exist
    in the container, whose own group is the root of the tree.
    """
    try:
        groups = read_text(root / "proc/self/cgroup").splitlines()
    except (OSError, ValueError):  # not Linux
        return
    tree = root / "sys/fs/cgroup"
    for number, controllers, path in (line.split(":", 2) for line in groups if ":" in line):
        if number == "0":
            mounts, quota = (tree, tree / "unified"), _quota_v2
        elif "cpu" in controllers.split(","):
            mounts, quota = (tree / controllers, tree / "cpu"), _quota_v1
        else:
            continue
        group = PurePosixPath(path.lstrip("/"))
        if ".." in group.parts:  # a group outside the container's tree
            group = PurePosixPath()
        folders = {mount / part for mount in mounts for part in (group, *group.parents)}
        yield from (share for share in map(quota, folders) if share is not None)


def _quota_v2(folder: Path) -> float | None:
    """Cores by cpu.max: "max 100000", or microseconds of CPU time and of the period."""
    return _share(_words(folder / "cpu.max"))


def _quota_v1(folder: Path) -> float | None:
    """Cores by cpu.cfs_quota_us, -1 for no limit, and cpu.cfs_period_us."""
    return _share(_words(folder / "cpu.cfs_quota_us") + _words(folder / "cpu.cfs_period_us"))


def _share(words: list[str]) -> float | None:
    """Quota by period; None where there is no limit or the values are invalid."""
    if len(words) != 2 or not all(word.isascii() and word.isdecimal() for word in words):
        return None
    time, period = map(int, words)
    return time / period if period else None


def _words(path: Path) -> list[str]:
    """The words of a small file; none if it cannot be read."""
    try:
        return read_text(path).split()
    except (OSError, ValueError):
        return []


# mallopt(3): numbers from glibc's malloc.h
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEEP = 2**30  # bytes, about twice the largest activations of the networks here
_OLD_LIMIT = 2**25  # the highest threshold that glibc before 2.35 accepts


def settle_memory() -> bool:
    """Make this process keep memory that it frees, for reuse in the next step.

    Each training step allocates the same large activations as the one before, and the images that
    a worker decodes are of similar size. glibc returns freed blocks above a threshold to the
    kernel, which clears their pages each time before it hands them out again. This raises the
    thresholds for the lifetime of the process.

    Returns:
        True if the thresholds were raised, False where the C library is not glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    large = mallopt(_MMAP_THRESHOLD, _KEEP) or mallopt(_MMAP_THRESHOLD, _OLD_LIMIT)
    return bool(mallopt(_TRIM_THRESHOLD, _KEEP) and large)


def machine(device: Any = "cpu") -> dict[str, Any]:
    """The machine as a run records it; None for what cannot be determined.

    Args:
        device: torch.device or its name. An NVIDIA GPU adds its name, memory and versions.

    >>> sorted(machine())
    ['cores', 'instructions', 'memory_gib', 'processor', 'system']
    """
    import torch  # here, since benchmarks of other engines need `processor` without torch

    return {
        "processor": processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": cores(),
        "memory_gib": _memory(),
        "system": platform.system(),
    } | (_gpu(torch.device(device)) if torch.device(device).type == "cuda" else {})


def _gpu(device: Any) -> dict[str, Any]:
    """The GPU that a run computes on, and the software by which it does."""
    import torch

    properties = torch.cuda.get_device_properties(device)
    return {
        "gpu": properties.name,
        "gpu_memory_gib": round(properties.total_memory / 2**30, 1),
        "gpu_count": torch.cuda.device_count(),
        "compute_capability": f"{properties.major}.{properties.minor}",
        "driver": _driver_version(_DRIVER),
        "cuda": torch.version.cuda or torch.version.hip,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
    }


def _driver_version(file: Path) -> str | None:
    """The version of NVIDIA's driver, which Linux tells in a file; None elsewhere."""
    words = (_words(file) if file.exists() else [])[:20]  # "... Kernel Module  535.104.05  Sat ..."
    return next((word for word in words if re.fullmatch(r"\d+\.\d+(\.\d+)*", word)), None)


def processor(info: Path = INFO) -> str:
    """The name of the processor."""
    lines = read_text(info).splitlines() if info.exists() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _memory() -> float | None:
    """Main memory in GiB; None where the system does not report it (Windows)."""
    gib = None
    if sys.platform != "win32":
        gib = round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    return gib
