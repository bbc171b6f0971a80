"""Connections whose requests have headers of limited size, which arrive in limited time.

httptools keeps all headers in memory, however many there are, and joins the parts of a long one
again with each part that comes: one client could fill the memory and stop the event loop.

What is wrong with a request itself is answered by the application like any other, so that the log
and the metrics have the status that the client gets.
"""

import asyncio
from contextlib import suppress
from typing import Any, Literal, cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from resnets.serving.logs import log

WHOLE = "resnets.whole"  # key of a scope, which is there once the body has arrived
GONE = "resnets.gone"  # key of a scope: a future that is done once the client has gone
REFUSAL = "resnets.refusal"  # key of a scope: status and reason of what is wrong with the request
_PATIENCE = 30.0  # seconds for the headers of a request
_LARGEST = 64 << 10  # bytes of a request's first line, headers and trailers
_CHUNK_HEAD = 16  # bytes of a chunk's head that do not count, with the line breaks around it
_ALLOWED = "larger than the 64 KiB that are allowed"
_UNKNOWN = "-"  # the method of what cannot be read, in the log


class _Refusal(Exception):  # noqa: N818  (what happened, not a fault)
    """A request that is not read on; its arguments are the status and the reason."""


class Connection(HttpToolsProtocol):
    """A connection of uvicorn's with these limits; arguments as of uvicorn's."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.parser = self._new_parser()
        self.ws_protocol_class = None  # there are no WebSockets here
        self._beside_body = 0  # bytes of this request that are not of its body
        self._part: Literal["", "head", "body"] = ""  # of the request that is arriving
        self._refused = False  # whether nothing more is read
        self._patience: asyncio.TimerHandle | None = None  # until its headers are here
        self._gone: asyncio.Future[None] = self.loop.create_future()
        self._answered: RequestResponseCycle | None = None  # the request that is being answered

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the headers of the first request."""
        super().connection_made(transport)
        self._patience = self.loop.call_later(_PATIENCE, transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more; tell whoever works for the client."""
        self._wait_no_more()
        if not self._gone.done():
            self._gone.set_result(None)
        if self._answered is not None and not self._answered.response_complete:
            self._answered.disconnected = True  # uvicorn tells the last one that was sent only
            self._answered.message_event.set()
        super().connection_lost(exc)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Answer a request, which may have waited for the one before it."""
        self._answered = cycle
        super()._start_asgi_task(cycle, app)

    def data_received(self, data: bytes) -> None:
        """Read; refuse what is not HTTP, and more beside the body than is allowed."""
        if self._refused:
            return
        self._unset_keepalive_if_required()
        self._beside_body += len(data)
        try:
            self._parse(data)
            if self._beside_body > _LARGEST:
                raise _Refusal(431, f"{_BESIDE_BODY[self._part]} are {_ALLOWED}")
        except _Refusal as refusal:
            self._refuse(*refusal.args)
        except httptools.HttpParserError as error:
            has_method = isinstance(error, httptools.HttpParserInvalidURLError)
            self._refuse(*_refusal_of(error), has_method=has_method)

    def _new_parser(self) -> httptools.HttpRequestParser:
        """A parser that is as lenient as uvicorn's, so that all requests are read alike."""
        parser = httptools.HttpRequestParser(self)
        with suppress(AttributeError):  # before httptools 0.6.3
            parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return parser

    def _parse(self, data: bytes) -> None:
        """Read; a wish for another protocol, such as HTTP/2, is as if it were not there.

        The parser takes what follows for that protocol, and none is spoken here. Clients such as
        Java's wish so with their first request, and take an answer by HTTP/1.1 (RFC 9110, 7.8).

        Raises:
            HttpParserError: it is not HTTP, or a request is refused.
        """
        rest = memoryview(data)
        while rest:
            try:
                self.parser.feed_data(rest)
                return
            except httptools.HttpParserUpgrade as upgrade:
                end_of_head = upgrade.args[0]
            rest = rest[end_of_head:]
            head = self._head_without_upgrade()
            self.parser = self._new_parser()
            self.parser.feed_data(head)

    def _head_without_upgrade(self) -> bytes:
        """The first line and the headers of this request without Upgrade."""
        version = self.parser.get_http_version().encode()
        lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, version)]
        lines += [b"%s: %s" % row for row in self.headers if row[0] != b"upgrade"]
        return b"\r\n".join([*lines, b"", b""])

    def _refuse(self, status: int, reason: str, has_method: bool = False) -> None:
        """Have the request answered with a reason, whatever it asks; read nothing more.

        Args:
            status: of the answer.
            reason: in it.
            has_method: whether its method was read though its URL was not.
        """
        self._refused = True
        if self._part == "body":
            if self.cycle.response_complete:
                self.transport.close()
                return
            self.cycle.more_body = False  # the application reads to this end
        else:
            self._begin_unread(has_method)
        self.scope[REFUSAL] = status, reason  # type: ignore[literal-required]
        self.cycle.keep_alive = False
        self.cycle.message_event.set()

    def _begin_unread(self, has_method: bool) -> None:
        """Have a request answered whose head cannot be read, as one without headers."""
        self._wait_no_more()
        url = self.url
        super().on_message_begin()
        self.url = _path_of(url)
        super().on_headers_complete()
        if not url and not has_method:
            self.scope["method"] = _UNKNOWN

    def on_message_begin(self) -> None:
        """Wait for the headers of a request."""
        super().on_message_begin()
        self._part = "head"
        if self._patience is None:
            self._patience = self.loop.call_later(_PATIENCE, self.transport.close)

    def on_headers_complete(self) -> None:
        """Wait no more; refuse what came at once, and is more than is allowed."""
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise _Refusal(501, "CONNECT is for proxies, and this is no proxy")
            return  # it is read again: see `_parse`
        if self._beside_body > _LARGEST and self._head() > _LARGEST:
            raise _Refusal(431, f"{_BESIDE_BODY['head']} are {_ALLOWED}")
        if sum(name == b"host" for name, _ in self.headers) > 1:  # RFC 9112, 3.2
            raise _Refusal(400, "there are several headers Host")
        self._wait_no_more()
        self.scope[GONE] = self._gone  # type: ignore[literal-required]
        if not self.url.startswith(b"/"):  # as proxies send it: http://HOST/PATH (RFC 9112, 3.2.2)
            url = httptools.parse_url(self.url)
            self.url = (url.path or b"/") + (b"?" + url.query if url.query else b"")
        super().on_headers_complete()
        self._part = "body"
        self.headers = []  # for trailers, which are no headers (RFC 9110, 6.5.1)

    def _head(self) -> int:
        """Bytes of the first line and the headers, without what separates them."""
        return len(self.url) + sum(len(name) + len(value) for name, value in self.headers)

    def on_chunk_header(self) -> None:
        """Leave the head of a chunk out of the count: a body may come in a great many."""
        self._beside_body = max(0, self._beside_body - _CHUNK_HEAD)

    def on_body(self, body: bytes) -> None:
        """Leave the body out of the count, with as many bytes of the heads of its chunks."""
        self._beside_body = max(0, self._beside_body - 2 * len(body))
        if not self.cycle.body and not self.cycle.response_complete:
            # into a bytearray and out of it again it would be copied twice
            self.cycle.body, body = body, b""  # type: ignore[assignment]
        elif body and isinstance(cast("bytes | bytearray", self.cycle.body), bytes):
            # more parts come, and a bytearray grows without copies
            self.cycle.body = bytearray(self.cycle.body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Begin to count anew."""
        if self._part == "head":  # it is read again: see `_parse`
            return
        self._beside_body, self._part = 0, ""
        self.scope[WHOLE] = True  # type: ignore[literal-required]
        super().on_message_complete()
        if not self.pipeline:  # else nobody would see that the client goes
            self.flow.resume_reading()

    def _wait_no_more(self) -> None:
        """Stop to wait for headers."""
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None


_BESIDE_BODY = {
    "": "the headers",
    "head": "the headers",
    "body": "the extensions of the body's chunks, or its trailers,",
}


def _refusal_of(error: httptools.HttpParserError) -> tuple[int, str]:
    """The status and the reason of a request at which the parser failed."""
    cause = error.__context__  # what one of the methods that it calls raised
    if isinstance(cause, _Refusal):
        status, reason = cause.args
        return status, reason
    if cause is None:
        return 400, f"the request is not HTTP: {error}"
    if isinstance(cause, httptools.HttpParserInvalidURLError | UnicodeDecodeError):
        return 400, "the path of the request cannot be read"
    log("fault", error=cause)
    return 500, f"{type(cause).__name__}: a fault of the server, which is logged"


def _path_of(url: bytes) -> bytes:
    """The path of a URL; / where it has none that can be read."""
    try:
        path = httptools.parse_url(url).path or b"/"
    except httptools.HttpParserInvalidURLError:
        return b"/"
    return path if path.isascii() else b"/"
