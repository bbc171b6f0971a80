"""?explain=1 gives the heat map of `resnets explain`; ?features=1 what the classifier sees."""

import io
from base64 import b64decode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from PIL import Image

import resnets
from resnets.deployment.engines import open_engine
from resnets.model_file import Model
from resnets.serving import explaining
from resnets.serving.served_model import ServedModel
from tests.serving.conftest import image_bytes, only

Serving = Callable[..., Any]


@pytest.fixture(autouse=True)
def captum() -> None:
    pytest.importorskip("captum", reason="the extra explain is not installed")


def test_the_explanation_is_that_of_resnets_explain(serving: Serving, model_file: Path) -> None:
    content = image_bytes(24)
    response = serving().post("/predict?explain=1", content=content)
    png = b64decode(only(response)["explanation"])
    (expected,) = resnets.explain(model_file, [content])
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png))), expected.overlay())


def test_predictions_go_on_while_the_first_heat_map_waits_for_its_network(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on, loads = Event(), Event(), []
    load = explaining._network_of

    def slowly(model: ServedModel) -> Model:
        loads.append(model)
        begun.set()
        assert go_on.wait(20)
        return load(model)

    monkeypatch.setattr(explaining, "_network_of", slowly)
    client = serving()
    with ThreadPoolExecutor(2) as pool:
        asked = [
            pool.submit(client.post, "/predict?explain=1", content=image_bytes(seed=seed))
            for seed in range(2)
        ]
        assert begun.wait(20)
        assert only(client.post("/predict", content=image_bytes()))["prediction"]
        go_on.set()
        assert all(only(each.result())["explanation"] for each in asked)
    assert len(loads) == 1  # for both


def test_it_comes_alone_to_a_client_that_accepts_png(serving: Serving) -> None:
    client, png = serving(), {"Accept": "image/png"}
    response = client.post("/predict?explain=1", content=image_bytes(), headers=png)
    assert response.headers["content-type"] == "image/png"
    Image.open(io.BytesIO(response.content)).verify()
    files = [("file", (f"{n}.png", image_bytes())) for n in range(2)]
    assert client.post("/predict?explain=1", files=files, headers=png).status_code == 406
    damaged = client.post("/predict?explain=1", content=image_bytes()[:90], headers=png)
    assert damaged.status_code == 422


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        ("image/png", 406),
        ("IMAGE/PNG;q=0.9, image/webp", 406),
        ("image/png, */*;q=0.1", 200),
        ("application/json, image/png", 200),
        ("image/*", 200),
    ],
)
def test_who_accepts_a_picture_only_and_asks_for_none_learns_how_to(
    serving: Serving, accept: str, status: int
) -> None:
    response = serving().post("/predict", content=image_bytes(), headers={"Accept": accept})
    assert response.status_code == status
    assert ("explain=1" in response.text) == (status == 406)
    assert response.headers["content-type"] == "application/json"


def test_of_several_images_the_unreadable_one_has_none(serving: Serving) -> None:
    files = [("file", ("a.png", image_bytes())), ("file", ("b.png", image_bytes()[:90]))]
    response = serving().post("/predict?explain=1", files=files)
    pictures = [each["explanation"] for each in response.json()["predictions"]]
    assert [picture is None for picture in pictures] == [False, True]


def test_an_exported_file_says_why_it_cannot() -> None:
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    from starlette.testclient import TestClient

    from resnets.serving.app import create_app
    from resnets.serving.served_model import open_served
    from resnets.serving.settings import Settings

    file = Path(__file__).parents[1] / "fixtures" / "before_trust" / "digits.onnx"
    model = open_served(file, engine="onnxruntime", max_batch=1)
    with TestClient(create_app({"digits": model}, Settings()), "http://127.0.0.1") as client:
        response = client.post("/predict?explain=1", content=image_bytes())
        assert client.post("/predict", content=image_bytes()).status_code == 200
    assert response.status_code == 501
    assert "exported" in response.json()["error"]


def test_features_come_where_nothing_else_needs_them(serving: Serving, model_file: Path) -> None:
    content = image_bytes()
    client = serving()
    assert "features" not in only(client.post("/predict", content=content))
    features = only(client.post("/predict?features=1", content=content))["features"]
    pixels = np.asarray(Image.open(io.BytesIO(content)))
    expected = open_engine(model_file, "torch").features(pixels[None])[0]
    np.testing.assert_allclose(features, expected, atol=1e-5)
