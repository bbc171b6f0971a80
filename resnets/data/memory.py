"""Memory that one batch freed serves the next one, where the C library would give it back."""

import ctypes
import sys

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
