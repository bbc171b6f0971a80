"""Heat maps of what in an image speaks for its prediction, as PNG files.

Only a model file can be explained: an exported file has no gradients. No torch is imported before
the first explanation.
"""

import asyncio
import io
from importlib.util import find_spec
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
from PIL import Image
from starlette.exceptions import HTTPException

from resnets.deployment.exported.reading import is_exported
from resnets.errors import install_hint
from resnets.evaluation.report.pictures import SIDE, overlay, square_picture
from resnets.images import Pixels, Preprocessing, from_pixels
from resnets.images.memory_budget import IN_USE
from resnets.serving.answering import Answering, pixels_of
from resnets.serving.answers import Answer, Floats, Upload
from resnets.serving.batching import DeadlinePassed
from resnets.serving.served_model import ServedModel, digests_of
from resnets.serving.threads import in_own_thread

if TYPE_CHECKING:
    from resnets.model_file import Model

_NEEDED = ("torch", "captum")  # packages


class Explaining:
    """Explains predictions of served models by Grad-CAM.

    Args:
        answering: decodes images, and knows the limits.
    """

    def __init__(self, answering: Answering) -> None:
        self._answering = answering
        self._networks: WeakKeyDictionary[ServedModel, asyncio.Task[Model]] = WeakKeyDictionary()

    async def picture(
        self, model: ServedModel, upload: Upload, answer: Answer, deadline: float
    ) -> bytes | None:
        """The heat map for the predicted class over the image, as a PNG; None if it is unreadable.

        Args:
            model: that predicted.
            upload: the image.
            answer: for it.
            deadline: by the event loop's clock, in seconds.

        Raises:
            DeadlinePassed: it passed before.
        """
        if answer.outputs is None:
            return None
        best = int(answer.outputs.probabilities.argmax())
        preprocessing = model.description.preprocessing
        try:
            async with asyncio.timeout_at(deadline):
                pixels, picture = await self._answering.of_image(
                    _views, upload.content, preprocessing, deadline
                )
                network = await self._network(model)
                heat = await model.between_batches(_heat, network, pixels, best)
                return await self._answering.in_pool(_png, picture, heat, deadline=deadline)
        except TimeoutError:
            raise DeadlinePassed from None

    async def _network(self, model: ServedModel) -> "Model":
        """The network of a model; it is loaded once, while predictions go on.

        Who waits for it may go away: the others, and the next ones, still get it.
        """
        task = self._networks.get(model)
        if task is None:
            task = asyncio.create_task(in_own_thread(_network_of, model))
            self._networks[model] = task
        try:
            return await asyncio.shield(task)
        except Exception:
            self._networks.pop(model, None)
            raise


def _heat(loaded: "Model", pixels: Pixels, best: int) -> Floats:
    """The heat map (S, S) of 0..1 for a class; pixels (C, S, S)."""
    import torch

    from resnets.evaluation.explain import grad_cam

    image = loaded.description.preprocessing.normalise(pixels[None])
    heat: Floats = grad_cam(loaded.network, torch.from_numpy(image), [best])[0]
    return heat


def _network_of(model: ServedModel) -> "Model":
    """The network itself: the one that the engine runs, or that of the file.

    What explains it is imported here, too, which takes seconds.

    Raises:
        HTTPException: 503, the file has changed since the engine read it.
    """
    import resnets.evaluation.explain  # noqa: F401
    from resnets.evaluation.eager import Eager
    from resnets.model_file import load

    if isinstance(model.engine, Eager):
        return model.engine.model
    if digests_of(model.path) != model.digests:  # the engine still runs the file of before
        raise HTTPException(503, f"{model.name} is being replaced; try again", {"Retry-After": "2"})
    return load(model.path)


def refuse_unexplained(model: ServedModel) -> None:
    """Refuse what cannot be explained.

    Raises:
        HTTPException: 501, the model is an exported file, or a package is missing.
    """
    if reason := why_unexplained(model):
        raise HTTPException(501, reason)


def why_unexplained(model: ServedModel) -> str:
    """Why no prediction of a model can be explained; empty if they can."""
    if is_exported(model.path):
        return (
            f"{model.name} is an exported file, which has no gradients to explain it by; serve the "
            "model file that it was made from"
        )
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        return f"explanations need {' and '.join(missing)} ({install_hint('explain')})"
    return ""


def _views(
    content: bytes | Pixels, preprocessing: Preprocessing, max_pixels: int
) -> tuple[Pixels, Pixels]:
    """What the network sees of an image, (C, S, S), and the same part as a picture, (P, P, 3)."""
    with IN_USE:
        image = pixels_of(content, preprocessing, max_pixels)
        box = preprocessing.box(*image.shape[:2])
        return preprocessing.pixels(image), square_picture(from_pixels(image, 3), box, SIDE)


def _png(picture: Pixels, heat: Floats) -> bytes:
    """The heat map over the picture."""
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(overlay(picture, heat))).save(file, "PNG")
    return file.getvalue()
