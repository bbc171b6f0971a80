"""Keys and certificates that change while the server runs are used as they are then."""

import json
import shutil
import socket
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette", reason="the extra serve is not installed")

from resnets.serving.access import Access, Keys, Rate
from resnets.serving.credentials import Watched
from tests.serving.test_workers import address_after, two_workers, until

Serving = Callable[..., Any]
OLD, NEW = "the-old-key-of-all", "the-new-key-of-all"


def put(path: Path, content: str | bytes) -> None:
    """Write a file beside another, and let it take the place of that, as certbot does."""
    beside = path.with_name(f"{path.name}.new")
    beside.write_bytes(content.encode() if isinstance(content, str) else content)
    beside.replace(path)


def test_a_key_that_is_taken_out_of_the_file_is_refused_soon(
    serving: Serving, tmp_path: Path
) -> None:
    file = tmp_path / "keys"
    put(file, OLD)
    rate = Rate(1000.0)
    client = serving(access=Access(keys=Keys.of_file(file), rate=rate))

    def statuses() -> list[int]:
        sent = [{"X-API-Key": key} for key in (OLD, NEW)]
        return [client.get("/model", headers=headers).status_code for headers in sent]

    assert statuses() == [200, 401]
    put(file, NEW)
    until(lambda: statuses() == [401, 200])
    assert client.app.state.server.access.rate is rate  # what callers have used up stays


def test_keys_that_changed_before_the_server_served_are_used_at_once(
    serving: Serving, tmp_path: Path
) -> None:
    put(tmp_path / "keys", OLD)
    access = Access(keys=Keys.of_file(tmp_path / "keys"))
    put(tmp_path / "keys", NEW)
    client = serving(access=access)
    assert client.get("/model", headers={"X-API-Key": OLD}).status_code == 401
    assert client.get("/model", headers={"X-API-Key": NEW}).status_code == 200


def test_what_cannot_be_used_is_told_once_and_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "resnets.serving")
    file = tmp_path / "keys"
    used: list[Keys] = []
    put(file, OLD)

    def read() -> tuple[bytes, Keys]:
        keys = Keys.of_file(file)
        return keys.digests[0], keys

    keys = Watched((file,), read, used.append, read()[0])

    def events(*, again: bool = False) -> list[str]:
        caplog.clear()
        for _ in range(2):
            keys.look(again=again)
        lines = [json.loads(record.message) for record in caplog.records]
        assert all(str(file) in line["file"] for line in lines)
        return [line["event"] for line in lines]

    assert events() == []
    for content in ("short", b"\x91" * 32, None):
        if content is None:
            file.unlink()
        else:
            put(file, content)
        assert events() == ["changed file not used"]
    assert events(again=True) == ["changed file not used"] * 2
    put(file, OLD)
    assert (events(), used) == ([], [])
    put(file, NEW)
    assert events() == ["changed file used"]
    assert len(used) == 1
    assert events(again=True) == []


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with certificates of this machine and their keys: old of RSA, new of ECDSA."""
    folder = tmp_path_factory.mktemp("pem")
    kinds = {"old": "rsa:2048", "new": "ec -pkeyopt ec_paramgen_curve:prime256v1"}
    for name, kind in kinds.items():
        subprocess.run(
            f"openssl req -x509 -newkey {kind} -nodes -subj /CN=127.0.0.1 -keyout {name}.key "
            f"-out {name}.pem -addext subjectAltName=IP:127.0.0.1",
            cwd=folder,
            shell=True,
            check=True,
            capture_output=True,
        )
    return folder


def shown(port: int, name: str | None) -> str:
    """The certificate, in PEM, that a new connection is shown which names a server, or none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", port), timeout=60) as plain,
        context.wrap_socket(plain, server_hostname=name) as connection,
    ):
        return ssl.DER_cert_to_PEM_cert(connection.getpeercert(binary_form=True) or b"")


def lines_until(lines: Iterator[str], event: str, count: int) -> list[dict[str, Any]]:
    """The lines of the log with an event, as many as are wanted, which may be of any process."""
    every = (json.loads(line) for line in lines)
    these = (line for line in every if line["event"] == event)
    return [next(these) for _ in range(count)]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no port can be shared there")
@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_every_process_shows_a_renewed_certificate_and_knows_the_new_keys(
    pem: Path, tmp_path: Path
) -> None:
    certificate, key, keys = (tmp_path / name for name in ("live.pem", "live.key", "keys"))
    put(certificate, (pem / "old.pem").read_bytes())
    put(key, (pem / "old.key").read_bytes())
    put(keys, OLD)
    flags = ["--tls-certificate", str(certificate), "--tls-key", str(key), "--api-key", str(keys)]
    trust_all = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trust_all.check_hostname, trust_all.verify_mode = False, ssl.CERT_NONE

    def statuses(port: int, sent: str) -> set[int]:
        """Of several connections, which come to both processes."""
        seen = set()
        for _ in range(12):
            url = f"https://127.0.0.1:{port}/model"
            request = urllib.request.Request(url, headers={"X-API-Key": sent})
            try:
                with urllib.request.urlopen(request, timeout=60, context=trust_all) as response:
                    seen.add(response.status)
            except urllib.error.HTTPError as error:
                with error:
                    seen.add(error.code)
        return seen

    with two_workers(*flags, "--no-access-log") as (process, lines):
        address, _ = address_after(lines)
        port = int(address.rpartition(":")[2])
        assert shown(port, None) == (pem / "old.pem").read_text(encoding="utf-8")
        put(key, (pem / "new.key").read_bytes())  # the first of the two files
        failed = lines_until(lines, "changed file not used", 2)
        assert all("not that of" in line["reason"] for line in failed)
        assert shown(port, "localhost") == (pem / "old.pem").read_text(encoding="utf-8")
        put(certificate, (pem / "new.pem").read_bytes())
        lines_until(lines, "changed file used", 2)
        new = (pem / "new.pem").read_text(encoding="utf-8")
        assert {shown(port, name) for name in (None, "localhost") * 6} == {new}
        assert statuses(port, OLD) == {200}
        put(keys, NEW)
        lines_until(lines, "changed file used", 2)
        assert [statuses(port, OLD), statuses(port, NEW)] == [{401}, {200}]
        process.terminate()
        assert process.wait(60) == 0
