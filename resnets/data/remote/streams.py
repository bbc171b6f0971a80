"""Whole remote files, read from front to back; the next pieces are fetched meanwhile."""

import io
import os
from collections.abc import Sequence
from typing import Any, Protocol

from resnets.data.remote.ranges import Place

_PIECE = 4 << 20  # bytes that one request fetches
_FEW = 4096  # bytes that are fetched elsewhere than in the part that is read
_AHEAD = 4  # pieces that are fetched before they are needed


class _Folder(Protocol):
    """A folder whose files are read by ranges."""

    def expect(self, places: Sequence[Place]) -> None:
        """These are read soon, in this order."""

    def read(self, place: Place) -> bytes:
        """The bytes of a place."""


class RemoteStream(io.RawIOBase):
    """A remote file of a known size.

    Args:
        folder: of the file.
        name: of the file.
        size: in bytes.
        part: which bytes will be read, all by default; nothing else is fetched before it is needed.
    """

    def __init__(self, folder: _Folder, name: str, size: int, part: range | None = None) -> None:
        super().__init__()
        self.folder, self.file, self.size = folder, name, size
        self.part = range(size) if part is None else part
        self.position = 0
        self.start, self.piece = 0, b""  # what was fetched last

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """The offset of the byte that is read next."""
        return self.position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to an offset, which is returned; nothing is fetched."""
        before = {os.SEEK_SET: 0, os.SEEK_CUR: self.position, os.SEEK_END: self.size}[whence]
        self.position = max(0, before + offset)
        return self.position

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer as far as the fetched piece goes. Raises RemoteError."""
        if self.position >= self.size:
            return 0
        if not 0 <= self.position - self.start < len(self.piece):
            self._fetch()
        first = self.position - self.start
        data = self.piece[first : first + len(buffer)]
        buffer[: len(data)] = data
        self.position += len(data)
        return len(data)

    def pieces(self) -> list[Place]:
        """Of what its part is fetched, in order."""
        end = self.part.stop
        return [Place(self.file, at, min(_PIECE, end - at)) for at in self.part[::_PIECE]]

    def _fetch(self) -> None:
        """Fetch the piece at the position, and begin with those behind it."""
        if self.position in self.part:
            number = (self.position - self.part.start) // _PIECE
            pieces = self.pieces()[number : number + _AHEAD + 1]
        else:
            few = min(_FEW, self.size - self.position)
            pieces = [Place(self.file, self.position, few)]
        self.folder.expect(pieces)
        self.start, self.piece = pieces[0].offset, self.folder.read(pieces[0])
