"""What users ask about a model that is served: classes, accuracy, calibration, origin, drift.

Sentences are those of the model card, so that no path of somebody's machine is in them.
"""

from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from resnets import shipped
from resnets.data.membership import TrainedOn
from resnets.errors import ContentError
from resnets.evaluation.familiarity import UNPROTECTED
from resnets.evaluation.proportion import Proportion
from resnets.evaluation.report.card import (
    accuracies,
    calibration_of,
    familiarity_in_words,
    generation_in_words,
    recalls,
)
from resnets.format import percent, plural
from resnets.model_file import Description
from resnets.networks import Architecture
from resnets.networks.catalog import display_name
from resnets.serving.explaining import why_unexplained
from resnets.serving.served_model import ServedModel
from resnets.serving.threads import in_own_thread

_CHANNELS = {1: "grey", 3: "in colour", 4: "in colour with transparency"}
_UNKNOWN = "The model file does not say."
_NO_DRIFT = (
    "Not known: the file has no familiarity score, by which images are compared with the "
    "validation images (resnets calibrate adds one)."
)


_CALIBRATION_ERROR = (
    "The calibration error is how far the probabilities are, on average, from the share of "
    "predictions that are right."
)
_TEMPERATURE = (
    " The temperature is what the network's scores are divided by before they become probabilities."
)
_OF_PACKAGE = "It comes with the package resnets, whose licence is {}."
_FEW = 100  # images, too few to tell of drift unless nearly all of them are unfamiliar


_LASTING: WeakKeyDictionary[ServedModel, dict[str, Any]] = WeakKeyDictionary()


async def facts(model: ServedModel) -> dict[str, Any]:
    """Everything that the page tells about a model, as JSON values.

    What lasts takes seconds the first time, as SciPy is imported for it, and is kept.
    """
    if model not in _LASTING:
        _LASTING[model] = await in_own_thread(_lasting, model)
    return _LASTING[model] | {"latency": model.recent.latency(), "drift": _drift(model)}


def _lasting(model: ServedModel) -> dict[str, Any]:
    """What does not change while a model is served."""
    description = model.description
    recall = {row.name: row.right for row in recalls(description)}
    calibration = calibration_of(description)
    return {
        "name": model.name,
        "digest": model.digest,
        "engine": model.engine.name,
        "network": _network(description),
        "images": _images(description),
        "view": {
            "mode": description.preprocessing.crop_mode,
            "share": description.preprocessing.size / description.preprocessing.resize,
        },
        "classes": [
            {"name": name, "recall": _proportion(recall.get(name))}
            for name in description.class_names
        ],
        "accuracy": [
            {"split": row.name, "remark": row.remark.strip(), **row.right.to_dict()}
            for row in accuracies(description)
        ],
        "threshold": calibration and calibration.threshold,
        "max_error": calibration and calibration.max_error,
        "promised": calibration and calibration.promised,
        "calibration": [] if calibration is None else list(_calibration(description)),
        "unfamiliar": familiarity_in_words(model.familiarity),
        "unprotected": UNPROTECTED,
        "unexplained": why_unexplained(model),
        "trained_on": _trained_on(description),
        "licences": _licences(model),
    }


def _network(description: Description) -> str:
    """What users call the network."""
    own = description.architecture.get("own")
    return str(own) if own else display_name(Architecture.from_dict(description.architecture))


def _images(description: Description) -> str:
    """The images that the network takes, in words."""
    side, channels = description.preprocessing.size, description.preprocessing.channels
    return f"{side} × {side} pixels, {_CHANNELS.get(channels, plural(channels, 'channel'))}"


def _calibration(description: Description) -> Iterator[str]:
    """Target and measured error, a sentence or two each."""
    calibration = calibration_of(description)
    if calibration is not None:
        yield calibration.target_in_words()
        yield calibration.error_in_words()
        yield _CALIBRATION_ERROR + (_TEMPERATURE if calibration.temperature != 1 else "")


def _trained_on(description: Description) -> list[str]:
    """The images of each training, the latest first."""
    generations = _history(description).generations
    return [generation_in_words(each) for each in generations] or [_UNKNOWN]


def _licences(model: ServedModel) -> list[str]:
    """What is known of licences: the package's, and those of the weights that it began with."""
    own = [_OF_PACKAGE.format(_licence_of_package())] if _comes_with_package(model.path) else []
    return [*own, *_licences_of_origins(model.description, known=bool(own))]


def _comes_with_package(path: Path) -> bool:
    """Whether a model file is one of the package, which its licence covers."""
    return path.resolve().parent == shipped.FOLDER.resolve() and path.stem in shipped.names()


@cache
def _licence_of_package() -> str:
    """The licence of this package, as it is installed."""
    try:
        licences = metadata("resnets").get_all("License-Expression")
    except PackageNotFoundError:  # a folder of sources on the path
        licences = None
    return " ".join(licences or ["in its file LICENSE"])


def _licences_of_origins(description: Description, *, known: bool) -> list[str]:
    """Where the weights that the network began with were published, and their licences.

    Args:
        description: of the network.
        known: whether the network's own licence is known.
    """
    generations = _history(description).generations
    lines = [
        f"{origin.get('id', origin.get('folder', 'published weights'))}: "
        f"{origin.get('licence') or 'no licence is named'}"
        for each in generations
        if (origin := each.origin)
    ]
    if lines or not generations:
        return lines or [_UNKNOWN]
    if before := generations[1:]:
        images = generation_in_words(before[0])
        return [
            f"It started from a network trained on {images}, of which the file names no licence."
        ]
    own = "" if known else "The file names no licence. "
    return [f"{own}It names no weights that it started from."]


def _history(description: Description) -> TrainedOn:
    """The history of training; an empty one where the header is damaged or says nothing."""
    try:
        return TrainedOn.from_dict(description.trained_on)
    except ContentError:
        return TrainedOn()


def _drift(model: ServedModel) -> dict[str, Any]:
    """Whether the latest images are less familiar than those that chose the threshold."""
    now, more = model.drift.unfamiliar, model.drift.seen
    if model.familiarity is None:
        return {"known": False, "text": _NO_DRIFT}
    if now is None:
        return {"known": False, "text": "Not known before the first image is answered."}
    usual, distance = model.familiarity.lost, model.drift.distance
    text = (
        f"{percent(now.value)} of the latest {plural(now.total, 'image')} "
        f"{'is' if now.total == 1 else 'are'} unfamiliar; "
        f"{percent(usual.value)} of the validation images were. {_verdict(now.total, more)}"
    )
    if distance is not None and now.total >= _FEW:
        text += (
            f" By the network's features, their average is {distance:.2f} from that of the "
            "validation images: 0 would be no drift, 1 is as far as a single image usually is."
        )
    return {"known": True, "drifted": more, "distance": distance, "text": text, **now.to_dict()}


def _verdict(images: int, more: bool) -> str:
    """What the share of unfamiliar images among so many says.

    Args:
        images: of which it is.
        more: whether it is larger than chance explains.
    """
    if more:
        return "These images are less like the training images than the validation images were."
    if images < _FEW:
        return f"That is too few images to tell whether there is drift: it takes {_FEW}."
    return "No drift is seen."


def _proportion(value: Proportion | None) -> dict[str, Any] | None:
    """A proportion as JSON values; None of none."""
    return None if value is None else value.to_dict()
