"""The interface of an engine, which runs a network, and checks of its inputs and outputs.

No torch here. Shapes: B images of a batch, H x W pixels, C channels, R the preprocessing's
`resize`, K classes, F features.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from resnets.errors import ContentError, UsageError
from resnets.images import Pixels, Preprocessing
from resnets.model_file import Description, custom_class
from resnets.networks.architecture import Architecture
from resnets.networks.limits import AT_ONCE, images_at_once

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Computation:
    """Which engine computed the outputs, and how.

    Attributes:
        file: that the network was read from.
        engine: onnxruntime, openvino or torch.
        precision: of the arithmetic: float32, fp16 or int8.
        tta: whether with test-time augmentation.
    """

    file: str
    engine: str
    precision: str
    tta: bool = False

    def __str__(self) -> str:
        how = ", with test-time augmentation" if self.tta else ""
        return f"computed by {self.engine} in {self.precision} from {self.file}{how}"

    def to_dict(self) -> dict[str, Any]:
        """For JSON; `tta` only where it was used."""
        values = {"file": self.file, "engine": self.engine, "precision": self.precision}
        return values | ({"tta": True} if self.tta else {})


def computation_of(engine: "Engine", path: Path) -> Computation:
    """Which engine computes, and from which file: it may be an export beside the given one."""
    tta = getattr(engine, "tta", False)
    inner = getattr(engine, "engine", engine) if tta else engine
    file = getattr(inner, "path", path)
    return Computation(str(file), inner.name, getattr(inner, "precision", "float32"), tta)


class NotFiniteError(ContentError):
    """A network gave NaN or infinity.

    Attributes:
        places: of the images in the batch for which it did.
        batch: how many images there were.
    """

    def __init__(self, places: Sequence[int], batch: int) -> None:
        self.places, self.batch = tuple(places), batch
        super().__init__(self.of([f"image {place}" for place in range(batch)]))

    def of(self, names: Sequence[str]) -> str:
        """The message, with the names of the batch's images."""
        first = names[self.places[0]]
        others = f" and for {len(self.places) - 1} others" if len(self.places) > 1 else ""
        cause = (
            "the network's numbers overflow for it"
            if len(self.places) < self.batch
            else "the network is damaged, or its numbers overflow"
        )
        return (
            f"{first}: the output for it{others} is not finite: {cause} (`resnets inspect MODEL` "
            "looks at the weights; a file in 16 bits can overflow where float32 does not)"
        )


def finite(outputs: Floats) -> Floats:
    """Outputs of a network (B, ...) as they are.

    Raises:
        NotFiniteError: there is NaN or infinity in them.
    """
    sound = np.isfinite(outputs)
    if not sound.all():
        rows = sound.reshape(len(outputs), -1).all(axis=1)
        raise NotFiniteError(np.flatnonzero(~rows).tolist(), len(outputs))
    return outputs


@contextmanager
def images_named(names: Sequence[str]) -> Iterator[None]:
    """Raise `NotFiniteError` as a `ContentError` that names the images of the batch."""
    try:
        yield
    except NotFiniteError as error:
        raise ContentError(error.of(names)) from None


class Engine(Protocol):
    """Runs a network; threads may share it.

    Attributes:
        name: onnxruntime, openvino or torch.
        description: of the network: its classes, preprocessing and calibration.
        threads: number of threads that compute; 0 is the runtime's own choice.
    """

    name: str
    description: Description
    threads: int

    def probabilities(self, images: Pixels) -> Floats:
        """Calibrated probabilities (B, K) of raw images (B, H, W, C) uint8, of any H and W.

        Where the shorter side is not what the network wants, each image is resized here as in
        training. (B, R, R, C), with R the preprocessing's `resize`, is passed on as it is.

        Raises:
            UsageError: the images are of another type or shape, or there is none.
            NotFiniteError: a probability is NaN.
        """

    def features(self, images: Pixels) -> Floats:
        """Features (the classifier's input, (B, F)), for search by similarity; images as above."""

    def outputs(self, images: Pixels) -> tuple[Floats, Floats]:
        """Probabilities and features together, for one computation; images as above."""

    def graph(self, images: Pixels) -> tuple[Floats, Floats]:
        """Both, with all preprocessing in the graph of the file, as other programs run it."""


def batch_size_of(engine: Engine, batch_size: int, memory: int = AT_ONCE) -> int:
    """`batch_size_that_fits` for an engine.

    The graph of an exported file may be another than its metadata describe: such an engine has
    `image_bytes`, the memory that the graph takes for each image.
    """
    image_bytes: int = getattr(engine, "image_bytes", 0)
    if image_bytes and batch_size > 1:
        batch_size = max(1, min(batch_size, memory // image_bytes))
    return batch_size_that_fits(engine.description, batch_size, memory)


def batch_size_that_fits(description: Description, batch_size: int, memory: int = AT_ONCE) -> int:
    """The size of a batch that fits into memory: `batch_size`, or less for very large images.

    Args:
        description: of the network.
        batch_size: images in a batch.
        memory: bytes that a batch of several may take.
    """
    if batch_size < 1 or not description.architecture or custom_class(description.architecture):
        return batch_size
    architecture = Architecture.from_dict(description.architecture)
    return images_at_once(architecture, description.preprocessing, batch_size, memory)


def engine_in_a_line(engine: Engine) -> str:
    """What `repr` shows of an engine: what computes, and which network."""
    return f"<Engine: {engine.name}, {engine.description.in_a_line}>"


def frames_of(images: Pixels, preprocessing: Preprocessing) -> Pixels:
    """Each image's `Preprocessing.frame`: (B, H, W, C) -> (B, R, R, C), R being `resize`.

    A graph that prepares images itself only crops these.

    Raises:
        UsageError: the images are not (B, H, W, C) uint8, or there is none.
    """
    check_images(images, preprocessing.channels)
    if images.shape[1] == images.shape[2] == preprocessing.resize:
        return images
    return np.stack([preprocessing.frame(image) for image in images])


def check_images(images: Any, channels: int) -> None:
    """Check a batch of images.

    Raises:
        UsageError: it is not (B, H, W, C) uint8 with at least one image and one pixel.
    """
    expected = f"(B, H, W, {channels}) of uint8"
    if not isinstance(images, np.ndarray):
        raise UsageError(f"images is {type(images).__name__}; expected an array {expected}")
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != channels:
        raise UsageError(
            f"images of shape {images.shape} and type {images.dtype}; expected {expected}"
        )
    if 0 in images.shape:
        raise UsageError(f"images of shape {images.shape}: there is no image, or no pixel in it")
