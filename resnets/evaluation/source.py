"""An image to predict: a file, bytes, pixels, or its place in shards. No torch here.

Shapes: H x W pixels, C channels.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from resnets.errors import ContentError
from resnets.images import Pixels

if TYPE_CHECKING:
    from resnets.data.storage import Readable

_AHEAD = 32  # stored images that are announced together, one such group before it is read
_DIGESTS = 1 << 16  # of images, that are taken at a time


@dataclass(frozen=True)
class StoredImage:
    """An image in shards, which is read when it is needed.

    Attributes:
        storage: the shards.
        row: its index there.
    """

    storage: "Readable"
    row: int

    def read(self) -> bytes | Pixels:
        """The image as it is stored; those behind it are read ahead, where they are remote.

        Raises:
            ContentError: it is damaged; the message does not name it.
            OSError: its remote place cannot be reached.
        """
        if self.row % _AHEAD == 0:
            from resnets.data.storage import expect

            expect(self.storage, range(self.row, min(self.row + 2 * _AHEAD, len(self.storage))))
        return self.storage.read(self.row)


@dataclass(frozen=True)
class Source:
    """An image to predict.

    Attributes:
        name: by which the user finds it.
        content: its path, the bytes of a file, its pixels (H, W, C) uint8 with C of 1, 3 or 4,
            where it is stored, or why it could not be read.
    """

    name: str
    content: Path | bytes | Pixels | StoredImage | ContentError

    def loaded(self) -> Path | bytes | Pixels | ContentError:
        """The content; of a stored image, its bytes. Raises as `StoredImage.read`."""
        return self.content.read() if isinstance(self.content, StoredImage) else self.content


def to_send(sources: Sequence[Source]) -> list[Source]:
    """The same images, for a process elsewhere; of shards only the images' own places go along."""
    from resnets.data.shards import ShardStorage

    sent: list[Source] = []
    for storage, group in groupby(sources, _storage_of):
        some = list(group)
        if isinstance(storage, ShardStorage):
            rows = [each.content.row for each in some if isinstance(each.content, StoredImage)]
            alone = storage.placed(rows)
            some = [Source(each.name, StoredImage(alone, row)) for row, each in enumerate(some)]
        elif storage is not None:  # of others' files: the bytes
            some = [Source(each.name, _bytes_of(each)) for each in some]
        sent += some
    return sent


def stored_digest_of(sources: Sequence[Source]) -> str | None:
    """SHA-256 of what images in shards hold, by the digests in the index; None if none are."""
    from resnets.data.shards import ShardStorage

    total, some = hashlib.sha256(), False
    for storage, group in groupby(sources, _storage_of):
        if isinstance(storage, ShardStorage):
            some = True
            rows = (each.content.row for each in group if isinstance(each.content, StoredImage))
            while piece := list(islice(rows, _DIGESTS)):
                total.update(storage.stored_digests(np.array(piece)).tobytes())
    return total.hexdigest() if some else None


def _bytes_of(source: Source) -> Path | bytes | Pixels | ContentError:
    """An image as it is stored, or why it cannot be read."""
    try:
        return source.loaded()
    except ContentError as error:
        if isinstance(error, OSError):  # of the place, not of the image
            raise
        return error


def _storage_of(source: Source) -> "Readable | None":
    """The shards that an image is in, if it is in any."""
    return source.content.storage if isinstance(source.content, StoredImage) else None
