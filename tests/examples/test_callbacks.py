"""The examples of callbacks do what they say: with a real server, and in a real kernel."""

import importlib.util
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

import resnets

EXAMPLES = Path(__file__).parents[2] / "examples"
QUICK: dict[str, Any] = {
    **{"network": "resnet14", "image_size": 8, "batch_size": 256, "output": False},
    **{"progress": False},
}


def example(name: str) -> Any:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def server() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A server that keeps the messages that it gets."""
    messages: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.headers["Content-Type"] == "application/json"
            messages.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Print nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}/hook", messages
        listening.shutdown()
        thread.join()


def test_a_webhook_gets_the_epochs_and_the_end(server: Any) -> None:
    url, messages = server
    run = resnets.train("digits", epochs=2, callbacks=[example("webhook").Webhook(url, 2)], **QUICK)
    assert len(messages) == 2
    assert messages[0]["text"].startswith("epoch 2")
    assert f"test_accuracy {run.metrics['test_accuracy']:.4g}" in messages[1]["content"]


def test_a_webhook_that_is_gone_stops_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    hook = example("webhook").Webhook("http://127.0.0.1:9/hook", 1)
    run = resnets.train("digits", epochs=1, callbacks=[hook], **QUICK)
    assert run.stopped is None
    assert "no message sent" in capsys.readouterr().out


def test_training_stops_when_the_worst_class_is_found_often_enough() -> None:
    callback = example("early_stop").StopAtRecall("digits", 0.05)
    run = resnets.train("digits", epochs=12, callbacks=[callback], **QUICK)
    assert run.stopped is not None
    assert "recall" in run.stopped
    assert len(run.history.epochs) == len(callback.recalls) < 12
    assert callback.recalls[-1] >= 0.05 > max([0.0, *callback.recalls[:-1]])


@pytest.mark.soak
def test_a_notebook_shows_a_bar_a_growing_curve_and_the_run() -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(EXAMPLES / "learning_curve.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    updates: list[Any] = []

    class Client(nbclient.NotebookClient):  # type: ignore[misc,name-defined]
        def process_message(self, msg: Any, cell: Any, index: int) -> Any:
            if msg["msg_type"] == "update_display_data":
                updates.append(msg["content"]["data"])
            return super().process_message(msg, cell, index)

    Client(notebook, timeout=300).execute()
    bars = [data["text/html"] for data in updates if "<progress" in data.get("text/html", "")]
    curves = [data["image/png"] for data in updates if "image/png" in data]
    assert bars
    assert len(set(curves)) == 4
    training = notebook.cells[2].outputs
    assert "epoch 4/4" in "".join(output.get("text", "") for output in training)
    assert "test accuracy" in training[-1]["data"]["text/html"]
    assert "image/png" in notebook.cells[4].outputs[0]["data"]
