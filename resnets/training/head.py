"""The classifier alone, fitted to the features that frozen layers compute once for each image."""

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from resnets.data.batches import Batch
from resnets.networks import ResNet
from resnets.training.parallel import from_first
from resnets.training.trainer import FeaturePass, Interval, Score, Step, Trainer, Validating

Features = NDArray[np.float32]
Labels = NDArray[np.int64]

_STRENGTHS = tuple(10.0**power for power in range(-4, 2))  # scikit-learn's C, weakest first
_UNCHOSEN = 0.01  # where there are too few images to choose by, or training goes on from there
_FOLDS = 5
_MOST_ITERATIONS = 3000
_ABSENT = 10.0  # nats below the other classes: what a class without an image gets

Progress = tuple[int, int, int]  # images with features, those computed for it, and images in all
ReadFeatures = Callable[[str], Generator[Progress, None, tuple[Features, Labels]]]


class FeatureTrainer(Trainer):
    """Reads features of images, and sets the classifier that is fitted to them.

    Args:
        read: yields the `Progress` of the pass over all splits, and returns the features (N, C) and
            labels (N,) of one, "train" or "validation"; several views of an image are several rows.
        options: as of `Trainer`.

    Attributes:
        progress: how far the pass over the images is; None before it begins.
    """

    def __init__(self, read: ReadFeatures, *options: Any, **keywords: Any) -> None:
        super().__init__(*options, **keywords)
        assert isinstance(self.network, ResNet)  # `refuse_settings` says so of any other
        self.read = read
        self.progress: FeaturePass | None = None
        self.seconds = 0.0  # of the pass
        self.mirrored = bool(getattr(read, "mirrors", False))

    @property
    def kept(self) -> str:
        """What a pass that was stopped has left in the cache, as a sentence; else empty."""
        if self.progress is None or self.step:
            return ""
        return (
            f"The features of {self.progress.images:,} of {self.progress.total:,} images"
            f"{' and mirror images' if self.mirrored else ''} are in the cache: the next pass over "
            "them goes on from there."
        )

    def _counted(self, split: str) -> Generator[FeaturePass, None, tuple[Features, Labels]]:
        with closing(self.read(split)) as reading:
            while True:
                start = time.perf_counter()
                try:
                    images, computed, total = next(reading)
                except StopIteration as end:
                    features, labels = end.value
                    return features, labels
                self.seconds += time.perf_counter() - start
                speed = computed / self.seconds
                self.progress = FeaturePass(1, self.step, images, total, speed, self.mirrored)
                yield self.progress

    def set_classifier(self, weight: Features, bias: Features) -> None:
        """Weights (K, C) and biases (K,)."""
        with torch.no_grad():
            self.network.get_parameter("fc.weight").copy_(torch.from_numpy(weight))
            self.network.get_parameter("fc.bias").copy_(torch.from_numpy(bias))


class HeadTrainer(FeatureTrainer):
    """Fits the classifier of a frozen network to convergence, in one epoch that is no descent.

    It is multinomial logistic regression with an L2 penalty, on standardised features. The penalty
    is chosen by the loss on the validation images, or without these by cross-validation among the
    training images.

    Attributes:
        candidates: among how many classifiers the validation images choose.
        strength: the inverse penalty that was chosen, scikit-learn's C.
    """

    descends = False

    def __init__(self, read: ReadFeatures, *options: Any, **keywords: Any) -> None:
        super().__init__(read, *options, **keywords)
        self.candidates = 1 if self.measured.validation is None else len(_STRENGTHS)
        self.strength = 0.0
        self.validation_score: Score | None = None

    def train(self) -> Iterator[Step | Interval | FeaturePass]:  # type: ignore[override]
        """Fit the classifier, once its features are there."""
        start = time.perf_counter()
        features, labels = yield from self._counted("train")
        validation = None
        if self.measured.validation is not None:
            validation = yield from self._counted("validation")
        waiting = time.perf_counter() - start
        balanced = self.recipe.class_weights == "balanced"
        classes = len(self.network.get_parameter("fc.bias"))
        views = len(labels) // len(self.batches.images)
        weight, bias, self.strength = _fit_classifier(
            features, labels, classes, validation, views=views, balanced=balanced
        )
        self.set_classifier(weight, bias)
        self.step = self.steps
        training = _score(features @ weight.T + bias, labels)
        if validation is not None:
            self.validation_score = _score(validation[0] @ weight.T + bias, validation[1])
        tally = [training.loss * training.images, training.correct, training.images]
        self.epoch_tally += torch.tensor(tally, dtype=torch.float64)
        yield Interval(1, self.step, training, 0.0)
        seconds = time.perf_counter() - start
        yield Step(1, self.step, len(labels), seconds, waiting)

    def score(self, batches: Iterable[Batch] | None) -> Generator[Validating, None, Score | None]:
        """Score on images; on the validation images, by the features that are there already."""
        if batches is self.measured.validation and self.validation_score is not None:
            return self.validation_score
        return (yield from super().score(batches))


class HeadFirstTrainer(FeatureTrainer):
    """Fits the classifier to features of the network before the first step, then trains as usual.

    A fresh classifier sends large gradients through layers that were good before; with a fitted
    one they change less (arXiv:2202.10054). No validation image has a part in it. The first of
    several processes fits, and all get the same.
    """

    def train(self) -> Iterator[Step | Interval | FeaturePass]:  # type: ignore[override]
        """Train to the end of the epoch; the first one begins with the fit."""
        if self.step == 0:
            yield from self.fit_head()
        yield from super().train()

    def fit_head(self) -> Generator[FeaturePass, None, None]:
        """Fit the classifier. All processes call it together."""
        nothing = (np.empty(0, np.float32),) * 2
        first = self.batches.process.rank == 0
        self.set_classifier(*from_first((yield from self._fitted()) if first else nothing))

    def _fitted(self) -> Generator[FeaturePass, None, tuple[Features, Features]]:
        """Weights (K, C) and biases (K,)."""
        features, labels = yield from self._counted("train")
        balanced = self.recipe.class_weights == "balanced" or self.recipe.balanced_sampling
        classes = len(self.network.get_parameter("fc.bias"))
        weight, bias, _ = _fit_classifier(
            features, labels, classes, strength=_UNCHOSEN, balanced=balanced
        )
        return weight, bias


def _fit_classifier(
    features: Features,
    labels: Labels,
    num_classes: int,
    validation: tuple[Features, Labels] | None = None,
    *,
    views: int = 1,
    strength: float | None = None,
    balanced: bool = False,
) -> tuple[Features, Features, float]:
    """Weights (K, C) and biases (K,) of the multinomial logistic regression that predicts best.

    Args:
        features: (N, C).
        labels: (N,), each from 0 to ``num_classes`` - 1. A class without any is never predicted.
        num_classes: K.
        validation: features and labels whose mean loss chooses the penalty; None: cross-validation.
        views: of an image; the rows of all images in the first one come first, and so on.
        strength: the inverse penalty, scikit-learn's C; None: chosen.
        balanced: weight each class inversely to its number of images.

    Returns:
        Weights, biases and the inverse penalty that was chosen.

    >>> features = np.float32([[0, 1], [1, 0], [0, 2], [2, 0]])
    >>> weight, bias, _ = _fit_classifier(features, np.array([0, 1, 0, 1]), 2)
    >>> (features @ weight.T + bias).argmax(1).tolist()
    [0, 1, 0, 1]
    """
    mean, std = features.mean(0), features.std(0) + np.float32(1e-6)

    def fitted(rows: NDArray[Any], strength: float) -> tuple[Features, Features]:
        scaled = (features[rows] - mean) / std
        weight, bias = _regression(scaled, labels[rows], num_classes, strength, balanced)
        weight /= std
        return weight, bias - weight @ mean

    def loss(classifier: tuple[Features, Features], others: tuple[Features, Labels]) -> float:
        weight, bias = classifier
        return _score(others[0] @ weight.T + bias, others[1]).loss * len(others[1])

    everything = np.arange(len(labels))
    if strength is not None:
        return *fitted(everything, strength), strength
    if validation is not None:
        classifiers = [fitted(everything, c) for c in _STRENGTHS]
        best = int(np.argmin([loss(classifier, validation) for classifier in classifiers]))
        return *classifiers[best], _STRENGTHS[best]
    strength, folds = _UNCHOSEN, _folds(labels, views)
    if folds:
        parts = [(rows, (features[rest], labels[rest])) for rows, rest in folds]
        losses = [sum(loss(fitted(rows, c), rest) for rows, rest in parts) for c in _STRENGTHS]
        strength = _STRENGTHS[int(np.argmin(losses))]
    return *fitted(everything, strength), strength


def _folds(labels: Labels, views: int) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Parts to fit and to measure on, each with every class; none if a class has one image.

    All views of an image are in the same part: else its mirror image would tell its class.
    """
    count = len(labels) // views
    labels = labels[:count]
    fewest = int(min(np.bincount(labels)[np.unique(labels)]))
    if fewest < 2 or len(np.unique(labels)) < 2:
        return []
    from sklearn.model_selection import StratifiedKFold

    splitter = StratifiedKFold(min(_FOLDS, fewest), shuffle=True, random_state=0)
    offsets = count * np.arange(views)[:, None]
    return [
        ((rows + offsets).ravel(), (rest + offsets).ravel())
        for rows, rest in splitter.split(labels, labels)
    ]


def _regression(
    features: Features, labels: Labels, num_classes: int, strength: float, balanced: bool
) -> tuple[Features, Features]:
    """Weights (K, C) and biases (K,) for standardised features."""
    weight = np.zeros((num_classes, features.shape[1]), np.float32)
    bias = np.full(num_classes, -_ABSENT, np.float32)
    present = np.unique(labels)
    if len(present) == 1:
        bias[present] = 0
        return weight, bias
    from sklearn.linear_model import LogisticRegression  # it takes a second to import

    model = LogisticRegression(
        C=strength,
        max_iter=_MOST_ITERATIONS,
        class_weight="balanced" if balanced else None,
    ).fit(features.astype(np.float64), labels)
    if len(present) == 2:  # one row, for the second class: softmax of half of it either way
        weight[present] = np.concatenate([-model.coef_, model.coef_]) / 2
        bias[present] = np.concatenate([-model.intercept_, model.intercept_]) / 2
    else:
        weight[present], bias[present] = model.coef_, model.intercept_
        bias[np.setdiff1d(np.arange(num_classes), present)] += model.intercept_.min()
    return weight, bias


def _score(logits: Features, labels: Labels) -> Score:
    values, targets = torch.from_numpy(np.asarray(logits, np.float32)), torch.from_numpy(labels)
    loss = F.cross_entropy(values, targets).item()
    return Score(int((values.argmax(1) == targets).sum()), len(labels), loss)
