"""The page at /: its files, with headers that let it load nothing else, and what it shows.

No text from a client becomes part of the page on this side: scripts set it as text.
"""

import functools
from collections.abc import Mapping
from hashlib import sha256
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from resnets.files.reading import read_input
from resnets.format import byte_size
from resnets.images import UNTRUSTED
from resnets.serving.example_images import example_images
from resnets.serving.model_facts import facts
from resnets.serving.responses import JSON

if TYPE_CHECKING:
    from resnets.serving.state import Server

_FOLDER = Path(__file__).with_name("static")
_LARGEST = 1 << 20  # bytes of a file of the page
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

_SECURITY_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self' blob:",  # previews of the images that the user chose
            "connect-src 'self'",
            "base-uri 'self'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",  # no text is ever parsed as HTML
        )
    ),
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "geolocation=(), microphone=()",
    "Cache-Control": "no-cache",  # asked each time, and answered 304 while nothing changed
}


async def _page(request: Request) -> Response:
    """The page itself."""
    return _file(request, "index.html", request.scope.get("root_path", ""))


async def _static(request: Request) -> Response:
    """A file that the page loads."""
    return _file(request, request.path_params["name"])


async def _model(request: Request) -> Response:
    """What is served, as the page shows it."""
    server: Server = request.app.state.server
    server.responses.count()  # those that the latency is of
    examples = example_images() if server.settings.examples else {}
    described = [await facts(model) | server.process for model in list(server.models.values())]
    return JSON(
        {
            "models": described,
            "collects": server.collection is not None,
            "examples": list(examples),
            "takes": {"file": byte_size(server.settings.max_body), "formats": UNTRUSTED},
        },
        headers={"Cache-Control": "no-store"},
    )


async def _example(request: Request) -> Response:
    """A drawing to try, where the demo offers some."""
    server: Server = request.app.state.server
    content = example_images().get(request.path_params["name"])
    if content is None or not server.settings.examples:
        raise HTTPException(404, "no example image has this name")
    return Response(content, media_type="image/png", headers=dict(_SECURITY_HEADERS))


def _file(request: Request, name: str, root_path: str = "") -> Response:
    """A file of the page, or 304 where the client has it.

    Args:
        request: for it.
        name: of the file.
        root_path: under which a browser finds what the page names; it may have left out the slash.

    Raises:
        HTTPException: 404, there is no such file.
    """
    if name not in _names():
        raise HTTPException(404, f"the page has no file {name!r}")
    content, tag = _content(name, root_path)
    headers = {**_SECURITY_HEADERS, "ETag": tag}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=_TYPES[Path(name).suffix], headers=headers)


@functools.cache
def _names() -> frozenset[str]:
    """The names of the page's files."""
    return frozenset(path.name for path in _FOLDER.iterdir())


@functools.cache
def _content(name: str, root_path: str) -> tuple[bytes, str]:
    """A file of the page, and a tag that changes with it."""
    content = read_input(_FOLDER / name, _LARGEST)
    if root_path:
        base = f'<head>\n<base href="{escape(root_path)}/">'
        content = content.replace(b"<head>", base.encode(), 1)
    return content, f'"{sha256(content).hexdigest()[:16]}"'


ROUTES = [
    Route("/", _page),
    Route("/static/{name}", _static),
    Route("/model", _model),
    Route("/examples/{name}", _example),
]
