"""The page at /: its files and headers, what it tells about the model, and what browsers do."""

import json
import logging
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import resnets
from resnets.data.membership import Generation, TrainedOn
from resnets.evaluation.calibration import NOT_LOWERED, Calibration
from resnets.evaluation.proportion import Proportion
from resnets.serving.example_images import example_images
from tests.serving.conftest import NAMES, image_bytes
from tests.serving.running import running

if TYPE_CHECKING:
    from starlette.testclient import TestClient

pytest.importorskip("starlette", reason="the extra serve is not installed")
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


def test_the_latency_is_that_of_whole_requests_as_the_log_has_it(
    serving: Serving, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("captum", reason="the extra explain is not installed")
    caplog.set_level(logging.INFO, "resnets.serving")
    client = serving()
    tensor = {"name": "images", "shape": [1, 9, 9, 3], "datatype": "UINT8", "data": [0] * 243}
    for _ in range(2):
        assert client.post("/predict?explain=1", content=image_bytes()).status_code == 200
        assert client.post("/v2/models/tiny/infer", json={"inputs": [tensor]}).status_code == 200
    assert client.post("/predict?top=9", content=image_bytes()).status_code == 400
    assert client.post("/predict", content=image_bytes()[:90]).status_code == 422
    (model,) = client.get("/model").json()["models"]
    lines = [json.loads(record.getMessage()) for record in caplog.records]
    seconds = sorted(each["seconds"] for each in lines if each.get("status") in (200, 422))
    latency = model["latency"]
    assert latency["requests"] == 5
    assert latency["p50"] == pytest.approx(seconds[2], abs=1e-6)
    assert latency["p99"] == pytest.approx(seconds[4], abs=1e-6)


def test_accuracy_is_told_with_its_interval_and_of_each_class(
    untrained: Callable[..., Path],
) -> None:
    """The interval of 8 of 10 is Wilson's, as R's prop.test(8, 10, correct=FALSE) prints it."""
    metrics = {"test": {"top1": {"count": 8, "total": 10}, "classes": [[3, 4], [5, 6]]}}
    with client_of(untrained(NAMES, metrics=metrics)) as client:
        (facts,) = client.get("/model").json()["models"]
    (row,) = facts["accuracy"]
    assert (row["split"], row["count"], row["total"], row["value"]) == ("test", 8, 10, 0.8)
    assert row["interval"] == pytest.approx([0.4901625, 0.9433178], abs=1e-6)
    recalls = [each["recall"] and each["recall"]["value"] for each in facts["classes"]]
    assert recalls == [3 / 4, 5 / 6, None]


def facts_of(file: Path) -> Any:
    with client_of(file) as client:
        (facts,) = client.get("/model").json()["models"]
    return facts


def test_what_a_network_started_from_is_told_as_far_as_it_is_known(
    untrained: Callable[..., Path],
) -> None:
    own = Generation("insects", 12, 3, unknown="not kept")
    earlier = Generation("CIFAR-10", 49000, 1000, unknown="not kept")
    published = {"id": "timm/resnet18", "licence": "apache-2.0"}
    started = {
        "from a trained one": [own, earlier],
        "from published weights": [own, replace(earlier, origin=published)],
        "from no other": [own],
        "from what nobody knows": [],
    }
    origins = {
        name: " ".join(
            facts_of(untrained(NAMES, trained_on=TrainedOn(tuple(generations)).to_dict()))[
                "licences"
            ]
        )
        for name, generations in started.items()
    }
    assert "CIFAR-10" in origins["from a trained one"]
    assert "no licence" in origins["from a trained one"]
    assert origins["from published weights"] == "timm/resnet18: apache-2.0"
    assert "names no licence" in origins["from no other"]
    assert len({*origins.values()}) == 4


def test_the_licence_of_the_package_is_that_of_its_networks_and_of_no_others(
    tmp_path: Path,
) -> None:
    packaged = Path(resnets.__file__).with_name("shipped") / "resnet20_cifar10.safetensors"
    copied = tmp_path / packaged.name
    shutil.copy(packaged, copied)
    assert "Apache-2.0" in " ".join(facts_of(packaged)["licences"])
    assert "Apache-2.0" not in " ".join(facts_of(copied)["licences"])


@pytest.mark.parametrize(
    ("before", "after", "temperature", "better"),
    [(0.088, 0.089, 1.14, False), (0.088, 0.088, 1.14, False), (0.088, 0.05, 1.14, True)],
)
def test_a_temperature_that_did_not_help_is_told(
    untrained: Callable[..., Path], before: float, after: float, temperature: float, better: bool
) -> None:
    calibration = Calibration(temperature, 0.9, 0.02, False, Proportion(0, 6), 153, before, after)
    facts = facts_of(untrained(NAMES, calibration=calibration.to_dict()))
    assert facts["calibration"][1].count(NOT_LOWERED) == (not better)


def test_drift_is_told_once_many_images_are_unlike_the_validation_images() -> None:
    packaged = Path(resnets.__file__).with_name("shipped") / "resnet20_cifar10.safetensors"
    with client_of(packaged) as client:
        drift = []
        for name, count in (("ship.png", 3), ("stripes.png", 12)):
            for _ in range(count):
                client.post("/predict", content=example_images()[name])
            drift.append(client.get("/model").json()["models"][0]["drift"])
    before, after = drift
    assert (before["count"], before["total"], before["drifted"]) == (0, 3, False)
    assert (after["count"], after["total"], after["drifted"]) == (12, 15, True)
    assert "too few" in before["text"]
    assert "too few" not in after["text"]


def test_no_drift_is_told_only_of_enough_images() -> None:
    packaged = Path(resnets.__file__).with_name("shipped") / "resnet20_cifar10.safetensors"
    with client_of(packaged) as client:
        files = [("file", (f"{n}.png", example_images()["ship.png"])) for n in range(99)]
        texts = []
        for sent in (files, files[:1]):
            assert client.post("/predict", files=sent).status_code == 200
            texts.append(client.get("/model").json()["models"][0]["drift"]["text"])
    assert ["too few" in text for text in texts] == [True, False]
    assert "No drift" in texts[1]


@contextmanager
def client_of(file: Path) -> "Iterator[TestClient]":
    """A client of the application in this process, which serves a model file."""
    from starlette.testclient import TestClient

    from resnets.serving.app import create_app
    from resnets.serving.served_model import open_served
    from resnets.serving.settings import Settings

    model = open_served(file, name="tiny", engine="torch", max_batch=1)
    with TestClient(create_app({"tiny": model}, Settings()), "http://127.0.0.1") as client:
        yield client


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
