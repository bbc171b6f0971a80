"""A changed model file is served without a failed request; a damaged one changes nothing."""

import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.serving.conftest import NAMES, image_bytes
from tests.serving.test_served_model import with_golden

if TYPE_CHECKING:
    from starlette.testclient import TestClient

pytest.importorskip("starlette", reason="the extra serve is not installed")
IMAGE = image_bytes()


@pytest.fixture(scope="module")
def versions(untrained: Callable[..., Path]) -> tuple[Path, Path]:
    """Two model files of one network with other descriptions."""
    return tuple(  # type: ignore[return-value]
        untrained(NAMES, recipe={"epochs": epochs}) for epochs in (1, 2)
    )


@pytest.fixture
def client(versions: tuple[Path, Path], tmp_path: Path) -> "Iterator[TestClient]":
    from starlette.testclient import TestClient

    from resnets.serving.app import create_app
    from resnets.serving.served_model import open_served
    from resnets.serving.settings import Settings

    file = tmp_path / "tiny.safetensors"
    shutil.copy(versions[0], file)
    app = create_app({"tiny": open_served(file, engine="torch", max_batch=2)}, Settings())
    with TestClient(app, base_url="http://127.0.0.1") as client:
        yield client


def digest(client: Any) -> str:
    response = client.post("/predict", content=IMAGE)
    assert response.status_code == 200
    return str(response.json()["model"]["digest"])


def replace(client: Any, content: bytes) -> None:
    """Put other content in the place of the served file, and have it looked at."""
    server = client.app.state.server
    path = server.models["tiny"].path
    new = path.with_name("new")
    new.write_bytes(content)
    new.replace(path)
    server.reloading.ask()


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_all_requests_are_answered_by_the_old_or_the_new_network(
    client: Any, versions: tuple[Path, Path]
) -> None:
    before, changed = digest(client), False

    def ask() -> set[str]:
        digests = set()
        while not changed:
            digests.add(digest(client))
        return digests | {digest(client)}

    with ThreadPoolExecutor(3) as clients:
        try:
            asking = [clients.submit(ask) for _ in range(3)]
            replace(client, versions[1].read_bytes())
            until(lambda: digest(client) != before)
        finally:
            changed = True
        by_client = [each.result() for each in asking]
    after = digest(client)
    assert before != after
    assert set.union(*by_client) <= {before, after}
    assert all(after in each for each in by_client)
    client.app.state.server.reloading.ask()
    until(lambda: client.app.state.server.reloading.old == 0)


def test_a_damaged_file_leaves_the_old_network_serving(
    client: Any, versions: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "resnets.serving")
    before = digest(client)
    replace(client, versions[1].read_bytes()[:-9])
    until(lambda: "not served" in caplog.text)
    assert digest(client) == before
    replace(client, versions[1].read_bytes())
    until(lambda: digest(client) != before)


def test_a_log_tells_of_a_changed_file_before_it_is_loaded_and_once(
    client: Any, versions: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "resnets.serving")
    (model,) = client.app.state.server.models.values()
    told_before: list[str] = []
    reopen = model.reopen

    def slowly() -> Any:
        told_before.append(caplog.text)
        time.sleep(2.5)  # longer than between two looks
        return reopen()

    model.reopen = slowly
    before = digest(client)
    replace(client, versions[1].read_bytes())
    until(lambda: digest(client) != before)
    (text,) = told_before
    assert "changed file seen" in text
    assert "changed file served" not in text
    assert caplog.text.count("changed file seen") == 1


def test_a_file_that_is_removed_is_told_once_and_its_network_serves_on(
    client: Any, versions: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "resnets.serving")
    before, reloading = digest(client), client.app.state.server.reloading
    (model,) = client.app.state.server.models.values()
    model.path.unlink()
    until(lambda: "file removed" in caplog.text)
    for _ in range(3):
        reloading.ask()
        time.sleep(0.1)
    assert digest(client) == before
    assert "Errno" not in caplog.text
    replace(client, versions[1].read_bytes())
    until(lambda: digest(client) != before)


def test_a_file_whose_golden_image_is_computed_wrong_is_not_served(
    client: Any, versions: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "resnets.serving")
    before = digest(client)
    golden = '{"seed": 0, "probabilities": [0.01, 0.98, 0.01]}'
    replace(client, with_golden(versions[1], tmp_path / "wrong", golden).read_bytes())
    until(lambda: "not served" in caplog.text or digest(client) != before)
    assert digest(client) == before
    assert "golden" in caplog.text
