"""Packed files, unpacked in pieces, and only to a size that fits that of the file."""

import io
import struct
import zipfile
import zlib
from gzip import GzipFile
from typing import IO, Any

from resnets.errors import ContentError
from resnets.format import byte_size

_SMALL = 1 << 28  # bytes that any packed file may unpack to
_FACTOR = 4  # or this many times its own size: weights and photos hardly shrink when packed
_PIECE = 1 << 20  # bytes unpacked at a time
_MOST_MEMBERS = 200_000  # of an archive; each costs memory before it is looked at


BROKEN_ZIP = (  # what Python's zipfile raises for damaged archives
    *(zipfile.BadZipFile, zlib.error, struct.error, OSError, EOFError),
    *(RuntimeError, ValueError, IndexError, KeyError, StopIteration),
)


class Window(io.RawIOBase):
    """Bytes as an open file, without a copy; bytes appended later are not part of it."""

    def __init__(self, content: bytes | bytearray) -> None:
        self.content, self.size, self.position = content, len(content), 0

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position."""
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.size}[whence]
        if origin + offset < 0:
            raise ValueError("it ends too early")
        self.position = origin + offset
        return self.position

    def tell(self) -> int:
        """The current position."""
        return self.position

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer as far as the bytes go."""
        end = min(self.size, self.position + len(buffer))
        piece = self.content[self.position : end]
        buffer[: len(piece)] = piece
        self.position += len(piece)
        return len(piece)


def unpacked_limit(packed: int, factor: int = _FACTOR) -> int:
    """How many bytes a packed file of ``packed`` bytes may unpack to."""
    return max(_SMALL, factor * packed)


def first_bytes(stream: IO[bytes] | GzipFile, count: int) -> bytearray:
    """The first bytes of a stream, fewer where it ends; a large count alone takes no memory."""
    content = bytearray()
    while piece := stream.read(min(_PIECE, count - len(content))):
        content += piece
    return content


def unpacked(stream: IO[bytes] | GzipFile, limit: int) -> bytearray:
    """The whole content of a stream, read in pieces.

    Raises:
        ContentError: it is more than `limit` bytes.
    """
    content = first_bytes(stream, limit + 1)
    if len(content) > limit:
        raise ContentError(f"unpacks to more than {byte_size(limit)}; refused")
    return content


def unpacked_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, limit: int) -> bytearray:
    """A file of a zip archive.

    Raises:
        ContentError: it is more than `limit` bytes, or packed in another way than zip's usual one.
    """
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ContentError(f"packed by method {member.compress_type}; zip's usual one is deflate")
    with archive.open(member) as stream:
        return unpacked(stream, limit)


def refuse_many_members(content: bytes | bytearray) -> None:
    """Refuse a zip archive whose table of contents alone would fill the memory.

    Raises:
        ContentError: there are too many files in it.
    """
    if content.count(b"PK\1\2") > _MOST_MEMBERS:  # how each entry of the table begins
        raise ContentError(f"a zip archive of more than {_MOST_MEMBERS:,} files")
