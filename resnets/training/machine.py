"""Which machine this is: a time or a speed says nothing without it."""

import os
import platform
import sys
from pathlib import Path
from typing import Any

from resnets.files import read_text

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
