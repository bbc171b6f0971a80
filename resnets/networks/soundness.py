"""Weights that no network can compute with: NaN, infinite, or variances below zero."""

from typing import TYPE_CHECKING

from resnets.errors import ContentError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

NAMED = 3  # weights that an error names
VARIANCE = ("running_var", "moving_variance")


def unsound(weights: "Mapping[str, Tensor]") -> dict[str, str]:
    """What is wrong with each weight that cannot be computed with, by its name.

    >>> import torch
    >>> unsound({"fc.bias": torch.tensor([1.0, float("nan")]), "fc.weight": torch.ones(2)})
    {'fc.bias': '1 of 2 values are not finite'}
    """
    found = {}
    for name, value in weights.items():
        if not value.is_floating_point():
            continue
        broken = int((~value.isfinite()).sum())
        negative = int((value < 0).sum()) if name.endswith(VARIANCE) else 0
        if broken:
            found[name] = f"{broken:,} of {value.numel():,} values are not finite"
        elif negative:
            found[name] = f"{negative:,} of {value.numel():,} variances are negative"
    return found


def refuse_unsound(weights: "Mapping[str, Tensor]", source: object) -> None:
    """Refuse weights that cannot be computed with.

    Args:
        weights: by name.
        source: where they are from, for the message.

    Raises:
        ContentError: naming the first of them.
    """
    found = unsound(weights)
    if found:
        listed = ", ".join(f"{name} ({what})" for name, what in list(found.items())[:NAMED])
        more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
        raise ContentError(
            f"{source}: its weights cannot be computed with: {listed}{more} (the file is "
            "damaged, or its training diverged; `resnets inspect` lists them)"
        )
