"""An S3-compatible server: ranges, whole files, and credentials from the environment only."""

import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
from moto.moto_server.threaded_moto_server import ThreadedMotoServer

from resnets.data.remote import RemoteFolder, lock
from resnets.data.remote.connections import _disconnect
from resnets.data.remote.failures import RemoteError
from resnets.data.remote.lock import locked_remotely
from resnets.errors import FolderInUse
from resnets.locks import LOCK
from tests.data.remote.conftest import (
    CONTENT,
    QUICK,
    bytes_at,
    check_files_and_ranges,
    check_one_at_a_time,
    check_shards,
    check_taken_over,
    place,
)

SECRET = "neverToBePrinted"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(
    endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[RemoteFolder]:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket="photos")
    patience = replace(QUICK, seconds=30.0)  # the first request loads the library's descriptions
    yield RemoteFolder("s3://photos/some shards", at_first=patience, patience=patience)
    _disconnect()


def test_files_and_ranges(bucket: RemoteFolder, tmp_path: Path) -> None:
    check_files_and_ranges(bucket, tmp_path)
    with pytest.raises(RemoteError, match=r"s3://photos/some shards/b\.tar, bytes 0 to 8: no such"):
        bucket.read(place(0, 9, "b.tar"))
    with pytest.raises(RemoteError, match="no such bucket"):
        RemoteFolder("s3://other-photos", at_first=QUICK).write_bytes("a", b"")


def test_shards_are_written_to_a_bucket_and_read_from_it(bucket: RemoteFolder) -> None:
    bucket = replace(bucket, address="s3://photos/digits")  # where no other test has files
    check_shards(bucket)


def test_a_public_bucket_needs_no_credentials(
    bucket: RemoteFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
    key = "some shards/a.tar"
    own.put_object(Bucket="photos", Key=key, Body=CONTENT, ACL="public-read")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    assert bucket.read(place(5, 10)) == CONTENT[5:15]


@pytest.mark.usefixtures("quick_locks")
def test_one_process_at_a_time_writes_shards_into_a_bucket(bucket: RemoteFolder) -> None:
    check_one_at_a_time(replace(bucket, address="s3://photos/one at a time"))


@pytest.mark.usefixtures("quick_locks")
def test_the_lock_of_a_process_that_was_killed_is_taken_over(
    bucket: RemoteFolder, capfd: pytest.CaptureFixture[str]
) -> None:
    check_taken_over(replace(bucket, address="s3://photos/killed"))
    assert "123 on elsewhere" in capfd.readouterr().err


@pytest.mark.usefixtures("quick_locks")
def test_a_process_of_another_container_with_the_same_name_is_alive(
    bucket: RemoteFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a listing of the folder is older than its lock."""
    monkeypatch.setattr(lock, "_BOTH", 0.05)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    bucket = replace(bucket, address="s3://photos/containers")
    bucket.write_bytes("a.tar", b"")
    assert bucket.names() == ["a.tar"]
    begun, stop = threading.Event(), threading.Event()
    other = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])

    def sign(number: int = 0) -> None:
        content = f"{ended.pid} on {platform.node()}\nabc\n{number}".encode()
        other.put_object(Bucket="photos", Key=f"containers/{LOCK}", Body=content)
        begun.set()
        if not stop.wait(0.3):
            sign(number + 1)

    with ThreadPoolExecutor(1) as threads:
        signs = threads.submit(sign)
        try:
            assert begun.wait(20)
            with pytest.raises(FolderInUse), locked_remotely(bucket):
                pass
        finally:
            stop.set()
        signs.result()
    assert b"abc" in bucket.content(LOCK)
    assert bucket.names() == [LOCK, "a.tar"]
    other.put_object(Bucket="photos", Key="containers/b.tar", Body=b"")
    assert bucket.names() == [LOCK, "a.tar", "b.tar"]


@pytest.mark.usefixtures("quick_locks")
def test_an_interrupt_at_the_begin_leaves_no_lock(
    bucket: RemoteFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = replace(bucket, address="s3://photos/interrupted")

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(time, "sleep", interrupt)
        with pytest.raises(KeyboardInterrupt), locked_remotely(bucket):
            pass
    assert bucket.names() == []


def test_a_lock_that_another_process_took_over_stays(bucket: RemoteFolder) -> None:
    bucket = replace(bucket, address="s3://photos/taken over")
    with locked_remotely(bucket):
        bucket.write_bytes(LOCK, b"123 on elsewhere\nabc\n")
    assert bucket.names() == [LOCK]


class _FaultyProxy(ThreadingHTTPServer):
    """Stands before an S3 server; the next requests for an object are answered with a fault.

    Attributes:
        behind: host and port of the server.
        faults: the next first; "" for a right answer.
    """

    daemon_threads = True

    def __init__(self, endpoint: str) -> None:
        super().__init__(("127.0.0.1", 0), _ThroughProxy)
        self.behind, self.faults = urlsplit(endpoint).netloc, list[str]()


class _ThroughProxy(BaseHTTPRequestHandler):
    server: _FaultyProxy
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Print nothing."""

    def do_GET(self) -> None:
        there = HTTPConnection(self.server.behind)
        there.request("GET", self.path, headers=dict(self.headers))
        answer = there.getresponse()
        body, headers = answer.read(), dict(answer.getheaders())
        fault = self.server.faults.pop(0) if self.server.faults else ""
        if fault == "SlowDown":
            body = b"<Error><Code>SlowDown</Code><Message>Reduce your rate.</Message></Error>"
            headers = {"Content-Type": "application/xml"}
        elif fault == "short":
            body = body[:-1]
        elif fault == "wrong":
            body = bytes(255 - byte for byte in body)
        self.send_response_only(503 if fault == "SlowDown" else answer.status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if fault == "cut" else body)
        self.close_connection |= fault == "cut"


@pytest.fixture
def proxy(
    endpoint: str, bucket: RemoteFolder, monkeypatch: pytest.MonkeyPatch
) -> Iterator[_FaultyProxy]:
    bucket.write_bytes("a.tar", CONTENT)
    _disconnect()
    with _FaultyProxy(endpoint) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_address[1]}")
        yield server
        server.shutdown()


@pytest.mark.parametrize("fault", ["SlowDown", "cut", "short", "wrong"])
def test_what_an_s3_server_does_wrong_is_asked_for_again(
    bucket: RemoteFolder, proxy: _FaultyProxy, fault: str
) -> None:
    places = [place(start, 900) for start in (5, 100_000, 200_000)]
    proxy.faults = [fault, fault]
    bucket.expect(places)
    assert [bucket.read(each) for each in places] == [bytes_at(each) for each in places]
    assert not proxy.faults


@pytest.mark.parametrize(
    ("fault", "reason"),
    [("SlowDown", "status 503.*SlowDown"), ("cut", "cut"), ("short", "899 bytes instead of 900")],
)
def test_an_s3_server_that_stays_wrong_is_told_with_the_reason(
    bucket: RemoteFolder, proxy: _FaultyProxy, fault: str, reason: str
) -> None:
    proxy.faults = [fault] * 9
    with pytest.raises(RemoteError, match=f"a.tar, bytes 5 to 904: .*{reason}.*3 attempts"):
        bucket.read(place(5, 900))
    assert len(proxy.faults) == 6
