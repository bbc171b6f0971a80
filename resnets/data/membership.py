"""The images that a network has seen, recognised by digests of their content.

The digest of an image is the first 8 bytes of a SHA-256: of its encoded bytes if its format is
lossy or it cannot be decoded, else of its pixels as RGB. So neither its name nor its location
matters, nor whether CIFAR-10 comes as PNG in parquet files or as the pixels of its authors'
archive. The probability that any of N images has the digest of any of M others by chance is
N M / 2^64.
"""

import base64
import contextlib
import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnets.data.labelled import LabelledImages
from resnets.data.shards import ShardStorage
from resnets.data.splits import NEVER, Digests, Ranks
from resnets.data.storage import (
    FileStorage,
    JoinedStorage,
    Pixels,
    PixelStorage,
    Storage,
    in_threads,
)
from resnets.errors import ContentError
from resnets.escaping import escaped
from resnets.fields import check_known, from_table
from resnets.files.folders import cache_folder, writing_to_cache
from resnets.files.reading import read_input
from resnets.files.writing import write_atomically
from resnets.format import plural
from resnets.images import decode, from_pixels
from resnets.images.memory_budget import IN_USE
from resnets.images.opening import format_of

Members = NDArray[np.uint64]  # (N,): 8 bytes for each image

_KIND = "sha256/8"  # of the digests, in files
_MOST = 2_000_000  # images whose digests a file holds; 16 MB
_LOSSY = ("JPEG", "AVIF", "HEIC", "MP4 or HEIF", "JPEG XL", "JPEG 2000")
_LEAST_CACHED = 256  # images of a set; the digests of smaller sets are not cached
_MOST_CACHED = 64  # sets of images in the cache
_HEAD = 64  # bytes by which the format is recognised
NONE: Members = np.zeros(0, np.uint64)


def member_digests(images: LabelledImages, digests: Digests) -> Members:
    """The digest by which each image is recognised, (N,). Lossless images are decoded for it.

    Nothing is read of images whose storage keeps these digests, as shards do.

    Args:
        images: N of them.
        digests: (N, 32), of the content of each as `Splits` has them.
    """
    known = _known_members(images.storage, images.indices)
    unknown = np.flatnonzero(known == 0)
    if not len(unknown):
        return known
    slow = len(unknown) >= _LEAST_CACHED and not isinstance(images.storage, PixelStorage)
    cached = _cached_members(digests) if slow else None
    if cached is not None:
        return cached
    members = np.where(known == 0, encoded_members(digests), known)

    def recognise(part: range) -> None:
        for index in unknown[part.start : part.stop].tolist():
            with IN_USE, contextlib.suppress(ContentError):
                data = _lossless_content(images, index)
                if data is not None:
                    members[index] = content_member(data, digests[index].tobytes())

    for _ in in_threads(recognise, len(unknown)):
        pass
    if slow:
        _cache_members(digests, members)
    return members


def _cache_file(digests: Digests) -> Path:
    """The cache file of a set of images, named after the digests of their content in order."""
    return cache_folder() / "members" / f"{hashlib.sha256(digests.tobytes()).hexdigest()[:32]}.bin"


def _cached_members(digests: Digests) -> Members | None:
    """The cached digests of a set of images; None if it is not in the cache."""
    try:
        content = read_input(_cache_file(digests), 8 * len(digests))
    except OSError:
        return None
    if len(content) != 8 * len(digests):
        return None
    return np.frombuffer(content, "<u8").astype(np.uint64)


def _cache_members(digests: Digests, members: Members) -> None:
    """Cache the digests, unless they equal those of the encoded bytes; remove the oldest files."""
    if np.array_equal(members, encoded_members(digests)):
        return
    with writing_to_cache():
        target = _cache_file(digests)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, members.astype("<u8").tobytes())
        files = sorted(target.parent.glob("*.bin"), key=lambda file: file.stat().st_mtime)
        for old in files[:-_MOST_CACHED]:
            old.unlink(missing_ok=True)


def encoded_members(digests: Digests) -> Members:
    """The first 8 bytes of digests (N, 32), (N,)."""
    return np.ascontiguousarray(digests[:, :8]).view("<u8")[:, 0].astype(np.uint64)


def _known_members(storage: Storage, rows: NDArray[np.int64]) -> Members:
    """The digests by which images are recognised, (M,), where their storage keeps them; else 0."""
    if isinstance(storage, ShardStorage):
        return storage.index.members[rows]
    members: Members = np.zeros(len(rows), np.uint64)
    if isinstance(storage, JoinedStorage):
        for part, own, its in storage.parted(rows):
            members[own] = _known_members(part, its)
    return members


def known_member(storage: Storage, row: int) -> int | None:
    """The digest by which an image is recognised, where its storage keeps it: that of shards."""
    while isinstance(storage, JoinedStorage):
        storage, row = storage.find(row)
    return storage.member(row) if isinstance(storage, ShardStorage) else None


def _lossless_content(images: LabelledImages, index: int) -> bytes | Pixels | None:
    """An image as its source stores it; None if its first bytes are those of a lossy format."""
    storage, row = images.storage, int(images.indices[index])
    if isinstance(storage, FileStorage):
        with storage.open_image(row) as file:
            head = file.read(_HEAD)
            if format_of(head) in _LOSSY:
                return None
            IN_USE.reading(os.fstat(file.fileno()).st_size)
            return head + file.read()
    return storage.read(row)


def content_member(content: bytes | Pixels, digest: bytes) -> int:
    """The digest by which one image is recognised.

    Args:
        content: encoded, or pixels (H, W, C) uint8 with C of 1, 3 or 4.
        digest: of its encoded bytes, used if the format is lossy.
    """
    if isinstance(content, np.ndarray):
        return _pixel_member(from_pixels(content, 3))
    if not is_lossy(content):
        try:
            return _pixel_member(decode(content))
        except ContentError:
            pass
    return encoded_member(digest)


def encoded_member(digest: bytes) -> int:
    """The digest by which an image is recognised whose format is lossy; see `content_member`."""
    return int.from_bytes(digest[:8], "little")


def is_lossy(data: bytes) -> bool:
    """Whether an image is compressed with loss, so that its pixels depend on the decoder.

    >>> is_lossy(b"RIFF____WEBPVP8 "), is_lossy(b"RIFF____WEBPVP8L"), is_lossy(png)
    (True, False, False)
    """
    kind = format_of(data)
    if kind != "WEBP":
        return kind in _LOSSY
    start = 12
    while start + 8 <= len(data) and data[start : start + 4] not in (b"VP8 ", b"VP8L", b"ANMF"):
        size = int.from_bytes(data[start + 4 : start + 8], "little")
        start += 8 + size + size % 2  # chunks that come before the image, such as a colour profile
    return data[start : start + 4] != b"VP8L"


def _pixel_member(pixels: Pixels) -> int:
    """The first 8 bytes of the SHA-256 of an image's size and RGB pixels (H, W, 3)."""
    height, width, _ = pixels.shape
    digest = hashlib.sha256(b"%d %d\n" % (height, width))
    digest.update(np.ascontiguousarray(pixels).data)  # without a copy of a large image
    return int.from_bytes(digest.digest()[:8], "little")


@dataclass(frozen=True)
class Generation:
    """The images of one training run.

    Attributes:
        source: name of the data; empty if unknown.
        train: number of images that the weights were trained on.
        validation: number of images by which the epoch, the temperature or the threshold was
            chosen.
        trained: digests of the training images, sorted.
        validated: digests of the validation images, sorted.
        unknown: why the digests are missing; empty if they are not.
        keeps_classifier: whether its classifier is that of the network that it started from.
        origin: where its weights were published, if others did: id, licence, url, commit, sha256.
    """

    source: str
    train: int = 0
    validation: int = 0
    trained: Members = field(default_factory=lambda: NONE)
    validated: Members = field(default_factory=lambda: NONE)
    unknown: str = ""
    keeps_classifier: bool = False
    origin: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, source: str, trained: Members, validated: Members) -> "Generation":
        """A training run on images with these digests, in any order."""
        return cls(source, len(trained), len(validated), np.unique(trained), np.unique(validated))

    def without_digests(self, reason: str) -> "Generation":
        """The same with only the counts."""
        return replace(self, trained=NONE, validated=NONE, unknown=self.unknown or reason)

    def in_words(self) -> str:
        """A description of the training data, such as "50,000 images of CIFAR-10"."""
        if not self.source:
            return f"unknown images ({self.unknown})"
        return f"{plural(self.train, 'image')} of {self.source}" if self.train else self.source

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        values: dict[str, Any] = {"source": self.source}
        for name, count, members in (
            ("train", self.train, self.trained),
            ("validation", self.validation, self.validated),
        ):
            values[name] = {"count": count}
            if not self.unknown:
                values[name]["digests"] = base64.b64encode(members.astype("<u8").tobytes()).decode()
        if self.keeps_classifier:
            values["keeps_classifier"] = True
        if self.origin:
            values["origin"] = dict(self.origin)
        return values | ({"unknown": self.unknown} if self.unknown else {})

    @classmethod
    def of_stored(cls, stored: "_StoredGeneration") -> "Generation":
        """Undo `to_dict`. Raises ContentError."""
        unknown = escaped(stored.unknown)
        splits = (stored.train, stored.validation)
        if not unknown and any(split.digests is None for split in splits):
            raise ContentError("trained_on: digests are missing without a reason")
        trained, validated = (
            NONE if unknown else _members_from(split.digests or "") for split in splits
        )
        return cls(
            escaped(stored.source),
            stored.train.count,
            stored.validation.count,
            trained,
            validated,
            unknown,
            stored.keeps_classifier,
            {escaped(name): escaped(value) for name, value in stored.origin.items()},
        )


@dataclass(frozen=True)
class _StoredPart:
    """A split of a `_StoredGeneration`: its digests in base64, unless these are unknown."""

    count: int
    digests: str | None = None


@dataclass(frozen=True)
class _StoredGeneration:
    """A `Generation` as files hold it."""

    source: str
    train: _StoredPart
    validation: _StoredPart
    keeps_classifier: bool = False
    unknown: str = ""
    origin: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _StoredHistory:
    """A `TrainedOn` as files hold it."""

    kind: str
    generations: tuple[_StoredGeneration, ...]


def _members_from(text: str) -> Members:
    """Digests from their base64, sorted. Raises ContentError."""
    try:
        content = np.frombuffer(base64.b64decode(text, validate=True), "<u8")
    except ValueError as error:  # binascii.Error among them
        raise ContentError(f"trained_on: digests are damaged: {error}") from None
    return np.unique(content.astype(np.uint64))


@dataclass(frozen=True)
class TrainedOn:
    """All images that the weights of a network were ever trained on.

    Attributes:
        generations: the network's own training first, then that of the network that it started
            from, and so on. Empty if unknown.
    """

    generations: tuple[Generation, ...] = ()

    @property
    def unknown(self) -> str:
        """Why the images cannot be recognised; empty if they can."""
        if not self.generations:
            return "its file has no digests of its training images"
        return next(
            (generation.unknown for generation in self.generations if generation.unknown), ""
        )

    @property
    def trained(self) -> Members:
        """Digests of the images that any generation was trained on, as far as known, sorted."""
        return union(generation.trained for generation in self.generations)

    @property
    def validated(self) -> Members:
        """Digests of the images that any generation was validated on, as far as known, sorted."""
        return union(generation.validated for generation in self.generations)

    def __bool__(self) -> bool:
        return bool(self.generations)

    def after(self, generation: Generation) -> "TrainedOn":
        """The history of a network that starts from this one."""
        return TrainedOn((generation, *self.generations))

    def with_validated(self, members: Members) -> "TrainedOn":
        """The same with more validation images, by which for example a threshold was chosen.

        Unchanged if the digests of the network's own training are missing.
        """
        if not self.generations or self.generations[0].unknown:
            return self
        latest, *earlier = self.generations
        validated = union([latest.validated, members])
        more = len(validated) - len(latest.validated)
        latest = replace(latest, validation=latest.validation + more, validated=validated)
        return TrainedOn((latest, *earlier))

    @property
    def ancestors(self) -> "TrainedOn":
        """The history of the network that it started from."""
        return TrainedOn(self.generations[1:])

    @property
    def origin(self) -> Mapping[str, str]:
        """Where the weights that it began with were published; empty if nobody did, or unknown."""
        return next((generation.origin for generation in self.generations if generation.origin), {})

    def in_words(self) -> str:
        """A description of the training data of all generations, the newest first."""
        return ", before that on ".join(generation.in_words() for generation in self.generations)

    def without_digests(self, reason: str) -> "TrainedOn":
        """The same with only the counts."""
        return TrainedOn(
            tuple(generation.without_digests(reason) for generation in self.generations)
        )

    def to_dict(self, most: int = _MOST) -> dict[str, Any]:
        """As plain values for the model file; without digests if there are more than `most`.

        Images of an earlier generation are not listed again for a later one.
        """
        generations: list[Generation] = []
        listed = NONE
        for generation in reversed(self.generations):
            trained = np.setdiff1d(generation.trained, listed, assume_unique=True)
            generations.insert(0, replace(generation, trained=trained))
            listed = np.union1d(listed, trained)
        total = sum(
            len(generation.trained) + len(generation.validated) for generation in generations
        )
        if total > most:
            reason = f"{plural(total, 'image')}; a file holds the digests of at most {most:,}"
            generations = [generation.without_digests(reason) for generation in generations]
        return (
            {"kind": _KIND, "generations": [generation.to_dict() for generation in generations]}
            if generations
            else {}
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TrainedOn":
        """Read the result of `to_dict`.

        Raises:
            ContentError: the values are something else.
        """
        if not values:
            return cls()
        check_known(values, "kind", _KIND, "trained_on.")
        stored = from_table(_StoredHistory, values, "trained_on.")
        return cls(tuple(map(Generation.of_stored, stored.generations)))


def first_of_copies(
    members: Members, labels: NDArray[np.int64]
) -> tuple[NDArray[np.bool], NDArray[np.int64]]:
    """Which images are the first of equal ones of their class, (N,); and of how many, (M,) of them.

    Copies say nothing new about a network, so each image is measured once. Where copies have two
    labels, one of each stays: at most one of them is right, so they never flatter a network.

    >>> once, copies = first_of_copies(np.uint64([7, 3, 7, 7]), np.array([0, 0, 0, 1]))
    >>> once.tolist(), copies.tolist()
    ([True, True, False, True], [2, 1, 1])
    """
    order = np.lexsort((labels, members))  # stable: of equal ones the first comes first
    changes = np.stack([members[order], labels[order].astype(np.uint64)])
    starts = np.flatnonzero(np.append(len(order) > 0, (changes[:, 1:] != changes[:, :-1]).any(0)))
    firsts = order[starts]
    once = np.zeros(len(members), np.bool)
    once[firsts] = True
    return once, np.diff(starts, append=len(order))[np.argsort(firsts)]


def ranks(members: Members, history: TrainedOn) -> Ranks:
    """The order in which images are drawn for validation, (N,): lower ranks first.

    Images that were never seen come first, then images that were validated on; images that were
    trained on are never drawn.
    """
    rank_of = np.isin(members, history.validated).astype(np.int8)
    rank_of[np.isin(members, history.trained)] = NEVER
    return rank_of


def union(sets: Iterable[Members]) -> Members:
    """The union of several sets of digests, sorted."""
    members: Members = np.unique(np.concatenate([NONE, *sets]))
    return members
