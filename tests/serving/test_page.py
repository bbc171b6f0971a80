"""The page at /: its files and headers, what it tells about the model, and what browsers do."""

import re
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.serving.conftest import NAMES, image_bytes
from tests.serving.running import running

Serving = Callable[..., Any]

STATIC = Path(__file__).parents[2] / "resnets/serving/static"


def test_the_page_and_every_file_that_it_names_are_served_with_a_strict_policy(
    serving: Serving,
) -> None:
    client = serving()
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    names = re.findall(r'(?:src|href)="static/([^"]+)"', page.text)
    for script in STATIC.glob("*.js"):
        names += re.findall(r'from "\./([^"]+)"', script.read_text(encoding="utf-8"))
    assert {path.name for path in STATIC.iterdir()} == {"index.html", *names}
    for response in (page, *(client.get(f"/static/{name}") for name in names)):
        assert response.status_code == 200
        policy = response.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert response.headers["x-content-type-options"] == "nosniff"


def test_nothing_in_the_page_is_inline_or_from_elsewhere() -> None:
    page = (STATIC / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<style|<script(?![^>]*src=)|\sstyle=|\son\w+=|://(?!www\.w3\.org)", page)
    for script in STATIC.glob("*.js"):
        text = script.read_text(encoding="utf-8")
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text)


def test_a_file_that_has_not_changed_is_not_sent_again(serving: Serving) -> None:
    client = serving()
    tag = client.get("/static/app.js").headers["etag"]
    assert client.get("/static/app.js", headers={"If-None-Match": tag}).status_code == 304
    assert client.get("/static/app.js", headers={"If-None-Match": '"other"'}).status_code == 200


@pytest.mark.parametrize("name", ["nothing.js", "..%2Fpage.py", "%2e%2e/page.py", ".", "a%00b"])
def test_no_other_file_is_served(serving: Serving, name: str) -> None:
    assert serving().get(f"/static/{name}").status_code == 404


def test_the_model_is_described_with_its_classes_and_latency(serving: Serving) -> None:
    client = serving()
    (before,) = client.get("/model").json()["models"]
    assert [each["name"] for each in before["classes"]] == list(NAMES)
    assert before["latency"] == {"requests": 0, "p50": None, "p99": None}
    assert not before["drift"]["known"]
    for seed in range(3):
        assert client.post("/predict", content=image_bytes(seed=seed)).status_code == 200
    (after,) = client.get("/model").json()["models"]
    assert after["latency"]["requests"] == 3
    assert 0 < after["latency"]["p50"] <= after["latency"]["p99"]


def test_the_demo_alone_offers_drawings_that_can_be_read(serving: Serving) -> None:
    plain = serving()
    assert plain.get("/model").json()["examples"] == []
    assert plain.get("/examples/ship.png").status_code == 404
    client = serving(examples=True)
    names = client.get("/model").json()["examples"]
    for name in names:
        picture = client.get(f"/examples/{name}").content
        assert client.post("/predict", content=picture).status_code == 200
    assert client.get("/examples/other.png").status_code == 404


@pytest.mark.parametrize("left", ["", "/behind/a"], ids=["taken away", "left"])
def test_behind_a_proxy_every_path_is_found(model_file: Path, tmp_path: Path, left: str) -> None:
    pytest.importorskip("uvicorn", reason="the extra serve is not installed")
    from resnets.serving.access import Access, Keys
    from resnets.serving.app import create_app
    from resnets.serving.served_model import open_served
    from resnets.serving.settings import Settings

    (tmp_path / "keys").write_text("a-key-of-enough-length", encoding="utf-8")
    access = Access(keys=Keys.of_file(tmp_path / "keys"))
    model = open_served(model_file, name="tiny", engine="torch", max_batch=1)
    app = create_app({"tiny": model}, Settings(root_path="/behind/a"), access)

    def status(path: str, **headers: str) -> tuple[int, str]:
        request = urllib.request.Request(f"http://{address}{left}{path}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=20) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, ""

    with running(app, root_path="/behind/a") as address:
        assert '<base href="/behind/a/">' in status("/")[1]
        assert status("/static/app.js")[0] == 200
        assert status("/v2")[0] == status("/model")[0] == 401
        assert status("/v2", **{"X-API-Key": "a-key-of-enough-length"})[0] == 200
        assert status("/behind")[0] == 401
        if left:
            assert '<base href="/behind/a/">' in status("")[1]
