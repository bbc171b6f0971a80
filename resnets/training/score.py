"""How many images a network gets right, counted over all processes."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnets.data.batches import Batch
from resnets.training.parallel import total


@dataclass(frozen=True)
class Score:
    """What a network did on some images.

    Attributes:
        correct: how many it got right, of `images`.
        loss: mean cross-entropy in nats.
    """

    correct: int
    images: int
    loss: float

    @property
    def accuracy(self) -> float:
        """The fraction that is right."""
        return self.correct / self.images


def nothing(device: torch.device) -> Tensor:
    """The tally of no image: summed loss, right answers and images, (3,) float64."""
    return torch.zeros(3, dtype=torch.float64, device=device)


def tally(logits: Tensor, targets: Tensor, loss: Tensor) -> Tensor:
    """Summed loss, right answers and images, (3,) float64; stays on the device.

    Args:
        logits: (N, K).
        targets: (N,) labels, or (N, K) probabilities, of which the largest counts as the label.
        loss: summed over the images.
    """
    labels = targets if targets.ndim == 1 else targets.argmax(1)
    correct = (logits.argmax(1) == labels).sum()
    images = torch.full_like(correct, len(logits))
    return torch.stack([loss.detach().double(), correct.double(), images.double()])


def as_score(tallied: Tensor) -> Score:
    """The score over all processes, from what each has tallied."""
    loss, correct, images = total(tallied.clone()).tolist()
    return Score(int(correct), int(images), loss / images)


@torch.no_grad()
def scoring(network: nn.Module, batches: Iterable[Batch]) -> Iterator[Tensor]:
    """Tally one batch after the other, so that a caller can do something in between."""
    for batch in batches:
        logits = network(batch.images).float()
        yield tally(logits, batch.targets, F.cross_entropy(logits, batch.targets, reduction="sum"))


def score(network: nn.Module, batches: Iterable[Batch], device: torch.device) -> Score:
    """Score a network, which is in evaluation mode, on every image once over all processes."""
    return as_score(sum(scoring(network, batches), nothing(device)))
