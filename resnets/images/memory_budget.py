"""Memory budgets for large images, for which threads wait, so that their total is bounded.

The memory that decoding an image takes is known from its header, before anything is allocated. A
thread that is about to read or decode a large image waits until the budget suffices, or until it is
the only one. The numbers of bytes a pixel were measured as peak resident memory, by format.
"""

import ctypes
import os
import sys
import threading
from typing import Any

from resnets.errors import TooLarge
from resnets.format import byte_size

_THREADS = 32  # that decode, at most
_SMALL = 1 << 22  # bytes; smaller images are not counted: 32 threads of these are 128 MiB
_FOR_FILES = 1 << 28  # bytes of large files in memory to be decoded
_FOR_PIXELS = 3 << 28  # bytes for decoding, converting and resizing large images
_MODEST = 9 << 22  # bytes to decode an image, up to which it need not wait for larger ones
_FOR_MODEST = 1 << 26  # bytes for those, whatever larger ones take
_LARGEST = 1 << 30  # bytes that decoding one image may take
_MOST_FREED = 1 << 29  # bytes of freed images that the C library may keep
_VERY_LARGE = 1 << 28  # bytes to decode an image, before which freed memory is returned

USUAL = 8  # bytes a pixel: Pillow's copy with four, and an array or another copy of as many
WEBP = 17  # canvas twice, the frame as bytes, Pillow's copy; an array after that
HEIC = 12  # libheif's planes and its RGB, Pillow's copy; an array after that
DEEP = 13  # 32 bits a value: Pillow's copy, the numbers, their grey twice, and an array
UNKNOWN_JPEG = 16  # coefficients of 16 bits where it is progressive


class _Budget:
    """A number of bytes that threads share, and for which they wait.

    Args:
        size: in bytes. A larger request is granted when no other thread uses any.
        modest: bytes that requests of at most `_MODEST` may take together, whatever larger ones
            take.
    """

    def __init__(self, size: int, modest: int = 0) -> None:
        self.size, self.modest = size, modest
        self.used = self.used_modestly = 0
        self.changed = threading.Condition()

    def take(self, count: int) -> None:
        """Wait for ``count`` bytes and reserve them."""
        with self.changed:
            self.changed.wait_for(lambda: self._has_room(count))
            self._add(count, 1)

    def give(self, count: int) -> None:
        """Release ``count`` bytes."""
        with self.changed:
            self._add(count, -1)
            self.changed.notify_all()

    def _has_room(self, count: int) -> bool:
        """Whether ``count`` bytes can be reserved now."""
        if not self.used or self.used + count <= self.size:
            return True
        if count <= _MODEST:
            return self.used_modestly + count <= self.modest
        return self.used == self.used_modestly <= self.modest

    def _add(self, count: int, sign: int) -> None:
        """Count what a request takes, or gives back."""
        self.used += sign * count
        if count <= _MODEST:
            self.used_modestly += sign * count


class _InUse(threading.local):
    """The memory reserved by this thread for the image that it is working on.

    `with IN_USE:` encloses all work on an image, from reading its file until its pixels are no
    longer needed. A thread reserves memory for one image at a time: reading or decoding the next
    one releases that of the previous one. It never waits for memory for a file while it holds
    memory for pixels, so that threads cannot deadlock.
    """

    depth = 0
    file = 0
    pixels = 0

    def __enter__(self) -> None:
        self.depth += 1

    def __exit__(self, *_: object) -> None:
        self.depth -= 1
        if not self.depth:
            self.end()

    def end(self) -> None:
        """Release all memory of this thread."""
        self.end_pixels()
        if self.file:
            _FILES.give(self.file)
            self.file = 0

    def end_pixels(self) -> None:
        """Release the memory of this thread for pixels."""
        if self.pixels:
            _FREED.add(self.pixels)
            _PIXELS.give(self.pixels)
            self.pixels = 0

    def reading(self, size: int) -> None:
        """Reserve memory for the content of a file."""
        self.end()
        if self.depth and size > _SMALL:
            _FILES.take(size)
            self.file = size

    def decoding(self, size: int, what: str) -> None:
        """Reserve memory to decode an image.

        Args:
            size: bytes for decoding and using the pixels.
            what: a description of the image, for the error.

        Raises:
            TooLarge: it needs more than `_LARGEST`.
        """
        if size > _LARGEST:
            raise TooLarge(
                f"{what}: decoding takes about {byte_size(size)}; at most {byte_size(_LARGEST)} "
                "are allowed (make it smaller)"
            )
        self.end_pixels()
        if self.depth and size > _SMALL:
            _PIXELS.take(size)
            self.pixels = size
            if size > _VERY_LARGE:
                _FREED.clear()


class _FreedMemory:
    """Freed memory that the C library keeps for each thread (glibc's arenas).

    Without returning it to the system, a thread that decoded a large image would keep its memory
    while another thread decodes the next one.
    """

    def __init__(self) -> None:
        self.count = 0
        self.trim: Any = None
        if sys.platform == "linux":
            self.trim = getattr(ctypes.CDLL(None), "malloc_trim", None)

    def add(self, count: int) -> None:
        """Count freed bytes, and return them to the system if there are many."""
        self.count += count  # without a lock: an approximate count suffices
        if self.count > _MOST_FREED:
            self.clear()

    def clear(self) -> None:
        """Return unused memory to the system."""
        self.count = 0
        if self.trim is not None:
            self.trim(0)


_FILES, _PIXELS, IN_USE, _FREED = (
    _Budget(_FOR_FILES),
    _Budget(_FOR_PIXELS, _FOR_MODEST),
    _InUse(),
    _FreedMemory(),
)


def most_for_pixels(largest: int) -> int:
    """The most bytes that decoding takes at once, by any number of threads.

    Args:
        largest: pixels of an image.
    """
    one = min(WEBP * largest, _LARGEST)
    return max(one, min(_THREADS * one, _FOR_PIXELS)) + _FOR_MODEST


def _after_fork() -> None:
    """Reset the budgets in a child process, where other threads would never release theirs."""
    for room in (_FILES, _PIXELS):
        room.__init__(room.size, room.modest)  # type: ignore[misc]
    IN_USE.file = IN_USE.pixels = 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
