"""Models are unloaded and loaded by NVIDIA's client, where that is allowed."""

import asyncio
import gc
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from weakref import ref

import pytest

from resnets.cli import main
from tests.serving.conftest import image_bytes
from tests.serving.running import running

Serving = Callable[..., Any]


@contextmanager
def controlled(model_file: Path) -> Iterator[tuple[Any, Any]]:
    """A server that may be controlled, and NVIDIA's client of it."""
    http = pytest.importorskip("tritonclient.http", reason="tritonclient is not installed")
    pytest.importorskip("uvicorn", reason="the extra serve is not installed")
    from resnets.serving.app import create_app
    from resnets.serving.served_model import open_served
    from resnets.serving.settings import Settings

    models = {
        name: open_served(model_file, name=name, engine="torch", max_batch=1)
        for name in ("one", "two")
    }
    app = create_app(models, Settings(control=True))
    with running(app) as address:
        client = http.InferenceServerClient(address)
        yield app.state.server, client
        client.close()


def states(client: Any) -> dict[str, str]:
    return {each["name"]: each["state"] for each in client.get_model_repository_index()}


def test_a_model_is_unloaded_and_loaded_again(model_file: Path) -> None:
    from starlette.exceptions import HTTPException
    from tritonclient.utils import InferenceServerException

    with controlled(model_file) as (server, client):
        assert states(client) == {"one": "READY", "two": "READY"}
        client.unload_model("one")
        assert states(client) == {"one": "UNAVAILABLE", "two": "READY"}
        assert not client.is_model_ready("one")
        with pytest.raises(HTTPException, match="one is unloaded"):
            server.model(None)  # which another model must not answer
        assert server.model("two") is server.models["two"]
        with pytest.raises(InferenceServerException, match="no model"):
            client.get_model_metadata("one")
        with pytest.raises(InferenceServerException, match="no model"):
            client.load_model("passwd")
        client.load_model("one")
        assert client.is_model_ready("one")
        assert list(server.models) == ["one", "two"]  # the first one answers by default, as before
        before = server.models["one"]
        client.load_model("one")  # its file is read anew
        assert server.models["one"] is not before


def test_what_a_client_gives_with_a_model_is_refused_unless_it_has_its_effect(
    model_file: Path,
) -> None:
    from tritonclient.utils import InferenceServerException

    with controlled(model_file) as (server, client):
        before = server.models["one"]
        large = bytes(1 << 17)
        for files in (None, {"file:1/model.onnx": b"abc"}, {"file:1/model.onnx": large}):
            with pytest.raises(InferenceServerException, match="started with"):
                client.load_model("one", config='{"max_batch_size": 1}', files=files)
        assert server.models["one"] is before
        client.unload_model("one", unload_dependents=True)
        client.load_model("one")
        assert list(server.models) == ["one", "two"]


@pytest.mark.parametrize(
    ("action", "body", "status"),
    [
        ("load", b"", 200),
        ("load", b"{}", 200),
        ("load", b'{"parameters": {}}', 200),
        ("load", b"not JSON", 400),
        ("load", b"[]", 400),
        ("load", b'{"parameters": []}', 400),
        ("load", b'{"parameters": {"config": "{}"}}', 400),
        ("load", b'{"config": "{}"}', 400),
        ("unload", b"", 200),
        ("unload", b"{}", 200),
        ("unload", b'{"parameters": {"unload_dependents": false}}', 200),
        ("unload", b'{"parameters": {"unload_dependents": 5}}', 400),
        ("unload", b'{"parameters": {"other": true}}', 400),
        ("unload", b"not JSON", 400),
    ],
)
def test_the_body_of_a_load_is_read(
    serving: Serving, action: str, body: bytes, status: int
) -> None:
    from starlette.testclient import TestClient

    client = serving(control=True)
    here = TestClient(client.app, base_url="http://127.0.0.1", client=("127.0.0.1", 1))
    here.event_hooks = client.event_hooks
    assert here.post(f"/v2/repository/models/tiny/{action}", content=body).status_code == status
    is_loaded = "tiny" in client.app.state.server.models
    assert is_loaded == (action == "load" or status == 400)


def test_a_file_that_is_gone_is_named_without_what_else_is_in_the_folder(
    model_file: Path, tmp_path: Path
) -> None:
    from tritonclient.utils import InferenceServerException

    file = shutil.copy(model_file, tmp_path / "mine.safetensors")
    with controlled(file) as (server, client):
        client.unload_model("one")
        file.rename(tmp_path / "mines.safetensors")
        with pytest.raises(InferenceServerException, match="not there any more") as refused:
            client.load_model("one")
        assert "mines" not in str(refused.value)
        assert list(server.models) == ["two"]


def test_a_server_without_models_says_so(model_file: Path) -> None:
    from tritonclient.utils import InferenceServerException

    with controlled(model_file) as (_, client):
        for name in ("one", "two"):
            client.unload_model(name)
        with pytest.raises(InferenceServerException, match="no model"):
            client.get_model_metadata("one")


def test_a_server_is_ready_while_any_model_is_loaded(serving: Serving) -> None:
    from starlette.testclient import TestClient

    client = serving(control=True)
    here = TestClient(client.app, base_url="http://127.0.0.1", client=("127.0.0.1", 1))

    def ready() -> tuple[int, str | None, bool]:
        response = client.get("/v2/health/ready")
        is_measured = "resnets_ready 1.0" in client.get("/metrics").text
        return response.status_code, response.json().get("error"), is_measured

    assert ready() == (200, None, True)
    assert here.post("/v2/repository/models/tiny/unload").status_code == 200
    status, reason, is_measured = ready()
    assert (status, is_measured) == (503, False)
    assert reason == client.post("/predict", content=image_bytes()).json()["error"]
    assert client.get("/v2/health/live").status_code == 200
    assert here.post("/v2/repository/models/tiny/load").status_code == 200
    assert ready() == (200, None, True)
    client.app.state.server.stop()
    assert ready()[0] == client.get("/v2/models/tiny/ready").status_code == 503
    assert "stopping" in str(ready()[1])


def test_nothing_is_controlled_without_leave(serving: Serving) -> None:
    for client in (serving(), serving(control=True)):  # the test's client is of no machine
        for action in ("load", "unload"):
            response = client.post(f"/v2/repository/models/tiny/{action}")
            assert response.status_code == 403
        assert client.post("/predict", content=image_bytes()).status_code == 200
    assert client.post("/v2/repository/index", content=b"[").status_code == 400
    assert client.post("/v2/repository/index", json={"ready": True}).json()[0]["name"] == "tiny"


def test_what_is_replaced_or_unloaded_is_freed_and_measured_no_more(serving: Serving) -> None:
    from starlette.testclient import TestClient

    app = serving(control=True).app
    server, here = app.state.server, TestClient(app, base_url="http://127.0.0.1", client=("::1", 1))
    replaced = server.models["tiny"]
    here.get("/metrics")
    assert here.post("/v2/repository/models/tiny/load").status_code == 200
    assert server.models["tiny"] is not replaced
    assert server.reloading.old == 1  # the one that this test holds
    assert here.post("/v2/repository/models/tiny/unload").status_code == 200
    gauges = [line for line in here.get("/metrics").text.splitlines() if "tiny" in line]
    assert not gauges


@pytest.mark.soak
def test_what_the_collector_leaves_out_is_freed_when_it_is_replaced(serving: Serving) -> None:
    from starlette.testclient import TestClient

    from resnets.serving.reloading import leave_out_of_collections

    app = serving(control=True).app
    here = TestClient(app, base_url="http://127.0.0.1", client=("::1", 1))
    replaced = ref(app.state.server.models["tiny"])
    leave_out_of_collections()  # as `resnets serve` does
    try:
        assert here.post("/v2/repository/models/tiny/load").status_code == 200
        until = time.monotonic() + 30
        while replaced() is not None and time.monotonic() < until:
            time.sleep(0.05)
        assert replaced() is None
    finally:
        gc.unfreeze()


def test_one_model_is_loaded_at_a_time(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    httpx2 = pytest.importorskip("httpx2", reason="the extra serve is not installed")
    app = serving(control=True).app
    model, loading = app.state.server.models["tiny"], []

    def reopen() -> Any:
        loading.append("begins")
        time.sleep(0.02)
        loading.append("ends")
        return model

    monkeypatch.setattr(model, "reopen", reopen)

    async def load_three_times() -> list[int]:
        transport = httpx2.ASGITransport(app, client=("127.0.0.1", 1))
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            loads = [client.post("/v2/repository/models/tiny/load") for _ in range(3)]
            return [response.status_code for response in await asyncio.gather(*loads)]

    assert asyncio.run(load_three_times()) == [200] * 3
    assert loading == ["begins", "ends"] * 3


def test_behind_a_proxy_only_a_key_controls(serving: Serving) -> None:
    from starlette.testclient import TestClient

    for root_path, status in (("", 200), ("/r", 403)):
        app = serving(control=True, root_path=root_path).app
        here = TestClient(app, base_url="http://127.0.0.1", client=("127.0.0.1", 1))
        assert here.post("/v2/repository/models/tiny/load").status_code == status


def test_several_processes_are_not_controlled(
    model_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("uvicorn", reason="the extra serve is not installed")
    command = ["serve", str(model_file), "--port", "0", "--workers", "2", "--control"]
    assert main(command) == 2
    assert "--control" in capsys.readouterr().err


def test_this_machine_controls_with_the_flag_only(serving: Serving) -> None:
    from starlette.testclient import TestClient

    for control, status in ((False, 403), (True, 200)):
        app = serving(control=control).app
        here = TestClient(app, base_url="http://127.0.0.1", client=("127.0.0.1", 5000))
        assert here.post("/v2/repository/models/tiny/load").status_code == status
