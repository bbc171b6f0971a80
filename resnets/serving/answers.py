"""Images that clients send, what a network computes for them, and the answers.

Shapes: K classes, F features.
"""

from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from resnets.evaluation.predict import Prediction, Ranking, Status
from resnets.images import Pixels

Floats: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True)
class Upload:
    """An image that a client sent.

    Attributes:
        name: of the file, as the client calls it.
        content: its bytes, or the pixels (H, W, C) uint8 with C of 1, 3 or 4.
    """

    name: str
    content: bytes | Pixels = field(repr=False)


@dataclass(frozen=True)
class Outputs:
    """What a network computes for an image.

    Attributes:
        probabilities: (K,), calibrated.
        status: whether to trust them.
        top: the most probable classes.
        features: (F,); None where neither the status nor anybody needs them.
    """

    probabilities: Floats
    status: Status
    top: Ranking
    features: Floats | None = None


@dataclass(frozen=True)
class Answer:
    """The answer for one image.

    Attributes:
        prediction: of the image, or why it cannot be read.
        outputs: of the network; None if it cannot be read.
        http_status: of the response, if it is the only image of a request.
    """

    prediction: Prediction
    outputs: Outputs | None = None
    http_status: int = 200
