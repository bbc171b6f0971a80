"""Labelled images: a storage, a label for each image, and the names of the classes."""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from resnets.data.storage import (
    DigestsOf,
    FileStorage,
    Filled,
    JoinedStorage,
    Pixels,
    PixelStorage,
    Storage,
    expect,
    filled,
    reads_ahead,
)
from resnets.errors import ContentError, UnreadableImage
from resnets.format import plural
from resnets.images import White, decode, from_pixels, read_deep
from resnets.images.memory_budget import IN_USE
from resnets.images.white import Kind, Values

_T = TypeVar("_T")


class _Names(Sequence[str]):
    """The names of images, computed on access."""

    def __init__(self, storage: Storage, indices: NDArray[np.int64]) -> None:
        self.storage = storage
        self.indices = indices

    def __len__(self) -> int:
        return len(self.indices)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self.storage.name(int(i)) for i in self.indices[index]]
        return self.storage.name(int(self.indices[index]))


class LabelledImages:
    """Images with labels, read on access; can be sent to worker processes.

    Attributes:
        class_names: K names; label k means class_names[k].
        labels: (N,) int64 in 0..K-1.
        names: of each image, by which a user finds it: a path, or a file and a row.
        white: which value is white in images of 16 or 32 bits a value.
    """

    white: White = White()

    def __init__(
        self,
        storage: Storage,
        labels: ArrayLike,
        class_names: Sequence[str],
        indices: ArrayLike | None = None,
    ) -> None:
        """Join a storage and labels.

        Args:
            storage: where the images lie.
            labels: (N,), one for each image.
            class_names: one for each class.
            indices: (N,) which images of the storage these are; all of them by default.
        """
        self.storage = storage
        self.labels: NDArray[np.int64] = np.asarray(labels, dtype=np.int64)
        self.class_names = tuple(class_names)
        everything = np.arange(len(storage))
        self.indices: NDArray[np.int64] = (
            everything if indices is None else np.asarray(indices, dtype=np.int64)
        )
        if len(self.labels) != len(self.indices):
            raise ValueError(
                f"{plural(len(self.indices), 'image')} but {plural(len(self.labels), 'label')}"
            )

    def __len__(self) -> int:
        return len(self.indices)

    def __repr__(self) -> str:
        return (
            f"<{plural(len(self), 'labelled image')} of {plural(len(self.class_names), 'class')}>"
        )

    @property
    def names(self) -> Sequence[str]:
        """The name of each image, by which a user finds it; computed on access."""
        return _Names(self.storage, self.indices)

    def encoded(self, index: int) -> bytes | Pixels:
        """The image as its source stores it: bytes of a file, or pixels (H, W, C) uint8.

        Raises:
            ContentError: it cannot be read; the message names it.
        """
        return self.naming(index, lambda: self.storage.read(int(self.indices[index])))

    def expect(self, indices: ArrayLike) -> None:
        """Tell a storage that reads ahead which images (M,) will be read soon, in this order."""
        if self.reads_ahead:
            expect(self.storage, self.indices[np.asarray(indices, dtype=np.int64)])

    @property
    def reads_ahead(self) -> bool:
        """Whether it helps to say what will be read soon."""
        return reads_ahead(self.storage)

    def image(self, index: int, channels: int = 3) -> Pixels:
        """The pixels (H, W, channels) uint8; channels is 1 (grey), 3 (RGB) or 4 (RGBA).

        Raises:
            ContentError: it cannot be read or decoded; the message names it.
        """
        return self.naming(index, lambda: self.pixels(index, channels))

    def naming(self, index: int, read: Callable[[], _T]) -> _T:
        """Call a function; the message of a ContentError from it gets the image's name."""
        try:
            return read()
        except ContentError as error:
            raise UnreadableImage(f"{self.names[index]}: {error} ({self.remedy()})") from None

    def remedy(self, several: bool = False) -> str:
        """What to do about an image that cannot be read, or several."""
        them = "them" if several else "it"
        storage = self.storage
        parts = storage.parts if isinstance(storage, JoinedStorage) else (storage,)
        if all(isinstance(part, FileStorage) for part in parts):
            return f"repair or delete {them}, or pass --skip-unreadable"
        return f"pass --skip-unreadable to leave {them} out"

    def pixels(self, index: int, channels: int) -> Pixels:
        """As `image`, but the error does not name it."""
        with IN_USE:
            data = self.storage.read(int(self.indices[index]))
            if isinstance(data, np.ndarray):
                return np.array(from_pixels(data, channels))  # never a part of the storage
            return decode(data, channels=channels, white=self.white)

    def try_image(self, index: int) -> None:
        """Decode an image, JPEG at reduced size; the error does not name it."""
        with IN_USE:
            data = self.storage.read(int(self.indices[index]))
            if isinstance(data, bytes):
                decode(data, minimum_side=1)

    @contextlib.contextmanager
    def cached_digests(self) -> Iterator[DigestsOf]:
        """A function that tells the digests of some images; see `DigestsOf`."""
        digests_of = DigestsOf(self.storage, self.indices)
        yield digests_of
        digests_of.save()

    def subset(self, indices: ArrayLike) -> "LabelledImages":
        """Some of the images, by their numbers (M,) or by a mask (N,) of booleans."""
        selection = np.asarray(indices)
        chosen = np.arange(len(self))[selection if selection.size else selection.astype(np.intp)]
        return self.other(self.labels[chosen], self.class_names, self.indices[chosen])

    def other(
        self, labels: ArrayLike, class_names: Sequence[str], indices: ArrayLike
    ) -> "LabelledImages":
        """Images of the same storage, read in the same way."""
        images = LabelledImages(self.storage, labels, class_names, indices)
        images.white = self.white
        return images

    def with_white(self, white: White) -> "LabelledImages":
        """The same images, with a white level for those of 16 or 32 bits a value."""
        images = self.other(self.labels, self.class_names, self.indices)
        images.white = white
        return images

    def deep(self, index: int) -> tuple[Kind, Values] | None:
        """The type and the values of an image of 16 or 32 bits a value; else None.

        Raises:
            ContentError: it cannot be read; the message does not name it.
        """
        data = self.storage.read(int(self.indices[index]))
        return None if isinstance(data, np.ndarray) else read_deep(data)

    def stacked(self, channels: int = 3, fill_array: Filled = filled) -> Pixels:
        """All the pixels as one array (N, H, W, channels) uint8.

        Args:
            channels: 1, 3 or 4.
            fill_array: makes the array.

        Raises:
            ContentError: an image differs in size from the first, or cannot be decoded.
        """
        if isinstance(self.storage, PixelStorage):
            return from_pixels(self.storage.pixels[self.indices], channels)
        height, width, _ = self.image(0, channels).shape

        def fill(stack: Pixels, part: range) -> None:
            for index in part:
                with IN_USE:
                    image = self.image(index, channels)
                if image.shape != stack.shape[1:]:
                    raise ContentError(
                        f"{self.names[index]}: {image.shape[1]}x{image.shape[0]} pixels, but "
                        f"{self.names[0]} has {width}x{height}; all images of one array "
                        "must have the same size"
                    )
                stack[index] = image

        return fill_array((len(self), height, width, channels), fill, self.expect)


def joined(parts: Sequence[LabelledImages]) -> LabelledImages:
    """Several sets of images with the same classes as one set, in their order."""
    starts = itertools.accumulate((len(part.storage) for part in parts), initial=0)
    places = [part.indices + start for part, start in zip(parts, starts, strict=False)]
    return LabelledImages(
        JoinedStorage(tuple(part.storage for part in parts)),
        np.concatenate([part.labels for part in parts]),
        parts[0].class_names,
        np.concatenate(places),
    )
