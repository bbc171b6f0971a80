"""Engines: PyTorch, ONNX Runtime and OpenVINO behind one small interface."""

from typing import TYPE_CHECKING

from resnets.doors import loader

if TYPE_CHECKING:
    from resnets.deployment.engines.opening import (
        AnyModel,
        EngineChoice,
        EngineName,
        open_engine,
        open_network,
    )

__all__ = [
    "AnyModel",
    "EngineChoice",
    "EngineName",
    "open_engine",
    "open_network",
]

__getattr__, __dir__ = loader(
    __name__,
    opening="AnyModel EngineChoice EngineName open_engine open_network",
)
