"""A digest in the file's own header, by which readers notice damage.

SHA-256 (FIPS 180-4) of the whole file, with zeros in place of the digest itself, and of the files
that belong to it, such as OpenVINO's .bin. It detects bad disks and interrupted copies; it is no
protection from an attacker, who would write another digest.
"""

import hashlib
import mmap
from pathlib import Path
from typing import IO

from resnets.errors import ContentError
from resnets.files.reading import open_input

DIGEST = "digest"  # the key in the header of a file
KIND = "sha256:"
_LARGEST = 2**40  # bytes of a file
UNSTAMPED = KIND + "0" * 64  # in a header whose file is not stamped yet


def stamped(content: bytes, *others: bytes | memoryview) -> bytes:
    """The bytes of a file with the digest in the place of its first `UNSTAMPED`.

    Args:
        content: the file; its header contains `UNSTAMPED`.
        others: what belongs to it.
    """
    place = content.index(UNSTAMPED.encode())
    digest = KIND + _digest(content, place, *others)
    return content[:place] + digest.encode() + content[place + len(UNSTAMPED) :]


def stamp(file: IO[bytes]) -> None:
    """Put the digest into a file that is open and whole, in the place of its last `UNSTAMPED`."""
    file.flush()
    with mmap.mmap(file.fileno(), 0) as content:
        place = content.rfind(UNSTAMPED.encode())
        content[place : place + len(UNSTAMPED)] = (KIND + _digest(content, place)).encode()


def matches(content: bytes | mmap.mmap, digest: str, *others: bytes | memoryview) -> bool:
    """Whether a file is unchanged since it was stamped with this digest."""
    place = content.find(digest.encode())
    if not digest.startswith(KIND) or len(digest) != len(UNSTAMPED) or place < 0:
        return False
    return KIND + _digest(content, place, *others) == digest


def verify(
    content: bytes | mmap.mmap, digest: str | None, source: object, *others: bytes | memoryview
) -> None:
    """Refuse a file that has changed since it was written.

    Args:
        content: its bytes.
        digest: from its header; None in files of earlier versions, which are not checked.
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
    """`verify` for a file on the disk, which is mapped rather than copied into memory.

    Raises:
        OSError: it cannot be read.
        ContentError: it has changed since it was written.
    """
    if digest is None:
        return
    with (
        open_input(path, _LARGEST) as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        verify(content, digest, path)


def _digest(content: bytes | mmap.mmap, place: int, *others: bytes | memoryview) -> str:
    """The digest of a file whose header has it at `place`, and of what belongs to the file."""
    sha256 = hashlib.sha256()
    with memoryview(content) as view:
        for part in (view[:place], UNSTAMPED.encode(), view[place + len(UNSTAMPED) :], *others):
            sha256.update(part)
            if isinstance(part, memoryview):
                part.release()
    return sha256.hexdigest()
