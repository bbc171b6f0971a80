"""What every request passes: its id, whether it may ask, how long it took, and its log line."""

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from resnets.serving.access import Refused
from resnets.serving.connections import REFUSAL
from resnets.serving.events import Responded
from resnets.serving.logs import log, request_id, traceparent
from resnets.serving.requests import ANSWERED, BODY_BYTES
from resnets.serving.responses import JSON
from resnets.serving.settings import Settings

if TYPE_CHECKING:
    from resnets.serving.state import Server

_NO_ANSWER = 499  # in the log, where the client went away before: nginx's code for it
_REDIRECT = 307  # of Starlette, from a path with a slash at its end to that without
_QUOTING = (400, 404, 406, 415, 422)  # whose reasons may quote the query or the body
_LONGEST = 500  # characters of a reason in the log

Refuse: TypeAlias = Callable[[Exception, Settings], Refused | None]


class Gate:
    """ASGI middleware; a fault of the application becomes a 500 with its traceback in the log.

    Args:
        app: that answers what passes.
        server: with the rules of access, and the metrics.
        refuse: what to answer to an error of a request; None: it is a fault.
    """

    def __init__(self, app: ASGIApp, server: "Server", refuse: Refuse) -> None:
        self.app = app
        self.server = server
        self.refuse = refuse
        server.responses.observers.append(self._log)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        _take_root_away(scope)
        headers = _Indexed(scope=scope)
        begin, ids = time.perf_counter(), _ids(headers)
        more = [_FOR_BROWSERS, *((name.encode(), text.encode()) for name, text in ids.items())]
        client = (scope.get("client") or ("", 0))[0]
        status, caller, fault, refusal = 0, client, None, None

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self.server.metrics.answered(_route_of(scope), status)
                headers = message["headers"]
                if status == _REDIRECT:
                    headers = map(_without_host, headers)
                message["headers"] = [*headers, *more]
            await send(message)

        try:
            if unreadable := scope.get(REFUSAL):
                raise Refused(*unreadable)
            caller = self._check(scope, headers, client)
            await self.app(scope, receive, answer)
        except Exception as error:
            refusal = self.refuse(error, self.server.settings)
            fault = error if refusal is None or status else None
            if not status:
                await _response(refusal or _of_fault(error))(scope, receive, answer)
        finally:
            self.server.bodies.give_back(scope.get(BODY_BYTES, 0))
            self._note(scope, status, begin, _line(scope, caller, ids, refusal), fault)

    def _check(self, scope: Scope, headers: Headers, client: str) -> str:
        """A name for the caller, if the request may be answered."""
        path = scope["path"].removeprefix(scope.get("root_path", ""))  # uvicorn puts it before
        return self.server.access.check(scope["method"], path, headers, client)

    def _note(
        self,
        scope: Scope,
        status: int,
        begin: float,
        line: Mapping[str, str | None],
        fault: Exception | None,
    ) -> None:
        """Have a request counted and logged."""
        seconds = time.perf_counter() - begin
        path = _route_of(scope)
        if not status:
            status = _NO_ANSWER
            self.server.metrics.answered(path, status)
        responses = self.server.responses
        model = scope.get(ANSWERED)
        responses.tell(Responded(path, status, seconds, time.time(), line, fault, model))
        if fault is not None:  # it may be the last thing that this process tells
            responses.count()

    def _log(self, event: Responded) -> None:
        """Log a request."""
        if event.fault is None and not self.server.settings.access_log:
            return
        values = {"status": event.status, "seconds": round(event.seconds, 6), **event.line}
        log("request", error=event.fault, moment=event.moment, **values)


def _route_of(scope: Scope) -> str:
    """The path of a request's route, such as /v2/models/{name}; "other" if it has none.

    What is refused comes to no route, but counts as a request to it.
    """
    if (route := scope.get("route")) is not None:
        return str(route.path)
    for route in scope["app"].routes if "app" in scope else ():
        if route.matches(scope)[0] is not Match.NONE:
            return str(route.path)
    return "other"


def _without_host(header: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
    """A header of a response, whose Location is a path: behind a proxy only that is right.

    The server knows neither whether browsers ask by https nor which host and port they ask.

    >>> _without_host((b"location", b"http://127.0.0.1:8000/docs?a=1"))
    (b'location', b'/docs?a=1')
    """
    name, value = header
    if name != b"location":
        return header
    path = urlsplit(value)._replace(scheme=b"", netloc=b"")
    return name, b"/" + path.geturl().lstrip(b"/")


def _response(refusal: Refused) -> Response:
    """The response to a request that is not answered."""
    return JSON({"error": refusal.reason}, refusal.status, headers=dict(refusal.headers))


def _of_fault(error: Exception) -> Refused:
    """What to answer where this program has a fault."""
    return Refused(500, f"{type(error).__name__}: a fault of the server, which is logged")


def _line(
    scope: Scope, caller: str, ids: Mapping[str, str], refusal: Refused | None
) -> dict[str, str | None]:
    """What the log tells of a request: nothing of its query and its body, which may hold anything.

    Args:
        scope: of the request.
        caller: a name for who asks.
        ids: as of `_ids`.
        refusal: why it was not answered; None: it was, or there was a fault.
    """
    is_plain = refusal is not None and refusal.status not in _QUOTING
    return {
        "method": scope["method"],
        "path": scope["path"][:200],
        "caller": caller,
        "id": ids["x-request-id"],
        "traceparent": ids.get("traceparent"),
        "reason": refusal.reason[:_LONGEST] if is_plain and refusal else None,
    }


def _take_root_away(scope: Scope) -> None:
    """Take the path under which a proxy offers the server away where the proxy has left it.

    uvicorn puts it before the path of each request, so that it is there twice then.
    """
    root = scope.get("root_path", "")
    if root and f"{scope['path']}/".startswith(f"{root}{root}/"):
        scope["path"] = scope["path"].removeprefix(root)
        if scope["path"] == root:  # the page, without the slash
            scope["path"] += "/"


class _Indexed(Headers):
    """Headers that are looked up at once; those of Starlette go through all of them each time."""

    def __init__(self, scope: Scope) -> None:
        super().__init__(scope=scope)
        pairs = reversed(self.raw)  # of several of a name, the first counts
        self._values = {name.decode("latin-1"): value.decode("latin-1") for name, value in pairs}

    def get(self, name: str, default: Any = None) -> Any:
        """The value of a header, whose name is in small letters."""
        return self._values.get(name, default)


_FOR_BROWSERS = (b"x-content-type-options", b"nosniff")


def _ids(headers: Headers) -> dict[str, str]:
    """The headers of a response that say which request it answers."""
    trace = traceparent(headers)
    return {"x-request-id": request_id(headers)} | ({"traceparent": trace} if trace else {})
