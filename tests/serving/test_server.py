"""The command as a real process: it answers, and ends in order when it is told to stop."""

import contextlib
import http.client
import itertools
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from resnets.serving.readiness import tell_ready
from tests.in_process import call
from tests.serving.conftest import image_bytes
from tests.spread import spread

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="SIGTERM ends a process there")


@contextmanager
def server(model_file: Path, *options: str) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """A server as a process, and its address."""
    pytest.importorskip("uvicorn", reason="the extra serve is not installed")
    command = [sys.executable, "-m", "resnets", "serve", str(model_file), "--port", "0"]
    with subprocess.Popen(
        [*command, "--max-batch", "2", "--engine", "torch", *options],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    ) as process:
        try:
            assert process.stderr is not None
            lines = iter(process.stderr.readline, "")
            yield (
                process,
                next(match[0] for line in lines if (match := re.search(r"https?://\S+", line))),
            )
        finally:
            process.kill()


def status_of(address: str, body: bytes | None = None) -> int:
    """The status of the response to a request."""
    try:
        with urllib.request.urlopen(urllib.request.Request(address, body), timeout=60) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_the_words_of_the_readme_answer_a_photo(
    shared: Callable[[str], Path], tmp_path: Path
) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    (lines,) = re.findall(r"```\n(resnets serve .*\ncurl .*\n)```", readme)
    serve, ask = (shlex.split(line, comments=True) for line in lines.splitlines())
    shutil.copy(shared("photos/n01558993_robin.JPEG"), tmp_path / "photo.jpg")
    with server(Path(serve[2])) as (_, address):
        ask[-1] = ask[-1].replace("http://127.0.0.1:8000", address)
        ended = subprocess.run([*ask, "--fail"], cwd=tmp_path, capture_output=True, check=False)
    assert serve[:2] == ["resnets", "serve"]
    (prediction,) = json.loads(ended.stdout)["predictions"]
    assert prediction["prediction"] == "bird"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_event_loop_is_that_of_uvloop_where_it_is_installed(model_file: Path) -> None:
    pytest.importorskip("uvloop")
    with server(model_file) as (process, address):
        assert status_of(f"{address}/predict", image_bytes()) == 200
        maps = Path(f"/proc/{process.pid}/maps").read_text(encoding="utf-8")
    assert re.search(r"/uvloop/loop\.\S+\.so", maps)


@pytest.mark.slow
@pytest.mark.parametrize("options", spread([[], ["--workers", "2"]]))
def test_systemd_is_told_once_that_the_server_is_ready(
    model_file: Path, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,  # the paths of sockets must be short
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
    ):
        address = f"{folder}/notify"
        if options and sys.platform == "linux":
            address = f"@resnets-{os.getpid()}"
        manager.bind(address.replace("@", "\0"))
        manager.settimeout(120)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        with server(model_file, *options) as (process, url):
            assert manager.recv(100) == b"READY=1"
            assert status_of(f"{url}/v2/health/ready") == 200
            process.terminate()
            assert process.wait(60) == 0
        manager.setblocking(False)
        with pytest.raises(BlockingIOError):
            manager.recv(100)


@pytest.mark.parametrize("address", ["", "notify", "/nowhere/notify", "@resnets-nobody"])
def test_a_manager_that_cannot_be_told_keeps_no_server_from_serving(
    address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tell_ready({"NOTIFY_SOCKET": address})
    assert bool(capsys.readouterr().err) == (address[:1] in ("/", "@") and bool(address))


@contextmanager
def in_flight(address: str) -> Iterator[tuple[socket.socket, bytes]]:
    """A request whose last bytes, which come with it, were not sent yet."""
    parts, image = urlsplit(address), image_bytes()
    head = f"POST /predict HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Length: {len(image)}\r\n\r\n"
    with closing(socket.create_connection((parts.hostname, parts.port), timeout=60)) as client:
        client.sendall(head.encode() + image[:50])
        assert status_of(f"{address}/v2/health/ready") == 200  # a round trip: it has arrived
        yield client, image[50:]


def test_a_port_in_use_is_found_before_a_model_is_opened(
    model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from resnets.serving import serving

    calls: list[Any] = []
    monkeypatch.setattr(serving, "open_served", lambda *words, **_: calls.append(words))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = call("serve", model_file, "--port", str(taken.getsockname()[1]))
    assert result.returncode == 2
    assert "--port 0" in result.stderr
    assert not calls


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--workers", "2"]])
def test_sigterm_before_the_server_is_ready_ends_it_quietly_with_0(
    model_file: Path, options: list[str]
) -> None:
    pytest.importorskip("uvicorn", reason="the extra serve is not installed")
    begun = "import sys, time, resnets.serving.serving as s; "
    begun += "s.open_served = lambda *_, **__: (print('opens', flush=True), time.sleep(60)); "
    begun += "from resnets.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", begun] if not options else [sys.executable, "-m", "resnets"]
    command += ["serve", str(model_file), "--port", "0", *options]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        line = (process.stderr if options else process.stdout).readline()
        assert b"worker started" in line or b"opens" in line
        os.killpg(process.pid, signal.SIGTERM)  # as systemd does
        printed = process.stderr.read()
    assert process.returncode == 0
    assert all(json.loads(line)["event"] == "worker started" for line in printed.splitlines())


# A server whose second load of a file, and whatever `explain` needs, lasts longer than the test.
SLOW = """
import sys, time
import resnets.serving.explaining as explaining, resnets.serving.served_model as served_model
opened = served_model.open_served
def slowly(*arguments, **keywords):
    if "before" in keywords or explaining._network_of is arguments[-1]:
        print("loads", flush=True)
        time.sleep(300)
    return opened(*arguments, **keywords)
served_model.open_served = slowly
explaining._network_of = lambda _: slowly(explaining._network_of)
import resnets.serving.serving as serving
serving.open_served = slowly
from resnets.cli import main
sys.exit(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "loads", spread(["/v2/repository/models/tiny/load", "/predict?explain=1", "file"])
)
def test_sigterm_while_a_model_is_loaded_ends_the_server_within_grace(
    model_file: Path, tmp_path: Path, loads: str
) -> None:
    pytest.importorskip("uvicorn", reason="the extra serve is not installed")

    def ask(address: str) -> None:
        with contextlib.suppress(OSError, http.client.HTTPException):  # it gets no answer
            status_of(address, b"{}" if loads.endswith("/load") else image_bytes())

    file = Path(shutil.copy(model_file, tmp_path / "tiny.safetensors"))
    words = ["serve", str(file), "--port", "0", "--grace", "1", "--control", "--engine", "torch"]
    with subprocess.Popen(
        [sys.executable, "-c", SLOW, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            lines = iter(process.stderr.readline, "")
            address = next(match[0] for x in lines if (match := re.search(r"http://\S+", x)))
            if loads == "file":
                (tmp_path / "new").write_bytes(b"another file")
                (tmp_path / "new").replace(file)
            else:
                threading.Thread(target=ask, args=[address + loads], daemon=True).start()
            assert process.stdout.readline() == "loads\n"
            process.terminate()
            assert process.wait(60) == 0
            assert "Traceback" not in process.stderr.read()
        finally:
            process.kill()


@pytest.mark.soak
@pytest.mark.parametrize("workers", ["1", "2"])
def test_why_torch_computes_is_told_once_and_not_where_it_was_asked_for(
    model_file: Path, workers: str
) -> None:
    command = [sys.executable, "-m", "resnets", "serve", str(model_file), "--port", "0"]
    command += ["--max-batch", "1", "--workers", workers]
    hints = []
    for engine in ("auto", "torch"):
        words = [*command, "--engine", engine]
        with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            lines = list(itertools.takewhile(lambda x: "serving on" not in x, process.stderr))
            process.terminate()
            process.wait(60)
        hints.append(sum("resnets export" in line for line in lines))
    assert hints == [1, 0]


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_an_address_of_another_machine_is_told_from_a_port_in_use(
    model_file: Path, host: str
) -> None:
    result = call("serve", model_file, "--host", host)
    assert result.returncode == 2
    assert "127.0.0.1" in result.stderr
    assert "--port 0" not in result.stderr


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["{model}", "{copy}"], "two models"),
        (["{model}", "nothing.onnx"], "nothing.onnx"),
        (["{model}", "--shadow", "nothing.onnx"], "nothing.onnx"),
        (["{model}", "--collect", "{model}"], "{model}"),
    ],
)
def test_what_is_wrong_is_told_before_a_model_is_opened(
    model_file: Path, tmp_path: Path, words: list[str], reason: str
) -> None:
    copy = tmp_path / model_file.parent.name / model_file.name
    copy.parent.mkdir()
    shutil.copy(model_file, copy)
    places = {"model": model_file, "copy": copy}
    for more in ([], ["--workers", "2"]):
        if "--collect" in words and more:  # not for several
            continue
        result = call("serve", "--port", "0", *more, *(word.format(**places) for word in words))
        assert result.returncode == 2
        assert reason.format(**places) in result.stderr
        assert "batches" not in result.stderr  # which is told of each model that was opened
        assert "worker started" not in result.stderr


@pytest.mark.parametrize(
    ("host", "family"), [("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("127.0.0.1", "127.0.0.1")]
)
def test_the_address_that_is_told_can_be_opened(host: str, family: str) -> None:
    from resnets.serving.server import address_of, listening
    from resnets.serving.settings import Settings

    if ":" in host and not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    with listening(Settings(host=host, port=0)) as listener:
        parts = urlsplit(address_of(listener))
        assert parts.netloc.rpartition(":")[0] == family
        assert parts.hostname is not None
        socket.create_connection((parts.hostname, parts.port), timeout=10).close()


@pytest.mark.parametrize(
    ("size", "bytes_"), [("20MB", 20_000_000), ("1.5 GiB", 3 << 29), ("7", 7 << 20)]
)
def test_a_largest_body_is_written_as_sizes_are_elsewhere(
    model_file: Path, monkeypatch: pytest.MonkeyPatch, size: str, bytes_: int
) -> None:
    from resnets.serving.serving import Serving

    limits: list[int] = []
    monkeypatch.setattr(
        Serving, "in_this_process", lambda self, _: limits.append(self.settings.max_body)
    )
    assert call("serve", model_file, "--max-body", size).returncode == 0
    assert limits == [bytes_]
    refused = call("serve", model_file, "--max-body", f"-{size}")
    assert refused.returncode == 2
    assert "--max-body" in refused.stderr


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_server_whose_standard_error_has_no_room_serves(model_file: Path) -> None:
    pytest.importorskip("uvicorn", reason="the extra serve is not installed")
    from resnets.serving.server import listening
    from resnets.serving.settings import Settings

    with listening(Settings(port=0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "resnets", "serve", str(model_file), "--port", str(port)]
    command += ["--max-batch", "1", "--engine", "torch", "--host", "0.0.0.0"]  # which is warned of
    with Path("/dev/full").open("wb") as full, subprocess.Popen(command, stderr=full) as process:
        try:
            status, end = 0, time.monotonic() + 60
            while status != 200 and process.poll() is None and time.monotonic() < end:
                with contextlib.suppress(OSError):
                    status = status_of(f"http://127.0.0.1:{port}/predict", image_bytes())
                time.sleep(0.05)
            assert status == 200
            process.terminate()
            assert process.wait(60) == 0
        finally:
            process.kill()


@pytest.mark.slow
@pytest.mark.parametrize("stop", spread([signal.SIGTERM, signal.SIGINT]))
def test_what_is_in_flight_is_finished_and_nothing_else_is_begun(
    model_file: Path, stop: int
) -> None:
    with server(model_file) as (process, address), in_flight(address) as (client, rest):
        process.send_signal(signal.SIGHUP)  # asks for changed files, and ends nothing
        assert status_of(f"{address}/predict", image_bytes()) == 200
        process.send_signal(stop)
        assert status_of(f"{address}/v2/health/ready") == 503
        assert status_of(f"{address}/v2/health/live") == 200
        assert status_of(f"{address}/predict", image_bytes()) == 503
        client.sendall(rest)
        assert client.recv(12) == b"HTTP/1.1 200"
        assert process.wait(60) == 0


@pytest.mark.slow
@pytest.mark.parametrize("workers", spread(["1", "2"]))
def test_who_has_connected_before_the_port_is_closed_gets_an_answer(
    model_file: Path, workers: str
) -> None:
    # A client that has connected has 0.2 seconds to send its request. On a busy machine some need
    # longer, but not every time.
    assert any(refused_at_the_end(model_file, workers) >= 7 for _ in range(3))


def refused_at_the_end(model_file: Path, workers: str) -> int:
    """How many of 8 clients that ask until a server ends are refused then; others lose a request.

    One may come between the last look at the port and its end.
    """
    ends: list[OSError] = []
    counts = [0] * 8
    all_answered = threading.Event()

    def ask(number: int, port: int) -> None:
        """Ask again and again, on a new connection where the last one was closed."""
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            while True:
                client.request("POST", "/predict", image_bytes())
                client.getresponse().read()
                counts[number] += 1
                if min(counts) > 1:
                    all_answered.set()
        except OSError as error:
            ends.append(error)
        finally:
            client.close()

    with server(model_file, "--workers", workers, "--no-access-log") as (process, address):
        port = int(address.rpartition(":")[2])
        clients = [threading.Thread(target=ask, args=(n, port), daemon=True) for n in range(8)]
        for client in clients:
            client.start()
        assert all_answered.wait(60)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        for client in clients:
            client.join(60)
    assert len(ends) == 8
    return sum(isinstance(error, ConnectionRefusedError) for error in ends)


@pytest.mark.soak
def test_one_server_collects_in_a_folder_and_leaves_nothing_in_it(
    model_file: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "new" / "labels"
    with server(model_file, "--collect", str(folder)) as (process, address):
        other = call("serve", model_file, "--port", "0", "--collect", folder)
        assert other.returncode == 2
        assert str(process.pid) in other.stderr
        assert str(folder) in other.stderr
        assert status_of(f"{address}/collect?label=cat", image_bytes()) == 201
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert {path.name for path in folder.iterdir()} == {"cat", "labels.jsonl"}
    with server(model_file, "--collect", str(folder)) as (_, address):
        assert status_of(f"{address}/v2/health/ready") == 200


@contextmanager
def large_answer(address: str) -> Iterator[socket.socket]:
    """A connection on which some megabytes come, an image of the queue, of which none was read."""
    parts = urlsplit(address)
    assert status_of(f"{address}/predict", image_bytes(1600, "BMP")) == 200
    with urllib.request.urlopen(f"{address}/queue", timeout=60) as response:
        (waiting,) = json.load(response)["images"]
    with closing(socket.socket()) as client:
        client.settimeout(60)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 18)
        client.connect((parts.hostname, parts.port))
        path = f"/queue/{waiting['digest']}"
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode())
        assert client.recv(12) == b"HTTP/1.1 200"
        yield client


@pytest.mark.slow
@pytest.mark.parametrize("reads", spread([False, True]))
def test_who_reads_is_sent_all_of_an_answer_and_who_does_not_keeps_no_server(
    model_file: Path, tmp_path: Path, reads: bool
) -> None:
    options = ("--grace", "600", "--collect", str(tmp_path))
    with (
        server(model_file, *options) as (process, address),
        large_answer(address) as client,
        closing(http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)) as idle,
    ):
        idle.request("GET", "/model")  # as an open page does
        idle.getresponse().read()
        process.send_signal(signal.SIGTERM)
        size = 12
        while reads and (content := client.recv(1 << 18)):
            size += len(content)
            time.sleep(0.1)  # some seconds in all
        assert process.wait(60) == 0
        assert process.stderr is not None
        log = process.stderr.read()
    events = [json.loads(line)["event"] for line in log.splitlines() if line.startswith("{")]
    assert (size > 7_000_000) == reads
    assert [each for each in events if each != "request"][:1] == ["stopping"]
    assert ("answer not read" in events) == (not reads)


@pytest.mark.slow
def test_what_outlasts_the_grace_period_is_given_up(model_file: Path) -> None:
    with server(model_file, "--grace", "0.5") as (process, address), in_flight(address):
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert process.stderr is not None
        log = process.stderr.read()
    assert "--grace" in log
    assert "Traceback" not in log


@pytest.mark.slow
def test_a_second_interrupt_ends_at_once(model_file: Path) -> None:
    with server(model_file, "--grace", "600") as (process, address), in_flight(address):
        process.send_signal(signal.SIGINT)
        assert status_of(f"{address}/v2/health/ready") == 503
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
