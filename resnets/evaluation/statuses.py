"""How many predictions have which status, and how many of those that are ok are wrong.

Shapes: N images.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from resnets.evaluation.answers import Status
from resnets.evaluation.proportion import Proportion


@dataclass(frozen=True)
class Statuses:
    """Shares of N images that could be read; see `answers.Prediction.status`.

    Attributes:
        ok: neither unsure nor unfamiliar.
        unsure: less probable than the threshold.
        unfamiliar: unlike the images that the network was trained for, whatever the probability.
        wrong: of the images that are ok, those with a wrong prediction; None if none is ok.
    """

    ok: Proportion
    unsure: Proportion
    unfamiliar: Proportion
    wrong: Proportion | None

    @classmethod
    def of(cls, found: Sequence[Status], correct: ArrayLike) -> "Statuses":
        """Count them.

        Args:
            found: N of them, none of them "unreadable".
            correct: (N,), whether each prediction is right.
        """
        total, each = len(found), np.asarray(found)
        ok = each == "ok"
        wrong = int((ok & ~np.asarray(correct, dtype=bool)).sum())
        return cls(
            ok=Proportion(int(ok.sum()), total),
            unsure=Proportion(int((each == "unsure").sum()), total),
            unfamiliar=Proportion(int((each == "unfamiliar").sum()), total),
            wrong=Proportion(wrong, int(ok.sum())) if ok.any() else None,
        )

    def to_dict(self) -> dict[str, Any]:
        """For JSON: plain values only."""
        shares = {name: getattr(self, name) for name in asdict(self)}
        return {name: share and share.to_dict() for name, share in shares.items()}
