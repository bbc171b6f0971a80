"""Which of the latest images are worth a user's label: unsure ones that are unlike each other.

An image's worth is its doubt, 1 minus the probability of the predicted class (1 if the image is
unfamiliar), times the distance of its features to the nearest image that stands before it in the
order: of many nearly equal images the first is worth a label, the others hardly.
"""

from dataclasses import dataclass, field
from hashlib import sha256

import numpy as np

from resnets.evaluation.predict import Prediction
from resnets.matrices import product
from resnets.serving.answers import Floats, Outputs

_IMAGES = 200  # in the queue
_BYTES = 64 << 20  # of all images in the queue
_NEARLY_EQUAL = 1e-3  # least distance, so that doubt orders images without features, too


@dataclass(frozen=True)
class Candidate:
    """An image that may be worth a label.

    Attributes:
        content: its bytes.
        digest: of these, see `digest_of`.
        name: of the file, as the client calls it.
        model: the name of the model that predicted.
        prediction: for it.
        outputs: of the network.
    """

    content: bytes = field(repr=False)
    digest: str
    name: str
    model: str
    prediction: Prediction
    outputs: Outputs = field(repr=False)

    @property
    def doubt(self) -> float:
        """How unsure the prediction is, 0 to 1."""
        if self.prediction.status == "unfamiliar":
            return 1.0
        return 1.0 - (self.prediction.probability or 0.0)


def digest_of(content: bytes) -> str:
    """SHA-256 of bytes, in hexadecimal digits; for many megabytes it takes long."""
    return sha256(content).hexdigest()


class Queue:
    """The latest images worth labelling; of more than it holds, the surest one leaves."""

    def __init__(self, images: int = _IMAGES, size: int = _BYTES) -> None:
        self._images, self._most = images, size
        self._size = 0
        self._waiting: dict[str, Candidate] = {}

    def add(self, candidate: Candidate) -> None:
        """Let an image wait; it replaces itself."""
        self.drop(candidate.digest)
        self._waiting[candidate.digest] = candidate
        self._size += len(candidate.content)
        while len(self._waiting) > self._images or self._size > self._most:
            self.drop(min(self._waiting.values(), key=lambda each: each.doubt).digest)

    def get(self, digest: str) -> Candidate | None:
        """The image of a digest; None if it does not wait."""
        return self._waiting.get(digest)

    def drop(self, digest: str) -> Candidate | None:
        """Let an image wait no more; it, if it did."""
        candidate = self._waiting.pop(digest, None)
        self._size -= len(candidate.content) if candidate else 0
        return candidate

    def ordered(self) -> list[Candidate]:
        """The images, the one most worth a label first."""
        candidates = list(self._waiting.values())
        if not candidates:
            return []
        doubts = np.array([each.doubt for each in candidates])
        directions = _directions(candidates)
        distances = np.ones(len(candidates))
        order: list[int] = []
        for _ in candidates:
            worth = doubts * np.maximum(distances, _NEARLY_EQUAL)
            worth[order] = -1
            best = int(worth.argmax())
            order.append(best)
            distances = np.minimum(distances, 1 - product(directions, directions[best]))
        return [candidates[place] for place in order]


def _directions(candidates: list[Candidate]) -> Floats:
    """The features of images as vectors of length 1; zero where they are unknown: (N, F)."""
    known = [each.outputs.features for each in candidates]
    length = next((len(row) for row in known if row is not None), 1)
    rows = [
        np.zeros(length, np.float32) if row is None or len(row) != length else row for row in known
    ]
    table = np.stack(rows).astype(np.float32)
    norms = np.linalg.norm(table, axis=1, keepdims=True)
    return np.asarray(table / np.maximum(norms, np.float32(1e-12)), np.float32)
