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
    class_directions,
    fit_familiarity,
)
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
