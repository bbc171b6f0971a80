"""Behind a proxy: the lines of the documentation in nginx itself, and what goes wrong without."""

import http.client
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import create_server
from typing import Any

import pytest

pytest.importorskip("starlette", reason="the extra serve is not installed")

from resnets.serving.access import Access
from resnets.serving.app import create_app
from resnets.serving.served_model import open_served
from resnets.serving.settings import Settings
from tests.serving.conftest import image_bytes
from tests.serving.running import running

Serving = Callable[..., Any]
GUIDE = Path(__file__).parents[2] / "docs/how-to/serve.md"
NGINX = shutil.which("nginx")
CONFIGURATION = """
daemon off; master_process off; pid {folder}/pid; error_log stderr;
events {{ }}
http {{
    access_log off; client_body_temp_path {folder}/bodies; proxy_temp_path {folder}/answers;
    fastcgi_temp_path {folder}/1; uwsgi_temp_path {folder}/2; scgi_temp_path {folder}/3;
    server {{ listen 127.0.0.1:{port}; {lines} }}
}}
"""
HOST = "photos.example.org:8443"  # what browsers ask for


@contextmanager
def proxied(address: str, folder: Path, *, without: str = "") -> Iterator[int]:
    """The port of nginx before a server, by the lines of the documentation, some left out."""
    (lines,) = re.findall(r"```nginx\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    assert without in lines
    lines = lines.replace("127.0.0.1:8000", address).replace(without, "")
    with create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    file = folder / "nginx.conf"
    file.write_text(CONFIGURATION.format(folder=folder, port=port, lines=lines), encoding="utf-8")
    with subprocess.Popen([NGINX or "", "-e", "stderr", "-c", file]) as process:
        try:
            yield port
        finally:
            process.terminate()


def asked(
    port: int, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, str, dict[str, str]]:
    """The status, body and headers of a response, once the proxy has started."""
    end = time.monotonic() + 20
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        try:
            connection.request(method, path, body, {"Host": HOST, **headers})
        except ConnectionRefusedError:
            assert time.monotonic() < end
            time.sleep(0.02)
            continue
        with connection.getresponse() as response:
            text = response.read().decode()
            connection.close()
            return response.status, text, {k.lower(): v for k, v in response.getheaders()}


@pytest.mark.skipif(NGINX is None or sys.platform != "linux", reason="nginx is not installed")
def test_the_documented_lines_of_nginx_are_all_that_the_page_needs(
    model_file: Path, tmp_path: Path
) -> None:
    pytest.importorskip("uvicorn", reason="the extra serve is not installed")
    model = open_served(model_file, name="tiny", engine="torch", max_batch=1)
    settings = Settings(root_path="/resnets")
    app = create_app({"tiny": model}, settings, Access(hosts=("photos.example.org",)))
    of_page = {"Origin": f"https://{HOST}", "Sec-Fetch-Site": "same-origin"}
    large = image_bytes(side=800)  # of more than nginx takes unless told
    assert 1 << 20 < len(large) < settings.max_body
    with running(app, root_path="/resnets") as address:
        with proxied(address, tmp_path) as port:
            status, page, _ = asked(port, "GET", "/resnets/")
            assert status == 200
            assert '<base href="/resnets/">' in page
            assert asked(port, "POST", "/resnets/predict", large, **of_page)[0] == 200
            other = {"Origin": "https://evil.example"}  # refused before the body has come
            refused = [asked(port, "POST", "/resnets/predict", large, **other) for _ in range(3)]
            assert [status for status, _, _ in refused] == [403] * 3
            status, _, headers = asked(port, "GET", "/resnets/docs/?a=1")
            assert status == 307
            assert headers["location"] == "/resnets/docs?a=1"
        with proxied(address, tmp_path, without="proxy_set_header Host $http_host;") as port:
            status, text, _ = asked(port, "POST", "/resnets/predict", b"", **of_page)
            assert status == 403
            for part in (HOST, address, "$http_host", "--cors"):
                assert part in json.loads(text)["error"]


def test_a_redirect_names_no_host(serving: Serving) -> None:
    client = serving()
    for path in ("/docs", "/predict", "/v2/models/tiny/infer", "/collect"):
        response = client.post(f"{path}/?top=1", follow_redirects=False)
        assert response.status_code == 307
        assert response.headers["location"] == f"{path}?top=1"
