"""The memory that a server may need, for the limits of service managers.

The numbers were measured as peak resident memory of real processes, after heat maps and after the
largest images that the limits allow; a soak test compares them again.
"""

from resnets.images.memory_budget import most_for_pixels
from resnets.serving.settings import Settings

_MEBIBYTE = 1 << 20
_PARENT = 128 * _MEBIBYTE  # of several processes: it imports no engine
_PROCESS = 640 * _MEBIBYTE  # Python, an engine, and torch, which the first heat map imports
_COPIES = 3  # of the weights: an engine's, with what it computes, and those of heat maps
_MORE_COPIES = 5  # while a file is read that takes the place of another one
_BODIES = 3  # a form, its files, and what the C library has not given back
_FRAME = 256 * 256 * 3  # bytes of an image that waits for its batch
_LABELS = 64 * _MEBIBYTE  # images that wait for a label
_MARGIN = 1.15
_STEP = 64 * _MEBIBYTE  # to which limits are rounded up


def memory_limit(settings: Settings, weights: int) -> int:
    """The most bytes that a server takes: all requests together send what the limits allow.

    Args:
        settings: the limits.
        weights: bytes of the files of all models.
    """
    images = most_for_pixels(settings.max_pixels) + settings.queue * _FRAME
    labels = _LABELS if settings.collect else 0
    requests = images + _BODIES * settings.all_bodies + labels
    more = settings.workers * (requests + _MORE_COPIES * weights)
    return _rounded(_MARGIN * (_started(settings, weights) + more))


def usual_memory(settings: Settings, weights: int) -> int:
    """The bytes that a server takes beside large images; arguments as of `memory_limit`."""
    return _rounded(_MARGIN * _started(settings, weights))


def _started(settings: Settings, weights: int) -> int:
    """The bytes of processes that have made heat maps."""
    parent = _PARENT if settings.workers > 1 else 0
    return parent + settings.workers * (_PROCESS + _COPIES * weights)


def _rounded(size: float) -> int:
    """A size rounded up, so that no limit looks as if it were exact."""
    return -int(-size // _STEP) * _STEP
