"""Clients of a running server, which predict as `resnets.predict` does, by httpx2.

    from resnets.serving import Client

    with Client("http://127.0.0.1:8000") as client:
        for prediction in client.predict("photos/*.jpg"):
            print(prediction.image, prediction.prediction, prediction.status)

Each image is a request of its own, several at once; the server computes them in batches.
"""

import asyncio
import warnings
from collections.abc import AsyncIterator, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from itertools import islice
from threading import Event
from typing import TYPE_CHECKING, Self, TypeVar

import numpy as np

from resnets.errors import ContentError, require
from resnets.evaluation.inputs import Images, sources_of
from resnets.evaluation.predict import Prediction, Predictions
from resnets.evaluation.source import Source
from resnets.serving.exchange import (
    Exchange,
    Notify,
    NotReachable,
    Query,
    Request,
    ServerFailed,
    unreadable,
)
from resnets.serving.outcomes import AT_ONCE, Outcome, Outcomes, settled

if TYPE_CHECKING:
    import httpx2

    from resnets.serving.exchange import Answer, Steps

_TOGETHER = 64  # images that are prepared and awaited together
_TIMEOUT = 60.0  # seconds
_BLACK = np.zeros((32, 32), np.uint8)

_T = TypeVar("_T")


class Client:
    """A client of a running server.

    Args:
        url: of the server, such as http://127.0.0.1:8000.
        key: that the server asks for; empty if it asks for none.
        timeout: seconds for each image, in which a busy server is asked again when it says, one
            that is away after it answered others until it is back, and once more after a failure
            that may pass.
        transport: of httpx2, for tests and special connections.
        notify: is called, from any thread, with a line where the server is away and waited for, and
            where its model changed while it answered a call; by default these are warnings.

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
        notify: Notify | None = None,
    ) -> None:
        library = require("httpx2", "serve")
        self._exchange = Exchange(url, key, timeout, notify or _warn)
        self._http: httpx2.Client = self._exchange.http(library.Client, transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; a call after that raises `ClientClosed`."""
        self._http.close()

    def models(self) -> list[str]:
        """The names of the models that the server has; the first one answers by default.

        Raises:
            NotReachable: nothing answers there (`NothingAnswers`), or no server that is trusted.
            ClientClosed: this client was closed.
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
            `DetailedPrediction`. An image for which the server failed, while it answered others,
            has the status "unanswered" and the reason as its `error`.

        Raises:
            UsageError: an argument is not allowed, or the server has no such model.
            NotReachable: nothing answers, for all images or for many one after another.
            ServerFailed: the server did not answer in time, or failed, for as many.
        """
        network = self._carry_out(self._exchange.network(model))
        query = Query(network, top, explain, features)
        return Predictions(self._each(query, sources_of(images, network.channels, network.white)))

    def predict_sources(
        self,
        sources: Iterable[Source],
        *,
        top: int = 1,
        model: str = "",
        features: bool = False,
    ) -> Iterator[Prediction]:
        """Predict named images, each as soon as those before it are; see `predict`."""
        network = self._carry_out(self._exchange.network(model))
        return self._each(Query(network, top, features=features), sources)

    def number_of_features(self, model: str = "") -> int:
        """How many features a model has, by a black image.

        Raises:
            ServerFailed: the server did not tell.
        """
        (black,) = self.predict(_BLACK, model=model, features=True)
        if black.features is None:
            raise ServerFailed(f"{self._exchange.url}: no features: {black.error or 'none came'}")
        return len(black.features)

    def _each(self, query: Query, sources: Iterable[Source]) -> Iterator[Prediction]:
        """The predictions of images, several at once, in their order."""
        try:
            with closing(self._outcomes(query, sources)) as outcomes:
                yield from settled(outcomes)
        finally:
            self._exchange.tell_change(query)

    def _outcomes(
        self, query: Query, sources: Iterable[Source]
    ) -> Generator[tuple[Source, Outcome]]:
        """What became of each image."""
        ended = Event()
        with ThreadPoolExecutor(AT_ONCE) as threads:
            try:
                for together in _chunks(sources):
                    outcomes = threads.map(partial(self._one, query, ended), together)
                    yield from zip(together, outcomes, strict=True)
            finally:  # where this ends early, the others are not asked for any more
                ended.set()
                threads.shutdown(wait=False, cancel_futures=True)

    def _one(self, query: Query, ended: Event, source: Source) -> Outcome:
        """The prediction for an image, or how the server failed for it."""
        try:
            content = query.body(source)
        except ContentError as error:
            if isinstance(error, OSError):  # of the place of shards, not of the image
                raise
            return unreadable(source, str(error))
        try:
            return self._carry_out(self._exchange.prediction(query, source, content), ended)
        except (ServerFailed, NotReachable) as failure:
            return failure

    def _carry_out(self, steps: "Steps[_T]", ended: Event | None = None) -> _T:
        """The result of steps, each of which is carried out here.

        Args:
            steps: see `Exchange`.
            ended: is set once nobody wants the result any more.

        Raises:
            ServerFailed, NotReachable: there is no result.
        """
        answer: Answer | None = None
        ended = ended or Event()
        while True:
            try:
                step = steps.send(answer)
            except StopIteration as end:
                result: _T = end.value
                return result
            if isinstance(step, Request):
                answer = self._send(step)
            else:
                answer = None
                if ended.wait(step):
                    raise ServerFailed("nobody waits for this image any more")

    def _send(self, request: Request) -> "Answer":
        """The response to a request, or why there is none.

        Raises:
            ClientClosed: this client was closed.
        """
        self._exchange.refuse_closed(self._http.is_closed)
        try:
            return self._http.request(request.method, request.path, **request.options)
        except require("httpx2", "serve").HTTPError as error:
            return self._exchange.failure(error)


class AsyncClient:
    """A client of a running server for programs with an event loop; see `Client`."""

    def __init__(
        self,
        url: str,
        *,
        key: str = "",
        timeout: float = _TIMEOUT,
        transport: "httpx2.AsyncBaseTransport | None" = None,
        notify: Notify | None = None,
    ) -> None:
        library = require("httpx2", "serve")
        self._exchange = Exchange(url, key, timeout, notify or _warn)
        self._http: httpx2.AsyncClient = self._exchange.http(library.AsyncClient, transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections; a call after that raises `ClientClosed`."""
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
        turns = asyncio.Semaphore(AT_ONCE)
        predictions, state = Predictions(), Outcomes()
        for together in _chunks(sources):
            tasks = [asyncio.create_task(self._one(query, each, turns)) for each in together]
            try:
                waiting = iter(together)
                async for outcome in _in_order(tasks):
                    predictions += state.add(next(waiting), outcome)
            finally:  # where this ends early, the others are not asked for any more
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        predictions += state.end()
        self._exchange.tell_change(query)
        return predictions

    async def _one(self, query: Query, source: Source, turns: asyncio.Semaphore) -> Outcome:
        """What became of an image, when it is its turn."""
        async with turns:
            try:
                content = await asyncio.to_thread(query.body, source)
            except ContentError as error:
                if isinstance(error, OSError):
                    raise
                return unreadable(source, str(error))
            try:
                return await self._carry_out(self._exchange.prediction(query, source, content))
            except (ServerFailed, NotReachable) as failure:
                return failure

    async def _carry_out(self, steps: "Steps[_T]") -> _T:
        """The result of steps, each of which is carried out here."""
        answer: Answer | None = None
        while True:
            try:
                step = steps.send(answer)
            except StopIteration as end:
                result: _T = end.value
                return result
            if isinstance(step, Request):
                answer = await self._send(step)
            else:
                answer = None
                await asyncio.sleep(step)

    async def _send(self, request: Request) -> "Answer":
        """The response to a request, or why there is none.

        Raises:
            ClientClosed: this client was closed.
        """
        self._exchange.refuse_closed(self._http.is_closed)
        try:
            return await self._http.request(request.method, request.path, **request.options)
        except require("httpx2", "serve").HTTPError as error:
            return self._exchange.failure(error)


def _warn(line: str) -> None:
    """Tell what users should know where nobody asked for another way."""
    warnings.warn(line, stacklevel=2)


async def _in_order(tasks: "Sequence[asyncio.Task[_T]]") -> AsyncIterator[_T]:
    """The results of tasks in their order; an error of any is raised at once."""
    pending = set(tasks)
    for task in tasks:
        while not task.done():
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for each in done:
                each.result()
        yield task.result()


def _chunks(sources: Iterable[_T]) -> Iterator[list[_T]]:
    """Lists of up to _TOGETHER of them."""
    waiting = iter(sources)
    while together := list(islice(waiting, _TOGETHER)):
        yield together
