"""How many predictions have which status, and how many of those that are ok are wrong.

Shapes: N images.
"""

import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from resnets.errors import UsageError
from resnets.evaluation.calibration import Calibration
from resnets.evaluation.engine import Engine
from resnets.evaluation.predict import Status, is_calibrated
from resnets.evaluation.proportion import Proportion
from resnets.format import exact_percent
from resnets.model_file import Description


def _with_target(description: Description, max_error: float | None) -> Description:
    """The description with the threshold for another target error rate; None keeps it.

    Raises:
        UsageError: it was never calibrated, or not for so strict a target; or `max_error` is not
            an error rate.
    """
    if max_error is None:
        return description
    if not description.calibration:
        raise UsageError(
            f"max error {max_error:g}: the model file has no threshold; `resnets calibrate MODEL "
            "DATA` fits one on labelled images"
        )
    calibration = Calibration.from_dict(description.calibration).at(max_error)
    return replace(description, calibration=calibration.to_dict())


def engine_with_target(engine: Engine, max_error: float | None) -> Engine:
    """The engine with the threshold for another target error rate; the network is shared.

    Raises:
        UsageError: as for `_with_target`.
    """
    if max_error is None:
        return engine
    other = copy.copy(engine)
    other.description = _with_target(engine.description, max_error)
    return other


def in_words(description: Description, max_error: float) -> str:
    """The threshold for a target and its measured error rate, in words; see `_with_target`."""
    calibration = Calibration.from_dict(description.calibration)
    other = (
        ""
        if abs(calibration.max_error - max_error) < 1e-12
        else f"For {exact_percent(max_error)} the threshold of the next stricter target is used. "
    )
    return f"{other}{calibration.target_in_words()}"


def doubt_in_words(description: Description) -> str:
    """What predictions with the status ok do not promise; empty where there are none, or they do.

    A threshold that few images chose may keep its target on new ones, or not.
    """
    if not is_calibrated(description):
        return ""
    calibration = Calibration.from_dict(description.calibration)
    if calibration.threshold is None or calibration.promised:
        return ""
    target = exact_percent(calibration.max_error)
    return f"status ok: its target is at most {target} wrong. {calibration.promise_in_words()}"


@dataclass(frozen=True)
class Statuses:
    """Shares of N images that could be read; see `predict.Prediction`.

    Attributes:
        ok: at least as probable as the threshold, and not unfamiliar.
        unsure: less probable than the threshold.
        unfamiliar: unlike the training images, whatever the probability.
        not_calibrated: neither ok nor unsure, as there is no threshold: then none is.
        wrong: of the images that are ok, those with a wrong prediction; None if none is ok.
        calibrated: whether a threshold was fitted, so that an image can be ok or unsure.
    """

    ok: Proportion
    unsure: Proportion
    unfamiliar: Proportion
    not_calibrated: Proportion
    wrong: Proportion | None
    calibrated: bool = True

    @classmethod
    def of(
        cls, statuses: Sequence[Status], correct: ArrayLike, calibrated: bool = True
    ) -> "Statuses":
        """Count them.

        Args:
            statuses: N of them, none of them "unreadable".
            correct: (N,), whether each prediction is right.
            calibrated: whether the network has a threshold.
        """
        total, names = len(statuses), np.asarray(statuses)
        ok = names == "ok"
        wrong = int((ok & ~np.asarray(correct, dtype=bool)).sum())

        def share(name: Status) -> Proportion:
            return Proportion(int((names == name).sum()), total)

        return cls(
            ok=share("ok"),
            unsure=share("unsure"),
            unfamiliar=share("unfamiliar"),
            not_calibrated=share("not calibrated"),
            wrong=Proportion(wrong, int(ok.sum())) if ok.any() else None,
            calibrated=calibrated,
        )

    def to_dict(self) -> dict[str, Any]:
        """For JSON: plain values only."""
        shares = {name: getattr(self, name) for name in asdict(self) if name != "calibrated"}
        return {name: share and share.to_dict() for name, share in shares.items()}
