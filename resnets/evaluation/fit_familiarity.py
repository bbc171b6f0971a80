"""Fitting the familiarity score of a trained network.

Shapes: N images, F features.
"""

from collections.abc import Callable

import numpy as np

from resnets.data.batches import evaluation_batches
from resnets.data.labelled import LabelledImages
from resnets.evaluation.familiarity import (
    Familiarity,
    OtherImages,
    center_of,
    class_directions,
    familiarity_by_folds,
    fit_familiarity,
    scores_without_threshold,
)
from resnets.evaluation.logits import Floats
from resnets.evaluation.outputs import Logits, logits_of
from resnets.model_file import Model

_SAMPLE = 5000  # training images that give the class means ...
_SAMPLE_OF_CLASS = 20  # ... or this number for each class, if that is more

FeaturesOf = Callable[[LabelledImages], Logits]  # N images to (N, F)


def familiarise(
    features_of: FeaturesOf,
    train: LabelledImages,
    validation: LabelledImages,
    others: OtherImages | None = None,
    seed: int = 0,
) -> Familiarity:
    """Directions from training images, the threshold from validation images and others.

    Args:
        features_of: computes the classifier's input for images.
        train: images that the network was trained on.
        validation: images on which nothing was trained.
        others: images of none of the classes.
        seed: draws the sample of the training images.

    Raises:
        UsageError: there are too few images.
    """
    some = _sample(train, seed)
    directions = class_directions(features_of(some), some.labels)
    return fit_familiarity(directions, features_of(validation), others, seed)


def scores_of_held_out(
    features_of: FeaturesOf, train: LabelledImages, held_out: LabelledImages, seed: int = 0
) -> Floats:
    """The familiarity of images that a network was not trained on, (N,), for `by_folds`.

    NaN where no training image has the class of the image.
    """
    some = _sample(train, seed)
    directions = class_directions(features_of(some), some.labels)
    scores = scores_without_threshold(directions, features_of(held_out))
    return np.where(np.isin(held_out.labels, some.labels), scores, np.nan)


def familiarise_by_folds(
    features_of: FeaturesOf,
    train: LabelledImages,
    held_out: Floats,
    folds: int,
    *,
    same_features: bool,
    seed: int = 0,
) -> Familiarity:
    """Directions from training images, the threshold from the scores of all folds.

    Args:
        features_of: as for `familiarise`.
        train: images that the network was trained on.
        held_out: (N,), what `scores_of_held_out` gave for the networks of the folds.
        folds: number of these networks.
        same_features: whether training left the features as they were, so that those of training
            images are like those of others and tell their centre.
        seed: as for `familiarise`.

    Raises:
        UsageError: there are too few images.
    """
    some = _sample(train, seed)
    features = features_of(some)
    directions = class_directions(features, some.labels)
    center = center_of(features) if same_features else None
    return familiarity_by_folds(directions, held_out[~np.isnan(held_out)], folds, center)


def most_for_familiarity(images: LabelledImages) -> int:
    """How many of the training images give the class means."""
    return min(len(images), max(_SAMPLE, _SAMPLE_OF_CLASS * len(images.class_names)))


def _sample(images: LabelledImages, seed: int) -> LabelledImages:
    """A random sample of the images, large enough for the class means."""
    most = most_for_familiarity(images)
    if len(images) <= most:
        return images
    chosen = np.random.default_rng(seed).choice(len(images), most, replace=False)
    return images.subset(np.sort(chosen))


def features_by(model: Model, batch_size: int = 256) -> FeaturesOf:
    """A function that computes the features of a loaded network, on the network's device."""
    network, preprocessing = model.network, model.description.preprocessing
    device = next(network.parameters()).device

    def features_of(images: LabelledImages) -> Logits:
        batches = evaluation_batches(images, preprocessing, batch_size, device=device)
        return logits_of(network, batches, len(images), network.embed)

    return features_of
