"""Where a server fails for some images, the others are predicted; where it is gone, it is said."""

import asyncio
import csv
import io
import json
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from resnets.cli import main
from resnets.evaluation.inputs import sources_of
from resnets.evaluation.predict import Prediction
from resnets.images import White
from resnets.serving import AsyncClient, Client, NotReachable, ServerFailed
from tests.serving.conftest import image_bytes
from tests.serving.test_client import ANSWER, METADATA

pytest.importorskip("httpx2", reason="the extra serve is not installed")

IMAGES = 40
# What happens to requests for an image, one after another; further ones are answered. "hang" is no
# answer within the client's timeout, "reset" a connection that breaks off.
PASSING = {3: ["reset"], 6: ["504"], 12: ["502"], 15: ["503"], 31: ["408"]}
LASTING = {
    5: ["504", "504"],
    7: ["500"],
    9: ["reset", "reset"],
    11: ["html"],
    39: ["500"],
}


class Faults:
    """A server of HTTP that fails for some images.

    Args:
        faults: by the number of an image.
        ends_after: number of answers after which it is gone; None: never.
    """

    def __init__(self, faults: dict[int, list[str]], ends_after: int | None = None) -> None:
        self.bodies = [image_bytes(seed=number) for number in range(IMAGES)]
        self.faults = {self.bodies[number]: list(each) for number, each in faults.items()}
        self.requests: Counter[bytes] = Counter()
        self.connections: list[socket.socket] = []
        self.left = ends_after
        self.lock = threading.Lock()
        self.ended = threading.Event()
        self.is_proxy = False  # which goes on listening
        self.is_back = False
        self.is_missed = threading.Event()  # whether a client waits for it
        self.later: Server | None = None
        self.changes_after = 10**9  # requests

    def next_for(self, body: bytes) -> str:
        """What happens to a request."""
        with self.lock:
            self.requests[body] += 1
            waiting = self.faults.get(body, [])
            if self.left is not None and not self.is_back:
                self.left -= 1
                if self.left < 0:
                    return "end"
            return waiting.pop(0) if waiting else "200"

    def is_changed(self) -> bool:
        """Whether the model is another one than at first."""
        return self.requests.total() > self.changes_after

    def start_again(self, url: str) -> None:
        """Answer again at the same address, once a client waits for it."""
        self.is_missed.wait(60)
        if not self.is_proxy:
            place = ("127.0.0.1", int(url.rpartition(":")[2]))
            self.later = Server(place, type("Faulty", (Handler,), {"state": self}))
        self.is_back = True  # once connections wait to be accepted, so that it is not away again
        if self.later is not None:
            serve(self.later)

    def end(self, server: ThreadingHTTPServer) -> None:
        """Stop listening, and break off all connections, as a process that ends does."""
        server.socket.close()
        server.shutdown()
        for connection in self.connections:
            with suppress(OSError):  # closed already
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End what was started again."""
        if self.later is not None:
            self.later.shutdown()
            self.later.server_close()


class Handler(BaseHTTPRequestHandler):
    """Answers as `Faults` says."""

    protocol_version = "HTTP/1.1"
    state: Faults

    def setup(self) -> None:
        super().setup()
        if not self.state.is_back:
            self.state.connections.append(self.connection)

    def do_GET(self) -> None:
        values = {"models": ["tiny"]} if self.path == "/v2" else METADATA
        self.answer(200, json.dumps(values))

    def do_POST(self) -> None:
        fault = self.state.next_for(self.rfile.read(int(self.headers["Content-Length"])))
        if fault != "200":
            time.sleep(0.1)  # so that a client has the time to notice
        if fault == "end":
            self.state.ended.set()
            if self.state.is_proxy:
                self.answer(502, "<html>bad gateway</html>")
                return
            self.state.end(self.server)  # type: ignore[arg-type]
        if fault in ("reset", "end"):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()
        elif fault == "hang":
            time.sleep(3)
            self.close_connection = True
        elif fault == "html":
            self.answer(200, "<html>")
        elif fault == "200":
            digest = "ab"[self.state.is_changed()] * 64
            model = {"name": "tiny", "digest": digest}
            self.answer(200, json.dumps({"model": model, "predictions": [ANSWER]}))
        else:
            self.answer(int(fault), json.dumps({"error": f"a fault: {fault}"}))

    def answer(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        if status == 503:
            self.send_header("Retry-After", "0")
        self.end_headers()
        self.wfile.write(text.encode())

    def finish(self) -> None:
        if not self.connection._closed:  # type: ignore[attr-defined]
            super().finish()

    def log_message(self, *_: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    """A server that prints nothing of connections that break off."""

    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        pass


@contextmanager
def failing(faults: dict[int, list[str]], ends_after: int | None = None) -> Iterator[Any]:
    """The address of a server that fails for some images, and what happens there."""
    state = Faults(faults, ends_after)
    with Server(("127.0.0.1", 0), type("Faulty", (Handler,), {"state": state})) as server:
        threading.Thread(target=serve, args=(server,), daemon=True).start()
        yield "http://{}:{}".format(*server.server_address[:2]), state
        server.shutdown()


def serve(server: ThreadingHTTPServer) -> None:
    with suppress(OSError, ValueError):  # of its socket, which is closed where the server is gone
        server.serve_forever(0.05)


@pytest.fixture(autouse=True)
def short_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resnets.serving.exchange._PAUSE", 0.1)


def predict(
    url: str,
    images: list[Any],
    asynchronous: bool,
    timeout: float,
    notify: Callable[[str], None] | None = None,
) -> list[Prediction]:
    if not asynchronous:
        with Client(url, timeout=timeout, notify=notify) as client:
            return client.predict(images)

    async def ask() -> list[Prediction]:
        async with AsyncClient(url, timeout=timeout, notify=notify) as client:
            return await client.predict(images)

    return asyncio.run(ask())


@pytest.mark.parametrize("asynchronous", [False, True])
def test_images_for_which_the_server_fails_have_a_row_with_the_reason(asynchronous: bool) -> None:
    with failing(PASSING | LASTING | {20: ["hang"]}) as (url, state):
        images = [*state.bodies[:-1], b"no image", state.bodies[-1]]
        state.faults[b"no image"] = ["422"]
        predictions = predict(url, images, asynchronous, timeout=2)
    assert [each.image for each in predictions] == [f"image {n}" for n in range(IMAGES + 1)]
    statuses = {n: each.status for n, each in enumerate(predictions) if each.status != "ok"}
    assert statuses.pop(IMAGES - 1) == "unreadable"
    assert statuses == dict.fromkeys([5, 7, 9, 11, 20, IMAGES], "unanswered")
    assert all(str(url) in str(predictions[n].error) for n in statuses)
    assert "a fault: 500" in str(predictions[7].error)
    assert "2 seconds" in str(predictions[20].error)
    again = {n for n, body in enumerate(state.bodies) if state.requests[body] > 1}
    assert again == {3, 5, 6, 9, 12, 15, 31}
    assert max(state.requests.values()) == 2


def test_the_command_counts_them_and_ends_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with failing(PASSING | LASTING) as (url, state):
        for number, body in enumerate(state.bodies):
            (tmp_path / f"{number:02}.png").write_bytes(body)
        assert main(["predict", "--server", url, str(tmp_path), "--csv"]) == 1
        rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
        assert len(rows) == IMAGES
        failed = [row for row in rows if row["status"] == "unanswered"]
        assert [int(Path(row["image"]).stem) for row in failed] == sorted(LASTING)
        assert all(url in row["error"] and not row["prediction"] for row in failed)

        state.faults[state.bodies[0]] = ["500"]
        (tmp_path / "x.png").write_bytes(b"nothing")
        words = ["predict", "--server", url, str(tmp_path), "--sort", str(tmp_path / "sorted")]
        state.faults[b"nothing"] = ["422"]
        assert main(words) == 1
        printed = capsys.readouterr().err
        assert f"1 of {IMAGES + 1} images cannot be read" in printed
        assert f"1 of {IMAGES + 1} images were not answered" in printed
        assert len(list((tmp_path / "sorted").rglob("*.png"))) == IMAGES - 1


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("fault", ["500", "504", "reset", "html"])
def test_where_every_request_fails_it_ends_soon(fault: str, asynchronous: bool) -> None:
    with (
        failing({number: [fault] * 9 for number in range(IMAGES)}) as (url, state),
        pytest.raises(ServerFailed, match=url),
    ):
        predict(url, state.bodies * 5, asynchronous, timeout=20)
    requests = 2 if fault in ("504", "reset") else 1  # for an image
    assert state.requests.total() < 64 * requests  # of the images that are prepared together


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_server_that_is_gone_is_waited_for_once_and_not_beyond_the_timeout(
    asynchronous: bool,
) -> None:
    begin = time.monotonic()
    with (
        failing({}, ends_after=20) as (url, state),
        pytest.warns(UserWarning, match=f"{url} does not answer") as notices,
        pytest.raises((NotReachable, ServerFailed), match=url),
    ):
        predict(url, state.bodies * 20, asynchronous, timeout=3)
    assert len(notices) == 1
    assert 2 < time.monotonic() - begin < 12  # not once more for the images that follow


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("proxy", [False, True])
def test_a_server_that_starts_again_loses_no_image(asynchronous: bool, proxy: bool) -> None:
    notices: list[str] = []
    with failing({}, ends_after=20) as (url, state):

        def notify(line: str) -> None:
            notices.append(line)
            state.is_missed.set()

        state.is_proxy = proxy
        threading.Thread(target=state.start_again, args=(url,), daemon=True).start()
        predictions = predict(url, state.bodies * 3, asynchronous, 60, notify)
        state.close()
    assert [each.status for each in predictions] == ["ok"] * 3 * IMAGES
    (line,) = notices
    assert "waiting up to" in line


def test_who_interrupts_the_wait_for_a_server_does_not_wait() -> None:
    with failing({}, ends_after=20) as (url, state):
        with Client(url, notify=lambda _: None) as client:
            pending = client.predict_sources(sources_of(state.bodies, 3, White()))
            for _ in range(10):
                next(pending)
            assert state.ended.wait(10)
            time.sleep(0.5)
            begin = time.monotonic()
            pending.close()  # type: ignore[attr-defined]
        while any("ThreadPoolExecutor" in each.name for each in threading.enumerate()):
            time.sleep(0.02)
        assert time.monotonic() - begin < 5


def test_rows_before_the_server_was_gone_are_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(Client.__init__.__kwdefaults__, "timeout", 2.0)
    with failing({2: ["500"]}, ends_after=20) as (url, state):
        for number, body in enumerate(state.bodies):
            (tmp_path / f"{number:02}.png").write_bytes(body)
        assert main(["predict", "--server", url, str(tmp_path), "--json"]) == 1
    output = capsys.readouterr()
    rows = json.loads(output.out)
    answered = [row for row in rows if row["status"] == "ok"]
    assert 10 < len(answered) < 20
    assert rows[2]["status"] == "unanswered"
    assert len(rows) - len(answered) <= 8  # and some that were under way when it ended
    assert [Path(row["image"]).stem for row in rows] == [f"{n:02}" for n in range(len(rows))]
    assert f"{len(answered)} of {IMAGES} images were answered" in output.err
    assert f"{len(rows):02}.png" in output.err  # with which the rest begins


def test_a_model_that_changes_meanwhile_is_told(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for number in range(IMAGES):
        (tmp_path / f"{number:02}.png").write_bytes(image_bytes(seed=number))
    with failing({}) as (url, state):
        assert main(["predict", "--server", url, str(tmp_path), "--csv"]) == 0
        assert "changed" not in capfd.readouterr().err
        state.changes_after = IMAGES + 12
        assert main(["predict", "--server", url, str(tmp_path), "--csv"]) == 0
        (line,) = (each for each in capfd.readouterr().err.splitlines() if "changed" in each)
        counts = [int(each) for each in re.findall(r"(\d+) by [ab]{12}\b", line)]
        assert sum(counts) == IMAGES
        assert 4 < counts[0] <= 12
        state.changes_after = state.requests.total() + 3
        with Client(url) as client:
            with pytest.warns(UserWarning, match=r"aaaa, .* by bbbb"):
                client.predict(state.bodies)
            client.predict(state.bodies)  # all by the new one, of which nothing is said


def test_a_single_image_raises_the_reason() -> None:
    with failing({4: ["500"]}) as (url, state), Client(url) as client:
        with pytest.raises(ServerFailed, match="a fault: 500"):
            client.predict(state.bodies[4])
        assert client.predict(state.bodies[4])[0].status == "ok"
