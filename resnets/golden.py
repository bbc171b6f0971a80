"""A golden image: a synthetic one, whose probabilities stand in the file of a network.

Whoever opens the file computes it and compares: a wrong runtime, a damaged build or a file that
does not fit its engine shows before the first request. Shapes: R x R pixels, C channels, S the
side that the network sees, K classes.
"""

from collections.abc import Mapping
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from resnets.images import Pixels, Preprocessing

if TYPE_CHECKING:
    from torch.nn import Module

Floats = NDArray[np.float32]

TOLERANCE = {"float32": 1e-3, "fp16": 0.02, "int8": 0.05}  # of a probability, by precision
_SEED = 0
_TILES = 8  # on each side
_DIGITS = 6  # of a probability, behind the point


def golden_image(preprocessing: Preprocessing, seed: int = _SEED) -> Pixels:
    """The image (R, R, C): a mosaic of random colours, the same on every machine.

    >>> golden_image(Preprocessing(28, 32, (0.5,), (0.25,)))[0, ::4, 0].tolist()
    [172, 47, 117, 192, 67, 251, 195, 103]
    """
    side, channels = preprocessing.resize, preprocessing.channels
    draw = np.random.RandomState(seed)  # its numbers are the same in each NumPy
    colours = draw.randint(0, 256, (_TILES, _TILES, channels))
    tile = np.arange(side) * _TILES // side
    return colours[np.ix_(tile, tile)].astype(np.uint8)


def golden_of(
    network: "Module", preprocessing: Preprocessing, calibration: Mapping[str, Any]
) -> dict[str, Any]:
    """The seed of the image and its probabilities by PyTorch on the CPU, for `Description.golden`.

    Empty where they are not finite, or the network is not in float32 and on a real device.

    Args:
        network: from images (N, C, S, S) to logits (N, K).
        preprocessing: of its images.
        calibration: `Description.calibration`.
    """
    import torch

    from resnets.networks.evaluation_mode import evaluating

    weight = next(network.parameters())
    if weight.dtype != torch.float32 or weight.is_meta:
        return {}
    window = preprocessing.window
    seen = golden_image(preprocessing)[window, window].transpose(2, 0, 1)
    image = torch.from_numpy(preprocessing.normalise(seen[None]))
    if weight.device.type != "cpu":  # a GPU rounds convolutions to TF32, by more than is allowed
        network = deepcopy(network).cpu()
    with evaluating(network), torch.inference_mode():
        logits = network.forward(image)[0].cpu().double()  # not compiled for one image
    if not logits.isfinite().all():
        return {}
    probabilities = (logits / float(calibration.get("temperature", 1.0))).softmax(0)
    return golden_from(probabilities.numpy())


def golden_from(probabilities: NDArray[np.floating[Any]]) -> dict[str, Any]:
    """What `Description.golden` holds of the image's probabilities (K,)."""
    return {
        "seed": _SEED,
        "probabilities": [round(float(share), _DIGITS) for share in probabilities],
    }


def seed_of(golden: Mapping[str, Any]) -> int:
    """The seed of the golden image in a file; our own where it has none that is valid."""
    seed = golden.get("seed")
    return seed if isinstance(seed, int) and 0 <= seed < 1 << 32 else _SEED


def difference(golden: Mapping[str, Any], probabilities: Floats) -> float:
    """The largest difference of a probability (K,) from those of a file; infinite for nonsense."""
    try:
        expected = np.asarray(golden["probabilities"], np.float64)
    except (KeyError, TypeError, ValueError):
        return float("inf")
    if expected.shape != probabilities.shape:
        return float("inf")
    return float(np.nan_to_num(np.abs(expected - probabilities), nan=np.inf).max())
