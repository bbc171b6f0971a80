"""Packed files, unpacked piece by piece and to no more than their own size justifies."""

import io
import struct
import zipfile
import zlib
from gzip import GzipFile
from typing import IO, Any

from resnets.errors import ContentError
from resnets.format import byte_size

SMALL = 1 << 28  # bytes that any packed file may unpack to
FACTOR = 4  # and how many times its own size: weights and photos hardly shrink when packed
PIECE = 1 << 20  # bytes unpacked at a time
MOST_MEMBERS = 200_000  # of an archive; each costs memory before it is looked at


BROKEN_ZIP = (  # what Python's zipfile raises for damaged archives
    *(zipfile.BadZipFile, zlib.error, struct.error, OSError, EOFError),
    *(RuntimeError, ValueError, IndexError, KeyError, StopIteration),
)


class Window(io.RawIOBase):
    """Bytes as an open file, without a copy of them; what is appended to them later is not seen."""

    def __init__(self, content: bytes | bytearray) -> None:
        self.content, self.size, self.position = content, len(content), 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place in it."""
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.size}[whence]
        if origin + offset < 0:
            raise ValueError(f"a place {-origin - offset} bytes before the file")
        self.position = origin + offset
        return self.position

    def tell(self) -> int:
        """The place where it is read next."""
        return self.position

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer as far as the bytes go."""
        end = min(self.size, self.position + len(buffer))
        piece = self.content[self.position : end]
        buffer[: len(piece)] = piece
        self.position += len(piece)
        return len(piece)


def unpacked_limit(packed: int, factor: int = FACTOR) -> int:
    """How many bytes so many packed ones may become."""
    return max(SMALL, factor * packed)


def first_bytes(stream: IO[bytes] | GzipFile, count: int) -> bytearray:
    """The first bytes of a stream, fewer where it ends; a large count alone takes no memory."""
    found = bytearray()
    while piece := stream.read(min(PIECE, count - len(found))):
        found += piece
    return found


def unpacked(stream: IO[bytes] | GzipFile, limit: int) -> bytearray:
    """All that a stream gives, read in pieces.

    Raises:
        ContentError: it is more than `limit` bytes.
    """
    found = first_bytes(stream, limit + 1)
    if len(found) > limit:
        raise ContentError(f"unpacks to more than {byte_size(limit)}; refused")
    return found


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
    if content.count(b"PK\1\2") > MOST_MEMBERS:  # how each entry of the table begins
        raise ContentError(f"a zip archive of more than {MOST_MEMBERS:,} files")
