"""Decoding every image of a data set: which cannot be read, which are unusual, fingerprints."""

from collections.abc import Callable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath

import numpy as np

from resnets.data.labelled import LabelledImages
from resnets.data.shards import ShardStorage
from resnets.data.storage import Pixels, Storage, expect, in_threads, reads_ahead
from resnets.errors import ContentError
from resnets.evaluation.doctor.duplicates import Fingerprints, concatenated, fingerprints
from resnets.evaluation.logits import Booleans, Integers
from resnets.images import Probe, White, decode, from_pixels, probe, read_deep
from resnets.images.memory_budget import IN_USE
from resnets.images.probing import ENDINGS
from resnets.images.white import Clipped, clipped

_CHUNK = 64  # images that a thread decodes at a time
_KEPT = 256 << 20  # bytes of a sample that are kept until its images are decoded
Content = bytes | Pixels  # of an image, as its storage has it


@dataclass(frozen=True)
class Inspected:
    """What was found in a split of a data set. M of its N images can be read.

    Attributes:
        images: all N.
        unreadable: index and reason of each image that cannot be read.
        readable: (M,), indices of the others.
        sizes: (M, 2), their width and height in pixels.
        constant: (M,), whether all their pixels are equal.
        prints: fingerprints of the M, to compare them by.
        odd: index, kind and detail of what is unusual about a file; see `_oddities`.
        clipped: index of each image with values above white, and how many.
    """

    images: LabelledImages
    unreadable: tuple[tuple[int, str], ...]
    readable: Integers
    sizes: Integers
    constant: Booleans
    prints: Fingerprints
    odd: tuple[tuple[int, str, str], ...]
    clipped: tuple[tuple[int, Clipped], ...] = ()


@dataclass(frozen=True)
class _Chunk:
    """The same for a range of images, by one thread."""

    unreadable: list[tuple[int, str]]
    rows: list[tuple[int, int, int, bool]]  # index, width, height, constant
    prints: Fingerprints
    odd: list[tuple[int, str, str]]
    clipped: list[tuple[int, Clipped]]


class Sample:
    """A storage that keeps the images that are read of it, for `inspect`, as far as memory allows.

    Attributes:
        kept: by their numbers in the storage.
    """

    def __init__(self, storage: Storage) -> None:
        self.storage, self.room = storage, _KEPT
        self.kept: dict[int, Content] = {}
        self.name, self.digests = storage.name, storage.digests

    def __len__(self) -> int:
        return len(self.storage)

    def read(self, index: int) -> Content:
        """The image, kept or as the storage has it."""
        if index in self.kept:
            return self.kept[index]
        content = self.storage.read(index)
        size = content.nbytes if isinstance(content, np.ndarray) else len(content)
        if size <= self.room:
            self.kept[index] = content
            self.room -= size
        return content

    @property
    def reads_ahead(self) -> bool:
        """Whether the storage does."""
        return reads_ahead(self.storage)

    def expect(self, indices: Sequence[int]) -> None:
        """Tell the storage which of its images will be read soon."""
        expect(self.storage, [index for index in indices if index not in self.kept])


def inspect(
    images: LabelledImages,
    progress: Callable[[int], None] = lambda _: None,
    sample: MutableMapping[int, Content] | None = None,
) -> Inspected:
    """Decode every image of a split, once.

    Args:
        images: the split.
        progress: called with the number of images done since the last call.
        sample: images that were read before, by their numbers in the storage; they are taken out.
    """
    chunks = []
    known = {} if sample is None else sample
    for chunk in in_threads(lambda part: _inspect_range(images, part, known), len(images), _CHUNK):
        chunks.append(chunk)
        progress(len(chunk.rows) + len(chunk.unreadable))
    rows = np.array([row for chunk in chunks for row in chunk.rows], dtype=np.int64).reshape(-1, 4)
    return Inspected(
        images=images,
        unreadable=tuple(problem for chunk in chunks for problem in chunk.unreadable),
        readable=rows[:, 0],
        sizes=rows[:, 1:3],
        constant=rows[:, 3].astype(bool),
        prints=concatenated([chunk.prints for chunk in chunks]),
        odd=tuple(oddity for chunk in chunks for oddity in chunk.odd),
        clipped=tuple(image for chunk in chunks for image in chunk.clipped),
    )


def _inspect_range(
    images: LabelledImages, part: range, sample: MutableMapping[int, Content]
) -> _Chunk:
    """Decode some images, of which those of a sample were read before."""
    chunk = _Chunk([], [], fingerprints([]), [], [])
    images.expect([index for index in part if images.indices[index] not in sample])

    def decoded() -> Iterator[Pixels]:
        for index in part:
            IN_USE.end()  # the previous image is done
            try:
                content = sample.pop(int(images.indices[index]), None)
                pixels, odd, above = _read_image(images, index, content)
                del content
                if above.values:
                    chunk.clipped.append((index, above))
            except ContentError as error:
                chunk.unreadable.append((index, str(error)))
                continue
            height, width, _ = pixels.shape
            chunk.rows.append((index, width, height, bool((pixels == pixels[0, 0]).all())))
            chunk.odd.extend((index, kind, detail) for kind, detail in odd.items())
            yield pixels
            del pixels  # before the next is decoded

    with IN_USE:
        return replace(chunk, prints=fingerprints(decoded()))


def _clipped_values(data: bytes, white: White) -> Clipped:
    """How many values of an image of 16 or 32 bits a value are above white."""
    deep = read_deep(data)
    return Clipped() if deep is None else clipped(*deep, white)


def _read_image(
    images: LabelledImages, index: int, content: Content | None
) -> tuple[Pixels, dict[str, str], Clipped]:
    """The pixels of an image, what is unusual about its file, and values above white.

    Args:
        images: the split.
        index: of the image.
        content: of the image; None if it was not read yet.

    Raises:
        ContentError: it cannot be read or decoded; the message does not name it.
    """
    data = images.storage.read(int(images.indices[index])) if content is None else content
    if isinstance(data, np.ndarray):
        return np.array(from_pixels(data, 3)), {}, Clipped()
    name = "" if isinstance(images.storage, ShardStorage) else images.names[index]
    pixels, odd = decode(data, channels=3, white=images.white), _oddities(probe(data), name)
    return pixels, odd, _clipped_values(data, images.white) if "deep" in odd else Clipped()


def _oddities(image: Probe, name: str) -> dict[str, str]:
    """What is unusual about an image file of this name, if it has one: a detail for each kind."""
    ending = PurePath(name).suffix.lower()
    all_endings = {ending for endings in ENDINGS.values() for ending in endings}
    details = {
        "animated": image.frames > 1 and f"{image.frames} frames",
        "colours": image.mode in ("CMYK", "LAB", "YCbCr", "HSV") and image.mode,
        "deep": image.bits > 8 and f"{image.bits} bits a value",
        "rotated": image.orientation != 1 and f"orientation {image.orientation}",
        "transparent": image.transparent and "transparent",
        "ending": ending in all_endings - {*ENDINGS[image.format]} and f"is {image.format}",
    }
    return {kind: detail for kind, detail in details.items() if detail}
