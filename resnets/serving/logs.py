"""Log lines of requests: JSON, one a request, with ids and without any content.

They are written by a thread of their own, since a reader of standard error that has stopped would
else stop the server.
"""

import logging
import os
import queue
import re
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

from starlette.datastructures import Headers

from resnets.json_text import to_json

_LOGGER = logging.getLogger("resnets.serving")
_WAITING = 10_000  # lines that wait to be written; further ones are dropped
_STDERR = 2  # its descriptor
_PATIENCE = 2.0  # seconds to write what waits at the end
_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
_TRACE = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-[0-9a-f-]{1,64})?")


class _Queued(logging.Handler):
    """Puts lines into a queue, and drops those for which there is no room."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: queue.Queue[bytes | None] = queue.Queue(_WAITING)

    def emit(self, record: logging.LogRecord) -> None:
        """Add a line, if there is room."""
        with suppress(queue.Full):
            self.lines.put_nowait(f"{self.format(record)}\n".encode())

    def write(self) -> None:
        """Write lines to standard error until there is None.

        Not by `sys.stderr`, whose lock this thread would hold at the end of the process where
        nobody reads any more.
        """
        while (line := self.lines.get()) is not None:
            with suppress(OSError):
                while line:
                    line = line[os.write(_STDERR, line) :]


@contextmanager
def logging_to_stderr() -> Iterator[None]:
    """Write log lines to standard error while the context is open.

    At its end, lines that wait are given up where nobody reads them.
    """
    handler = _Queued()
    writer = threading.Thread(target=handler.write, name="log", daemon=True)
    _LOGGER.addHandler(handler)
    _LOGGER.setLevel(logging.INFO)
    writer.start()
    try:
        yield
    finally:
        _LOGGER.removeHandler(handler)
        with suppress(queue.Full):
            handler.lines.put_nowait(None)
        writer.join(_PATIENCE)


def log(event: str, *, error: BaseException | None = None, **values: Any) -> None:
    """Write a line of JSON.

    Args:
        event: what happened.
        error: whose traceback follows the line.
        values: of JSON, such as texts and numbers; None is left out.
    """
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    told = {name: value for name, value in values.items() if value is not None}
    line = to_json({"time": now, "event": event} | told, ensure_ascii=True)
    _LOGGER.log(logging.INFO if error is None else logging.ERROR, "%s", line, exc_info=error)


def request_id(headers: Headers) -> str:
    """The id of a request: the client's (X-Request-ID), if it is a short plain word, or a new one.

    >>> request_id(Headers({"x-request-id": "order-7"}))
    'order-7'
    """
    asked = headers.get("x-request-id", "")
    return asked if _ID.fullmatch(asked) else secrets.token_hex(8)


def traceparent(headers: Headers) -> str | None:
    """The trace that a request belongs to, if its header is as the W3C's Trace Context has it.

    >>> traceparent(Headers({"traceparent": "nonsense"}))
    """
    text = headers.get("traceparent", "")
    return text if _TRACE.fullmatch(text) else None
