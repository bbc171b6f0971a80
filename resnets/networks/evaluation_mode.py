"""Evaluation mode for as long as something is computed, whatever mode a network is in."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock
from weakref import WeakKeyDictionary

from torch import nn


@dataclass
class _Use:
    """How many calls compute with a network now, and which of its parts were in training mode."""

    calls: int = 0
    training: list[nn.Module] = field(default_factory=list)


_uses: "WeakKeyDictionary[nn.Module, _Use]" = WeakKeyDictionary()
_lock = Lock()


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Compute in evaluation mode, and leave every part in the mode that it was in.

    In training mode batch norm uses the statistics of the batch and changes the stored ones, so
    that predictions would depend on the other images and change the network for good. Threads may
    overlap: the first sets the mode, the last restores it, also after an exception. A thread that
    trains the same network meanwhile is not protected.
    """
    with _lock:
        use = _uses.setdefault(network, _Use())
        use.calls += 1
        in_training = [part for part in network.modules() if part.training]
        use.training += in_training
        for part in in_training:
            part.training = False  # not eval(), which a network may extend to other parts
    try:
        yield
    finally:
        with _lock:
            use.calls -= 1
            if not use.calls:
                del _uses[network]
                for part in use.training:
                    part.training = True
