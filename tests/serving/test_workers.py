"""Several processes share a port; where one dies, the others go on and it is started again."""

import hashlib
import http.client
import json
import multiprocessing
import os
import pickle
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette", reason="the extra serve is not installed")

import resnets
from resnets.commands.serve import _warn_of_rates
from resnets.errors import ContentError, UsageError
from resnets.serving.workers import _sendable, _Worker, _Workers, serve_by_workers
from tests.in_process import call
from tests.serving.conftest import image_bytes
from tests.serving.test_server import status_of

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no port can be shared there")
_LIMIT = 180.0  # seconds until a server is killed, and a test that waits for its lines fails
EARLIER = Path(__file__).parents[1] / "fixtures" / "before_trust"


@contextmanager
def two_workers(
    *options: str, model: Path = EARLIER / "digits.onnx"
) -> Iterator[tuple["subprocess.Popen[str]", Iterator[str]]]:
    """A server of two processes, which need no torch, and its lines."""
    pytest.importorskip("uvicorn", reason="the extra serve is not installed")
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    command = [sys.executable, "-m", "resnets", "serve", str(model)]
    command += ["--port", "0", "--workers", "2", "--max-batch", "1", "--engine", "onnxruntime"]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [*command, *options], stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        limit = threading.Timer(_LIMIT, process.kill)  # whose workers end with it, and their lines
        limit.start()
        try:
            assert process.stderr is not None
            yield process, iter(process.stderr.readline, "")
        finally:
            limit.cancel()
            process.terminate()
            process.wait(60)
            process.kill()


def started(lines: Iterator[str]) -> int:
    """The number of the process that is started next."""
    for line in lines:
        if "worker started" in line:
            return int(json.loads(line)["pid"])
    raise AssertionError("no worker is started")


def address_after(lines: Iterator[str]) -> tuple[str, list[str]]:
    """The address that a server says it serves on, and what it said before."""
    before: list[str] = []
    for line in lines:
        if match := re.search(r"https?://\S+\d", line):
            return match[0], before
        before.append(line)
    raise AssertionError(before)


def until(condition: Callable[[], bool]) -> None:
    """Wait until something holds."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def connections_of(pid: int, port: int) -> int:
    """How many clients are connected to a process that listens on a port, by Linux' tables."""
    table = Path(f"/proc/{pid}/net/tcp").read_text(encoding="utf-8").splitlines()[1:]
    fields = [line.split() for line in table]
    established = {
        f"socket:[{inode}]"
        for _, local, _, state, *_, inode in (each[:10] for each in fields)
        if local.endswith(f":{port:04X}") and state == "01"
    }
    return sum(str(file.readlink()) in established for file in Path(f"/proc/{pid}/fd").iterdir())


class Asking(threading.Thread):
    """A client that asks again and again over one connection, until told to stop.

    Attributes:
        answered: requests.
        failed: requests, after each of which it connects again.
    """

    def __init__(self, host: str, port: int) -> None:
        super().__init__(daemon=True)
        self.connection = http.client.HTTPConnection(host, port, timeout=60)
        self.answered, self.failed, self.stopping = 0, 0, False

    def run(self) -> None:
        """Ask."""
        image = image_bytes()
        while not self.stopping:
            try:
                self.connection.request("POST", "/predict", image)
                with self.connection.getresponse() as response:
                    response.read()
                    assert response.status == 200
                self.answered += 1
            except (OSError, http.client.HTTPException):
                self.failed += 1
                self.connection.close()


def requests_counted(address: str) -> int:
    """How many predictions were answered, by the metrics."""
    with urllib.request.urlopen(f"{address}/metrics", timeout=60) as response:
        text = response.read().decode()
    line = r'^resnets_requests_total{path="/predict",status="200"} (\S+)$'
    return sum(int(float(value)) for value in re.findall(line, text, re.MULTILINE))


@pytest.mark.slow
def test_a_worker_that_is_killed_is_started_again_and_all_end_in_order() -> None:
    with two_workers() as (process, lines):
        first, second = started(lines), started(lines)
        address, notices = address_after(lines)
        assert sum("digits" in notice for notice in notices) == 1  # not by each process
        clients = [Asking("127.0.0.1", int(address.rpartition(":")[2])) for _ in range(8)]
        for client in clients:
            client.start()
        until(lambda: all(client.answered > 2 for client in clients))
        lost = None
        if sys.platform == "linux":
            lost = connections_of(first, clients[0].connection.port)
        os.kill(first, signal.SIGKILL)
        third = started(lines)
        before = [client.answered for client in clients]
        until(lambda: all(c.answered > n + 2 for c, n in zip(clients, before, strict=True)))
        for client in clients:
            client.stopping = True
            client.join()
            client.connection.close()
        assert lost is None or sum(client.failed for client in clients) == lost
        assert max(client.failed for client in clients) <= 1
        answers = [status_of(f"{address}/predict", image_bytes(seed=n)) for n in range(8)]
        assert answers == [200] * 8
        total = len(answers) + sum(client.answered for client in clients)
        # those that the dead process answered are counted; the last ones may not have arrived
        counted = requests_counted(address)
        assert total <= counted <= total + sum(client.failed for client in clients)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        for pid in (second, third):
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)


def two_networks(folder: Path) -> tuple[Path, Path, str]:
    """A network, another one that is to replace it, and the digest of that."""
    shipped = Path(resnets.__file__).with_name("shipped")
    file, new = folder / "net.onnx", folder / "new"
    shutil.copy(shipped / "resnet14_cifar10.onnx", file)
    shutil.copy(shipped / "resnet20_cifar10.onnx", new)
    return file, new, hashlib.sha256(new.read_bytes()).hexdigest()


@pytest.mark.slow
def test_all_workers_serve_a_changed_file_and_no_request_fails(tmp_path: Path) -> None:
    file, new, expected = two_networks(tmp_path)
    with two_workers(model=file) as (process, lines):
        address, _ = address_after(lines)
        threading.Thread(target=lambda: list(lines), daemon=True).start()  # lest its pipe be full
        clients = [Asking("127.0.0.1", int(address.rpartition(":")[2])) for _ in range(4)]
        for client in clients:
            client.start()
        assert len(served_by_each(address)) == 2
        assert expected not in served_by_each(address).values()
        new.replace(file)
        process.send_signal(signal.SIGHUP)
        until(lambda: set(served_by_each(address).values()) == {expected})
        answered = [client.answered for client in clients]
        until(lambda: all(c.answered > n + 2 for c, n in zip(clients, answered, strict=True)))
        for client in clients:
            client.stopping = True
            client.join()
            client.connection.close()
        assert [client.failed for client in clients] == [0] * 4
        assert process.poll() is None


@pytest.mark.slow
def test_sighup_has_every_worker_look_again_at_a_file_that_it_could_not_read(
    tmp_path: Path,
) -> None:
    file, new = tmp_path / "digits.onnx", tmp_path / "new"
    sound = (EARLIER / "digits.onnx").read_bytes()
    file.write_bytes(sound)
    new.write_bytes(sound[:-50])
    with two_workers(model=file) as (process, lines):
        address, _ = address_after(lines)
        new.replace(file)
        by_each = ["changed file not served"] * 2 + ["changed file seen"] * 2
        assert sorted(events(lines, 4)) == by_each  # within a second
        time.sleep(2.0)  # in which neither reads again what it knows to be damaged
        process.send_signal(signal.SIGHUP)
        assert sorted(events(lines, 4)) == by_each
        assert [status_of(f"{address}/predict", image_bytes()) for _ in range(4)] == [200] * 4
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert not any("not served" in line or "died" in line for line in lines)


def events(lines: Iterator[str], count: int) -> list[str]:
    """The next events in the log, without those of requests."""
    others = (event for line in lines if (event := json.loads(line)["event"]) != "request")
    return [*islice(others, count)]


@pytest.mark.soak
def test_sighup_while_a_worker_is_started_anew_ends_none(tmp_path: Path) -> None:
    file, new, expected = two_networks(tmp_path)
    with two_workers(model=file) as (process, lines):
        first, second = started(lines), started(lines)
        address, _ = address_after(lines)
        records: list[dict[str, Any]] = []
        reading = threading.Thread(target=lambda: records.extend(map(json.loads, lines)))
        reading.start()
        os.kill(first, signal.SIGKILL)
        new.replace(file)
        served: dict[int, str] = {}
        end = time.monotonic() + 60
        while set(served.values()) != {expected} or len(served) < 2:
            assert time.monotonic() < end
            for _ in range(20):
                process.send_signal(signal.SIGHUP)
                time.sleep(0.01)
            served = served_by_each(address)
        assert second in served
        assert first not in served
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        reading.join(60)
        assert [each["pid"] for each in records if each["event"] == "worker died"] == [first]


def begins_long_before_it_serves(_listener: socket.socket, begun: Callable[[], None]) -> None:
    """The work of a process that says that it serves before it handles signals."""
    begun()
    time.sleep(60)


@pytest.mark.soak
@pytest.mark.own_process
def test_sighup_ends_no_worker_that_says_it_serves_but_handles_no_signal_yet(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "resnets.serving")

    def hang_up() -> None:
        os.kill(os.getpid(), signal.SIGHUP)
        threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM)).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        serve_by_workers(begins_long_before_it_serves, 2, listener, 1.0, hang_up)
    assert caplog.text.count("worker started") == 2
    assert "worker died" not in caplog.text


def served_by_each(address: str) -> dict[int, str]:
    """The digest of the file that each of two processes serves, by the process's number."""
    digests: dict[int, str] = {}
    for _ in range(200):  # either process may take a connection
        with urllib.request.urlopen(f"{address}/model", timeout=60) as response:
            (facts,) = json.load(response)["models"]
        digests[facts["process"]["id"]] = facts["digest"]
        if len(digests) == 2:
            break
    return digests


@pytest.mark.slow
def test_workers_end_with_their_parent() -> None:
    with two_workers() as (process, lines):
        address, _ = address_after(lines)
        process.kill()
        until(lambda: is_closed(address))


def is_closed(address: str) -> bool:
    """Whether nobody listens any more."""
    try:
        socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), 20).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.slow
def test_a_file_that_no_worker_can_open_is_an_error_at_the_start(tmp_path: Path) -> None:
    damaged = tmp_path / "digits.onnx"
    damaged.write_bytes((EARLIER / "digits.onnx").read_bytes()[:-50])
    ended = call("serve", damaged, "--port", "0", "--workers", "2")
    assert ended.returncode == 1
    assert "digits.onnx" in ended.stderr
    assert "Traceback" not in ended.stderr


class Unsendable(Exception):  # noqa: N818
    """An error that pickles, but cannot be made anew of what was pickled."""

    def __init__(self, file: str, reason: str) -> None:
        super().__init__(f"{file}: {reason}")


@pytest.mark.parametrize("error", [UsageError("a.onnx: damaged"), Unsendable("a.onnx", "damaged")])
def test_every_error_of_a_worker_can_be_told(error: Exception) -> None:
    restored = pickle.loads(pickle.dumps(_sendable(error)))  # noqa: S301 (bytes of our own)
    assert "a.onnx: damaged" in str(restored)


def test_news_that_cannot_be_read_are_an_error_at_the_start_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "resnets.serving")
    ours, theirs = multiprocessing.Pipe(duplex=False)
    worker = _Worker(multiprocessing.current_process(), ours)
    with socket.socket() as listener:
        workers = _Workers(lambda *_: None, 1, listener, 1.0, [worker])
        theirs.send(Unsendable("a.onnx", "damaged"))
        with pytest.raises(ContentError, match="cannot start"):
            workers._read_news()
        workers.complete = True
        theirs.send(Unsendable("a.onnx", "damaged"))
        workers._read_news()
    assert "cannot start" in caplog.text


def test_what_one_of_several_processes_tells_says_so(serving: Callable[..., Any]) -> None:
    client = serving(workers=3)
    (model,) = client.get("/model").json()["models"]
    expected = {"id": os.getpid(), "of": 3}
    assert model["process"] == client.get("/v2/models/stats").json()["process"] == expected
    assert "process" not in serving().get("/v2/models/stats").json()


def test_a_rate_of_several_processes_is_warned_of(
    capsys: pytest.CaptureFixture[str],
) -> None:
    _warn_of_rates(2, "10/s")
    assert "2 times" in capsys.readouterr().err
    _warn_of_rates(1, "10/s")
    assert not capsys.readouterr().err


def test_no_number_below_one_is_taken(tmp_path: Path) -> None:
    ended = call("serve", EARLIER / "digits.onnx", "--workers", "0")
    assert ended.returncode == 2
    assert "--workers" in ended.stderr
