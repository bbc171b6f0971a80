"""The engine that runs a network by PyTorch, on any device, without an export.

Shapes: B images of a batch, C channels, S the side that the network sees, R the preprocessing's
`resize`, K classes, F features.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch

from resnets.errors import UsageError
from resnets.evaluation.engine import Engine, Floats, engine_in_a_line, finite, frames_of
from resnets.evaluation.logits import log_probabilities
from resnets.evaluation.predict import interpret
from resnets.images import Pixels, Preprocessing
from resnets.model_file import Description, Model
from resnets.networks.evaluation_mode import evaluating

if TYPE_CHECKING:
    from resnets.networks import ResNet

LogitsOf = Callable[[Floats], Floats]  # normalised images (B, C, S, S) to logits (B, K)


def in_torch(network: "ResNet") -> LogitsOf:
    """Logits by PyTorch, on the device where the network is."""
    device = next(network.parameters()).device

    def logits_of(images: Floats) -> Floats:
        with evaluating(network), torch.inference_mode():
            logits: Floats = network(torch.from_numpy(images).to(device)).float().cpu().numpy()
            return finite(logits)

    return logits_of


def logits_and_features_in_torch(network: "ResNet", images: Floats) -> tuple[Floats, Floats]:
    """Logits (B, K) and features (B, F) of normalised images (B, C, S, S), by PyTorch.

    Raises:
        UsageError: it is a module of the user's own, whose features are unknown.
    """
    if not hasattr(network, "embed"):
        raise UsageError(f"{type(network).__name__} has no features: only ResNets give theirs")
    device = next(network.parameters()).device
    with evaluating(network), torch.inference_mode():
        features = network.embed(torch.from_numpy(images).to(device))
        logits = network.fc(features)
    arrays: list[Floats] = [tensor.float().cpu().numpy() for tensor in (logits, features)]
    return finite(arrays[0]), finite(arrays[1])


class Eager:
    """A loaded network, including later changes of its weights: see `engine.Engine`."""

    name = "torch"
    threads = 0

    def __init__(self, model: Model) -> None:
        self.network, self.description = model.network, model.description

    def __repr__(self) -> str:
        return engine_in_a_line(self)

    @property
    def model(self) -> Model:
        """The network with what is known of it."""
        return Model(self.network, self.description)

    def logits(self, images: Pixels) -> Floats:
        """(B, H, W, C) uint8 -> (B, K)."""
        return in_torch(self.network)(_network_input(images, self.description.preprocessing))

    def logits_and_features(self, images: Pixels) -> tuple[Floats, Floats]:
        """(B, H, W, C) uint8 -> (B, K), (B, F)."""
        return logits_and_features_in_torch(
            self.network, _network_input(images, self.description.preprocessing)
        )

    def probabilities(self, images: Pixels) -> Floats:
        """(B, K), see `engine.Engine`."""
        return interpret(self.logits(images), self.description)[0].astype(np.float32)

    def features(self, images: Pixels) -> Floats:
        """(B, F), see `engine.Engine`."""
        return self.logits_and_features(images)[1]

    def outputs(self, images: Pixels) -> tuple[Floats, Floats]:
        """(B, K) and (B, F), see `engine.Engine`."""
        logits, features = self.logits_and_features(images)
        return interpret(logits, self.description)[0].astype(np.float32), features

    def graph(self, images: Pixels) -> tuple[Floats, Floats]:
        """Both, see `engine.Engine`; prepared outside of any graph."""
        return self.outputs(images)


def _network_input(images: Pixels, preprocessing: Preprocessing) -> Floats:
    """(B, H, W, C) uint8 -> (B, C, S, S), normalised."""
    frames = frames_of(images, preprocessing)
    window = preprocessing.window
    pixels = np.ascontiguousarray(frames[:, window, window].transpose(0, 3, 1, 2))
    return preprocessing.normalise(pixels)


def logits_by(engine: Engine, images: Pixels) -> Floats:
    """Logits before calibration, (B, K), up to a constant for each image: (B, H, W, C) uint8.

    An exported file gives only calibrated probabilities; their logarithms are logits divided by
    the temperature.
    """
    if isinstance(engine, Eager):
        return engine.logits(images)
    return _logits_from(engine.probabilities(images), engine.description)


def outputs_by(engine: Engine, images: Pixels) -> tuple[Floats, Floats]:
    """The same with the features, (B, K) and (B, F), in one computation."""
    if isinstance(engine, Eager):
        return engine.logits_and_features(images)
    probabilities, features = engine.outputs(images)
    return _logits_from(probabilities, engine.description), features


def _logits_from(probabilities: Floats, description: Description) -> Floats:
    """Logits up to a constant for each image, from calibrated probabilities (B, K)."""
    temperature = float(description.calibration.get("temperature", 1.0))
    return (log_probabilities(probabilities) * temperature).astype(np.float32)
