"""What clients of a running server send and how they read its answers; they do the sending."""

import base64
import io
import os
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar
from urllib.parse import quote, urlsplit

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnets.errors import ContentError, UsageError, require
from resnets.escaping import escaped
from resnets.evaluation.predict import Prediction
from resnets.evaluation.source import Source
from resnets.format import duration
from resnets.images import ALLOWED, UNTRUSTED, Pixels, White, decode
from resnets.images.opening import contents, format_of
from resnets.outages import Outage
from resnets.serving.answered_by import AnsweredBy

Notify = Callable[[str], None]
_T = TypeVar("_T")
if TYPE_CHECKING:
    import httpx2

    Answer: TypeAlias = "httpx2.Response | ServerFailed | NotReachable"
    Steps: TypeAlias = Generator["Request | float", Answer | None, _T]

_TO_CONNECT = 10.0  # seconds; a host that is not there answers nothing at all
_SHORTEST_WAIT = 0.05  # seconds until a busy server is asked again
_PAUSE = 1.0  # seconds until an image that failed is sent once more
_SHORTEST_PAUSE = 0.1  # seconds until a server that is away is asked again; then twice as long
_TOO_LARGE = 413
_UNREADABLE = (_TOO_LARGE, 415, 422)
_WRONG = (400, 401, 403, 404, 405, 406, 501)  # whose reason the caller can remove
_BUSY = (429, 503)
_BAD_GATEWAY = 502
_PASSING = (408, _BAD_GATEWAY, 504)  # a slow network, a proxy without its server, much to do
_NO_KEY = 401
_MISSING = 404
_PATH = "/predict"
_FAILED = 500  # and above: of a proxy, too, whose server is away
_TRUSTED = ("SSL_CERT_FILE", "SSL_CERT_DIR")  # what httpx2 reads
_HOW_TO_SEND_A_KEY = "Client(..., key=KEY), or the variable RESNETS_API_KEY of `resnets predict`"


class NotReachable(ContentError, ConnectionError):  # noqa: N818
    """Nothing answers at the address of the server. A command ends with exit code 1."""


class ServerFailed(ContentError):  # noqa: N818
    """The server did not answer in time, was too busy, or failed. Exit code 1."""


class NothingAnswers(NotReachable):
    """No connection comes about, as while a server is started again. Exit code 1."""


class ClientClosed(UsageError, RuntimeError):  # noqa: N818
    """A client was used after it was closed."""


class _OtherServerError(UsageError, ServerFailed):
    """What answers is no server of this package. Exit code 2, where all answers are such ones."""


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
class Network:
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
class Query:
    """What is asked of the server for each image.

    Attributes:
        network: that predicts.
        top: how many of the most probable classes to list.
        explain: whether to add a heat map.
        features: whether to add the features.
        answered_by: which files of the model answered.
    """

    network: Network
    top: int = 1
    explain: bool = False
    features: bool = False
    answered_by: AnsweredBy = field(default_factory=AnsweredBy, compare=False)

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
        content = source.loaded()
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
        if response.status_code == _TOO_LARGE and _values(response) is None:
            return unreadable(source, "larger than what is before the server, a proxy, lets pass")
        answer = _json(response, url)
        try:
            if "predictions" not in answer:
                return unreadable(source, str(answer["error"]))
            (values,) = answer["predictions"]
            if values["error"] is not None:
                return unreadable(source, str(values["error"]))
            self.answered_by.add(str(answer.get("model", {}).get("digest", "")))
            return self._readable(source, values)
        except (AttributeError, KeyError, TypeError, ValueError):
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


def unreadable(source: Source, reason: str) -> Prediction:
    """The prediction for an image that cannot be read; `resnets.predict` names the file so too."""
    before = f"{escaped(str(source.content))}: " if isinstance(source.content, Path) else ""
    return Prediction(source.name, error=reason if reason.startswith(before) else before + reason)


def _file(path: Path, network: Network) -> bytes | Pixels:
    """The bytes of an image file, or its pixels if a server does not read its format.

    Raises:
        ContentError: it cannot be read; what no format fits is told in the words of `predict`.
    """
    data = contents(path)
    if not data or format_of(data) in UNTRUSTED:
        return data
    return decode(path, channels=network.channels, formats=ALLOWED, white=network.white)


def _png(pixels: Pixels) -> bytes:
    """An image (H, W, C) with C of 1, 3 or 4 as a PNG file, which loses nothing."""
    file = io.BytesIO()
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()


@dataclass(frozen=True)
class Request:
    """What is to be sent.

    Attributes:
        method: of HTTP.
        path: of the URL.
        options: further arguments of httpx2's `request`.
    """

    method: str
    path: str
    options: Mapping[str, Any] = field(default_factory=dict)


class Exchange:
    """What clients send to a server, and how they understand its answers; sending is theirs.

    Methods that return `Steps` are generators: they yield a `Request`, and are sent its response;
    or they yield a number of seconds to wait. What they return is the result.

    Args:
        url: of the server, such as http://127.0.0.1:8000.
        key: that the server asks for; empty if it asks for none.
        timeout: seconds for each image, in which a server that is busy, or away after it answered
            others, is asked again.
        notify: is called with what users should know, from any thread.

    Raises:
        UsageError: the URL or the timeout is not allowed.
    """

    def __init__(self, url: str, key: str, timeout: float, notify: Notify) -> None:
        try:
            parts = urlsplit(url)
            sound = parts.scheme in ("http", "https") and bool(parts.netloc) and parts.port != 0
        except ValueError:  # such as of http://[, or of a port that is none
            sound = False
        if not sound:
            raise UsageError(f"{url}: not the URL of a server, such as http://127.0.0.1:8000")
        if not key.isascii() or not key.isprintable():
            raise UsageError("the key must be of ASCII, as the keys of a server are")
        if not timeout > 0:
            raise UsageError(f"timeout {timeout}: it must be more than 0 seconds")
        self.url, self.timeout = url.rstrip("/"), timeout
        self._networks: dict[str, Network] = {}
        waiting = f"{self.url} does not answer; waiting up to {duration(timeout)} for it"
        self._outage, self._notify = Outage(lambda _: notify(waiting)), notify
        self.options = {
            "base_url": self.url,
            "headers": {"Authorization": f"Bearer {key}"} if key else {},
            "timeout": self._limits(timeout),
        }

    def http(self, make: Callable[..., _T], transport: object) -> _T:
        """The client of httpx2 that sends, made by its class.

        Raises:
            UsageError: the certificates that the environment names cannot be read.
        """
        try:
            return make(transport=transport, **self.options)
        except OSError as error:  # of TLS, too
            name = next((name for name in _TRUSTED if os.environ.get(name)), "")
            if not name:
                raise
            reason = error.strerror or error
            raise UsageError(
                f"the variable {name} names {os.environ[name]}, which cannot be read as "
                f"certificates to trust: {reason}; name a file in PEM, or unset it"
            ) from None

    def models(self) -> "Steps[list[str]]":
        """The names of the models that the server has; the first one answers by default."""
        response = yield from self._asked(Request("GET", "/v2"))
        return self._names(response)

    def network(self, model: str) -> "Steps[Network]":
        """What is known of a model; of the first one without a name."""
        if model not in self._networks:
            name = model or next(iter((yield from self.models())), "")
            path = f"/v2/models/{quote(name, safe='')}"
            response = yield from self._asked(Request("GET", path))
            self._networks[model] = self._network(response)
        return self._networks[model]

    def prediction(self, query: Query, source: Source, content: bytes) -> "Steps[Prediction]":
        """The prediction for an image, whose bytes are those of `query.body`."""
        # an empty file goes in a form: an empty body is a request without any image
        body = {"content": content} if content else {"files": {"file": ("image", content)}}
        request = Request("POST", _PATH, {**body, "params": query.parameters})
        response = yield from self._asked(request, twice=True)
        return query.prediction(source, response, self.url)

    def tell_change(self, query: Query) -> None:
        """Tell of a model that changed while it answered the images of a query."""
        if change := query.answered_by.change():
            self._notify(f"{self.url}: {change}")

    def _asked(self, request: Request, *, twice: bool = False) -> "Steps[httpx2.Response]":
        """The response to a request, which is sent again to a server that is busy or away.

        Args:
            request: what to send.
            twice: whether to send it once more after a failure that may pass.

        Raises:
            ServerFailed, NotReachable: there is no response.
        """
        deadline = time.monotonic() + self.timeout
        pause, tries = _SHORTEST_PAUSE, 1 + twice
        while True:
            sent, before = time.monotonic(), self._outage.answers
            answer = yield request
            assert answer is not None
            wait = _wait(answer)
            tries -= wait is None
            is_last = tries <= 0 and self._outage.answers == before
            if wait is None and self._is_away(answer, is_last):
                wait, pause, tries = pause, min(2 * pause, _PAUSE), 1 + twice
            elif wait is None and tries > 0 and _may_pass(answer):
                wait = _PAUSE
            if not isinstance(answer, Exception) and answer.status_code != _BAD_GATEWAY:
                self._outage.end(sent)
            left = deadline - time.monotonic() - (wait or 0.0)
            if wait is None or left <= 0:
                if isinstance(answer, Exception):
                    raise answer
                return answer
            yield wait
            request = replace(request, options={**request.options, "timeout": self._limits(left)})

    def _is_away(self, answer: "Answer", is_last: bool) -> bool:
        """Whether to wait for the server, which answered before and is away now.

        Args:
            answer: to a request.
            is_last: whether it was tried often enough, and no other request was answered meanwhile:
                a proxy says the same of a request that its server fails for as of one that is away.
        """
        if isinstance(answer, Exception):
            return isinstance(answer, NothingAnswers) and self._is_to_wait()
        return answer.status_code == _BAD_GATEWAY and is_last and self._is_to_wait()

    def _is_to_wait(self) -> bool:
        """Whether a request that met no server is to wait for it: not where none ever answered."""
        if not self._outage.answers:
            return False
        lasted = self._outage.begin(time.monotonic())
        self._outage.tell()
        return lasted < self.timeout

    def _limits(self, seconds: float) -> "httpx2.Timeout":
        """The time limits of a request."""
        connect = min(seconds, _TO_CONNECT)
        limits: httpx2.Timeout = require("httpx2", "serve").Timeout(seconds, connect=connect)
        return limits

    def refuse_closed(self, is_closed: bool) -> None:
        """Refuse to send by a client that was closed.

        Raises:
            ClientClosed: it was.
        """
        if is_closed:
            raise ClientClosed(f"{self.url}: this client was closed; make another one")

    def failure(self, error: Exception) -> "ServerFailed | NotReachable":
        """The error for the caller, of one that httpx2 raised."""
        library = require("httpx2", "serve")
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            return NotReachable(
                f"{self.url}: its certificate is not trusted here; the variable SSL_CERT_FILE may "
                "name a file of certificates to trust, or SSL_CERT_DIR a folder of them that "
                f"`openssl rehash` prepared: {error}"
            )
        if "WRONG_VERSION_NUMBER" in str(error):  # of TLS
            return NotReachable(f"{self.url}: what answers there is no https; try http://...")
        if isinstance(error, library.ConnectError | library.ConnectTimeout):
            return NothingAnswers(
                f"{self.url}: nothing answers there (is `resnets serve` running?): "
                f"{error or type(error).__name__}"
            )
        if isinstance(error, library.RemoteProtocolError) and self.url.startswith("http://"):
            return ServerFailed(f"{self.url}: {error} (does it serve https? give https://...)")
        if isinstance(error, library.TimeoutException):
            return ServerFailed(f"{self.url}: no answer within {self.timeout:g} seconds")
        return ServerFailed(f"{self.url}: {error or type(error).__name__}")

    def _network(self, response: "httpx2.Response") -> Network:
        """What the metadata of a model say."""
        if response.status_code != 200:
            raise _error(response, self.url)
        values = _json(response, self.url)
        try:
            parameters = values["parameters"]
            names = tuple(str(name) for name in parameters["class_names"])
            channels = next(x["shape"][-1] for x in values["inputs"] if x["name"] == "images")
            return Network(
                str(values["name"]), names, channels, White.from_dict(parameters["white"])
            )
        except (KeyError, TypeError, IndexError, StopIteration, ContentError):
            raise _no_server(self.url) from None

    def _names(self, response: "httpx2.Response") -> list[str]:
        """The names in the metadata of a server."""
        if response.status_code == _MISSING and self.url.endswith(_PATH):
            raise UsageError(f"{self.url}: give the address of the server, without {_PATH}")
        if response.status_code != 200:
            raise _error(response, self.url)
        names = _json(response, self.url).get("models")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise _no_server(self.url)
        return names


def _wait(answer: "Answer") -> float | None:
    """Seconds after which a busy server is asked again; None where it is not busy."""
    if isinstance(answer, Exception) or answer.status_code not in _BUSY:
        return None
    text = answer.headers.get("Retry-After", "1")
    seconds = float(text) if text.isascii() and text.isdecimal() else 1.0
    return max(seconds, _SHORTEST_WAIT)


def _may_pass(answer: "Answer") -> bool:
    """Whether the same request may be answered a moment later: predictions change nothing."""
    return isinstance(answer, Exception) or answer.status_code in _PASSING


def _json(response: "httpx2.Response", url: str) -> dict[str, Any]:
    """The JSON object of a response."""
    values = _values(response)
    if values is None:
        raise _no_server(url)
    return values


def _values(response: "httpx2.Response") -> dict[str, Any] | None:
    """The JSON object of a response; None where it has none."""
    try:
        values = response.json()
    except (ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) else None


def _error(response: "httpx2.Response", url: str) -> Exception:
    """The error that a response tells of."""
    try:
        reason = str(response.json()["error"])
    except (ValueError, KeyError, TypeError, RecursionError):
        if response.status_code >= _FAILED:
            return ServerFailed(f"{url}: an error answers there (status {response.status_code})")
        return _no_server(url, f" (status {response.status_code})")
    kind = UsageError if response.status_code in _WRONG else ServerFailed
    if response.status_code == _NO_KEY:
        reason += f" ({_HOW_TO_SEND_A_KEY})"
    return kind(f"{url}: {escaped(reason)}")


def _no_server(url: str, more: str = "") -> _OtherServerError:
    """The error where something else answers."""
    return _OtherServerError(f"{url}: what answers there is no `resnets serve`{more}")
