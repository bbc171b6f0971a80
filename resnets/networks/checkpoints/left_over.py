"""Tensors of a checkpoint that are not the network's: which of them change what it computes.

Buffers of optimizers, counters, other networks in the file and heads of other tasks do not. The
rest may: steps of a quantisation, factors of a branch, means and deviations of a normalisation.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

COUNTERS = ("num_batches_tracked", "total_ops", "total_params", "n_averaged")  # endings of names

_TRAINING = re.compile(  # the first part of a name, beside the network's
    r"optim\w*|opt|sched\w*|lr\w*|(grad_)?scaler|amp|callbacks|loops|rng\w*|random\w*|epoch\w*|"
    r"iter\w*|steps?|global_step|best\w*|\w*loss\w*|criterion\w*|acc\w*|prec\w*|metric\w*|top\d"
)
_BUFFERS = re.compile(  # the last part of a name
    r"momentum_buffer|exp_avg\w*|max_exp_avg\w*|square_avg|grad_avg|acc_delta|queue|queue_ptr"
)


@dataclass(frozen=True)
class LeftOver:
    """The names in a checkpoint that are not the network's.

    Attributes:
        unknown: may change what the network computes, and are not understood.
        harmless: other networks, heads of other tasks, queues.
        training: an optimizer's buffers, counters and the like.
    """

    unknown: tuple[str, ...] = ()
    harmless: tuple[str, ...] = ()
    training: tuple[str, ...] = ()


def sort_left_over(
    names: Iterable[str], prefix: str, others: Iterable[str], parts: set[str] | None
) -> LeftOver:
    """Sort the names that are not the network's.

    Args:
        names: which no part of the network has.
        prefix: of the network's names.
        others: prefixes of other networks in the file.
        parts: first parts of the names inside the network, where it has no classifier, so that
            other parts are heads of other tasks; None where it has one.
    """
    apart = tuple(other for other in others if other and not prefix.startswith(other))
    sorted_names: dict[str, list[str]] = {"unknown": [], "harmless": [], "training": []}
    for name in names:
        if not name.endswith(COUNTERS):
            sorted_names[_kind(name, prefix, apart, parts)].append(name)
    return LeftOver(**{kind: tuple(names) for kind, names in sorted_names.items()})


def _kind(name: str, prefix: str, apart: tuple[str, ...], parts: set[str] | None) -> str:
    inside = name.startswith(prefix)
    first = (name[len(prefix) :] if inside else name).partition(".")[0]
    last = name.rpartition(".")[2]
    if last.startswith("queue"):
        return "harmless"
    if _BUFFERS.fullmatch(last) or _TRAINING.fullmatch(first):
        return "training"
    if name.startswith(apart):
        return "harmless"
    if parts is not None and not (inside and first in parts):
        return "harmless"
    return "unknown"
