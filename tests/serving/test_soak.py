"""What a server holds after many requests: `make soak` runs this.

RESNETS_SOAK_REQUESTS makes it shorter or longer.
"""

import contextlib
import http.client
import json
import os
import random
import re
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from resnets import shipped
from tests.serving.conftest import image_bytes

REQUESTS = int(os.environ.get("RESNETS_SOAK_REQUESTS", "10000"))
WARM_UP = REQUESTS // 10
GROWTH = 1.05  # of resident memory after the first tenth
PARTS = 18  # of the other requests, with a measurement after each
FEW = 5  # measurements of which the median counts: single ones differ by more than the limit
VANISHING = 1000
RELOADS = 20

pytestmark = [
    pytest.mark.slow,
    pytest.mark.soak,
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]


class Served:
    """A server in a process of its own.

    Attributes:
        host: on which it listens.
        port: likewise.
        pid: of its process.
    """

    def __init__(self, address: str, pid: int) -> None:
        self.host, _, port = address.rpartition(":")
        self.port, self.pid = int(port), pid

    def resident(self) -> int:
        """Pages of resident memory."""
        statm = Path(f"/proc/{self.pid}/statm").read_text(encoding="utf-8")
        return int(statm.split()[1])

    def metric(self, name: str) -> float:
        """The value of a metric without labels."""
        with urllib.request.urlopen(f"http://{self.host}:{self.port}/metrics") as response:
            lines = response.read().decode().splitlines()
        return float(next(line.split()[-1] for line in lines if line.startswith(f"{name} ")))

    def in_flight(self) -> float:
        """Requests that arrive, and images that are not answered yet."""
        return self.metric("resnets_arriving_requests") + self.metric("resnets_places_taken")

    def ask(self, images: list[bytes], count: int) -> None:
        """Send images over one connection, one after the other."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=60)
        for place in range(count):
            connection.request("POST", "/predict", images[place % len(images)])
            response = connection.getresponse()
            response.read()
            assert response.status in (200, 422)
        connection.close()

    def ask_at_once(self, images: list[bytes], count: int) -> None:
        """Send images over four connections at once."""
        threads = [
            threading.Thread(target=self.ask, args=(images, count // 4), daemon=True)
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


@contextlib.contextmanager
def serving(model: Path | str, *options: str) -> Iterator[Served]:
    """`resnets serve` of a model; its log is read, as it would block otherwise."""
    pytest.importorskip("uvicorn", reason="the extra serve is not installed")
    command = [sys.executable, "-m", "resnets", "serve", str(model), "--port", "0", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        lines = iter(process.stderr.readline, "")
        address = next(match[1] for line in lines if (match := re.search(r"http://(\S+)", line)))
        reader = threading.Thread(target=lambda: list(lines), daemon=True)
        reader.start()
        try:
            yield Served(address, process.pid)
        finally:
            process.kill()


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """A server of the packaged network."""
    with serving("resnet20_cifar10") as server:
        yield server


@pytest.fixture(scope="module")
def images() -> list[bytes]:
    """Images of several sizes and formats, and one that is cut off."""
    whole = [
        image_bytes(side, form, seed=side)
        for side in (32, 200, 640)
        for form in ("JPEG", "PNG", "WEBP")
    ]
    return [*whole, whole[3][:2000]]


def test_memory_does_not_grow_with_requests(served: Served, images: list[bytes]) -> None:
    served.ask_at_once(images, WARM_UP)
    resident = [served.resident()]
    for _ in range(PARTS):
        served.ask_at_once(images, (REQUESTS - WARM_UP) // PARTS)
        resident.append(served.resident())
    middle = statistics.median
    assert middle(resident[-FEW:]) < middle(resident[:FEW]) * GROWTH, resident


def test_clients_that_vanish_leave_no_request_behind(served: Served, images: list[bytes]) -> None:
    chance = random.Random(0)
    head = "POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {}\r\n\r\n"

    def vanish(seed: int) -> None:
        own = random.Random(seed)
        for _ in range(VANISHING // 20):
            body = own.choice(images)
            whole = head.format(len(body)).encode() + body
            with socket.create_connection((served.host, served.port), timeout=60) as connection:
                connection.sendall(whole[: own.randrange(len(whole) + 1)])
                if own.random() < 0.3:
                    connection.settimeout(own.random() / 10)
                    with contextlib.suppress(TimeoutError):
                        connection.recv(10)

    threads = [threading.Thread(target=vanish, args=(chance.random(),)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    served.ask(images, 50)
    pause = threading.Event()
    for _ in range(600):
        if served.in_flight() == 0:
            break
        pause.wait(0.1)
    assert served.in_flight() == 0


def _digest(address: str) -> str:
    """The digest of the file that answered."""
    request = urllib.request.Request(f"http://{address}/predict", image_bytes())
    with urllib.request.urlopen(request, timeout=60) as response:
        return str(json.load(response)["model"]["digest"])


@pytest.mark.parametrize(
    ("ending", "engine"), [(".onnx", "onnxruntime"), (".safetensors", "torch")]
)
def test_twenty_reloads_leave_memory_as_it_was(ending: str, engine: str, tmp_path: Path) -> None:
    if ending == ".onnx":
        pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    contents = [
        (shipped.FOLDER / f"{name}_cifar10{ending}").read_bytes()
        for name in ("resnet14", "resnet20")
    ]
    file, new = tmp_path / f"net{ending}", tmp_path / "new"
    file.write_bytes(contents[0])
    resident: list[int] = []
    with serving(file, "--engine", engine, "--max-batch", "4") as server:
        address = f"{server.host}:{server.port}"
        for number in range(3 + RELOADS + FEW):
            before = _digest(address)
            new.write_bytes(contents[(number + 1) % 2])
            new.replace(file)
            os.kill(server.pid, signal.SIGHUP)  # look now
            end = time.monotonic() + 60
            while _digest(address) == before:
                assert time.monotonic() < end, "the changed file is not served"
                time.sleep(0.02)
            server.ask([image_bytes()], 20)  # meanwhile the old model is let go
            resident.append(server.resident())
    first, last = resident[3 : 3 + FEW], resident[-FEW:]
    assert statistics.median(last) < GROWTH * statistics.median(first), resident
