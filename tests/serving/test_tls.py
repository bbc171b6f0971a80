"""https: the server's own files of TLS, and what is wrong with others."""

import asyncio
import shutil
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.in_process import call
from tests.serving.conftest import image_bytes
from tests.serving.running import running
from tests.serving.test_server import server
from tests.spread import spread

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a certificate of this machine, its key, the same encrypted, and another key."""
    folder = tmp_path_factory.mktemp("pem")
    for name in ("own", "other"):
        subprocess.run(
            f"openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=127.0.0.1 -keyout {name}.key "
            f"-out {name}.pem -addext subjectAltName=IP:127.0.0.1",
            cwd=folder,
            shell=True,
            check=True,
            capture_output=True,
        )
    subprocess.run(
        "openssl pkey -in own.key -aes256 -passout pass:secret -out encrypted.key",
        cwd=folder,
        shell=True,
        check=True,
        capture_output=True,
    )
    parts = [(folder / name).read_bytes() for name in ("own.pem", "own.key")]
    (folder / "both.pem").write_bytes(b"".join(parts))
    return folder


@pytest.mark.parametrize(
    ("certificate", "key", "reason"),
    [
        ("photo.jpg", "photo.jpg", "--tls-certificate"),
        ("own.pem", "photo.jpg", "--tls-key"),
        ("own.key", "own.pem", "--tls-certificate"),
        ("damaged.pem", "own.key", "--tls-certificate"),
        ("own.pem", "damaged.key", "--tls-key"),
        ("own.pem", None, "give --tls-key"),
        ("own.pem", "other.key", "not that of"),
        ("own.pem", "encrypted.key", "encrypted"),
    ],
)
def test_files_that_cannot_be_used_are_named_before_the_server_listens(
    pem: Path, model_file: Path, certificate: str, key: str | None, reason: str
) -> None:
    (pem / "photo.jpg").write_bytes(image_bytes(form="JPEG"))
    for kind in ("pem", "key"):
        lines = (pem / f"own.{kind}").read_text(encoding="utf-8").splitlines()
        (pem / f"damaged.{kind}").write_text("\n".join([*lines[:5], *lines[8:]]), encoding="utf-8")
    more = [] if key is None else ["--tls-key", pem / key]
    done = call("serve", model_file, "--port", "0", "--tls-certificate", pem / certificate, *more)
    assert done.returncode == 2
    at_fault = key if reason in ("--tls-key", "encrypted") else certificate
    assert str(at_fault) in done.stderr
    assert reason in done.stderr
    assert "serving on" not in done.stderr


def test_a_file_that_does_not_exist_is_wrong_usage(pem: Path, model_file: Path) -> None:
    done = call("serve", model_file, "--tls-certificate", pem / "none.pem")
    assert done.returncode == 2
    assert "none.pem" in done.stderr


def test_clients_hint_at_the_other_of_http_and_https(pem: Path) -> None:
    pytest.importorskip("httpx2", reason="the extra serve is not installed")
    from starlette.applications import Starlette

    from resnets.serving import Client, NotReachable, ServerFailed

    options = {"ssl_certfile": pem / "own.pem", "ssl_keyfile": pem / "own.key"}
    with running(Starlette()) as http, running(Starlette(), **options) as https:
        with Client(f"http://{https}") as client, pytest.raises(ServerFailed, match="https://"):
            client.models()
        with Client(f"https://{http}") as client, pytest.raises(NotReachable, match="http://"):
            client.models()


def test_certificates_of_the_environment_that_cannot_be_read_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("httpx2", reason="the extra serve is not installed")
    (tmp_path / "a.png").write_bytes(image_bytes())
    (tmp_path / "damaged.pem").write_text("no certificate", encoding="utf-8")
    for path in (tmp_path / "none.pem", tmp_path / "damaged.pem"):
        monkeypatch.setenv("SSL_CERT_FILE", str(path))
        done = call("predict", "--server", "https://127.0.0.1:9", tmp_path / "a.png")
        assert done.returncode == 2
        assert "SSL_CERT_FILE" in done.stderr
        assert path.name in done.stderr


@pytest.mark.parametrize("asynchronous", [False, True])
def test_clients_trust_the_file_and_the_folder_of_the_environment(
    pem: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asynchronous: bool
) -> None:
    pytest.importorskip("httpx2", reason="the extra serve is not installed")
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    from resnets.serving import AsyncClient, Client, NotReachable

    async def models(_: Request) -> JSONResponse:
        return JSONResponse({"models": ["tiny"]})

    def ask(url: str) -> list[str]:
        if not asynchronous:
            with Client(url) as client:
                return client.models()

        async def asked() -> list[str]:
            async with AsyncClient(url) as client:
                return await client.models()

        return asyncio.run(asked())

    words = ["openssl", "x509", "-noout", "-hash", "-in", pem / "own.pem"]
    digest = subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()
    shutil.copy(pem / "own.pem", tmp_path / f"{digest}.0")  # as `openssl rehash` calls it
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    options = {"ssl_certfile": pem / "own.pem", "ssl_keyfile": pem / "own.key"}
    with running(Starlette(routes=[Route("/v2", models)]), **options) as address:
        for variable, right, wrong in (
            ("SSL_CERT_FILE", pem / "own.pem", pem / "other.pem"),
            ("SSL_CERT_DIR", tmp_path, pem),
        ):
            with monkeypatch.context() as environment:
                environment.setenv(variable, str(right))
                assert ask(f"https://{address}") == ["tiny"]
                environment.setenv(variable, str(wrong))
                with pytest.raises(NotReachable, match=f"not trusted.*{variable}"):
                    ask(f"https://{address}")
        with pytest.raises(NotReachable, match=r"not trusted.*SSL_CERT_FILE"):
            ask(f"https://{address}")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="SIGTERM ends a process there")
@pytest.mark.parametrize("files", spread([("both.pem",), ("own.pem", "own.key")], one_value=True))
def test_images_are_answered_over_https(
    pem: Path,
    model_file: Path,
    files: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    flags = ["--tls-certificate", str(pem / files[0])]
    flags += ["--tls-key", str(pem / files[1])] if len(files) > 1 else []
    with server(model_file, *flags) as (_, address):
        assert address.startswith("https://")
        trusting = ssl.create_default_context(cafile=str(pem / "own.pem"))
        request = urllib.request.Request(f"{address}/predict", image_bytes())
        with urllib.request.urlopen(request, timeout=60, context=trusting) as response:
            assert response.status == 200
        with pytest.raises(urllib.error.URLError, match="CERTIFICATE"):
            urllib.request.urlopen(request, timeout=60)
        pytest.importorskip("httpx2", reason="the extra serve is not installed")
        (tmp_path / "a.png").write_bytes(image_bytes())
        done = call("predict", "--server", address, tmp_path / "a.png")
        assert done.returncode == 1
        assert "SSL_CERT_FILE" in done.stderr
        monkeypatch.setenv("SSL_CERT_FILE", str(pem / "own.pem"))
        assert call("predict", "--server", address, tmp_path / "a.png").returncode == 0
