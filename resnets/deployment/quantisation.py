"""What the step to 8 bits did to a network, and whether the file may be kept."""

import math
from dataclasses import dataclass
from typing import Any

from resnets.deployment.quantise_onnx import Choice
from resnets.errors import ContentError, UsageError
from resnets.evaluation.paired import NORMAL, Comparison

MAX_LOSS = 0.5  # points of accuracy
MAX_DOUBT = 5.0  # points of loss that may be possible, if nobody says --force


@dataclass(frozen=True)
class Scales:
    """What the scales of the activations were taken from.

    Attributes:
        images: how many.
        classes: how many of the network's classes are among them.
        of: how many classes the network has.
        held_out: other images, by which the layers that stay in float32 were chosen.
    """

    images: int
    classes: int
    of: int
    held_out: int

    def __str__(self) -> str:
        which = f"all {self.of}" if self.classes == self.of else f"{self.classes} of {self.of}"
        return f"{self.images} images of {which} classes"


@dataclass(frozen=True)
class Quantisation:
    """What the step to 8 bits did.

    Attributes:
        comparison: A is the file in float32, B the one in 8 bits.
        images: on which they were compared, in words.
        scales: what the scales were taken from.
        choice: which layers stayed in float32, and why.
        bytes_before: size of the file in float32.
        bytes_after: size of the file in 8 bits.
        calibration: on what the file's own temperature and thresholds were fitted, in words.
    """

    comparison: Comparison
    images: str
    scales: Scales
    choice: Choice
    bytes_before: int
    bytes_after: int
    calibration: str

    @property
    def loss(self) -> float:
        """Points of accuracy lost on the images; negative where 8 bits are better."""
        return 0.0 - 100 * self.comparison.pairs.difference

    @property
    def worst(self) -> float:
        """The largest loss that the images do not exclude: the end of its 95 % interval."""
        return -100 * self.comparison.pairs.interval[0]

    def to_dict(self) -> dict[str, Any]:
        """For the metadata of the file: plain values only."""
        before, after = self.comparison.accuracies
        pairs = self.comparison.pairs
        return {
            "images": self.images,
            "calibration_images": self.scales.images,
            "calibration_classes": self.scales.classes,
            "held_out_images": self.scales.held_out,
            "float32_layers": list(self.choice.in_float),
            "accuracy_before": before.to_dict(),
            "accuracy_after": after.to_dict(),
            "loss": self.loss,
            "interval": [-100 * end for end in reversed(pairs.interval)],
            "p_value": pairs.p_value,
            "bytes_before": self.bytes_before,
            "bytes_after": self.bytes_after,
            "temperature_and_thresholds": self.calibration,
        }

    def in_words(self, max_loss: float) -> str:
        """For a person, with what the images do not exclude."""
        before, after = self.comparison.accuracies
        layers = " and ".join(self.choice.in_float)
        kept = f"the {layers} layer in float32" if layers else "no layer in float32"
        lines = [
            f"int8: {kept}, scales from {self.scales}; "
            f"{self.bytes_after:,} bytes instead of {self.bytes_before:,}",
            f"  accuracy in float32  {before}",
            f"  accuracy in int8     {after}",
            f"  {self.comparison.verdict('float32', 'int8')} ({self.images})",
        ]
        if self.worst > max_loss:
            lines.append(f"  {self.doubt()} (allowed: {max_loss:g})")
        return "\n".join([*lines, f"  temperature and thresholds: {self.calibration}"])

    def doubt(self) -> str:
        """What cannot be excluded."""
        total = self.comparison.pairs.total
        return f"a loss of up to {self.worst:.1f} points cannot be excluded on {total:,} images"

    def accuracies(self) -> str:
        """Both, and on which images, in one short sentence."""
        before, after = self.comparison.accuracies
        return f"Right: {before.count:,} in float32, {after.count:,} in int8 ({self.images})"

    def refuse(self, target: str, max_loss: float, force: bool) -> None:
        """Refuse a file that loses too much, or of which too little is known.

        Raises:
            ContentError: more points are lost than `max_loss`; or more than both `max_loss` and
                `MAX_DOUBT` may be lost, and nobody said `force`.
        """
        if self.loss > max_loss:
            raise ContentError(
                f"{target} is not written: 8 bits lose {self.loss:.2f} points of accuracy, "
                f"{max_loss:g} are allowed (--max-loss). {self.accuracies()}"
            )
        limit = max(max_loss, MAX_DOUBT)
        if self.worst > limit and not force:
            raise ContentError(
                f"{target} is not written: {self.doubt()}; give {needed(limit):,} or more labelled "
                f"images with --data, or --force. {self.accuracies()}"
            )


def needed(points: float) -> int:
    """Images that exclude a loss of more than so many points, if both files agree on all of them.

    The end of Tango's interval is then z^2 / (n + z^2).

    >>> needed(5.0), needed(0.5)
    (73, 765)
    """
    share = points / 100
    return math.ceil(NORMAL**2 * (1 - share) / share) if share < 1 else 1


def check_loss(max_loss: float) -> None:
    """Refuse what is no number of points.

    Raises:
        UsageError: it is not from 0 to 100.
    """
    if not 0 <= max_loss <= 100:
        raise UsageError(f"max loss {max_loss}: it is 0 to 100 points of accuracy")
