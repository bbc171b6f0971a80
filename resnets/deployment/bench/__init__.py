"""How fast a network runs on this machine, by engine, batch size and threads."""

from typing import TYPE_CHECKING

from resnets.doors import loader

if TYPE_CHECKING:
    from resnets.deployment.bench.contenders import Contender, lineup
    from resnets.deployment.bench.figures import Bench, Row, bench

__all__ = [
    "Bench",
    "Contender",
    "Row",
    "bench",
    "lineup",
]

__getattr__ = loader(
    __name__,
    contenders="Contender lineup",
    figures="Bench Row bench",
)
