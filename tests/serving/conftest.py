import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from starlette.testclient import TestClient

NAMES = ("cat", "dog", "owl")


@pytest.fixture(scope="session")
def model_file(untrained: Callable[..., Path]) -> Path:
    """A small network that has learnt nothing."""
    return untrained(NAMES)


@pytest.fixture
def serving(model_file: Path) -> "Iterator[Callable[..., TestClient]]":
    """A client of the application in this process, which serves `model_file` with some settings."""
    pytest.importorskip("starlette", reason="the extra serve is not installed")
    from starlette.testclient import TestClient

    from resnets.serving.app import create_app
    from resnets.serving.served_model import open_served
    from resnets.serving.settings import Settings

    with ExitStack() as stack:

        def start(access: Any = None, **settings: Any) -> TestClient:
            model = open_served(model_file, name="tiny", engine="torch", max_batch=4)
            app = create_app({"tiny": model}, Settings(**settings), access)
            client = TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False)
            client.event_hooks = {"response": [partial(refuse_undescribed, app)]}
            return stack.enter_context(client)

        yield start


def refuse_undescribed(app: Any, response: Any) -> None:
    """Refuse a status that the description of the server's routes does not list."""
    from starlette.routing import Match

    from resnets.serving.openapi import _document

    request = response.request
    scope = {"type": "http", "method": request.method, "path": request.url.path}
    route = next((x for x in app.routes if x.matches(scope)[0] == Match.FULL), None)
    if route is None or response.status_code == 500 or request.method == "HEAD":
        return
    path = re.sub(r":\w+}", "}", route.path)
    described = _document(app.routes)["paths"][path][request.method.lower()]["responses"]
    assert str(response.status_code) in described, (request.method, path, response.status_code)


def image_bytes(side: int = 20, form: str = "PNG", seed: int = 0, **options: Any) -> bytes:
    """An image of noise as a file."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    file = BytesIO()
    Image.fromarray(pixels).save(file, form, **options)
    return file.getvalue()


def only(response: Any) -> Mapping[str, Any]:
    """The prediction of a response for one image."""
    (prediction,) = response.json()["predictions"]
    return prediction  # type: ignore[no-any-return]
