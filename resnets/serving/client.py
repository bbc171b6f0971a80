"""Clients of a running server, which predict as `resnets.predict` does, by httpx2.

    from resnets.serving import Client

    with Client("http://127.0.0.1:8000") as client:
        for prediction in client.predict("photos/*.jpg"):
            print(prediction.image, prediction.prediction, prediction.status)

Each image is a request of its own, several at once; the server computes them in batches.
"""

import asyncio
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Self, TypeVar

from resnets.errors import ContentError, require
from resnets.evaluation.inputs import Images, sources_of
from resnets.evaluation.predict import Prediction, Predictions
from resnets.evaluation.source import Source
from resnets.serving.exchange import Exchange, Query, Request, unreadable

if TYPE_CHECKING:
    import httpx2

    from resnets.serving.exchange import Steps

_AT_ONCE = 8  # requests
_TOGETHER = 64  # images that are prepared and awaited together
_TIMEOUT = 60.0  # seconds

_T = TypeVar("_T")


class Client:
    """A client of a running server.

    Args:
        url: of the server, such as http://127.0.0.1:8000.
        key: that the server asks for; empty if it asks for none.
        timeout: seconds for each image, in which a busy server is asked again when it says.
        transport: of httpx2, for tests and special connections.

    Raises:
        UsageError: the URL or the timeout is not allowed.
        MissingExtra: httpx2 is not installed (extra serve).
    """

    def __init__(
        self,
        url: str,
        *,
        key: str = "",
        timeout: float = _TIMEOUT,
        transport: "httpx2.BaseTransport | None" = None,
    ) -> None:
        library = require("httpx2", "serve")
        self._exchange = Exchange(url, key, timeout)
        self._http: httpx2.Client = library.Client(transport=transport, **self._exchange.options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def models(self) -> list[str]:
        """The names of the models that the server has; the first one answers by default.

        Raises:
            NotReachable: nothing answers.
        """
        return self._carry_out(self._exchange.models())

    def class_names(self, model: str = "") -> tuple[str, ...]:
        """The classes of a model, the first one by default, in the order of its outputs."""
        return self._carry_out(self._exchange.network(model)).class_names

    def predict(
        self,
        images: Images,
        *,
        top: int = 1,
        model: str = "",
        explain: bool = False,
        features: bool = False,
    ) -> list[Prediction]:
        """Predict images as `resnets.predict` does, but on the server.

        Args:
            images: as `resnets.predict` takes them; arrays and Pillow images are sent as PNG.
            top: how many of the most probable classes each prediction lists.
            model: name of a model; by default the server's first one.
            explain: whether to add a heat map (Grad-CAM) as PNG.
            features: whether to add the features of the network.

        Returns:
            One `Prediction` an image, in their order; with `explain` or `features` a
            `DetailedPrediction`.

        Raises:
            UsageError: an argument is not allowed, or the server has no such model.
            NotReachable: nothing answers.
            ServerFailed: the server did not answer in time, or failed.
        """
        network = self._carry_out(self._exchange.network(model))
        query = Query(network, top, explain, features)
        return Predictions(self._each(query, sources_of(images, network.channels, network.white)))

    def predict_sources(
        self, sources: Iterable[Source], *, top: int = 1, model: str = ""
    ) -> Iterator[Prediction]:
        """Predict named images, each as soon as those before it are; see `predict`."""
        return self._each(Query(self._carry_out(self._exchange.network(model)), top), sources)

    def _each(self, query: Query, sources: Iterable[Source]) -> Iterator[Prediction]:
        """The predictions of images, several at once, in their order."""
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            for together in _chunks(sources):
                yield from threads.map(partial(self._one, query), together)

    def _one(self, query: Query, source: Source) -> Prediction:
        """The prediction for an image."""
        try:
            content = query.body(source)
        except ContentError as error:
            if isinstance(error, OSError):  # of the place of shards, not of the image
                raise
            return unreadable(source, str(error))
        return self._carry_out(self._exchange.prediction(query, source, content))

    def _carry_out(self, steps: "Steps[_T]") -> _T:
        """The result of steps, each of which is carried out here."""
        response: httpx2.Response | None = None
        while True:
            try:
                step = steps.send(response)
            except StopIteration as end:
                result: _T = end.value
                return result
            if isinstance(step, Request):
                response = self._send(step)
            else:
                response = None
                time.sleep(step)

    def _send(self, request: Request) -> "httpx2.Response":
        """The response to a request."""
        try:
            return self._http.request(request.method, request.path, **request.options)
        except require("httpx2", "serve").HTTPError as error:
            raise self._exchange.failure(error) from None


class AsyncClient:
    """A client of a running server for programs with an event loop; see `Client`."""

    def __init__(
        self,
        url: str,
        *,
        key: str = "",
        timeout: float = _TIMEOUT,
        transport: "httpx2.AsyncBaseTransport | None" = None,
    ) -> None:
        library = require("httpx2", "serve")
        self._exchange = Exchange(url, key, timeout)
        self._http: httpx2.AsyncClient = library.AsyncClient(
            transport=transport, **self._exchange.options
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def models(self) -> list[str]:
        """The names of the models that the server has; see `Client.models`."""
        return await self._carry_out(self._exchange.models())

    async def class_names(self, model: str = "") -> tuple[str, ...]:
        """The classes of a model; see `Client.class_names`."""
        return (await self._carry_out(self._exchange.network(model))).class_names

    async def predict(
        self,
        images: Images,
        *,
        top: int = 1,
        model: str = "",
        explain: bool = False,
        features: bool = False,
    ) -> list[Prediction]:
        """Predict images; see `Client.predict`."""
        network = await self._carry_out(self._exchange.network(model))
        query = Query(network, top, explain, features)
        sources = sources_of(images, network.channels, network.white)
        turns = asyncio.Semaphore(_AT_ONCE)
        predictions = Predictions()
        for together in _chunks(sources):
            tasks = [asyncio.create_task(self._one(query, each, turns)) for each in together]
            try:
                predictions += await asyncio.gather(*tasks)
            finally:  # where one has failed, the others are not asked for any more
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        return predictions

    async def _one(self, query: Query, source: Source, turns: asyncio.Semaphore) -> Prediction:
        """The prediction for an image, when it is its turn."""
        async with turns:
            try:
                content = await asyncio.to_thread(query.body, source)
            except ContentError as error:
                if isinstance(error, OSError):
                    raise
                return unreadable(source, str(error))
            return await self._carry_out(self._exchange.prediction(query, source, content))

    async def _carry_out(self, steps: "Steps[_T]") -> _T:
        """The result of steps, each of which is carried out here."""
        response: httpx2.Response | None = None
        while True:
            try:
                step = steps.send(response)
            except StopIteration as end:
                result: _T = end.value
                return result
            if isinstance(step, Request):
                response = await self._send(step)
            else:
                response = None
                await asyncio.sleep(step)

    async def _send(self, request: Request) -> "httpx2.Response":
        """The response to a request."""
        try:
            return await self._http.request(request.method, request.path, **request.options)
        except require("httpx2", "serve").HTTPError as error:
            raise self._exchange.failure(error) from None


def _chunks(sources: Iterable[_T]) -> Iterator[list[_T]]:
    """Lists of up to _TOGETHER of them."""
    waiting = iter(sources)
    while together := list(islice(waiting, _TOGETHER)):
        yield together
