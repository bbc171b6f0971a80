"""A digest that stands in the very file that it is of, by which damage is seen on reading.

SHA-256 (FIPS 180-4) of the whole file, with zeros where the digest itself stands, and of what
belongs to the file, such as OpenVINO's .bin. It tells what a bad disk or an interrupted copy
did; it is no protection from an attacker, who would write another digest.
"""

import hashlib
import mmap
from pathlib import Path

from resnets.errors import ContentError
from resnets.files import open_input

DIGEST = "digest"  # the key in the header of a file
KIND = "sha256:"
LARGEST = 2**40  # bytes of a file
UNSTAMPED = KIND + "0" * 64  # what a header says before its file is stamped


def stamped(content: bytes, *others: bytes | memoryview) -> bytes:
    """The bytes of a file with the digest in the place of its first `UNSTAMPED`.

    Args:
        content: the file; its header says `UNSTAMPED`.
        others: what belongs to it.
    """
    place = content.index(UNSTAMPED.encode())
    found = KIND + _digest(content, place, *others)
    return content[:place] + found.encode() + content[place + len(UNSTAMPED) :]


def matches(content: bytes | mmap.mmap, digest: str, *others: bytes | memoryview) -> bool:
    """Whether a file is what it was when it was stamped with this digest."""
    place = content.find(digest.encode())
    if not digest.startswith(KIND) or len(digest) != len(UNSTAMPED) or place < 0:
        return False
    return KIND + _digest(content, place, *others) == digest


def verify(
    content: bytes | mmap.mmap, digest: str | None, source: object, *others: bytes | memoryview
) -> None:
    """Refuse a file that is not what it was when it was written.

    Args:
        content: its bytes.
        digest: what its header says; None in files of earlier versions, which are not checked.
        source: the file, for the message.
        others: what belongs to it.

    Raises:
        ContentError: it has changed since.
    """
    if digest is not None and not matches(content, digest, *others):
        raise ContentError(
            f"{source}: damaged: its content does not match the digest in its header (copy or "
            "download it again, or write it anew)"
        )


def verify_file(path: str | Path, digest: str | None) -> None:
    """The same of a file on the disk, which is mapped and not copied into memory.

    Raises:
        OSError: it cannot be read.
        ContentError: it has changed since it was written.
    """
    if digest is None:
        return
    with (
        open_input(path, LARGEST) as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        verify(content, digest, path)


def _digest(content: bytes | mmap.mmap, place: int, *others: bytes | memoryview) -> str:
    """Of a file whose own digest begins at `place`, and of what belongs to it."""
    found = hashlib.sha256()
    with memoryview(content) as view:
        for part in (view[:place], UNSTAMPED.encode(), view[place + len(UNSTAMPED) :], *others):
            found.update(part)
            if isinstance(part, memoryview):
                part.release()
    return found.hexdigest()
