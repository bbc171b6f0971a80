"""Connections whose requests have headers of limited size, which arrive in limited time.

httptools keeps all headers in memory, however many there are, and joins the parts of a long one
again with each part that comes: one client could fill the memory and stop the event loop.
"""

import asyncio
from typing import Any, cast

from starlette.types import Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

GONE = "resnets.gone"  # key of a scope: a future that is done once the client has gone
_PATIENCE = 30.0  # seconds for the headers of a request
_LARGEST = 64 << 10  # bytes of a request's first line, headers and trailers
_REASON = b'{"error": "the headers are larger than the 64 KiB that are allowed"}'
_HEADERS = [
    (b"content-type", b"application/json"),
    (b"content-length", str(len(_REASON)).encode()),
    (b"connection", b"close"),
]
_REFUSAL = b"".join(
    [STATUS_LINE[431], *(b"%s: %s\r\n" % row for row in _HEADERS), b"\r\n", _REASON]
)


class Connection(HttpToolsProtocol):
    """A connection of uvicorn's with these limits; arguments as of uvicorn's."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.ws_protocol_class = None  # there are no WebSockets here
        self._beside_body = 0  # bytes of this request that are not of its body
        self._patience: asyncio.TimerHandle | None = None  # until its headers are here
        self._gone: asyncio.Future[None] = self.loop.create_future()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the headers of the first request."""
        super().connection_made(transport)
        self._patience = self.loop.call_later(_PATIENCE, transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more; tell whoever works for the client."""
        self._wait_no_more()
        if not self._gone.done():
            self._gone.set_result(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read; answer 431 where there is more beside the body than is allowed."""
        self._beside_body += len(data)
        super().data_received(data)
        if self._beside_body > _LARGEST and not self.transport.is_closing():
            self.transport.write(_REFUSAL)
            self.transport.close()

    def on_message_begin(self) -> None:
        """Wait for the headers of a request."""
        super().on_message_begin()
        if self._patience is None:
            self._patience = self.loop.call_later(_PATIENCE, self.transport.close)

    def on_headers_complete(self) -> None:
        """Wait no more; refuse what came at once, and is more than is allowed."""
        self._wait_no_more()
        self.scope[GONE] = self._gone  # type: ignore[literal-required]
        if self._beside_body > _LARGEST and self._head() > _LARGEST:
            self.app = _refuse  # of this connection, which it closes
        super().on_headers_complete()

    def _head(self) -> int:
        """Bytes of the first line and the headers, without what separates them."""
        return len(self.url) + sum(len(name) + len(value) for name, value in self.headers)

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
        self._beside_body = 0
        super().on_message_complete()
        if not self.pipeline:  # else nobody would see that the client goes
            self.flow.resume_reading()

    def _wait_no_more(self) -> None:
        """Stop to wait for headers."""
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None


async def _refuse(_scope: object, _receive: object, send: Send) -> None:
    """Answer a request with 431; an ASGI application."""
    await send({"type": "http.response.start", "status": 431, "headers": _HEADERS})
    await send({"type": "http.response.body", "body": _REASON})
