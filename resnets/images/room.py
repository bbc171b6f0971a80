"""Room in memory for large images: threads wait for it, so that all of them together are bounded.

What an image takes is known from its header, before anything is allocated. A thread that is about
to read or decode a large one waits until there is room, or until it is the only one. Measured as
the peak of resident memory over the number of pixels, by format.
"""

import ctypes
import os
import sys
import threading
from typing import Any

from resnets.errors import ContentError
from resnets.format import byte_size

_SMALL = 1 << 22  # bytes; less is not accounted for: 32 threads of these are 128 MiB
_FOR_FILES = 1 << 28  # bytes of large files that are held to be decoded
_FOR_PIXELS = 3 << 28  # bytes of large images that are decoded, converted and resized
_LARGEST = 1 << 30  # bytes that decoding one image may take
_KEPT = 1 << 29  # bytes of images that are done with, after which the system gets them back
_VERY_LARGE = 1 << 28  # bytes to decode an image, before which it gets them back

USUAL = 8  # bytes a pixel: Pillow's copy with four, and an array or another copy of as many
WEBP = 17  # canvas twice, the frame as bytes, Pillow's copy; an array after that
DEEP = 13  # 32 bits a value: Pillow's copy, the numbers, their grey twice, and an array
UNKNOWN_JPEG = 16  # coefficients of 16 bits where it is progressive


class _Room:
    """So many bytes, for which threads wait.

    Args:
        size: in bytes. Who asks for more gets it when nobody else has any.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.used = 0
        self.changed = threading.Condition()

    def take(self, count: int) -> None:
        """Wait for so many bytes."""
        with self.changed:
            self.changed.wait_for(lambda: not self.used or self.used + count <= self.size)
            self.used += count

    def give(self, count: int) -> None:
        """Let others have them."""
        with self.changed:
            self.used -= count
            self.changed.notify_all()


class _InUse(threading.local):
    """The room that this thread has for the image that it is working on.

    `with IN_USE:` stands around all that is done with an image, from reading its file to where its
    pixels are no longer needed. One thread has room for one image at a time: the next one that it
    reads, or decodes, takes the place of the one before. It never waits for room for a file while
    it has room for pixels, so that threads cannot wait for each other for ever.
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
        """Give back all that this thread has."""
        self.end_pixels()
        if self.file:
            _FILES.give(self.file)
            self.file = 0

    def end_pixels(self) -> None:
        """Give back what this thread has for pixels."""
        if self.pixels:
            _LEFT.add(self.pixels)
            _PIXELS.give(self.pixels)
            self.pixels = 0

    def reading(self, size: int) -> None:
        """Wait for room for the content of a file."""
        self.end()
        if self.depth and size > _SMALL:
            _FILES.take(size)
            self.file = size

    def decoding(self, size: int, what: str) -> None:
        """Wait for room to decode an image.

        Args:
            size: bytes that this takes, up to where the pixels are used.
            what: the image in words, for the error.

        Raises:
            ContentError: it takes more than `_LARGEST`.
        """
        if size > _LARGEST:
            raise ContentError(
                f"{what}: decoding takes about {byte_size(size)}; at most {byte_size(_LARGEST)} "
                "are allowed (make it smaller)"
            )
        self.end_pixels()
        if self.depth and size > _SMALL:
            _PIXELS.take(size)
            self.pixels = size
            if size > _VERY_LARGE:
                _LEFT.clear()


class _Left:
    """What freed images leave to the C library, which keeps it for each thread: glibc's arenas.

    A thread that decoded a large image would keep its memory while another thread decodes the next.
    """

    def __init__(self) -> None:
        self.count = 0
        self.trim: Any = None
        if sys.platform == "linux":
            self.trim = getattr(ctypes.CDLL(None), "malloc_trim", None)

    def add(self, count: int) -> None:
        """So many bytes were freed."""
        self.count += count  # from several threads: about right is enough
        if self.count > _KEPT:
            self.clear()

    def clear(self) -> None:
        """Give to the system what nobody uses."""
        self.count = 0
        if self.trim is not None:
            self.trim(0)


_FILES, _PIXELS, IN_USE, _LEFT = _Room(_FOR_FILES), _Room(_FOR_PIXELS), _InUse(), _Left()


def _after_fork() -> None:
    """Begin anew in a child process: what other threads had, nobody would give back there."""
    for room in (_FILES, _PIXELS):
        room.__init__(room.size)  # type: ignore[misc]
    IN_USE.file = IN_USE.pixels = 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
