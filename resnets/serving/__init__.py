"""Serving of networks over HTTP: batching, models, an ASGI application of them, and clients."""

from typing import TYPE_CHECKING

from resnets.doors import loader

if TYPE_CHECKING:
    from resnets.serving.client import AsyncClient, Client
    from resnets.serving.exchange import (
        ClientClosed,
        DetailedPrediction,
        NothingAnswers,
        NotReachable,
        ServerFailed,
    )

__all__ = [
    "AsyncClient",
    "Client",
    "ClientClosed",
    "DetailedPrediction",
    "NotReachable",
    "NothingAnswers",
    "ServerFailed",
]
__getattr__, __dir__ = loader(
    __name__,
    client="AsyncClient Client",
    exchange="ClientClosed DetailedPrediction NotReachable NothingAnswers ServerFailed",
)
