"""Confident learning: finding the images whose label is probably wrong.

Northcutt, Jiang and Chuang 2021, "Confident Learning: Estimating Uncertainty in Dataset Labels",
Journal of Artificial Intelligence Research 70 (arXiv:1911.00068), written from the paper. A network
counts as confident that an image is of class j if its probability of j is at least the mean over
the images labelled j. An image is suspicious if the network is confident of another class.

The probabilities must be of images that the network was not trained on, since it has memorised the
labels of its training images, the wrong ones too. And the network must be shown to be better than
chance on these images: otherwise its disagreement with a label says nothing about the label.
Unlike in the paper, no image counts as another class than its label where the label is at least
as probable.

Shapes: N images, K classes.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from resnets.evaluation.logits import Floats, Integers, check_logits, log_softmax
from resnets.evaluation.metrics import better_than_chance
from resnets.evaluation.proportion import Proportion

_ROUNDING = 1e-12  # the mean of equal probabilities may come out above each of them


@dataclass(frozen=True)
class Suspect:
    """An image whose label is probably wrong.

    Attributes:
        index: of the image, 0 ... N-1.
        label: the class it is labelled as.
        suggested: the class that the network is confident of.
        probability: of the label, 0 to 1.
        margin: by how much the suggested class is more probable than the label, above 0, up to 1.
    """

    index: int
    label: int
    suggested: int
    probability: float
    margin: float


@dataclass(frozen=True)
class LabelErrors:
    """The result of confident learning.

    Attributes:
        thresholds: (K,), the mean probability that images labelled j have for j; infinite for a
            class that labels no image.
        confident_joint: (K, K), number of images labelled i (row) and confidently j (column).
        joint: (K, K), estimated share of images labelled i that truly are j; sums to 1. None where
            the network is not shown to be better than chance.
        suspects: off the diagonal of the confident joint, largest margin first; none likewise.
    """

    thresholds: Floats
    confident_joint: Integers
    joint: Floats | None
    suspects: tuple[Suspect, ...]

    @property
    def error_rate(self) -> float | None:
        """Estimated share of wrong labels, 0 to 1; None where it cannot be estimated."""
        return None if self.joint is None else float(1 - np.trace(self.joint))

    def withheld(self) -> "LabelErrors":
        """The same without conclusions about labels, for images that the network has seen."""
        return replace(self, joint=None, suspects=())

    def rows(self, names: Sequence[str], class_names: Sequence[str]) -> list[dict[str, Any]]:
        """For CSV and JSON: the suspects, with the image's name and the names of its classes."""
        return [
            asdict(suspect)
            | {
                "name": names[suspect.index],
                "label": class_names[suspect.label],
                "suggested": class_names[suspect.suggested],
            }
            for suspect in self.suspects
        ]


def find_label_errors(
    logits: ArrayLike, labels: ArrayLike, temperature: float = 1.0
) -> LabelErrors:
    """Find the images whose label is probably wrong.

    Args:
        logits: (N, K), finite, of images the network was not trained on.
        labels: (N,), as they stand in the data set.
        temperature: of the network, by which logits are divided: a class is compared with what it
            usually gets, which depends on it.

    Raises:
        UsageError: if the shapes do not fit, there is no image, or a label is outside 0 ... K-1.
        ContentError: if a logit is NaN or infinite.
    """
    scores, noisy = check_logits(logits, labels)
    scores = scores / temperature
    total, classes = scores.shape
    probabilities = np.exp(log_softmax(scores))
    label_share = probabilities[np.arange(total), noisy]
    support = np.bincount(noisy, minlength=classes)
    sums = np.bincount(noisy, weights=label_share, minlength=classes)
    thresholds = np.full(classes, np.inf)
    np.divide(sums, support, out=thresholds, where=support > 0)

    # equation 1: the most probable class that reaches its threshold; -1 where none does
    reached = np.where(probabilities >= thresholds - _ROUNDING, probabilities, -1.0)
    confident, share = reached.argmax(axis=1), reached.max(axis=1)
    counted = (share >= 0) & ((confident == noisy) | (share > label_share))
    confident_joint = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(confident_joint, (noisy[counted], confident[counted]), 1)

    margin = share - label_share
    right = Proportion(int((scores.argmax(axis=1) == noisy).sum()), total)
    conclusive = better_than_chance(right, Proportion(int(support.max()), total))
    wrong = np.flatnonzero(counted & (confident != noisy) & conclusive)
    ranked = wrong[np.argsort(-margin[wrong], kind="stable")]
    return LabelErrors(
        thresholds=thresholds,
        confident_joint=confident_joint,
        joint=_estimated_joint(confident_joint, support) if conclusive else None,
        suspects=tuple(
            Suspect(
                int(i), int(noisy[i]), int(confident[i]), float(label_share[i]), float(margin[i])
            )
            for i in ranked
        ),
    )


def _estimated_joint(confident_joint: Integers, support: Integers) -> Floats:
    """Equation 3: each row scaled to the number of images with that label, all to a sum of 1.

    A label without a confident image counts as right.
    """
    counted = confident_joint + np.diag((confident_joint.sum(axis=1) == 0) * support)
    rows = counted.sum(axis=1, keepdims=True)
    scaled = counted * support[:, None] / np.maximum(rows, 1)
    return np.asarray(scaled / scaled.sum())
