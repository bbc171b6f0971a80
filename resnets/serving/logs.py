"""Log lines of requests: JSON, one a request, with ids and without any content.

They are formatted and written, several at once, by a thread of their own: a reader of standard
error that has stopped would else stop the server, and each line would delay an answer.
"""

import logging
import os
import queue
import random
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from starlette.datastructures import Headers

from resnets.escaping import escaped
from resnets.json_text import to_json

_LOGGER = logging.getLogger("resnets.serving")
_WAITING = 10_000  # lines that wait to be written; further ones are dropped
_STDERR = 2  # its descriptor
_PATIENCE = 2.0  # seconds to write what waits at the end
_TOGETHER = 0.05  # seconds in which lines come together before they are written
_RANDOM = random.Random()  # seeded by the system; unlike `secrets`, no call of it for each id
_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
_TRACE = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-[0-9a-f-]{1,64})?")


class _Queued(logging.Handler):
    """Puts records into a queue, and drops those for which there is no room."""

    def __init__(self) -> None:
        super().__init__()
        self._records: queue.SimpleQueue[logging.LogRecord | None] = queue.SimpleQueue()

    def emit(self, record: logging.LogRecord) -> None:
        """Add a record, if there is room."""
        if self._records.qsize() < _WAITING:
            self._records.put(record)

    def format(self, record: logging.LogRecord) -> str:
        """A record as a line of JSON; a traceback follows it, which may hold texts from files."""
        if not isinstance(record.msg, _Line):  # of a library: uvicorn warns of invalid requests
            values = {"logger": record.name, "text": record.getMessage()}
            record = logging.makeLogRecord(record.__dict__ | {"args": ()})
            record.msg = _Line(record.created, record.levelname.lower(), values)
        return escaped(super().format(record), keep="\n")

    def end(self) -> None:
        """Have `write` end once all is written."""
        self._records.put(None)

    def write(self) -> None:
        """Write records to standard error until the end.

        Not by `sys.stderr`, whose lock this thread would hold at the end of the process where
        nobody reads any more.
        """
        records: list[logging.LogRecord | None] = []
        while None not in records:
            records = [self._records.get()]
            time.sleep(_TOGETHER)
            records += [self._records.get() for _ in range(self._records.qsize())]
            text = "".join(f"{self.format(each)}\n" for each in records if each).encode()
            with suppress(OSError):
                while text:
                    text = text[os.write(_STDERR, text) :]


@contextmanager
def logging_to_stderr(level: int = logging.INFO) -> Iterator[None]:
    """Write log lines to standard error while the context is open.

    Those of libraries, too, which would else be written at once, and as plain text. At its end,
    lines that wait are given up where nobody reads them.
    """
    # what no line has, and every record would look up: see "Optimization" in Python's Logging HOWTO
    names = ("logThreads", "logMultiprocessing", "logProcesses")
    before = {name: getattr(logging, name) for name in names}
    root = logging.getLogger()
    handler = _Queued()
    writer = threading.Thread(target=handler.write, name="log", daemon=True)
    root.addHandler(handler)
    _LOGGER.setLevel(level)
    writer.start()
    try:
        for name in names:
            setattr(logging, name, False)
        yield
    finally:
        for name, value in before.items():
            setattr(logging, name, value)
        root.removeHandler(handler)
        handler.end()
        writer.join(_PATIENCE)


def log(
    event: str, *, error: BaseException | None = None, moment: float | None = None, **values: Any
) -> None:
    """Write a line of JSON.

    Args:
        event: what happened.
        error: whose traceback follows the line.
        moment: when it happened, in seconds since 1970; None: now.
        values: of JSON, such as texts and numbers; None is left out.
    """
    level = logging.INFO if error is None else logging.ERROR
    if _LOGGER.isEnabledFor(level):  # not by `_LOGGER.log`, which looks for the calling line
        cause = None if error is None else (type(error), error, error.__traceback__)
        line = _Line(time.time() if moment is None else moment, event, values)
        _LOGGER.handle(logging.LogRecord(_LOGGER.name, level, "", 0, line, None, cause))


@dataclass(frozen=True)
class _Line:
    """A line that becomes text only where it is written.

    Attributes:
        seconds: since 1970.
        event: what happened.
        values: as of `log`.
    """

    seconds: float
    event: str
    values: Mapping[str, Any]

    def __str__(self) -> str:
        moment = datetime.fromtimestamp(self.seconds, UTC).isoformat(timespec="milliseconds")
        values = {name: value for name, value in self.values.items() if value is not None}
        return to_json({"time": moment, "event": self.event} | values, ensure_ascii=True)


def request_id(headers: Headers) -> str:
    """The id of a request: the client's (X-Request-ID), if it is a short plain word, or a new one.

    >>> request_id(Headers({"x-request-id": "order-7"}))
    'order-7'
    """
    asked = headers.get("x-request-id", "")
    return asked if _ID.fullmatch(asked) else f"{_RANDOM.getrandbits(64):016x}"


def traceparent(headers: Headers) -> str | None:
    """The trace that a request belongs to, if its header is as the W3C's Trace Context has it.

    >>> traceparent(Headers({"traceparent": "nonsense"}))
    """
    text = headers.get("traceparent", "")
    return text if _TRACE.fullmatch(text) else None
