"""What a trainer tells, one moment after the other."""

from dataclasses import dataclass

from resnets.errors import ContentError
from resnets.training.score import Score


@dataclass(frozen=True)
class Step:
    """A weight update is done, in so many seconds, of which it was `waiting` for the images."""

    epoch: int
    step: int
    images: int
    seconds: float
    waiting: float


@dataclass(frozen=True)
class Interval:
    """What the network did in training since the last interval, over all processes."""

    epoch: int
    step: int
    training: Score
    learning_rate: float


@dataclass(frozen=True)
class Validating:
    """So many validation batches are done; nothing changed since the last weight update."""

    epoch: int
    step: int
    batches: int


@dataclass(frozen=True)
class Epoch:
    """All training images were seen once more, or the steps ran out, and validation is done.

    Attributes:
        best: whether no epoch before it was as good in validation.
        test: only where the test images are followed, for a curve; nothing is chosen by it.
    """

    epoch: int
    step: int
    training: Score
    validation: Score | None
    best: bool
    test: Score | None = None


Record = Step | Interval | Validating | Epoch


class NotFiniteError(ContentError):
    """The loss or a weight became infinite or not a number."""
