"""Writing a network as a file for other runtimes, checked before it is kept."""

from typing import TYPE_CHECKING

from resnets.doors import loader

if TYPE_CHECKING:
    from resnets.deployment.export.files import Agreement, export
    from resnets.deployment.export.int8 import Quantised, quantise

__all__ = [
    "Agreement",
    "Quantised",
    "export",
    "quantise",
]

__getattr__ = loader(
    __name__,
    files="Agreement export",
    int8="Quantised quantise",
)
