"""Export of a network to a file for other runtimes, checked before it is kept."""

from typing import TYPE_CHECKING

from resnets.doors import loader

if TYPE_CHECKING:
    from resnets.deployment.export.files import Agreement, export
    from resnets.deployment.export.int8 import Quantisation, quantise

__all__ = [
    "Agreement",
    "Quantisation",
    "export",
    "quantise",
]

__getattr__, __dir__ = loader(
    __name__,
    files="Agreement export",
    int8="Quantisation quantise",
)
