"""Logits and probabilities: checks and conversions.

Shapes: N images, K classes. Importing this module costs no more than NumPy.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from resnets.errors import ContentError, UsageError
from resnets.format import plural

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]


def check_logits(logits: ArrayLike, labels: ArrayLike) -> tuple[Floats, Integers]:
    """Logits (N, K) as float64 and labels (N,) as int64, once shapes and values are checked.

    Raises:
        UsageError: if the shapes do not fit, there is no image, or a label is outside 0 ... K-1.
        ContentError: if a logit is NaN or infinite.
    """
    scores, truth = np.asarray(logits, dtype=np.float64), np.asarray(labels)
    if scores.ndim != 2 or truth.shape != scores.shape[:1]:
        raise UsageError(f"logits {scores.shape} and labels {truth.shape}: not (N, K) and (N,)")
    if scores.shape[0] == 0 or scores.shape[1] < 2:
        raise UsageError(f"logits {scores.shape}: needs an image and two classes, or more")
    if not np.issubdtype(truth.dtype, np.integer):
        raise UsageError(f"labels of type {truth.dtype}: must be integers")
    if truth.min() < 0 or truth.max() >= scores.shape[1]:
        low, high = truth.min(), truth.max()
        raise UsageError(f"labels {low} to {high}: must be within 0 to {scores.shape[1] - 1}")
    broken = np.flatnonzero(~np.isfinite(scores).all(axis=1))
    if broken.size:
        raise ContentError(
            f"the logits of {broken.size} of {plural(len(scores), 'image')} are not finite, first "
            f"those of image {broken[0]} (the network is damaged or overflows: evaluate it in "
            "float32)"
        )
    return scores, truth.astype(np.int64)


def log_softmax(logits: ArrayLike) -> Floats:
    """Logarithms of the probabilities, in float64. (..., K) -> (..., K)."""
    scores = np.asarray(logits, dtype=np.float64)
    shifted = scores - scores.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def log_probabilities(probabilities: ArrayLike) -> Floats:
    """Probabilities as finite logits. (N, K) -> (N, K).

    Zero counts as the smallest normal float64, 2e-308.

    Raises:
        UsageError: if a value is negative or NaN, or a row's sum is further than 0.01 from 1.
    """
    values = np.asarray(probabilities, dtype=np.float64)
    if values.ndim != 2 or not (values >= 0).all():
        raise UsageError("probabilities must be (N, K) and >= 0")
    if not (np.abs(values.sum(axis=1) - 1) <= 0.01).all():
        raise UsageError("each image's probabilities must sum to 1 (or are these logits?)")
    return np.asarray(np.log(np.maximum(values, np.finfo(np.float64).tiny)))
