"""The description of the routes in OpenAPI 3.1, at /openapi.json, and a page made of it, at /docs.

Source: OpenAPI Specification 3.1.1 (spec.openapis.org/oas); its schemas are JSON Schema 2020-12.
A route that is not described here is listed with the first line of its docstring.
"""

import base64
import functools
import hashlib
import inspect
import re
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Route

from resnets.files.reading import read_text
from resnets.json_text import to_json
from resnets.serving.access import OPEN_FOLDER, OPEN_PATHS
from resnets.serving.responses import JSON
from resnets.serving.schemas import SCHEMAS

if TYPE_CHECKING:
    from jinja2 import Template

_Json = dict[str, Any]
_HERE = Path(__file__).parent


def _json(schema: str, text: str) -> _Json:
    """A response of JSON."""
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {"description": text, "content": content}


def _query(name: str, text: str, **schema: Any) -> _Json:
    """A parameter of the query."""
    return {"name": name, "in": "query", "description": text, "schema": schema}


_TIMEOUT = {
    "name": "X-Request-Timeout",
    "in": "header",
    "description": "Seconds after which the request is given up; at most the server's own.",
    "schema": {"type": "number", "exclusiveMinimum": 0},
}
_HEADER_LENGTH = {
    "name": "Inference-Header-Content-Length",
    "in": "header",
    "description": "Bytes of the JSON, where a tensor in binary follows it.",
    "schema": {"type": "integer", "minimum": 0},
}
_BUSY = {
    "503": _json("Error", "The server is busy or starting; see the header Retry-After."),
    "504": _json("Error", "The deadline passed before the images were computed."),
}
_REFUSED = {
    "400": _json("Error", "The request makes no sense."),
    "401": _json("Error", "A key is needed: Authorization: Bearer KEY."),
    "403": _json("Error", "The host or the page that asks is not allowed."),
    "404": _json("Error", "There is no such model."),
    "408": _json("Error", "The body did not arrive in time."),
    "413": _json("Error", "The body or an image is larger than allowed."),
    "415": _json("Error", "The only image is in no format that is read."),
    "422": _json("Error", "The only image is damaged."),
    "429": _json("Error", "Too many requests; see the header Retry-After."),
    "501": _json("Error", "The model cannot do it."),
} | _BUSY
_ANYWHERE = ("401", "403", "429")  # where a key is asked for
_WITHOUT_QUERY = re.compile(r"/v2(/models.*|/repository.*)?")  # refuse any parameter
_NO_MODEL = {"404": _REFUSED["404"]}
_READY = {
    "200": _json("Ready", "It takes requests."),
    "503": _json("Ready", "It does not, as it starts or stops, or no model is loaded."),
}
_PREDICT: _Json = {
    "summary": "Predict images",
    "description": "The body is the bytes of an image, or a form with one or more files.",
    "parameters": [
        _query("top", "How many of the most probable classes to list.", type="integer", minimum=1),
        _query("model", "Name of a model; the first one without.", type="string"),
        _query("features", "1 adds the features of the network.", type="string"),
        _query(
            "explain",
            "1 adds a heat map (Grad-CAM) as PNG in base64; with the header Accept: image/png, the "
            "PNG of the only image comes alone.",
            type="string",
        ),
        _query(
            "repeated",
            "1 says that the images were sent before, such as for a heat map now: metrics and "
            "drift count no image twice.",
            type="string",
        ),
        _TIMEOUT,
    ],
    "requestBody": {
        "required": True,
        "content": {
            "image/*": {},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"file": {"type": "array", "items": {}}},
                }
            },
        },
    },
    "responses": {
        "200": _json("Answers", "The images were answered; unreadable ones of several say why."),
        "406": _json("Error", "Accept: image/png alone without explain=1, or with several images."),
        "413": _json("AnswersOrError", "The body or the only image is larger than allowed."),
        "415": _json("AnswersOrError", "The only image is in no format that is read."),
        "422": _json("AnswersOrError", "The only image is damaged."),
    },
}
_PREDICT["responses"] = _REFUSED | _PREDICT["responses"]
_PREDICT["responses"]["200"]["content"]["image/png"] = {}
_INFER: _Json = {
    "summary": "Predict the images of a tensor (Open Inference Protocol)",
    "description": (
        "One input: files (BYTES) or images (UINT8). In binary, tensors follow the JSON, in the "
        "request and in the response."
    ),
    "parameters": [_HEADER_LENGTH, _TIMEOUT],
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/InferRequest"}},
            "application/octet-stream": {},
        },
    },
    "responses": _REFUSED | {"200": _json("InferResponse", "The outputs that were asked for.")},
}
_INFER["responses"]["200"]["content"]["application/octet-stream"] = {}


def _get(summary: str, schema: str, text: str, others: Mapping[str, Any] = {}) -> _Json:
    """A GET that answers JSON."""
    return {"summary": summary, "responses": {"200": _json(schema, text)} | dict(others)}


_MODEL = "/v2/models/{name}"
_OF_A_MODEL: Mapping[str, Mapping[str, _Json]] = {
    "": {
        "get": _get("Metadata of a model", "ModelMetadata", "Inputs, outputs, classes.", _NO_MODEL)
    },
    "/ready": {"get": {"summary": "Whether a model is ready", "responses": _READY | _NO_MODEL}},
    "/config": {"get": _get("Configuration of a model", "Object", "As Triton's.", _NO_MODEL)},
    "/stats": {"get": _get("Statistics of a model", "ModelStatistics", "As Triton's.", _NO_MODEL)},
    "/infer": {"post": _INFER},
}
_OF_BODIES = {  # of JSON
    "408": _REFUSED["408"],
    "413": _json("Error", "The body is larger than 64 KiB."),
    "415": _json("Error", "The body is compressed."),
    **_BUSY,
}
_INDEX: _Json = {
    "summary": "The models, and whether they are loaded",
    "requestBody": {"content": {"application/json": {"schema": {"type": "object"}}}},
    "responses": {
        "200": _json("ModelIndex", "Name, version and state of each."),
        "400": _REFUSED["400"],
        **_OF_BODIES,
    },
}
_CONTROL: _Json = {
    "description": "Only with --control, and from this machine or with a key.",
    "responses": {
        "200": _json("Object", "It is done."),
        **{status: _REFUSED[status] for status in ("400", "401", "403", "404")},
        **_OF_BODIES,
    },
}
_NOT_COLLECTED = {"404": _json("Error", "Without --collect, or no such image.")}
_COLLECT: _Json = {
    "summary": "Store an image with the label that somebody gives it",
    "description": "Only with --collect. The body is the bytes of an image, unless `image` is one.",
    "parameters": [
        _query("label", "The class; a new one, too.", type="string") | {"required": True},
        _query(
            "model", "Name of the model that predicts it; the first one without.", type="string"
        ),
        _query("image", "The digest of an image that /queue lists.", type="string"),
        _TIMEOUT,
    ],
    "requestBody": {"content": {"image/*": {}}},
    "responses": {status: text for status, text in _REFUSED.items() if status != "501"}
    | {
        "200": _json("Stored", "The image has this label already."),
        "201": _json("Stored", "It is stored."),
        "404": _json("Error", "Without --collect, or no such model or image of the queue."),
        "415": _json("Error", "The image is in no format that is read."),
        "422": _json("Error", "The image is damaged, or the label is no name for a folder."),
        "507": _json("Error", "The folder is full or cannot be written to."),
    },
}


def _file(summary: str, kind: str, others: Mapping[str, Any]) -> _Json:
    """A GET that answers a file."""
    whole = {"200": {"description": "The file.", "content": {kind: {}}}}
    return {"summary": summary, "responses": whole | dict(others)}


_UNCHANGED = {"304": {"description": "The client has the file, by its header If-None-Match."}}
_NO_FILE = {"404": _json("Error", "There is no such file.")}
_OPERATIONS: Mapping[str, Mapping[str, _Json]] = {
    "/": {"get": _file("The page", "text/html", _UNCHANGED)},
    "/static/{name}": {"get": _file("A file of the page", "*/*", _UNCHANGED | _NO_FILE)},
    "/examples/{name}": {"get": _file("An example image of the page", "image/*", _NO_FILE)},
    "/model": {"get": _get("What the page tells of the models", "Facts", "And of the server.")},
    "/collect": {"post": _COLLECT},
    "/collect/{digest}": {
        "delete": {
            "summary": "Take the label of an image back that was given since the start",
            "responses": {"200": _json("Withdrawn", "It is removed.")} | _NOT_COLLECTED,
        }
    },
    "/queue": {"get": _get("Images worth a label", "Queue", "The best first.", _NOT_COLLECTED)},
    "/queue/{digest}": {"get": _file("An image that waits for a label", "image/*", _NOT_COLLECTED)},
    "/predict": {"post": _PREDICT},
    "/metrics": {
        "get": {
            "summary": "Metrics for Prometheus",
            "responses": {"200": {"description": "Metrics.", "content": {"text/plain": {}}}},
        }
    },
    "/openapi.json": {"get": _get("This description", "Object", "OpenAPI 3.1.")},
    "/docs": {
        "get": {
            "summary": "This page",
            "responses": {"200": {"description": "A page.", "content": {"text/html": {}}}},
        }
    },
    "/v2": {"get": _get("Metadata of the server", "ServerMetadata", "Name, version, extensions.")},
    "/v2/health/live": {"get": _get("Whether the process answers", "Live", "It does.")},
    "/v2/health/ready": {"get": {"summary": "Whether the server is ready", "responses": _READY}},
    "/v2/models/stats": {
        "get": _get("Statistics of all models", "ModelStatistics", "As Triton's.")
    },
    "/v2/repository/index": {"post": _INDEX},
    "/v2/repository/models/{name}/load": {"post": _CONTROL | {"summary": "Load a model"}},
    "/v2/repository/models/{name}/unload": {"post": _CONTROL | {"summary": "Unload a model"}},
    **{f"{_MODEL}{end}": methods for end, methods in _OF_A_MODEL.items()},
    **{f"{_MODEL}/versions/{{version}}{end}": methods for end, methods in _OF_A_MODEL.items()},
}


def _document(routes: Iterable[BaseRoute], root: str = "") -> _Json:
    """The description of routes as an OpenAPI document.

    Args:
        routes: of the application.
        root: the path below which a proxy shows them.
    """
    paths: dict[str, _Json] = {}
    for route in routes:
        if isinstance(route, Route):
            path = re.sub(r":\w+}", "}", route.path)
            methods = {method.lower() for method in route.methods or ()} - {"head"}
            item = paths.setdefault(path, {})
            for method in sorted(methods):
                item[method] = _operation(path, method, route)
    about = {
        "title": "resnets",
        "version": version("resnets"),
        "summary": "Images in, calibrated probabilities out.",
    }
    return {
        "openapi": "3.1.0",
        "info": about,
        "servers": [{"url": root or "/"}],
        "paths": paths,
        "components": {"schemas": SCHEMAS},
    }


def _operation(path: str, method: str, route: Route) -> _Json:
    """The description of what a method of a path does."""
    described = _OPERATIONS.get(path, {}).get(method)
    if described is None:
        text = (inspect.getdoc(route.endpoint) or path).partition("\n")[0]
        described = {"summary": text.rstrip("."), "responses": {"default": _ANY}}
    names = re.findall(r"{(\w+)}", path)
    fixed = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in names
    ]
    is_open = path in OPEN_PATHS or path.startswith(OPEN_FOLDER)
    refused = {status: _REFUSED[status] for status in (("403",) if is_open else _ANYWHERE)}
    if _WITHOUT_QUERY.fullmatch(path):
        refused["400"] = _json("Error", "The query has a parameter that the path does not take.")
    return {
        **described,
        "parameters": [*fixed, *described.get("parameters", ())],
        "responses": refused | described["responses"],
    }


_ANY = {"description": "The answer."}


async def _openapi(request: Request) -> Response:
    """The description of all routes in OpenAPI 3.1."""
    return JSON(_document(request.app.routes, request.scope.get("root_path", "")))


@functools.cache
def _template() -> "Template":
    """The page's template: to compile it takes longer than to fill it in."""
    from jinja2 import Environment

    environment = Environment(autoescape=True, trim_blocks=True)
    environment.filters["pretty"] = lambda value: to_json(value, indent=2)
    return environment.from_string(read_text(_HERE / "docs.html"))


async def _docs(request: Request) -> Response:
    """A page about all routes: no script, and nothing from other servers."""
    style = read_text(_HERE / "docs.css")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    described = _document(request.app.routes, request.scope.get("root_path", ""))
    base = str(request.base_url).rstrip("/")
    if request.headers.get("x-forwarded-proto") == "https":  # a proxy's word is enough for a text
        base = base.replace("http://", "https://", 1)
    needs_key = bool(request.app.state.server.access.keys.digests)
    page = _template().render(document=described, style=style, base=base, needs_key=needs_key)
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; " + (
        "form-action 'none'; frame-ancestors 'none'"
    )
    return HTMLResponse(page, headers={"Content-Security-Policy": policy})


ROUTES = [Route("/openapi.json", _openapi), Route("/docs", _docs)]
