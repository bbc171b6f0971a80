"""Reading of requests: bodies of limited size, the images in them, and their parameters."""

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from functools import wraps
from typing import Any, TypeAlias, TypeVar
from urllib.parse import unquote

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from resnets.escaping import escaped
from resnets.format import byte_size
from resnets.images.opening import EMPTY, format_of
from resnets.serving.answers import Upload
from resnets.serving.batching import DeadlinePassed, Places
from resnets.serving.connections import GONE, REFUSAL, WHOLE
from resnets.serving.settings import Settings

_T = TypeVar("_T")
_Answer: TypeAlias = Callable[[Request], Awaitable[Response]]

BODY_BYTES = "resnets.body_bytes"  # key of a scope: bytes to give back at the end of the request
ANSWERED = "resnets.answered"  # key of a scope: name of the model that answered its images
_TIMEOUT_HEADER = "x-request-timeout"  # seconds
_MOST_FIELDS = 100
_LONGEST_NAME = 200  # characters
_UNNAMED = "image"
_MOST_DIGITS = 9  # of a number in a query; Python refuses to read very long ones
_LOOK = 2.0  # seconds between two looks at a body that does not come at once
_GROWTH = 1.1  # of such a body between them, at least, while the room for bodies is short


def deadline_of(request: Request, settings: Settings) -> float:
    """When a request is given up, by the event loop's clock: the client may ask for less time.

    Raises:
        HTTPException: 400, the header X-Request-Timeout is not a number of seconds above 0.
    """
    now = asyncio.get_running_loop().time()
    text = request.headers.get(_TIMEOUT_HEADER)
    if text is None:
        return now + settings.timeout
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise HTTPException(400, f"X-Request-Timeout: {text!r} is not a number of seconds above 0")
    return now + min(seconds, settings.timeout)


async def body_of(request: Request, limit: int, deadline: float) -> bytes:
    """The body of a request.

    Args:
        request: to read.
        limit: the most bytes.
        deadline: by the event loop's clock.

    Raises:
        HTTPException: 413, it is larger; 408, it did not arrive in time, or came slowly while the
            room for bodies was short; 504, nor in the time that the client has set; 415, it is
            compressed; 400, Content-Length is not a number; what the connection says, where it
            reads no further.
        QueueFull: the bodies of all requests together are larger than allowed.
        ClientDisconnect: the client has gone.
    """
    if request.headers.get("content-encoding", "identity").strip().lower() not in _PLAIN:
        raise HTTPException(415, "Content-Encoding: send the body uncompressed")
    bodies = request.app.state.server.bodies
    length = request.headers.get("content-length", "0")
    if not (length.isascii() and length.isdecimal()):
        raise HTTPException(400, f"Content-Length: {length!r} is not a number of bytes")
    if len(length) > len(str(limit)) or int(length) > limit:
        raise _too_large(limit)
    parts, total = [], 0
    patience = _Patience(request, bodies)
    try:
        async with _until(deadline, request) as patience.limit:
            async for part in request.stream():
                if not part:  # the end, which would make `join` copy a body that came whole
                    continue
                total += len(part)
                if total > limit:
                    raise _too_large(limit)
                bodies.take(len(part))
                request.scope[BODY_BYTES] = total
                parts.append(part)
                if total != int(length) and WHOLE not in request.scope:
                    patience.begin()
    except TimeoutError:
        if not patience.ended and _TIMEOUT_HEADER in request.headers:  # no fault of the network
            raise HTTPException(504, _TOO_LATE) from None
        raise HTTPException(408, _TOO_SLOW if patience.ended else _TOO_LATE) from None
    finally:
        patience.end()
    if refusal := request.scope.get(REFUSAL):
        raise HTTPException(*refusal)
    return b"".join(parts)


def _until(deadline: float, request: Request) -> AbstractAsyncContextManager[Any]:
    """The limit of time for a body: none is needed for one that has arrived, as most have."""
    return nullcontext() if WHOLE in request.scope else asyncio.timeout_at(deadline)


def _too_large(limit: int) -> HTTPException:
    """The refusal of a body of more bytes than allowed."""
    return HTTPException(413, f"the body is larger than the {byte_size(limit)} that are allowed")


_PLAIN = ("", "identity")  # of Content-Encoding
_TOO_LATE = "the body did not arrive in time"
_TOO_SLOW = "the body came slowly while others needed the room; try again later"


class _Patience:
    """Gives up a body that hardly grows while bodies take more than half of their room.

    Else a few clients that stop in the middle of large bodies would keep all others out. A body
    that is small yet grows by a tenth even over a slow line.

    Args:
        request: whose body comes.
        bodies: the room for the bodies of all requests, in bytes.

    Attributes:
        limit: the limit of time within which the body is read.
        ended: whether this has ended it.
    """

    def __init__(self, request: Request, bodies: Places) -> None:
        self.limit: asyncio.Timeout
        self.ended = False
        self._request, self._bodies = request, bodies
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Look from now on, if it does not do so yet."""
        if self._timer is None:
            self._look_after(self._request.scope[BODY_BYTES])

    def end(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _look_after(self, size: int) -> None:
        """Look after a while whether the body has grown, which is of a size now."""
        self._timer = asyncio.get_running_loop().call_later(_LOOK, self._look, size)

    def _look(self, before: int) -> None:
        """End the body if it has hardly grown, and others need the room."""
        size = self._request.scope[BODY_BYTES]
        if self._bodies.taken > self._bodies.total // 2 and size < before * _GROWTH:
            self.ended = True
            _expire(self.limit)
        else:
            self._look_after(size)


def kind_of_body(request: Request) -> str:
    """What the header Content-Type says, in small letters and without its parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def uploads_of(request: Request, body: bytes, most: int) -> list[Upload]:
    """The images of a request: its body, or the files of a form (multipart/form-data).

    Args:
        request: with the headers.
        body: of the request.
        most: images in a request.

    Raises:
        HTTPException: 400, there is no image, or the form is damaged; 413, there are too many.
    """
    kind = kind_of_body(request)
    if kind == _BY_CURL:
        _refuse_text(body)
    if kind != "multipart/form-data":
        if not body:  # of another kind it is an empty file, as the page sends it
            hint = f"the body is empty; {_HOW}" if kind in ("", _BY_CURL) else EMPTY
            raise HTTPException(400, hint)
        return [Upload(_name_of_body(request.headers.get("content-disposition", "")), body)]
    parser = _InMemoryParser(request.headers, _once(body), max_files=most, max_fields=_MOST_FIELDS)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if "Too many files" in error.message:
            raise HTTPException(
                413, f"the form has more than {most} files, as many as --queue allows; send fewer"
            ) from None
        raise HTTPException(400, f"the form cannot be read: {error.message}") from None
    try:
        files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
        if not files:
            raise HTTPException(400, f"the form has no file; {_HOW}")
        return [Upload(_name(file), await file.read()) for file in files]
    finally:
        await form.close()


_HOW = (
    "send an image's bytes (curl --data-binary @photo.jpg), or a form with files "
    "(curl --form file=@photo.jpg)"
)
_BY_CURL = "application/x-www-form-urlencoded"  # what curl says of any file
_SHOWN = 50  # characters of a text that was sent instead of an image
_TAKEN_OUT = b"\0\r\n"  # by curl's --data
_LONG = 500  # bytes: so many without any of these are hardly an image as it was


def _refuse_text(body: bytes) -> None:
    """Refuse what curl sends where @ is missing, or --data takes the place of --data-binary.

    The latter takes zeros and line breaks out, of which an image of some size has one or another,
    except some PPM.

    Raises:
        HTTPException: 415, it is a text; 422, it was an image once.
    """
    if not body or b"\0" in body or format_of(body) == "PPM":
        return
    try:
        text = body.decode()
    except UnicodeDecodeError:
        if len(body) < _LONG or any(byte in body for byte in _TAKEN_OUT):
            return
        reason = f"the body lost bytes: curl's --data takes some out; {_HOW}"
        raise HTTPException(422, reason) from None
    shown = text[:_SHOWN] + ("..." if len(text) > _SHOWN else "")
    reason = f"the body is the text {shown!r}, not an image (is the @ missing?); {_HOW}"
    raise HTTPException(415, reason)


def refuse_unknown(request: Request, known: Collection[str]) -> None:
    """Refuse a request with parameters that mean nothing: they are misspelt, or of another server.

    Raises:
        HTTPException: 400, the query has a parameter of another name, or one twice.
    """
    names: set[str] = set()
    for name, _ in request.query_params.multi_items() if request.scope["query_string"] else ():
        if name not in known:
            there_are = f"there are {', '.join(known)}" if known else "this path takes none"
            raise HTTPException(400, f"no parameter {name[:_SHOWN]!r}; {there_are}")
        if name in names:
            raise HTTPException(400, f"the parameter {name} is given twice; give it once")
        names.add(name)


def without_parameters(answer: _Answer) -> _Answer:
    """A function that answers requests whose query is empty, and refuses the others with 400."""

    @wraps(answer)
    async def answer_or_refuse(request: Request) -> Response:
        refuse_unknown(request, ())
        return await answer(request)

    return answer_or_refuse


def parameter(request: Request, name: str, least: int, most: int, default: int) -> int:
    """A whole number of the query.

    Raises:
        HTTPException: 400, it is no such number.
    """
    text = request.query_params.get(name) if request.scope["query_string"] else None
    if text is None:
        return default
    short = text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS
    if not (short and least <= int(text) <= most):
        raise HTTPException(
            400, f"{name}={text[:20]}: it must be a whole number, {least} to {most}"
        )
    return int(text)


def switch(request: Request, name: str) -> bool:
    """Whether something is asked for in the query, as `?name=1`.

    Raises:
        HTTPException: 400, the value says neither.
    """
    if not request.scope["query_string"]:  # parsing it takes longer than most of this module
        return False
    text = request.query_params.get(name, "0").lower()
    if text not in _SWITCH:
        raise HTTPException(400, f"{name}={text}: it must be 1 or 0")
    return _SWITCH[text]


_SWITCH: Mapping[str, bool] = {"1": True, "true": True, "": True, "0": False, "false": False}


async def while_wanted(request: Request, work: Awaitable[_T], deadline: float) -> _T:
    """The result of some work, which is cancelled at the deadline or when the client goes away.

    Args:
        request: whose body was read.
        work: to do.
        deadline: by the event loop's clock, in seconds.

    Raises:
        ClientDisconnect: the client has gone.
        DeadlinePassed: it has.
    """
    by_connection: asyncio.Future[None] | None = request.scope.get(GONE)
    gone = by_connection or asyncio.ensure_future(_until_gone(request))
    limit = asyncio.timeout_at(deadline)

    def give_up(_: object) -> None:
        _expire(limit)

    gone.add_done_callback(give_up)
    try:
        async with limit:
            return await work
    except TimeoutError:
        if not limit.expired():  # an error of the work
            raise
        raise (ClientDisconnect if gone.done() else DeadlinePassed) from None
    finally:
        gone.remove_done_callback(give_up)
        if by_connection is None:
            gone.cancel()


def _expire(limit: asyncio.Timeout) -> None:
    """Let a limit of time pass now, unless what it limits has ended."""
    with suppress(RuntimeError):
        limit.reschedule(0.0)


async def _until_gone(request: Request) -> None:
    """Wait until the client of a request, whose body was read, has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


class _InMemoryParser(MultiPartParser):
    """Keeps files in memory, as their size is limited already; nothing is written to a disk."""

    spool_max_size = 1 << 62


async def _once(body: bytes) -> AsyncGenerator[bytes, None]:
    """The body as a stream."""
    yield body


def _name(file: UploadFile) -> str:
    """The name of a file of a form."""
    return _for_people((file.filename or "").replace("%22", '"'))  # browsers and curl write " so


def _name_of_body(disposition: str) -> str:
    """The name of the file that is a body, of the header Content-Disposition (RFC 8187).

    >>> _name_of_body("attachment; filename*=UTF-8''a%20b.png"), _name_of_body("")
    ('a b.png', 'image')
    """
    name = re.search(r"filename\*=utf-8'[^']*'([^;\s]*)", disposition, re.IGNORECASE)
    return _for_people(unquote(name[1], errors="replace") if name else "")


def _for_people(name: str) -> str:
    """The name of a file: short, and of no characters that a terminal obeys."""
    return escaped((name or _UNNAMED)[:_LONGEST_NAME])
