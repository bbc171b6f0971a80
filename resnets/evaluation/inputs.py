"""Images as Python programs hold them: paths, Pillow images, arrays, tensors, one or many.

Torch is not imported here: a program that holds a tensor has imported it.
"""

import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

import numpy as np
from PIL import Image

from resnets.errors import ContentError, UsageError
from resnets.evaluation.finding_images import find_images
from resnets.evaluation.source import Source
from resnets.format import byte_size
from resnets.images import Pixels, White, from_pillow
from resnets.images.arrays import SHAPES, TENSOR_SHAPES, array_of, checked_array, is_tensor
from resnets.images.opening import MAX_BYTES
from resnets.images.white import UNKNOWN

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

OneOrMore: TypeAlias = (
    "str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Image.Image | "
    "NDArray[Any] | Tensor"
)
Images: TypeAlias = "OneOrMore | Iterable[OneOrMore]"
_Bytes: TypeAlias = bytes | bytearray | memoryview


def sources_of(images: Images, channels: int = 3, white: White = UNKNOWN) -> Iterator[Source]:
    """The images, in their order, each with a name.

    Args:
        images: one of these, or several of them, in any mixture:
            a path of a file, or of a folder that is searched through, or a pattern such as
            ``photos/*.jpg``; the bytes of a file (bytes, bytearray, memoryview), or a file that is
            open for reading bytes; a Pillow image of any mode; an array (H, W),
            (H, W, C), (N, H, W) or (N, H, W, C) of uint8; a tensor (H, W), (C, H, W), (N, H, W) or
            (N, C, H, W) of uint8, or of floating point in 0..1. C is 1 (grey), 3 (RGB) or 4 (RGBA);
            see `resnets.images.arrays` for the meaning of three axes.
        channels: to which Pillow images are converted: 1, 3 or 4.
        white: which value is white in Pillow images of 16 or 32 bits a value.

    Raises:
        UsageError: a path does not exist, or an array or tensor is not one of the above.
    """
    alone = isinstance(images, np.ndarray | str | _Bytes | Image.Image | os.PathLike)
    if alone or is_tensor(images) or hasattr(images, "read"):
        yield from _sources_of_one(images, "image", channels, white)
        return
    if not isinstance(images, Iterable):
        raise UsageError(_not_an_image(images))
    for index, image in enumerate(images):
        yield from _sources_of_one(image, f"image {index}", channels, white)


def _sources_of_one(image: Any, name: str, channels: int, white: White) -> Iterator[Source]:
    """The sources of one image, or of all images in a folder, array or tensor."""
    if isinstance(image, np.ndarray):  # first, as it must be fast
        yield from _sources_of_pixels(checked_array(image), name)
    elif isinstance(image, str | os.PathLike):
        yield from find_images([os.fsdecode(image)])
    elif isinstance(image, _Bytes):
        yield Source(name, bytes(image))
    elif isinstance(image, Image.Image):
        yield Source(
            str(getattr(image, "filename", "")) or name, _pixels_of_pillow(image, channels, white)
        )
    elif is_tensor(image):
        yield from _sources_of_pixels(checked_array(array_of(image)), name)
    elif hasattr(image, "read"):
        yield _source_of_file(image, name)
    else:
        raise UsageError(_not_an_image(image))


def _source_of_file(file: Any, name: str) -> Source:
    """The rest of an open file, which is called as it is, where it has a name."""
    content = file.read(MAX_BYTES + 1)
    if not isinstance(content, _Bytes):
        raise UsageError("a file that is open as text is no image: open it with mode 'rb'")
    file_name = getattr(file, "name", None)
    name = file_name if isinstance(file_name, str) else name
    if len(content) > MAX_BYTES:
        return Source(name, ContentError(f"is larger than {byte_size(MAX_BYTES)}"))
    return Source(name, bytes(content))


def _pixels_of_pillow(image: Image.Image, channels: int, white: White) -> Pixels | ContentError:
    """The pixels of a Pillow image, or the error."""
    try:
        return from_pillow(image, channels, white)
    except ContentError as error:
        return error


def _sources_of_pixels(pixels: Pixels, name: str) -> Iterator[Source]:
    """One image for (H, W, C), N images for (N, H, W, C)."""
    several = pixels if pixels.ndim == 4 else pixels[None]
    yield from map(Source, names_of(pixels, name), several)


def names_of(pixels: Pixels, name: str) -> list[str]:
    """The name of the image in an array (H, W, C), or of each in (N, H, W, C)."""
    return [name] if pixels.ndim == 3 else [f"{name}[{index}]" for index in range(len(pixels))]


def _not_an_image(value: object) -> str:
    """The message for a value that is not an image."""
    return (
        f"{type(value).__name__} is not an image: give a path, a file or its bytes, a Pillow "
        f"image, an array {SHAPES}, a tensor {TENSOR_SHAPES}, or a list of these"
    )
