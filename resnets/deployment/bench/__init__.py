"""Speed of a network on this machine, by engine, batch size and number of threads."""

from typing import TYPE_CHECKING

from resnets.doors import loader

if TYPE_CHECKING:
    from resnets.deployment.bench.figures import Bench, Row, bench
    from resnets.deployment.bench.runtimes import Candidate, candidates

__all__ = [
    "Bench",
    "Candidate",
    "Row",
    "bench",
    "candidates",
]

__getattr__, __dir__ = loader(
    __name__,
    runtimes="Candidate candidates",
    figures="Bench Row bench",
)
