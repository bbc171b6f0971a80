"""What every request passes: its id, whether it may ask, how long it took, and its log line."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

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


Refuse: TypeAlias = Callable[[Exception, Settings], Response | None]


class Gate:
    """ASGI middleware; a fault of the application becomes a 500 with its traceback in the log.

    Args:
        app: that answers what passes.
        server: with the rules of access, and the metrics.
        refuse: the response to an error of a request; None: it is a fault.
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
        status, caller, fault = 0, client, None

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self.server.metrics.answered(_route_of(scope), status)
                message["headers"] = [*message["headers"], *more]
            await send(message)

        try:
            if refusal := scope.get(REFUSAL):
                raise Refused(*refusal)
            caller = self._check(scope, headers, client)
            await self.app(scope, receive, answer)
        except Refused as refused:
            response = JSON({"error": refused.reason}, refused.status, headers=refused.headers)
            await response(scope, receive, answer)
        except Exception as error:
            refusal = self.refuse(error, self.server.settings)
            fault = error if refusal is None or status else None
            if not status:
                await (refusal or _of_fault(error))(scope, receive, answer)
        finally:
            self.server.bodies.give_back(scope.get(BODY_BYTES, 0))
            self._note(scope, status, begin, ids, caller, fault)

    def _check(self, scope: Scope, headers: Headers, client: str) -> str:
        """A name for the caller, if the request may be answered."""
        path = scope["path"].removeprefix(scope.get("root_path", ""))  # uvicorn puts it before
        return self.server.access.check(scope["method"], path, headers, client)

    def _note(
        self,
        scope: Scope,
        status: int,
        begin: float,
        ids: dict[str, str],
        caller: str,
        fault: Exception | None,
    ) -> None:
        """Have a request counted and logged: without its query, which may hold anything."""
        seconds = time.perf_counter() - begin
        path = _route_of(scope)
        if not status:
            status = _NO_ANSWER
            self.server.metrics.answered(path, status)
        about = {"method": scope["method"], "path": scope["path"][:200], "caller": caller}
        line = about | {"id": ids["x-request-id"], "traceparent": ids.get("traceparent")}
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


def _of_fault(error: Exception) -> Response:
    """The response where this program has a fault."""
    reason = f"{type(error).__name__}: a fault of the server, which is logged"
    return JSON({"error": reason}, 500)


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
