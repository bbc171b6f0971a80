"""Test-time augmentation: the mean of the probabilities of an image and its mirror image.

No torch here. Shapes: B images of a batch, R the preprocessing's `resize`, C channels, K classes,
F features.
"""

from dataclasses import replace

import numpy as np

from resnets.evaluation.calibration import Calibration
from resnets.evaluation.engine import Engine, Floats, engine_in_a_line, frames_of
from resnets.images import Pixels, Preprocessing
from resnets.model_file import Description

_WITHHELD = "the threshold was fitted without test-time augmentation (--tta)"


class _MirrorAveraged:
    """An engine that averages probabilities over an image and its mirror image: see `Engine`.

    The features, and so what is unfamiliar, are those of the image itself.

    Attributes:
        description: of the network, without promises: its thresholds were fitted to probabilities
            of single images. Its temperature is 1, since calibrated probabilities are averaged.
    """

    tta = True

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.name, self.threads = engine.name, engine.threads
        self.image_bytes = getattr(engine, "image_bytes", 0)
        self.description = _without_promises(engine.description)

    def __repr__(self) -> str:
        return engine_in_a_line(self)

    def probabilities(self, images: Pixels) -> Floats:
        """(B, K), see `Engine`."""
        frames, flipped = self._views(images)
        return _mean_probabilities(
            self.engine.probabilities(frames), self.engine.probabilities(flipped)
        )

    def features(self, images: Pixels) -> Floats:
        """(B, F), see `Engine`; of the images themselves."""
        return self.engine.features(images)

    def outputs(self, images: Pixels) -> tuple[Floats, Floats]:
        """(B, K) and (B, F), see `Engine`."""
        frames, flipped = self._views(images)
        probabilities, features = self.engine.outputs(frames)
        return _mean_probabilities(probabilities, self.engine.probabilities(flipped)), features

    def graph(self, images: Pixels) -> tuple[Floats, Floats]:
        """Both, see `Engine`; each image is prepared here, since a graph has no mirror."""
        return self.outputs(images)

    def _views(self, images: Pixels) -> tuple[Pixels, Pixels]:
        preprocessing = self.description.preprocessing
        frames = frames_of(images, preprocessing)
        return frames, _mirrored(frames, preprocessing)


def _mean_probabilities(one: Floats, other: Floats) -> Floats:
    """Of probabilities, (B, K) each."""
    mean: Floats = np.mean([one, other], axis=0, dtype=np.float32)
    return mean


def _mirrored(frames: Pixels, preprocessing: Preprocessing) -> Pixels:
    """Frames (B, R, R, C) with the part that the network sees mirrored left and right."""
    seen = preprocessing.window
    flipped = frames.copy()
    flipped[:, seen, seen] = frames[:, seen, seen][:, :, ::-1]
    return flipped


def _without_promises(description: Description) -> Description:
    """The description for averaged probabilities: temperature 1, thresholds not promised."""
    if not description.calibration:
        return description
    fitted = replace(Calibration.from_dict(description.calibration), temperature=1.0)
    return replace(description, calibration=fitted.without_promises(_WITHHELD).to_dict())


def with_tta(engine: Engine, tta: bool) -> Engine:
    """The engine as it is, or with test-time augmentation."""
    return _MirrorAveraged(engine) if tta else engine


def in_words(description: Description) -> str:
    """What the user should know about it, in sentences."""
    trained = description.recipe.get("augmentation", {})
    flip = trained.get("flip") if isinstance(trained, dict) else None
    unseen = (
        " This network was trained without mirrored images, so that may make it worse."
        if flip == "none"
        else ""
    )
    thresholds = (
        " Thresholds were fitted without it, so no error rate is promised."
        if description.calibration
        else ""
    )
    return (
        "Test-time augmentation (--tta): each probability is the mean for the image and for its "
        f"mirror image.{unseen}{thresholds}"
    )
