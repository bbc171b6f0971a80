"""Heat maps of what in an image speaks for a class: Grad-CAM, and occlusion as a slower check.

A heat map is (H, W) of 0..1: 1 where the image speaks most for the class, 0 where it does not or
speaks against it; 0 everywhere if nothing in the image speaks for the class.

Shapes: N images, C channels, H x W pixels, S the side that the network sees.
"""

import base64
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from resnets.errors import ContentError, UsageError, require
from resnets.evaluation.eager import in_torch, logits_and_features_in_torch
from resnets.evaluation.engine import batch_size_that_fits, finite, images_named
from resnets.evaluation.familiarity import familiarity_of
from resnets.evaluation.predict import (
    Prediction,
    Ranking,
    Status,
    batches_of,
    decoded,
    interpret,
    prediction_of,
    rankings,
)
from resnets.evaluation.report.pictures import SIDE, overlay, square_picture
from resnets.evaluation.source import Source
from resnets.format import plural
from resnets.images import Pixels, Preprocessing, from_pixels
from resnets.images.memory_budget import IN_USE
from resnets.images.vectorised import resized
from resnets.model_file import Model
from resnets.networks import ResNet
from resnets.networks.evaluation_mode import evaluating
from resnets.notebook import html_table

Heat: TypeAlias = NDArray[np.float32]
_HeatMaps: TypeAlias = Callable[[ResNet, Tensor, Sequence[int]], Heat]
Method = Literal["grad-cam", "occlusion"]

_SHOWN = 20  # explanations in a notebook
_AT_ONCE = 64  # occluded images computed at once


@dataclass(frozen=True)
class Explanation:
    """The prediction for one image, with a heat map of what in the image speaks for it.

    Attributes:
        prediction: of the image, or why it cannot be read.
        target: the class that the heat map is about; None if the image cannot be read.
        heat: (S, S) of 0..1; None if the image cannot be read.
        picture: the part of the image that the network sees, (P, P, 3) uint8; likewise.
        path: of the file to which the overlay was written; None if it was not.
    """

    prediction: Prediction
    target: str | None = None
    heat: Heat | None = None
    picture: Pixels | None = None
    path: Path | None = None

    def overlay(self) -> Pixels:
        """The heat map over the picture, (P, P, 3) uint8.

        Raises:
            ContentError: the image cannot be read.
        """
        if self.picture is None or self.heat is None:
            raise ContentError(f"{self.prediction.image}: {self.prediction.error}")
        return overlay(self.picture, self.heat)

    def __repr__(self) -> str:
        about = "" if self.target is None else f", heat map for {self.target}"
        return f"<Explanation: {self.prediction}{about}>"

    def _repr_html_(self) -> str:
        """For notebooks: the overlay, above the prediction."""
        if self.picture is None:
            return self.prediction._repr_html_()
        content = io.BytesIO()
        Image.fromarray(self.overlay()).save(content, "PNG")
        source = f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"
        about = html_table([("heat map for", self.target)])
        return f'<img src="{source}" alt="heat map">{about}{self.prediction._repr_html_()}'


class Explanations(list[Explanation]):
    """A list of explanations, which notebooks show one below the other."""

    def _repr_html_(self) -> str:
        more = len(self) - _SHOWN
        shown = [explanation._repr_html_() for explanation in self[:_SHOWN]]
        return "".join([*shown, *([f"<p>and {more:,} more</p>"] if more > 0 else [])])


class _View(NamedTuple):
    """The same part of an image as network input, (C, S, S), and as a picture, (P, P, 3)."""

    pixels: Pixels
    picture: Pixels


def explain(
    model: Model,
    sources: Iterable[Source],
    *,
    method: Method = "grad-cam",
    target: str | None = None,
    top: int = 1,
    batch_size: int = 16,
    side: int = SIDE,
) -> Iterator[Explanation]:
    """Explain images in their order.

    Args:
        model: the network, on any device.
        sources: the images.
        method: "grad-cam", or "occlusion", which is some hundred times slower.
        target: the class that heat maps are about; by default the top class of each image.
        top: how many of the most probable classes each prediction lists.
        batch_size: images computed at once.
        side: of the pictures, in pixels.

    Raises:
        UsageError: an argument is not allowed.
        MissingExtra: captum is not installed.
    """
    names = model.description.class_names
    if method not in _METHODS:
        raise UsageError(f"method {method!r}; there are {', '.join(_METHODS)}")
    if target is not None and target not in names:
        more = " ..." if len(names) > 10 else ""
        raise UsageError(f"target {target!r}; the network knows {', '.join(names[:10])}{more}")
    if not 1 <= top <= len(names):
        raise UsageError(f"top is {top}; the network has {plural(len(names), 'class')}")
    if batch_size < 1 or side < 1:
        raise UsageError(f"batch size {batch_size}, side {side}: each must be at least 1")
    view_of = partial(_view_of, preprocessing=model.description.preprocessing, side=side)
    batches = batches_of(sources, view_of, batch_size_that_fits(model.description, batch_size))
    return (
        explanation
        for batch in batches
        for explanation in _explain_batch(model, batch, _METHODS[method], target, top)
    )


def _explain_batch(
    model: Model,
    batch: Sequence[tuple[Source, _View | str]],
    heat_maps: _HeatMaps,
    target: str | None,
    top: int,
) -> list[Explanation]:
    """Explain the images of a batch; those that cannot be read get a prediction with the error."""
    description = model.description
    pixels = [view.pixels for _, view in batch if isinstance(view, _View)]
    names = [source.name for source, view in batch if isinstance(view, _View)]
    with images_named(names):
        predictions = _rankings_of(model, pixels, top) if pixels else []
    targets = [target or ranking[0][0] for _, ranking in predictions]
    classes = [description.class_names.index(name) for name in targets]
    images = [torch.from_numpy(description.preprocessing.normalise(image)) for image in pixels]
    nothing = np.empty(0, np.float32)
    with images_named(names):
        heats = heat_maps(model.network, torch.stack(images), classes) if pixels else nothing
    readable = zip(predictions, targets, heats, strict=True)
    explanations = []
    for source, content in batch:
        if isinstance(content, _View):
            row, name, heat = next(readable)
            explanations.append(
                Explanation(prediction_of(source.name, *row), name, heat, content.picture)
            )
        else:
            explanations.append(Explanation(Prediction(source.name, error=content)))
    return explanations


def _rankings_of(model: Model, pixels: Sequence[Pixels], top: int) -> list[tuple[Status, Ranking]]:
    """The status of each image (C, S, S), and its most probable classes."""
    description = model.description
    images = description.preprocessing.normalise(np.stack(pixels))
    familiarity, familiar = familiarity_of(description.familiarity), None
    if familiarity is None:
        logits = in_torch(model.network)(images)
    else:
        logits, features = logits_and_features_in_torch(model.network, images)
        familiar = familiarity.familiar(features)
    return rankings(interpret(logits, description)[0], description, top, familiar)


def _view_of(source: Source, preprocessing: Preprocessing, side: int) -> _View | str:
    """An image as network input and as a picture; or why it cannot be read."""
    try:
        with IN_USE:
            image = decoded(source, preprocessing)
            box = preprocessing.box(*image.shape[:2])
            return _View(
                preprocessing.pixels(image), square_picture(from_pixels(image, 3), box, side)
            )
    except ContentError as error:
        return str(error)


def grad_cam(network: ResNet, images: Tensor, classes: Sequence[int]) -> Heat:
    """Gradient-weighted class activation maps (Selvaraju et al. 2017, arXiv:1610.02391, eq. 1, 2).

    Of the feature maps that the pooling takes, which are the last stage's (after the last norm and
    ReLU in a pre-activation network), enlarged linearly to the size of the images.

    Args:
        network: on any device.
        images: (N, C, H, W), normalised.
        classes: for each image, the number of the class that the heat map is about.

    Returns:
        (N, H, W) of 0..1.

    Raises:
        MissingExtra: captum is not installed.
        UsageError: it is a module of the user's own, whose stages are unknown.
    """
    if not isinstance(network, ResNet):
        raise UsageError(
            f"Grad-CAM looks at the last stage of a ResNet, not of {type(network).__name__}; "
            'method="occlusion" explains any network'
        )
    captum = require("captum.attr", "explain")
    parts = list(network.children())
    head = nn.Sequential(parts[-2], nn.Flatten(1), parts[-1])  # pooling and classifier
    with evaluating(network), torch.no_grad():
        maps = images.to(next(network.parameters()).device)
        for part in parts[:-2]:
            maps = part(maps)
    heat = captum.LayerGradCam(head, head[0]).attribute(
        maps.requires_grad_(),
        torch.tensor(classes, device=maps.device),
        attribute_to_layer_input=True,
        relu_attributions=True,
    )
    return _normalised(heat.detach(), images.shape[-2:])


def _occlusion(network: ResNet, images: Tensor, classes: Sequence[int]) -> Heat:
    """By how much the log probability of a class falls where a part of the image is covered.

    Zeiler and Fergus 2014, arXiv:1311.2901, section 4.2. A square of a quarter of the side, of the
    mean colour, moves by a sixteenth: 169 images to compute for each.

    Args:
        network: on any device.
        images: (N, C, H, W), normalised.
        classes: for each image, the number of its class.

    Returns:
        (N, H, W) of 0..1.

    Raises:
        MissingExtra: captum is not installed.
    """
    captum = require("captum.attr", "explain")
    channels, height, width = images.shape[1:]
    device = next(network.parameters()).device

    def log_probabilities(inputs: Tensor) -> Tensor:
        return F.log_softmax(network(inputs), dim=1)

    with evaluating(network), torch.no_grad():
        fall = captum.Occlusion(log_probabilities).attribute(
            images.to(device),
            sliding_window_shapes=(channels, max(1, height // 4), max(1, width // 4)),
            strides=(channels, max(1, height // 16), max(1, width // 16)),
            baselines=0,
            target=torch.tensor(classes, device=device),
            perturbations_per_eval=max(1, _AT_ONCE // len(images)),
        )
    return _normalised(fall.mean(dim=1, keepdim=True), images.shape[-2:])


def _normalised(heat: Tensor, size: Sequence[int]) -> Heat:
    """Maps (N, 1, h, w) without their negative part, enlarged to (N, H, W), at most 1."""
    height, width = size
    large = resized(heat.float().cpu().clamp(min=0), height, width)[:, 0]
    peaks = large.amax(dim=(1, 2), keepdim=True)
    return finite(np.asarray((large / peaks.clamp(min=torch.finfo().tiny)).numpy()))


_METHODS: dict[str, _HeatMaps] = {
    "grad-cam": grad_cam,
    "occlusion": _occlusion,
}
