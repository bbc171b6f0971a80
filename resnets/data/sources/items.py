"""Images that Python programs hold one by one: Pillow's, arrays, tensors, paths, bytes of files."""

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnets.data.digests import ImageDigests, digests_of_bytes
from resnets.data.storage import Pixels, PixelStorage
from resnets.errors import ContentError, UsageError
from resnets.files.reading import read_input
from resnets.images import from_pillow
from resnets.images.arrays import array_of, checked_array, is_tensor
from resnets.images.opening import MAX_BYTES

_T = TypeVar("_T")


def content_of(item: Any) -> bytes | Pixels:
    """One image as a storage returns it: the bytes of its file, or pixels (H, W, C) uint8.

    Raises:
        ContentError: it cannot be read, or is not an image.
    """
    try:
        if isinstance(item, Image.Image):
            return _of_pillow(item)
        if is_tensor(item):
            return _one_image(array_of(item))
        if isinstance(item, np.ndarray):
            return _one_image(item)
    except UsageError as error:
        raise ContentError(str(error)) from None
    if isinstance(item, Mapping):  # as the hub stores images
        item = item.get("bytes") or item.get("path")
    if isinstance(item, bytes | bytearray | memoryview):
        return bytes(item)
    if isinstance(item, str | os.PathLike):
        try:
            return read_input(Path(item), MAX_BYTES)
        except OSError as error:
            raise ContentError(f"{item} cannot be read ({error.strerror or error})") from None
    raise ContentError(f"{type(item).__name__} is not an image")


def _one_image(array: NDArray[Any]) -> Pixels:
    """An array as pixels (H, W, C). Raises UsageError, or ContentError for several images."""
    pixels = checked_array(array)
    if pixels.ndim != 3:
        raise ContentError(f"an array of the shape {array.shape}, which is several images")
    return pixels


def _of_pillow(image: Image.Image) -> bytes | Pixels:
    """A Pillow image; with 16 or 32 bits a value as a file, since all images share a white level.

    Others become the same pixels as `decode` makes of their files, but stay grey if they are.
    """
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        file = BytesIO()
        image.save(file, "TIFF")
        return file.getvalue()
    grey = image.mode in ("1", "L") and not image.has_transparency_data
    return from_pillow(image, 1 if grey else 3)


def digests_of_content(content: bytes | Pixels) -> ImageDigests:
    """The digests of an image, without decoding it."""
    if isinstance(content, bytes):
        return digests_of_bytes(content)
    return PixelStorage(content[None], str).digests(0)


class ItemStorage:
    """Images held one by one, of any type that `content_of` accepts."""

    def __init__(self, items: Sequence[Any], noun: str) -> None:
        self.items, self.noun = items, noun

    def __len__(self) -> int:
        return len(self.items)

    def read(self, index: int) -> bytes | Pixels:
        """The image of an item."""
        return content_of(self.items[index])

    def name(self, index: int) -> str:
        """The noun and the index."""
        return f"{self.noun}[{index}]"

    def digests(self, index: int) -> ImageDigests:
        """Looks at what `read` gives."""
        return digests_of_content(self.read(index))


def in_name_of(name: str, function: Callable[[Any], _T], value: Any) -> _T:
    """Call a function; the message of its error gets the image's name. Raises ContentError."""
    try:
        return function(value)
    except (ContentError, UsageError) as error:
        raise ContentError(f"{name}: {error}") from None


def item_of(data: Any, index: int, name: str) -> tuple[Any, Any]:
    """An image and its label.

    Raises:
        UsageError: the item is something else.
    """
    item = data[index]
    if not isinstance(item, tuple | list) or len(item) != 2:
        kind = f"{len(item)} values" if isinstance(item, tuple | list) else type(item).__name__
        raise UsageError(f"{name}[{index}] is {kind}, not (image, label)")
    return item[0], item[1]


class DatasetStorage:
    """The images of a data set that is too large for memory; one thread at a time reads it."""

    def __init__(self, data: Any, noun: str) -> None:
        self.data, self.noun, self.lock = data, noun, threading.Lock()

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return DatasetStorage, (self.data, self.noun)

    def __len__(self) -> int:
        return len(self.data)

    def read(self, index: int) -> bytes | Pixels:
        """The image of an item."""
        with self.lock:
            return content_of(item_of(self.data, index, self.noun)[0])

    def name(self, index: int) -> str:
        """The data set and the index in it."""
        return f"{self.noun}[{index}]"

    def digests(self, index: int) -> ImageDigests:
        """Looks at what `read` gives."""
        return digests_of_content(self.read(index))
