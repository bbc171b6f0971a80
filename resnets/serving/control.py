"""Models loaded and unloaded while the server runs: Triton's extension model_repository.

The index is for everybody. Loading and unloading need --control, and a key or this machine. Only
models that the server was started with can be loaded again: no path is taken from a client.
"""

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from resnets.errors import ContentError, MissingExtra, UsageError
from resnets.headers import parse_json
from resnets.serving.inference_protocol import VERSION
from resnets.serving.logs import log
from resnets.serving.requests import body_of, deadline_of, without_parameters
from resnets.serving.responses import JSON
from resnets.serving.threads import in_own_thread

if TYPE_CHECKING:
    from resnets.serving.state import Server

_LARGEST_BODY = 1 << 16  # bytes
_SHOWN = 50  # characters of a name
_ONLY_AS_STARTED = (
    "neither config nor files can be given; the file that the server was started with is loaded"
)
_NO_DEPENDENTS = "the parameter unload_dependents, true or false, is the only one"


async def _index(request: Request) -> Response:
    """The models that the server was started with, and whether they are loaded."""
    server: Server = request.app.state.server
    asked = await _object_of(request)
    models = [_entry(name, "READY", "") for name in server.models]
    if asked.get("ready") is not True:
        models += [_entry(name, "UNAVAILABLE", "unloaded") for name in server.unloaded]
    return JSON(models)


async def _object_of(request: Request) -> Mapping[str, Any]:
    """The JSON object that is the body of a request; an empty one where there is no body.

    Raises:
        HTTPException: 400, it is none; others as of `body_of`.
    """
    settings = request.app.state.server.settings
    body = await body_of(request, _LARGEST_BODY, deadline_of(request, settings))
    try:
        asked = parse_json(body) if body else {}
    except ContentError as error:
        raise HTTPException(400, f"the body: {error}") from None
    if not isinstance(asked, dict):
        raise HTTPException(400, "the body: it must be a JSON object")
    return asked


async def _refuse_parameters(request: Request, known: Mapping[str, type], why: str) -> None:
    """Refuse what a request asks for beside its model, which would have no effect.

    Args:
        request: to read.
        known: parameters that may be there, with their types.
        why: no others may.

    Raises:
        HTTPException: 400, there is another one; others as of `body_of`.
    """
    try:
        asked = await _object_of(request)
    except HTTPException as error:
        if error.status_code == 413:  # no model is as small as what is read
            raise HTTPException(413, f"{error.detail}: {why}") from None
        raise
    parameters = asked.get("parameters", {})
    if not isinstance(parameters, dict):
        raise HTTPException(400, "parameters: it must be a JSON object")
    others = [name for name in asked if name != "parameters"]
    others += [name for name, value in parameters.items() if type(value) is not known.get(name)]
    if others:
        raise HTTPException(400, f"{others[0][:_SHOWN]!r} is not taken: {why}")


def _entry(name: str, state: str, reason: str) -> dict[str, Any]:
    """A model in the index."""
    return {"name": name, "version": VERSION, "state": state, "reason": reason}


async def _load(request: Request) -> Response:
    """Load an unloaded model, or the file of a loaded one anew."""
    server, name = _controlled(request)
    await _refuse_parameters(request, {}, _ONLY_AS_STARTED)
    loaded = server.models.get(name)
    reopen = loaded.reopen if loaded is not None else server.unloaded.get(name)
    if reopen is None:
        raise HTTPException(404, f"no model {name!r} that could be loaded")
    try:
        async with server.loading:
            model = await in_own_thread(reopen)
    except asyncio.CancelledError:
        if not server.stopping:
            raise
        reason = "the server stopped before the model was loaded"  # at the end of --grace
        raise HTTPException(503, reason, {"Connection": "close"}) from None
    except UsageError as error:  # advice for the command line, with names of other files
        log("model not loaded", model=name, reason=str(error))
        reason = f"{name}: its file is not there any more, or is none; the server's log says more"
        raise HTTPException(400, reason) from None
    except (ContentError, MissingExtra, OSError) as error:
        raise HTTPException(400, f"{name}: {error}") from None
    server.replace(model)
    server.unloaded.pop(name, None)
    log("model loaded", model=name, digest=model.digest)
    return JSON({})


async def _unload(request: Request) -> Response:
    """Unload a model, once the requests that use it are answered."""
    server, name = _controlled(request)
    await _refuse_parameters(request, {"unload_dependents": bool}, _NO_DEPENDENTS)
    model = server.model(name)
    if model.reopen is None:
        raise HTTPException(400, f"{name} could not be loaded again")
    server.unload(model)
    log("model unloaded", model=name)
    return JSON({})


def _controlled(request: Request) -> "tuple[Server, str]":
    """The server and the name of the model that a request controls.

    Raises:
        HTTPException: 403, it may not.
    """
    server: Server = request.app.state.server
    if not server.settings.control:
        raise HTTPException(403, "models are loaded and unloaded only with the flag --control")
    direct = not server.settings.root_path  # else a proxy passes the requests of others on
    client = request.client.host if direct and request.client is not None else ""
    if not server.access.may_control(request.headers, client):
        raise HTTPException(403, "models are loaded and unloaded from this machine, or with a key")
    return server, request.path_params["name"]


_MODEL = "/v2/repository/models/{name}"
ROUTES = [
    Route(path, without_parameters(function), methods=["POST"])
    for path, function in (
        ("/v2/repository/index", _index),
        (f"{_MODEL}/load", _load),
        (f"{_MODEL}/unload", _unload),
    )
]
