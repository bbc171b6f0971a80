"""What happens to images in a server. Each event is told once, to everything that counts it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from resnets.serving.answers import Answer


@dataclass(frozen=True)
class Decoded:
    """An image was decoded.

    Attributes:
        model: the name of the model that it was decoded for.
        seconds: that it took, with waiting for a thread.
    """

    model: str
    seconds: float


@dataclass(frozen=True)
class Computed:
    """A batch was computed.

    Attributes:
        model: the name of the model.
        waits: seconds that each image had waited for the batch.
        seconds: that its computation took.
    """

    model: str
    waits: Sequence[float]
    seconds: float

    @property
    def size(self) -> int:
        """Images of the batch."""
        return len(self.waits)


@dataclass(frozen=True)
class Answered:
    """The images of a request were answered, or were given up.

    Attributes:
        model: the name of the model.
        seconds: from the arrival of the images to their answers.
        answers: one an image; empty where the deadline passed, or the client went away, before.
    """

    model: str
    seconds: float
    answers: Sequence[Answer]


Event: TypeAlias = Decoded | Computed | Answered
Observer: TypeAlias = Callable[[Event], None]
