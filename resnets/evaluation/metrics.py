"""How good a network is: from its logits and the true labels to figures, with their uncertainty.

All figures are computed once, from the logits of all images in their own order, in float64. So they
do not depend on how the images were batched or shared among processes (`merge` puts them together).

Shapes: N images, K classes; labels are integers in 0 ... K-1.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from resnets.errors import UsageError
from resnets.evaluation.calibration import reliability
from resnets.evaluation.logits import Floats, Integers, check_logits, log_softmax
from resnets.evaluation.proportion import Proportion
from resnets.format import plural


@dataclass(frozen=True)
class ClassScores:
    """The figures of one class. A figure that would divide by zero is None.

    Attributes:
        name: of the class.
        precision: share of the predictions of this class that are right; None if there are none.
        recall: share of the images of this class that are predicted as it; None if there are
            none.
        f1: harmonic mean of the two; None if there are neither images nor predictions.
        support: number of images with this label.
    """

    name: str
    precision: float | None
    recall: float | None
    f1: float | None
    support: int


@dataclass(frozen=True)
class Confusion:
    """`count` images of the class `true` are predicted as `predicted`, a `share` of that class."""

    true: str
    predicted: str
    count: int
    share: float


@dataclass(frozen=True)
class Metrics:
    """The figures of one network on one set of images.

    Attributes:
        top1: images whose greatest logit is that of their label (the first of equal ones).
        top5: images whose label is among the five greatest logits; all of them if K <= 5.
        loss: mean cross-entropy in nats, 0 to infinity.
        brier: mean squared distance between probabilities and one-hot label, summed over the
            classes, 0 to 2 (Brier 1950).
        calibration_error: expected calibration error over 15 bins, 0 to 1; see `Reliability`.
        balanced_accuracy: mean recall over the classes that occur, 0 to 1.
        macro_f1: mean F1 over the classes that occur or are predicted, 0 to 1.
        classes: one row per class, in label order.
        confusion: K x K counts; row = true class, column = predicted class.
    """

    top1: Proportion
    top5: Proportion
    loss: float
    brier: float
    calibration_error: float
    balanced_accuracy: float
    macro_f1: float
    classes: tuple[ClassScores, ...]
    confusion: tuple[tuple[int, ...], ...]

    def __repr__(self) -> str:
        classes = plural(len(self.classes), "class")
        return f"<Metrics: accuracy {self.top1}, loss {self.loss:.4f}, {classes}>"

    def for_header(self) -> dict[str, Any]:
        """The figures that a model file keeps: of each class, the images that are right and all."""
        rows = enumerate(self.classes)
        classes = [(self.confusion[place][place], row.support) for place, row in rows]
        return {"top1": self.top1.to_dict(), "loss": self.loss, "classes": classes}

    @property
    def largest_class(self) -> Proportion:
        """How often always predicting the most frequent class would be right."""
        return Proportion(max(row.support for row in self.classes), self.top1.total)

    @property
    def better_than_chance(self) -> bool:
        """Whether the images show that the network is right more often than `largest_class`."""
        return better_than_chance(self.top1, self.largest_class)

    def most_confused(self, limit: int = 10) -> list[Confusion]:
        """The pairs of true and predicted class with the most mistakes, largest count first."""
        counts = np.array(self.confusion)
        np.fill_diagonal(counts, 0)
        order = np.argsort(-counts, axis=None, kind="stable")[:limit]
        pairs = [divmod(int(place), len(counts)) for place in order]
        return [self.confused(i, j) for i, j in pairs if counts[i, j]]

    def confused(self, true: int, predicted: int) -> Confusion:
        """How often one class is predicted as another. The true class must occur."""
        count, row = self.confusion[true][predicted], self.classes[true]
        return Confusion(row.name, self.classes[predicted].name, count, count / row.support)

    def to_dict(self) -> dict[str, Any]:
        """For JSON: plain values only, with the most confused pairs."""
        proportions = {"top1": self.top1.to_dict(), "top5": self.top5.to_dict()}
        return (
            asdict(self)
            | proportions
            | {"better_than_chance": self.better_than_chance}
            | {"most_confused": [asdict(pair) for pair in self.most_confused()]}
        )

    def rows(self) -> list[dict[str, Any]]:
        """For CSV: one row per class, an undefined figure being empty (None)."""
        return [asdict(row) for row in self.classes]


def measure(
    logits: ArrayLike, labels: ArrayLike, class_names: Sequence[str] | None = None
) -> Metrics:
    """All figures, from logits.

    Args:
        logits: (N, K), finite; logarithms of probabilities will do (`log_probabilities`).
        labels: (N,).
        class_names: K of them; the numbers of the classes by default.

    Raises:
        UsageError: if the shapes do not fit, there is no image, or a label is outside 0 ... K-1.
        ContentError: if a logit is NaN or infinite.

    >>> metrics = measure([[2.0, 0.0], [0.0, 1.0], [3.0, 1.0]], [0, 1, 1], ["cat", "dog"])
    >>> metrics.top1.count, metrics.confusion
    (2, ((1, 0), (1, 1)))
    """
    from sklearn import metrics as sk

    scores, truth = check_logits(logits, labels)
    total, classes = scores.shape
    names = tuple(map(str, range(classes))) if class_names is None else tuple(class_names)
    if len(names) != classes:
        raise UsageError(f"{len(names)} class names for {plural(classes, 'class')}")
    every = np.arange(classes)
    predicted = scores.argmax(axis=1)
    logarithms = log_softmax(scores)
    probabilities = np.exp(logarithms)
    table = sk.confusion_matrix(truth, predicted, labels=every)
    rows = _class_scores(truth, predicted, names)
    return Metrics(
        top1=Proportion(int(sk.accuracy_score(truth, predicted, normalize=False)), total),
        top5=Proportion(_top_k(scores, truth, 5), total),
        loss=float(-logarithms[np.arange(total), truth].mean()),
        brier=float(sk.brier_score_loss(truth, probabilities, labels=every, scale_by_half=False)),
        calibration_error=reliability(scores, truth).error,
        balanced_accuracy=_mean_of_defined(row.recall for row in rows),
        macro_f1=_mean_of_defined(row.f1 for row in rows),
        classes=rows,
        confusion=tuple(tuple(map(int, row)) for row in table),
    )


def better_than_chance(right: Proportion, largest_class: Proportion) -> bool:
    """Whether the lower end of the accuracy's interval is above the share of the largest class.

    Where it is not, the network's mistakes say something about the network only, and nothing about
    the images.
    """
    return right.interval[0] > largest_class.value


def _top_k(scores: Floats, labels: Integers, k: int) -> int:
    """Number of images whose label is among the k greatest scores; of equals the first counts."""
    from sklearn.metrics import top_k_accuracy_score

    classes = scores.shape[1]
    if k >= classes:
        return len(labels)
    # scikit-learn prefers the last of equal scores, argmax the first: so reverse the classes
    reversed_scores = scores[:, 1] if classes == 2 else scores[:, ::-1]
    every = np.arange(classes)
    count = top_k_accuracy_score(
        classes - 1 - labels, reversed_scores, k=k, normalize=False, labels=every
    )
    return int(count)


def _class_scores(
    labels: Integers, predicted: Integers, names: Sequence[str]
) -> tuple[ClassScores, ...]:
    """Precision, recall, F1 and support of every class."""
    from sklearn.metrics import precision_recall_fscore_support

    columns = precision_recall_fscore_support(
        labels, predicted, labels=np.arange(len(names)), zero_division=np.nan
    )
    return tuple(
        ClassScores(name, _or_none(precision), _or_none(recall), _or_none(f1), int(support))
        for name, precision, recall, f1, support in zip(names, *columns, strict=True)
    )


def _or_none(value: float) -> float | None:
    """A plain number, or None for one that is not defined."""
    return None if np.isnan(value) else float(value)


def _mean_of_defined(values: Iterable[float | None]) -> float:
    """The mean of those that are not None."""
    return float(np.mean([value for value in values if value is not None]))


def merge(parts: Iterable[tuple[ArrayLike, ArrayLike]], total: int) -> NDArray[Any]:
    """Put what several processes or batches computed into the order of the images.

    Args:
        parts: pairs of indices (M,) and rows for these images, such as logits (M, K).
        total: N, the number of images; every index 0 ... N-1 must come exactly once.

    Returns:
        (N, K), each row unchanged.

    Raises:
        UsageError: if an image is missing, comes twice or is not among the N.

    >>> merge([([2, 0], [[5.0], [3.0]]), ([1], [[4.0]])], total=3).tolist()
    [[3.0], [4.0], [5.0]]
    """
    pairs = [(np.asarray(indices, dtype=np.int64), np.asarray(rows)) for indices, rows in parts]
    pairs = [(indices, rows) for indices, rows in pairs if len(indices)]
    if not pairs:
        raise UsageError("nothing to merge: no process has an image")
    places = np.concatenate([indices for indices, _ in pairs])
    if places.min() < 0 or places.max() >= total:
        raise UsageError(f"images {places.min()} to {places.max()} came, of 0 to {total - 1}")
    times = np.bincount(places, minlength=total)
    if (times != 1).any():
        first = int(np.flatnonzero(times != 1)[0])
        raise UsageError(f"image {first} of {total} came {times[first]} times, not once")
    return np.concatenate([rows for _, rows in pairs])[np.argsort(places)]
