"""Another target for the error rate than the one in a model file: `--max-error`."""

import copy
from dataclasses import replace

from resnets.errors import UsageError
from resnets.evaluation.calibration import Calibration
from resnets.evaluation.engine import Engine
from resnets.model_file import Description


def aimed(description: Description, max_error: float | None) -> Description:
    """The description with the threshold for another target; None leaves it as it is.

    Raises:
        UsageError: it was never calibrated, or not for so strict a target; or it is no error rate.
    """
    if max_error is None:
        return description
    if not description.calibration:
        raise UsageError(
            f"max error {max_error:g}: the model file has no threshold; `resnets calibrate MODEL "
            "DATA` fits one on labelled images"
        )
    found = Calibration.from_dict(description.calibration).at(max_error)
    return replace(description, calibration=found.to_dict())


def aimed_engine(engine: Engine, max_error: float | None) -> Engine:
    """The engine with the threshold for another target; what computes is shared.

    Raises:
        UsageError: as for `aimed`.
    """
    if max_error is None:
        return engine
    other = copy.copy(engine)
    other.description = aimed(engine.description, max_error)
    return other


def in_words(description: Description, max_error: float) -> str:
    """What the threshold for that target is and what was measured, once it is `aimed` at."""
    found = Calibration.from_dict(description.calibration)
    other = (
        ""
        if abs(found.max_error - max_error) < 1e-12
        else f"For {100 * max_error:g} % the threshold of the next stricter target is used. "
    )
    return f"{other}{found.target_in_words()}"
