"""Whether an exported file says what the network says, on real images."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from resnets.deployment.engine import Engine, framed
from resnets.errors import ContentError, UsageError
from resnets.evaluation.outputs import Chosen, NothingNewError, choose_for_all
from resnets.images import Pixels
from resnets.model_file import Model
from resnets.networks.evaluating import evaluating

TOLERANCE = 1e-3  # of a probability
OWN_TOLERANCE = 10  # times as much where the file resizes
IMAGES = 64
Probabilities = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Agreement:
    """How near an exported file is to PyTorch.

    Attributes:
        source: which images.
        images: how many.
        difference: the largest of any image's probability of any class, 0 to 1, where images
            come at the size that the network wants, as this package's engines give them.
        own_difference: the same, where the file's graph resizes the images as they are; few
            of its pixels are 1 of 255 from Pillow's, seldom one is 2.
        same_answer: how many images as they are have the same likeliest class.
        tolerance: the largest `difference` that is allowed; `own_difference` may be ten times that.
    """

    source: str
    images: int
    difference: float
    own_difference: float
    same_answer: int
    tolerance: float = TOLERANCE

    @property
    def holds(self) -> bool:
        """Whether the file may be kept."""
        return (
            self.difference <= self.tolerance
            and self.own_difference <= OWN_TOLERANCE * self.tolerance
        )

    def to_dict(self) -> dict[str, Any]:
        """For the metadata: plain values only."""
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"the same class as PyTorch on {self.same_answer} of {self.images} images "
            f"({self.source}), probabilities within {self.difference:.1g}, "
            f"where the file resizes within {self.own_difference:.1g}"
        )


def compare(
    model: Model, engine: Engine, images: Sequence[Pixels], source: str, tolerance: float
) -> Agreement:
    """Compare an engine with PyTorch.

    Args:
        model: what the engine's file was made from.
        engine: what runs it.
        images: (H, W, C) uint8.
        source: what these are, in words.
        tolerance: see `Agreement`.

    Raises:
        UsageError: there is no image.
        ContentError: the engine's probabilities are not finite.
    """
    if not images:
        raise UsageError("an export is checked on images, and there is none")
    wanted = wanted_of(model, images)
    frames = [framed(image[None], model.description.preprocessing) for image in images]
    prepared = engine.probabilities(np.concatenate(frames))
    own = np.concatenate([engine.graph(image[None])[0] for image in images])
    for found in (prepared, own):
        if not np.isfinite(found).all():
            raise ContentError("the exported file gives probabilities that are not finite")
    return Agreement(
        source=source,
        images=len(images),
        difference=float(np.abs(wanted - prepared).max()),
        own_difference=float(np.abs(wanted - own).max()),
        same_answer=int((wanted.argmax(axis=1) == own.argmax(axis=1)).sum()),
        tolerance=tolerance,
    )


def wanted_of(model: Model, images: Sequence[Pixels]) -> Probabilities:
    """PyTorch's calibrated probabilities (N, K) of images (H, W, C), prepared as in training."""
    preprocessing = model.description.preprocessing
    temperature = float(model.description.calibration.get("temperature", 1.0))
    device = next(model.network.parameters()).device
    rows = []
    with evaluating(model.network), torch.inference_mode():
        for image in images:
            pixels = preprocessing.normalise(preprocessing.pixels(image)[None])
            logits = model.network(torch.from_numpy(pixels).to(device)).double() / temperature
            rows.append(logits.softmax(1).cpu().numpy())
    return np.concatenate(rows)


def images_for(model: Model, data: str | None, number: int = IMAGES) -> tuple[list[Pixels], str]:
    """Real images on which to check an export, and what they are in words.

    Args:
        model: what is exported.
        data: as for `open_data`; None takes what the network was trained on, where that is still
            there, else the digits that are embedded.
        number: at most so many, spread evenly over the part that `evaluate` takes.

    Raises:
        UsageError, ContentError: there is no such source; an image cannot be read.
    """
    chosen = chosen_for(model, data)
    return pixels_for(model, chosen, number), words_for(chosen)


def chosen_for(model: Model, data: str | None) -> Chosen:
    """The images on which to check an export: what `evaluate` takes; see `images_for`.

    Where the network has seen them all, it is those: runtimes can be compared on them as well.
    """
    source = data or str(model.description.data.get("source", "digits"))
    try:
        return part_of(source, model)
    except (UsageError, ContentError, OSError, ImportError):
        if data:
            raise
        return part_of("digits", model)


def part_of(source: str, model: Model) -> Chosen:
    """What `evaluate` takes of a source, whatever its classes are; see `chosen_for`."""
    description = [model.description]
    try:
        return choose_for_all(source, description, "auto")
    except NothingNewError:
        return choose_for_all(source, description, "all")


def words_for(chosen: Chosen) -> str:
    """Which part of which source, without the number of images: only some are compared."""
    return chosen.part.partition(" images, ")[2]


def pixels_for(model: Model, chosen: Chosen, number: int) -> list[Pixels]:
    """Some of the images, spread evenly; see `images_for`."""
    if number < 1:
        raise UsageError(f"{number} images: needs at least 1 to compare")
    places = np.unique(np.linspace(0, len(chosen.images) - 1, number).astype(int))
    channels = model.description.preprocessing.channels
    return [chosen.images.image(int(place), channels) for place in places]
