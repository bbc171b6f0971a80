"""A shadow is compared, and neither delays nor fails a request."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.in_process import call
from tests.serving.conftest import NAMES, image_bytes

if TYPE_CHECKING:
    from starlette.testclient import TestClient

pytest.importorskip("starlette", reason="the extra serve is not installed")


@contextmanager
def shadowed(served_file: Path, other_file: Path) -> "Iterator[TestClient]":
    """A client of a network with a shadow."""
    from starlette.testclient import TestClient

    from resnets.serving.app import create_app
    from resnets.serving.served_model import open_served
    from resnets.serving.settings import Settings
    from resnets.serving.shadow import Shadow

    served = open_served(served_file, name="tiny", engine="torch", max_batch=2)
    shadow = Shadow(open_served(other_file, engine="torch", max_batch=1), "tiny", 10**6)
    app = create_app({"tiny": served}, Settings(), shadow=shadow)
    with TestClient(app, base_url="http://127.0.0.1") as client:
        yield client


@pytest.fixture
def client(model_file: Path, untrained: Callable[..., Path]) -> "Iterator[TestClient]":
    """A network whose shadow is the same network with its classes in another order and size."""
    with shadowed(model_file, untrained(NAMES[::-1], side=24, resize=28)) as client:
        yield client


def settled(client: Any) -> Any:
    """The agreement, once no image is compared any more."""
    shadow = client.app.state.server.shadow
    end = time.monotonic() + 60
    while shadow._busy:
        assert time.monotonic() < end
        time.sleep(0.01)
    return shadow.agreement


def test_agreement_is_counted_by_the_names_of_classes(client: Any) -> None:
    for seed in range(3):
        assert client.post("/predict", content=image_bytes(seed=seed)).status_code == 200
        agreement = settled(client)
    assert agreement.images == 3
    assert agreement.same in range(4)
    assert 0 < agreement.distance < 3
    text = client.get("/metrics").text
    assert "resnets_shadow_images 3.0" in text


@pytest.mark.parametrize(("names", "share"), [(NAMES, 1), (("elm", "fir", "oak"), 0)])
def test_the_same_network_agrees_and_one_of_other_classes_does_not(
    model_file: Path, untrained: Callable[..., Path], names: tuple[str, ...], share: int
) -> None:
    other = model_file if names == NAMES else untrained(names)
    with shadowed(model_file, other) as client:
        for seed in range(2):
            assert client.post("/predict", content=image_bytes(seed=seed)).status_code == 200
            agreement = settled(client)
    assert agreement.same == 2 * share
    assert agreement.distance == pytest.approx(2 * (1 - share), abs=1e-4)


def test_a_shadow_that_fails_or_is_busy_fails_no_request(client: Any) -> None:
    shadow = client.app.state.server.shadow

    def fail(_images: object) -> None:
        raise RuntimeError("out of memory")

    shadow.model.engine.probabilities = fail
    assert client.post("/predict", content=image_bytes()).status_code == 200
    assert settled(client).failed == 1
    shadow._busy = True
    assert client.post("/predict", content=image_bytes()).status_code == 200
    assert shadow.agreement.skipped == 1
    assert shadow.agreement.images == 0


def test_the_flag_opens_the_other_network(
    model_file: Path, untrained: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    shadows: list[Any] = []
    monkeypatch.setattr(
        "resnets.serving.server.serve_on", lambda *arguments: shadows.append(arguments[4])
    )
    other = untrained(NAMES)
    options = ["--max-batch", "1", "--engine", "torch", "--port", "0"]
    assert call("serve", model_file, "--shadow", other, *options).returncode == 0
    assert shadows[0].model.path == other
    shadows[0].close()
