"""What the measurements during a training say of its course: whether the network overfits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_Records = Sequence[Mapping[str, Any]]  # of the epochs, as the log has them

_RISE = 0.15  # of the lowest validation loss: what a rise must exceed, and at least
_LEAST_RISE = 0.05  # nats
_ENDS = 2  # validations at the end that must all be so much higher: one may be a spike


@dataclass(frozen=True)
class LossRise:
    """The rise of a validation loss after it was lowest.

    Attributes:
        epoch: after which it was lowest, counted from 1.
        lowest: that loss, in nats.
        last_epoch: after which it was measured last.
        last: its loss.
    """

    epoch: int
    lowest: float
    last_epoch: int
    last: float

    @property
    def in_words(self) -> str:
        """The rise as a clause."""
        return (
            f"the validation loss was lowest after epoch {self.epoch} ({self.lowest:.3f}) and "
            f"then rose to {self.last:.3f}"
        )


def loss_rise(epochs: _Records) -> LossRise | None:
    """The rise of the validation loss; None where it ends near its lowest value.

    >>> def course(*losses):
    ...     scores = [{"loss": loss} for loss in losses]
    ...     return [{"epoch": n, "validation": score} for n, score in enumerate(scores, 1)]
    >>> loss_rise(course(0.9, 0.6, 0.7, 0.8))
    LossRise(epoch=2, lowest=0.6, last_epoch=4, last=0.8)
    >>> loss_rise(course(0.9, 0.6, 1.2, 0.61))  # a high rate in the middle of the schedule
    """
    losses = [
        (record["epoch"], record["validation"]["loss"])
        for record in epochs
        if isinstance(record.get("epoch"), int)
        and isinstance((record.get("validation") or {}).get("loss"), float)
    ]  # the charts of a report refuse damaged records
    if len(losses) <= _ENDS:
        return None
    epoch, lowest = min(losses, key=lambda measured: measured[1])
    end = min(loss for _, loss in losses[-_ENDS:])
    if end - lowest <= max(_LEAST_RISE, _RISE * lowest):
        return None
    return LossRise(epoch, lowest, *losses[-1])


def kept_by_patience(epochs: _Records, patience: int) -> int:
    """The epoch whose weights a training with this patience would have kept.

    0 if it would not have ended before the last epoch.

    >>> course = [{"best": epoch in (1, 2, 9)} for epoch in range(1, 11)]
    >>> kept_by_patience(course, 5), kept_by_patience(course, 7)
    (2, 0)
    """
    best = 0
    for number, record in enumerate(epochs[:-1], 1):
        if record.get("best"):
            best = number
        if best and number - best >= patience:
            return best
    return 0


def training_accuracy(epochs: _Records, recipe: Mapping[str, Any]) -> float | None:
    """The accuracy on augmented training images in the epoch whose weights were kept.

    None where it is unknown, and where images were mixed: a network does not name the larger part
    of such an image as often as it names a whole one.
    """
    settings = recipe.get("augmentation") or {}
    mixed = settings.get("mixup") or settings.get("cutmix")
    if not epochs or (mixed and recipe.get("freeze") != "all"):
        return None
    best = [record for record in epochs if record.get("best")]
    kept = best[-1] if recipe.get("patience") and best else epochs[-1]
    accuracy = kept.get("training", {}).get("accuracy")
    return None if accuracy is None else float(accuracy)


def best_epoch(epochs: _Records) -> int:
    """The epoch after which the validation accuracy was best; 0 if none was validated."""
    best = [number for number, record in enumerate(epochs, 1) if record.get("best")]
    return best[-1] if best else 0


def ended_by_patience(epochs: _Records, recipe: Mapping[str, Any]) -> bool:
    """Whether the training ended because the validation accuracy no longer improved."""
    patience = int(recipe.get("patience") or 0)
    best = best_epoch(epochs)
    return bool(patience and best) and len(epochs) - best >= patience
