"""Whatever comes on a connection, the client, the log and the metrics get the same status."""

import contextlib
import json
import shutil
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

pytest.importorskip("uvicorn", reason="the extra serve is not installed")

from resnets.serving.app import create_app
from resnets.serving.connections import Connection
from resnets.serving.served_model import open_served
from resnets.serving.settings import Settings
from tests.serving.conftest import image_bytes
from tests.serving.running import running

POST = b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
TO_HTTP_2 = (  # what curl and Java send
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
)
JAVA = """
import java.net.URI;
import java.net.http.*;
import java.nio.file.Path;
public class Post {
    public static void main(String[] arguments) throws Exception {
        var client = HttpClient.newHttpClient();
        for (int n = 0; n < 2; n++) {
            var body = HttpRequest.BodyPublishers.ofFile(Path.of(arguments[1]));
            var request = HttpRequest.newBuilder(URI.create(arguments[0])).POST(body).build();
            System.out.println(client.send(request, HttpResponse.BodyHandlers.ofString()).body());
        }
    }
}
"""


@pytest.fixture(scope="module")
def app(model_file: Path) -> Any:
    """The application."""
    model = open_served(model_file, name="tiny", engine="torch", max_batch=4)
    return create_app({"tiny": model}, Settings(timeout=20.0))


@pytest.fixture(scope="module")
def address(app: Any) -> Iterator[str]:
    """A server on a port of this machine."""
    with running(app) as address:
        yield address


def replies(address: str, *parts: bytes, count: int = 1) -> list[tuple[int, Any]]:
    """Status and JSON of the next replies on a connection to which some bytes are sent."""
    host, _, port = address.rpartition(":")
    read = []
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        with contextlib.suppress(ConnectionError):  # the server may not read all
            for part in parts:
                connection.sendall(part)
        with connection.makefile("rb") as lines:
            for _ in range(count):
                status, length = int(lines.readline().split()[1]), 0
                while line := lines.readline().strip().lower():
                    if line.startswith(b"content-length:"):
                        length = int(line.split()[1])
                read.append((status, json.loads(lines.read(length))))
    return read


def in_chunks(body: bytes, size: int) -> bytes:
    """A body in chunks of a size."""
    parts = [body[place : place + size] for place in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in [*parts, b""])


@pytest.mark.parametrize("size", [1, 2, 70_000])
def test_a_body_may_come_in_chunks_of_any_size(address: str, size: int) -> None:
    body = image_bytes(200, "BMP")
    ((status, whole),) = replies(address, POST + b"Content-Length: %d\r\n\r\n" % len(body), body)
    ((same, answer),) = replies(address, CHUNKED, in_chunks(body, size))
    assert (status, same) == (200, 200)
    assert answer == whole


EXTENSIONS = (b"1;" + b"a" * 1000 + b"\r\nx\r\n") * 90
DAMAGED = {
    "headers": ([POST, b"a: b\r\n" * 20_000], 431, "the headers"),
    "headers at once": ([POST + b"a: " + b"a" * 100_000 + b"\r\n\r\n"], 431, "the headers"),
    "headers beside a wish": (
        [POST + TO_HTTP_2 + b"a: " + b"a" * 100_000 + b"\r\n\r\n"],
        431,
        "the headers",
    ),
    "path beside a wish": ([b"GET http://[ HTTP/1.1\r\n" + TO_HTTP_2 + b"\r\n"], 400, "path"),
    "extensions": ([CHUNKED, EXTENSIONS], 431, "chunks"),
    "trailers": ([CHUNKED + b"1\r\nx\r\n0\r\n", b"a: b\r\n" * 20_000], 431, "trailers"),
    "chunk": ([CHUNKED + b"1\r\nx\r\nzz"], 400, "chunk"),
    "no HTTP": ([b"\0" * 100], 400, "HTTP"),
    "path": ([b"GET http://[ HTTP/1.1\r\n\r\n"], 400, "path"),
    "two hosts": ([b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nhost: a.example\r\n\r\n"], 400, "Host"),
    "tunnel": ([b"CONNECT 127.0.0.1:80 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"], 501, "proxy"),
}


@pytest.mark.parametrize(("parts", "status", "word"), DAMAGED.values(), ids=DAMAGED)
def test_what_is_refused_has_its_status_also_in_log_and_metrics(
    address: str,
    caplog: pytest.LogCaptureFixture,
    parts: list[bytes],
    status: int,
    word: str,
) -> None:
    caplog.set_level("INFO", "resnets.serving")
    before = counted(address)
    caplog.clear()
    ((answered, reply),) = replies(address, *parts)
    assert answered == status
    assert word in reply["error"]
    end = time.monotonic() + 20
    while not (new := counted(address) - before) and time.monotonic() < end:
        time.sleep(0.01)  # it is counted after the answer
    assert new == Counter({str(status): 1})
    logged = [json.loads(each.getMessage()) for each in caplog.records]
    assert [each["status"] for each in logged if each["path"] != "/metrics"] == [status]


def test_who_sends_many_requests_and_goes_without_reading_is_no_fault(
    address: str, caplog: pytest.LogCaptureFixture
) -> None:
    """uvicorn tells the last request that was sent of it, and not the one that is answered."""
    host, _, port = address.rpartition(":")
    before = counted(address)
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        connection.connect((host, int(port)))
        connection.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 60)
        end = time.monotonic() + 20
        answered = 0
        while time.monotonic() < end:  # until nothing more can be sent
            time.sleep(0.2)
            if answered == (answered := sum((counted(address) - before).values())) > 0:
                break
        assert 0 < answered < 60
    time.sleep(0.5)
    assert "Traceback" not in caplog.text
    assert not [each for each in caplog.records if each.levelname == "ERROR"]


def test_head_of_a_path_that_cannot_be_read_gets_no_body(address: str) -> None:
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall("HEAD /é HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        with connection.makefile("rb") as lines:
            reply = lines.read()
    assert reply.startswith(b"HTTP/1.1 400 ")
    assert reply.endswith(b"\r\n\r\n")


def test_a_fault_of_this_program_is_not_called_the_clients(
    address: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise LookupError("a fault")

    monkeypatch.setattr(Connection, "on_body", broken)
    ((status, reply),) = replies(address, POST + b"Content-Length: 3\r\n\r\nabc")
    assert status == 500
    assert "LookupError" in reply["error"]
    assert "LookupError: a fault" in caplog.text


def counted(address: str) -> Counter[str]:
    """How many requests the metrics count, by status, beside those for metrics."""
    counts = Counter[str]()
    with urlopen(f"http://{address}/metrics") as response:
        text = response.read().decode()
    for line in text.splitlines():
        if line.startswith("resnets_requests_total{") and '"/metrics"' not in line:
            status = line.partition('status="')[2].partition('"')[0]
            counts[status] += int(float(line.split()[-1]))
    return counts


def test_trailers_are_no_headers(address: str) -> None:
    """They could bring what a proxy in between takes out of the headers (RFC 9110, 6.5.1)."""
    start = b"POST /predict HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    body = in_chunks(image_bytes(), 100).removesuffix(b"\r\n")
    ((status, _),) = replies(address, start + body + b"Host: 127.0.0.1\r\n\r\n")
    assert status == 403


@pytest.mark.parametrize("place", ["http://127.0.0.1", "http://127.0.0.1/v2/health/live"])
def test_a_whole_url_is_taken_as_proxies_send_it(address: str, place: str) -> None:
    """RFC 9112, 3.2.2."""
    ((status, reply),) = replies(
        address, f"PUT {place} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    )
    assert (status, "GET" in reply["error"]) == (405, True)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_wish_for_http_2_is_as_if_it_were_not_there(address: str, chunked: bool) -> None:
    """RFC 9110, 7.8. Headers and body come in one piece, in two, and request after request."""
    body = image_bytes(200, "BMP")
    length = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % len(body)
    plain, wish = POST + length + b"\r\n\r\n", POST + TO_HTTP_2 + length + b"\r\n\r\n"
    sent = in_chunks(body, 1000) if chunked else body
    ((_, expected),) = replies(address, plain + sent)
    assert "error" not in expected
    assert replies(address, wish + sent) == [(200, expected)]
    assert replies(address, wish[:90], wish[90:], sent) == [(200, expected)]
    both = replies(address, wish + sent + wish + sent + plain + sent, count=3)
    assert both == [(200, expected)] * 3


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_curl_that_wishes_for_http_2_is_answered(address: str, tmp_path: Path) -> None:
    file = tmp_path / "image.bmp"
    file.write_bytes(image_bytes(200, "BMP"))
    options = ["--silent", "--http2", "--data-binary", f"@{file}", "--max-time", "20"]
    twice = [f"http://{address}/predict"] * 2  # over one connection
    ended = subprocess.run(["curl", *options, *twice], capture_output=True, text=True, check=True)
    assert ended.stdout.count('"predictions"') == 2, ended.stdout


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("javac"), reason="no Java to compile with is installed")
def test_java_that_wishes_for_http_2_is_answered(address: str, tmp_path: Path) -> None:
    (tmp_path / "Post.java").write_text(JAVA, encoding="utf-8")
    file = tmp_path / "image.bmp"
    file.write_bytes(image_bytes(200, "BMP"))
    command = ["java", "Post.java", f"http://{address}/predict", str(file)]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert ended.stdout.count('"predictions"') == 2, ended.stdout + ended.stderr
