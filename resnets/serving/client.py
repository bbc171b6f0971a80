"""Clients of a running server, which predict as `resnets.predict` does, by httpx2.

    from resnets.serving import Client

    with Client("http://127.0.0.1:8000") as client:
        for prediction in client.predict("photos/*.jpg"):
            print(prediction.image, prediction.prediction, prediction.status)

Each image is a request of its own, several at once; the server computes them in batches.
"""

import asyncio
import base64
import io
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import quote, urlsplit

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnets.errors import ContentError, UsageError, require
from resnets.escaping import escaped
from resnets.evaluation.inputs import Images, sources_of
from resnets.evaluation.predict import Prediction, Predictions, Source
from resnets.images import ALLOWED, UNTRUSTED, Pixels, White, decode
from resnets.images.opening import contents, format_of

if TYPE_CHECKING:
    import httpx2

_AT_ONCE = 8  # requests
_TOGETHER = 64  # images that are prepared and awaited together
_TIMEOUT = 60.0  # seconds
_SHORTEST_WAIT = 0.05  # seconds until a busy server is asked again
_UNREADABLE = (413, 415, 422)
_WRONG = (400, 401, 403, 404, 405, 406, 501)  # whose reason the caller can remove
_BUSY = (429, 503)

_T = TypeVar("_T")


class NotReachable(UsageError, ConnectionError):  # noqa: N818  (what happened, not a fault)
    """Nothing answers at the address of the server. A command ends with exit code 2."""


class ServerFailed(ContentError):  # noqa: N818
    """The server did not answer in time, was too busy, or failed. Exit code 1."""


@dataclass(frozen=True)
class DetailedPrediction(Prediction):
    """A prediction with what was asked for beside it.

    Attributes:
        features: of the network, (F,); None if they were not asked for.
        explanation: heat map over the image, a PNG file; None if it was not asked for.
    """

    features: NDArray[np.float32] | None = field(default=None, compare=False, repr=False)
    explanation: bytes | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class _Network:
    """What a client must know of a network to send it images.

    Attributes:
        name: by which the server knows it.
        class_names: one for each probability.
        channels: of the images that it takes.
        white: the white level of images of 16 or 32 bits a value.
    """

    name: str
    class_names: tuple[str, ...]
    channels: int
    white: White


@dataclass(frozen=True)
class _Query:
    """What is asked of the server for each image.

    Attributes:
        network: that predicts.
        top: how many of the most probable classes to list.
        explain: whether to add a heat map.
        features: whether to add the features.
    """

    network: _Network
    top: int = 1
    explain: bool = False
    features: bool = False

    @property
    def parameters(self) -> dict[str, str]:
        """As the query of a URL."""
        switches = {"explain": self.explain, "features": self.features}
        asked = {name: "1" for name, value in switches.items() if value}
        return {"model": self.network.name, "top": str(self.top), **asked}

    def body(self, source: Source) -> bytes:
        """An image as a file that the server reads.

        Raises:
            ContentError: it cannot be read here.
        """
        content = source.content
        if isinstance(content, ContentError):
            raise content
        if isinstance(content, Path):
            content = _file(content, self.network)
        return content if isinstance(content, bytes) else _png(content)

    def prediction(self, source: Source, response: "httpx2.Response", url: str) -> Prediction:
        """The prediction in a response.

        Raises:
            UsageError: the server refuses what was asked.
            ServerFailed: it did not answer as a server of this package.
        """
        if response.status_code not in (200, *_UNREADABLE):
            raise _error(response, url)
        answer = _json(response, url)
        try:
            if "predictions" not in answer:
                return _unreadable(source, str(answer["error"]))
            (values,) = answer["predictions"]
            if values["error"] is not None:
                return _unreadable(source, str(values["error"]))
            return self._readable(source, values)
        except (KeyError, TypeError, ValueError):
            raise _no_server(url) from None

    def _readable(self, source: Source, values: Mapping[str, Any]) -> Prediction:
        """The prediction for an image that could be read."""
        top = tuple((str(each["class"]), float(each["probability"])) for each in values["top"])
        if not (self.explain or self.features):
            return Prediction(source.name, *top[0], values["status"], top)
        features, picture = values.get("features"), values.get("explanation")
        return DetailedPrediction(
            source.name,
            *top[0],
            values["status"],
            top,
            features=None if features is None else np.asarray(features, np.float32),
            explanation=None if picture is None else base64.b64decode(picture),
        )


def _unreadable(source: Source, reason: str) -> Prediction:
    """The prediction for an image that cannot be read; `resnets.predict` names the file so too."""
    before = f"{escaped(str(source.content))}: " if isinstance(source.content, Path) else ""
    return Prediction(source.name, error=reason if reason.startswith(before) else before + reason)


def _file(path: Path, network: _Network) -> bytes | Pixels:
    """The bytes of an image file, or its pixels if a server does not read its format."""
    data = contents(path)
    if format_of(data) in UNTRUSTED or format_of(data) not in ALLOWED:
        return data  # where no format fits, the server says so
    return decode(path, channels=network.channels, formats=ALLOWED, white=network.white)


def _png(pixels: Pixels) -> bytes:
    """An image (H, W, C) with C of 1, 3 or 4 as a PNG file, which loses nothing."""
    file = io.BytesIO()
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()


class _Address:
    """What both clients share: the address, and how its answers are understood.

    Args:
        url: of the server, such as http://127.0.0.1:8000.
        key: that the server asks for; empty if it asks for none.
        timeout: seconds for each image, in which a busy server is asked again.

    Raises:
        UsageError: the URL or the timeout is not allowed.
    """

    def __init__(self, url: str, key: str, timeout: float) -> None:
        try:
            parts = urlsplit(url)
            sound = parts.scheme in ("http", "https") and bool(parts.netloc) and parts.port != 0
        except ValueError:  # such as of http://[, or of a port that is none
            sound = False
        if not sound:
            raise UsageError(f"{url}: not the URL of a server, such as http://127.0.0.1:8000")
        if not timeout > 0:
            raise UsageError(f"timeout {timeout}: it must be more than 0 seconds")
        self.url, self.timeout = url.rstrip("/"), timeout
        self.options = {
            "base_url": self.url,
            "headers": {"Authorization": f"Bearer {key}"} if key else {},
            "timeout": timeout,
        }

    def wait(self, response: "httpx2.Response", deadline: float) -> float | None:
        """Seconds after which to ask again; None where the response stands.

        Args:
            response: of the server.
            deadline: by `time.monotonic`.
        """
        if response.status_code not in _BUSY:
            return None
        text = response.headers.get("Retry-After", "1")
        seconds = float(text) if text.isascii() and text.isdecimal() else 1.0
        wait = max(seconds, _SHORTEST_WAIT)
        return wait if time.monotonic() + wait < deadline else None

    def failure(self, error: Exception) -> Exception:
        """The error for the caller, of one that httpx2 raised."""
        library = require("httpx2", "serve")
        if isinstance(error, library.ConnectError):
            return NotReachable(
                f"{self.url}: nothing answers there (is `resnets serve` running?): {error}"
            )
        if isinstance(error, library.TimeoutException):
            return ServerFailed(f"{self.url}: no answer within {self.timeout:g} seconds")
        return ServerFailed(f"{self.url}: {error or type(error).__name__}")

    def network(self, response: "httpx2.Response") -> _Network:
        """What the metadata of a model say."""
        if response.status_code != 200:
            raise _error(response, self.url)
        values = _json(response, self.url)
        try:
            said = values["parameters"]
            names = tuple(str(name) for name in said["class_names"])
            channels = next(x["shape"][-1] for x in values["inputs"] if x["name"] == "images")
            return _Network(str(values["name"]), names, channels, White.from_dict(said["white"]))
        except (KeyError, TypeError, IndexError, StopIteration, ContentError):
            raise _no_server(self.url) from None

    def names(self, response: "httpx2.Response") -> list[str]:
        """The names of the models that a server has; the first one answers by default."""
        if response.status_code != 200:
            raise _error(response, self.url)
        names = _json(response, self.url).get("models")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise _no_server(self.url)
        return names


def _json(response: "httpx2.Response", url: str) -> dict[str, Any]:
    """The JSON object of a response."""
    try:
        values = response.json()
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise _no_server(url)
    return values


def _error(response: "httpx2.Response", url: str) -> Exception:
    """The error that a response tells of."""
    try:
        reason = str(response.json()["error"])
    except (ValueError, KeyError, TypeError):
        return _no_server(url, f" (status {response.status_code})")
    kind = UsageError if response.status_code in _WRONG else ServerFailed
    return kind(f"{url}: {escaped(reason)}")


def _no_server(url: str, more: str = "") -> UsageError:
    """The error where something else answers."""
    return UsageError(f"{url}: what answers there is no `resnets serve`{more}")


def _path(name: str) -> str:
    """The path of a model's metadata."""
    return f"/v2/models/{quote(name, safe='')}"


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
        self._address = _Address(url, key, timeout)
        self._http: httpx2.Client = library.Client(transport=transport, **self._address.options)
        self._networks: dict[str, _Network] = {}

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
        return self._address.names(self._request("GET", "/v2"))

    def class_names(self, model: str = "") -> tuple[str, ...]:
        """The classes of a model, the first one by default, in the order of its outputs."""
        return self._network(model).class_names

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
        network = self._network(model)
        query = _Query(network, top, explain, features)
        return Predictions(self._each(query, sources_of(images, network.channels, network.white)))

    def predict_sources(
        self, sources: Iterable[Source], *, top: int = 1, model: str = ""
    ) -> Iterator[Prediction]:
        """Predict named images, each as soon as those before it are; see `predict`."""
        return self._each(_Query(self._network(model), top), sources)

    def _each(self, query: _Query, sources: Iterable[Source]) -> Iterator[Prediction]:
        """The predictions of images, several at once, in their order."""
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            for together in _chunks(sources):
                yield from threads.map(partial(self._one, query), together)

    def _one(self, query: _Query, source: Source) -> Prediction:
        """The prediction for an image."""
        try:
            content = query.body(source)
        except ContentError as error:
            return _unreadable(source, str(error))
        response = self._request("POST", "/predict", content=content, params=query.parameters)
        return query.prediction(source, response, self._address.url)

    def _network(self, model: str) -> _Network:
        """What is known of a model; the first one without a name."""
        if model not in self._networks:
            name = model or next(iter(self.models()), "")
            self._networks[model] = self._address.network(self._request("GET", _path(name)))
        return self._networks[model]

    def _request(self, method: str, path: str, **options: Any) -> "httpx2.Response":
        """The response to a request, which is sent again to a busy server."""
        library = require("httpx2", "serve")
        deadline = time.monotonic() + self._address.timeout
        while True:
            try:
                response: httpx2.Response = self._http.request(method, path, **options)
            except library.HTTPError as error:
                raise self._address.failure(error) from None
            wait = self._address.wait(response, deadline)
            if wait is None:
                return response
            time.sleep(wait)


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
        self._address = _Address(url, key, timeout)
        self._http: httpx2.AsyncClient = library.AsyncClient(
            transport=transport, **self._address.options
        )
        self._networks: dict[str, _Network] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def models(self) -> list[str]:
        """The names of the models that the server has; see `Client.models`."""
        return self._address.names(await self._request("GET", "/v2"))

    async def class_names(self, model: str = "") -> tuple[str, ...]:
        """The classes of a model; see `Client.class_names`."""
        return (await self._network(model)).class_names

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
        query = _Query(await self._network(model), top, explain, features)
        sources = sources_of(images, query.network.channels, query.network.white)
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

    async def _one(self, query: _Query, source: Source, turns: asyncio.Semaphore) -> Prediction:
        """The prediction for an image, when it is its turn."""
        async with turns:
            try:
                content = await asyncio.to_thread(query.body, source)
            except ContentError as error:
                return _unreadable(source, str(error))
            parameters = query.parameters
            response = await self._request("POST", "/predict", content=content, params=parameters)
            return query.prediction(source, response, self._address.url)

    async def _network(self, model: str) -> _Network:
        """What is known of a model; the first one without a name."""
        if model not in self._networks:
            name = model or next(iter(await self.models()), "")
            self._networks[model] = self._address.network(await self._request("GET", _path(name)))
        return self._networks[model]

    async def _request(self, method: str, path: str, **options: Any) -> "httpx2.Response":
        """The response to a request, which is sent again to a busy server."""
        library = require("httpx2", "serve")
        deadline = time.monotonic() + self._address.timeout
        while True:
            try:
                response: httpx2.Response = await self._http.request(method, path, **options)
            except library.HTTPError as error:
                raise self._address.failure(error) from None
            wait = self._address.wait(response, deadline)
            if wait is None:
                return response
            await asyncio.sleep(wait)


def _chunks(sources: Iterable[_T]) -> Iterator[list[_T]]:
    """Lists of up to _TOGETHER of them."""
    waiting = iter(sources)
    while together := list(islice(waiting, _TOGETHER)):
        yield together
