"""Familiarity: whether an image is like the training images, by the direction of its features.

A network has no class for an image of something else, yet predicts one of its classes, often with
a high probability. The position of the image in feature space helps a little: the score is the
cosine of the angle between its features (what the classifier sees) and the nearest class mean of
the training images. `benchmarks/unfamiliar.py` compared it with energy, Mahalanobis distance and
others. It needs features alone, so exported files have it too.

Shapes: N images, F features, K classes, M <= K directions. No torch here, as engines use it.
"""

import base64
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from resnets.errors import ContentError, UsageError
from resnets.evaluation.logits import Booleans, Floats, Integers
from resnets.evaluation.proportion import Proportion
from resnets.fields import check_known, from_table
from resnets.format import plural
from resnets.matrices import product

_FAMILIAR = 0.95  # target share of familiar validation images, without images of other things
_MOST_LOST = 1 - _FAMILIAR  # largest share to lose, if other images choose the threshold
_MOST_NUMBERS = 1 << 18  # largest M x F in a header: 0.7 MB as text
_MARGIN = 1e-3  # of the threshold below the least score, if no validation image may be lost

_SCORE = "cosine"  # to the nearest class mean
UNPROTECTED = (
    "No network is protected against images of other things: it predicts one of its classes for "
    "them too, and may be sure of it. The status unfamiliar catches only a part of them."
)

Directions = NDArray[np.float32]


@dataclass(frozen=True)
class Familiarity:
    """The score, and the threshold below which an image is unfamiliar.

    Attributes:
        directions: (M, F), of length 1 except for the rounding to 16 bits in the header.
        threshold: the least score of a familiar image, -1 to 1.
        total: number of validation images that chose the threshold.
        lost: validation images that are called unfamiliar; measured on images that did not choose
            the threshold where other images were given, else on those that did.
        detected: other images that are called unfamiliar; None if there were none. Like `lost`,
            measured on images that did not choose the threshold.
        passed: of the same other images, those with the status ok: familiar, and with a
            probability at or above its threshold.
        others: a phrase that describes the other images; empty if there were none.
        folds: of a cross-validation, whose networks scored the images that chose the threshold,
            each those that it was not trained on; 0 where this network scored them itself.
        center: (F,), the mean of the validation images' features, each of length 1, by which a
            server notices drift; None in files of earlier versions.
    """

    directions: Directions
    threshold: float
    total: int
    lost: Proportion
    detected: Proportion | None = None
    passed: Proportion | None = None
    others: str = ""
    center: Directions | None = None
    folds: int = 0

    def scores(self, features: ArrayLike) -> Floats:
        """Cosine with the nearest direction, (N, F) -> (N,): 1 is most familiar.

        Features that are all zero have no direction; their score is 0.
        """
        units = _unit_rows(np.asarray(features, dtype=np.float64))
        return np.asarray(product(units, self._unit_directions.T).max(axis=1))

    @cached_property
    def _unit_directions(self) -> Floats:
        """The directions, (M, F), of length 1: a server asks for them with each image."""
        return _unit_rows(self.directions.astype(np.float64))

    def familiar(self, features: ArrayLike) -> Booleans:
        """Whether each image is familiar. (N, F) -> (N,)."""
        return self.scores(features) >= self.threshold

    def moved(self, before: ArrayLike, after: ArrayLike) -> "Familiarity":
        """The same for features that are computed differently, such as in 8 bits.

        The threshold moves so that the share of these images that is lost stays the same. What was
        measured on other images is left out, as it was not measured anew.

        Args:
            before: (N, F), features of images of the classes, as they were when this was fitted.
            after: (N, F), features of the same images as they are now.
        """
        known = self.scores(after)
        threshold = _quantile(known, float((self.scores(before) < self.threshold).mean()))
        lost = Proportion(int((known < threshold).sum()), len(known))
        return Familiarity(self.directions, threshold, len(known), lost, center=center_of(after))

    def refitted(self, features: ArrayLike) -> "Familiarity":
        """The same with a threshold that other images of the classes choose.

        As large a share of them is lost as before where images of other things chose that share,
        else 5 %. What was measured on other images is left out, as it was not measured anew; what
        they were stays, so that the share does.

        Args:
            features: (N, F), of images on which nothing was trained.
        """
        known = self.scores(features)
        share = min(self.lost.value, _MOST_LOST) if self.others else _MOST_LOST
        threshold = _quantile(known, share)
        lost = Proportion(int((known < threshold).sum()), len(known))
        return Familiarity(
            self.directions,
            threshold,
            len(known),
            lost,
            others=self.others,
            center=center_of(features),
        )

    def in_words(self) -> str:
        """The measured shares, as a clause for the user."""
        if self.folds:
            return (
                f"status unfamiliar: {self.lost} of the images, which chose its threshold, each "
                f"scored by a network that was trained without it ({self.folds} folds). How many "
                "images of other things get it was not measured"
            )
        if self.detected is None or self.passed is None:
            return (
                f"status unfamiliar: {self.lost} of the validation images, which chose "
                "its threshold. How many images of other things get it was not measured "
                "(--other FOLDER measures that)"
            )
        return (
            f"status unfamiliar: {self.detected} of other images ({self.others}), and "
            f"{self.lost} of the validation images, wrongly; measured on the halves that "
            f"did not choose the threshold. {self.passed} of those other images got the "
            "status ok"
        )

    def to_dict(self) -> dict[str, Any]:
        """For the model file: plain values only."""
        folds = {"folds": self.folds} if self.folds else {}  # earlier versions do not know it
        return folds | {
            "score": _SCORE,
            "directions": _as_text(self.directions),
            "shape": list(self.directions.shape),
            "threshold": self.threshold,
            "total": self.total,
            "lost": asdict(self.lost),
            "found": self.detected and asdict(self.detected),
            "passed": self.passed and asdict(self.passed),
            "others": self.others,
            "center": None if self.center is None else _as_text(self.center),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Familiarity":
        """Read what `to_dict` wrote.

        Raises:
            ContentError: if that is not it.
        """
        check_known(values, "score", _SCORE, "familiarity.")
        stored = from_table(_Stored, values, "familiarity.")
        directions = _from_text("directions", stored.directions, stored.shape)
        if directions.ndim != 2 or not len(directions):
            raise ContentError("familiarity.directions: needs numbers by class and feature")
        center = None
        if stored.center is not None:
            center = _from_text("center", stored.center, stored.shape[1:])
        if not -2 <= stored.threshold <= 1:
            raise ContentError(f"familiarity.threshold is {stored.threshold}; it is -2 to 1")
        return cls(
            directions,
            stored.threshold,
            stored.total,
            stored.lost,
            stored.found,
            stored.passed,
            stored.others,
            center,
            stored.folds,
        )


@dataclass(frozen=True)
class _Stored:
    """A `Familiarity` as the model file holds it: arrays in base64, of float16."""

    score: str
    directions: str
    shape: tuple[int, ...]
    threshold: float
    total: int
    lost: Proportion
    found: Proportion | None
    passed: Proportion | None
    others: str
    center: str | None = None
    folds: int = 0


def _as_text(numbers: Directions) -> str:
    """Numbers as float16 in base64."""
    return base64.b64encode(numbers.astype("<f2").tobytes()).decode()


def _from_text(name: str, text: str, shape: tuple[int, ...]) -> Directions:
    """What `_as_text` wrote, as float32.

    Raises:
        ContentError: it is not so many finite numbers.
    """
    try:
        raw = base64.b64decode(text, validate=True)
        numbers = np.frombuffer(raw, "<f2").reshape(shape).astype(np.float32)
    except ValueError as error:  # binascii.Error among them
        raise ContentError(f"familiarity.{name}: {error}") from None
    if not np.isfinite(numbers).all():
        raise ContentError(f"familiarity.{name}: needs finite numbers")
    return numbers


def familiarity_of(header: Mapping[str, Any], features: int | None = None) -> Familiarity | None:
    """The familiarity of a `Description`, None where it has none.

    Args:
        header: `Description.familiarity`.
        features: F of the network, where it is known.

    Raises:
        ContentError: it is damaged, or of another network.
    """
    if not header:
        return None
    familiarity = Familiarity.from_dict(header)
    if features is not None and familiarity.directions.shape[1] != features:
        raise ContentError(
            f"the familiarity score is for {familiarity.directions.shape[1]} features; the network "
            f"has {features}"
        )
    return familiarity


def class_directions(features: ArrayLike, labels: ArrayLike) -> Directions:
    """The directions of the class means, (N, F) and (N,) -> (M, F), of length 1.

    Classes without an image have none. Where they would be more than `_MOST_NUMBERS` numbers, the
    means are clustered by k-means: the score is nearly as good with few directions.

    Raises:
        UsageError: there is no image.
    """
    values, truth = np.asarray(features, dtype=np.float64), np.asarray(labels)
    if not len(values):
        raise UsageError("no images to take the directions of classes from")
    units = _unit_rows(values)
    means = _unit_rows(np.stack([units[truth == label].mean(axis=0) for label in np.unique(truth)]))
    most = max(1, _MOST_NUMBERS // means.shape[1])
    if len(means) > most:
        from sklearn.cluster import KMeans

        means = _unit_rows(KMeans(most, n_init=1, random_state=0).fit(means).cluster_centers_)
    return means.astype("<f2").astype(np.float32)  # as the header will hold them


def center_of(features: ArrayLike) -> Directions:
    """The mean of features, each of length 1. (N, F) -> (F,)."""
    units = _unit_rows(np.asarray(features, dtype=np.float64))
    return np.asarray(units.mean(axis=0), dtype=np.float32)


def _unit_rows(values: Floats) -> Floats:
    """Rows of length 1, or 0 where they are 0."""
    return np.asarray(values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12))


@dataclass(frozen=True)
class OtherImages:
    """Images of none of the classes, O of them.

    Attributes:
        features: (O, F).
        confident: (O,), whether the probability of the prediction reaches its threshold.
        what: a phrase that describes them.
    """

    features: ArrayLike
    confident: ArrayLike
    what: str


def fit_familiarity(
    directions: Directions,
    validation: ArrayLike,
    others: "OtherImages | None" = None,
    seed: int = 0,
) -> Familiarity:
    """Choose the threshold of familiarity.

    Without other images, 95 % of the validation images are familiar. With them, one half of either
    set chooses the threshold that maximises the share of other images recognised minus the share
    of validation images lost (Youden 1950), which is at most 5 %; the other halves then measure
    both.

    Args:
        directions: (M, F), see `class_directions`.
        validation: (N, F), features of images of the classes, on which nothing was trained.
        others: images of none of the classes.
        seed: draws the halves.

    Raises:
        UsageError: there is no validation image, or too few for halves where others are given.
    """
    plain = Familiarity(directions, -1.0, 0, Proportion(0, 1))
    known = plain.scores(validation) if len(np.asarray(validation)) else np.empty(0)
    if not len(known):
        raise UsageError("no validation images to choose the threshold of familiarity by")
    if others is None:
        threshold = _quantile(known, 1 - _FAMILIAR)
        lost = Proportion(int((known < threshold).sum()), len(known))
        return Familiarity(directions, threshold, len(known), lost, center=center_of(validation))
    foreign = plain.scores(others.features)
    if min(len(known), len(foreign)) < 2:
        raise UsageError(
            f"{plural(len(foreign), 'other image')} and {plural(len(known), 'validation image')}: "
            "at least 2 of each, as one half chooses the threshold and the other measures"
        )
    (chosen, held), (first, second) = _halves(len(known), seed), _halves(len(foreign), seed)
    threshold = _best_threshold(known[chosen], foreign[first])
    unfamiliar = foreign[second] < threshold
    passed = ~unfamiliar & np.asarray(others.confident, dtype=bool)[second]
    return Familiarity(
        directions,
        threshold,
        len(chosen),
        lost=Proportion(int((known[held] < threshold).sum()), len(held)),
        detected=Proportion(int(unfamiliar.sum()), len(second)),
        passed=Proportion(int(passed.sum()), len(second)),
        others=others.what,
        center=center_of(validation),
    )


def scores_without_threshold(directions: Directions, features: ArrayLike) -> Floats:
    """The familiarity of images before a threshold is chosen. (M, F) and (N, F) -> (N,)."""
    return Familiarity(directions, -1.0, 0, Proportion(0, 1)).scores(features)


def familiarity_by_folds(
    directions: Directions, held_out: ArrayLike, folds: int, center: Directions | None
) -> Familiarity:
    """The familiarity of a network that was trained on all images.

    The threshold is that below which 5 % of the images lie that the folds held out, as for
    validation images: a class mean that an image is part of is nearer to it than to a new one.

    Args:
        directions: (M, F), of this network.
        held_out: (N,), scores of images by networks that were trained without them.
        folds: number of those networks.
        center: see `Familiarity`.

    Raises:
        UsageError: there is no such image.
    """
    known = np.asarray(held_out, dtype=np.float64)
    if not len(known):
        raise UsageError("no images to choose the threshold of familiarity by")
    threshold = _quantile(known, 1 - _FAMILIAR)
    lost = Proportion(int((known < threshold).sum()), len(known))
    return Familiarity(directions, threshold, len(known), lost, center=center, folds=folds)


def _quantile(scores: Floats, lost: float) -> float:
    """The threshold below which at most that share of the scores lies, between two of them.

    >>> _quantile(np.arange(40), 0.05)  # below it lie 0 and 1
    1.5
    """
    ordered, count = np.sort(scores), math.floor(lost * len(scores))
    if count == 0:
        return float(ordered[0]) - _MARGIN
    return float(ordered[count - 1 : count + 1].mean())


def _halves(count: int, seed: int) -> tuple[Integers, Integers]:
    """The indices 0 ... count - 1 in two random halves."""
    order = np.random.default_rng(seed).permutation(count)
    return order[: count // 2], order[count // 2 :]


def _best_threshold(known: Floats, foreign: Floats) -> float:
    """The threshold that best separates the scores, at most `_MOST_LOST` of `known` below it."""
    losses = [count / len(known) for count in range(math.floor(_MOST_LOST * len(known)) + 1)]
    thresholds = [_quantile(known, lost + 1e-9) for lost in losses]  # 1e-9: floor(3 / n * n) is 3
    gains = [(foreign < at).mean() - (known < at).mean() for at in thresholds]
    return thresholds[int(np.argmax(gains))]
