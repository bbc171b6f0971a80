"""The Open Inference Protocol, spoken by NVIDIA's client and checked against `resnets.predict`."""

import base64
import json
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import resnets
from tests.serving.conftest import NAMES, image_bytes, only
from tests.serving.running import running

Serving = Callable[..., Any]
IMAGES = [image_bytes(seed=seed) for seed in range(3)]
PIXELS = np.stack([np.asarray(Image.open(BytesIO(image))) for image in IMAGES])
INFER = "/v2/models/tiny/infer"


@pytest.fixture(scope="module")
def triton(model_file: Path) -> Iterator[Any]:
    """NVIDIA's client of a real server."""
    http = pytest.importorskip("tritonclient.http", reason="tritonclient is not installed")
    pytest.importorskip("uvicorn", reason="the extra serve is not installed")
    from resnets.serving.app import create_app
    from resnets.serving.served_model import open_served
    from resnets.serving.settings import Settings

    model = open_served(model_file, name="tiny", engine="torch", max_batch=4)
    with running(create_app({"tiny": model}, Settings())) as address:
        client = http.InferenceServerClient(address)
        yield client
        client.close()


def tensor(name: str, values: Any, kind: str, binary: bool = True) -> Any:
    import tritonclient.http as http

    infer_input = http.InferInput(name, values.shape, kind)
    infer_input.set_data_from_numpy(values, binary_data=binary)
    return infer_input


def probabilities(model_file: Path) -> np.ndarray[Any, Any]:
    """What `resnets.predict` says of IMAGES, in the order of the classes."""
    predictions = resnets.predict(model_file, IMAGES, top=3)
    return np.array([[dict(each.top)[name] for name in NAMES] for each in predictions])


def test_the_client_learns_what_there_is(triton: Any) -> None:
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready("tiny")
    assert triton.is_model_ready("tiny", "1")
    assert triton.get_server_metadata()["name"] == "resnets"
    metadata = triton.get_model_metadata("tiny")
    shapes = {each["name"]: each["shape"] for each in metadata["inputs"] + metadata["outputs"]}
    assert shapes["images"] == [-1, -1, -1, 3]
    assert shapes["probabilities"] == [-1, 3]
    assert metadata["parameters"]["class_names"] == list(NAMES)
    config = triton.get_model_config("tiny")
    assert {each["data_type"] for each in config["input"]} == {"TYPE_UINT8", "TYPE_STRING"}


@pytest.mark.parametrize("binary", [True, False])
def test_pixels_are_predicted_as_by_predict(triton: Any, model_file: Path, binary: bool) -> None:
    import tritonclient.http as http

    wanted = [http.InferRequestedOutput(name, binary) for name in ("probabilities", "status")]
    images = tensor("images", PIXELS, "UINT8", binary)
    result = triton.infer("tiny", [images], outputs=wanted, request_id="seven")
    assert result.get_response()["id"] == "seven"
    shares = result.as_numpy("probabilities")
    assert shares.dtype == np.float32
    np.testing.assert_allclose(shares, probabilities(model_file), atol=1e-6)
    assert result.as_numpy("status").shape == (3, 1)
    assert result.as_numpy("prediction") is None


def test_files_are_predicted_as_by_predict_and_a_bad_one_fails_alone(
    triton: Any, model_file: Path
) -> None:
    import tritonclient.http as http

    files = np.array([*IMAGES, IMAGES[0][:60]], np.object_)
    wanted = [http.InferRequestedOutput(x) for x in ("probabilities", "prediction", "error")]
    result = triton.infer("tiny", [tensor("files", files, "BYTES")], outputs=wanted)
    shares = result.as_numpy("probabilities")
    np.testing.assert_allclose(shares[:3], probabilities(model_file), atol=1e-6)
    assert np.isnan(shares[3]).all()
    read = [each.decode() for each in result.as_numpy("prediction").ravel()]
    assert read == [NAMES[row.argmax()] for row in shares[:3]] + [""]
    assert [bool(each) for each in result.as_numpy("error").ravel()] == [False] * 3 + [True]


def test_classes_are_listed_as_triton_lists_them(triton: Any, model_file: Path) -> None:
    import tritonclient.http as http

    wanted = [http.InferRequestedOutput("probabilities", class_count=2)]
    result = triton.infer("tiny", [tensor("images", PIXELS, "UINT8")], outputs=wanted)
    for row, shares in zip(
        result.as_numpy("probabilities"), probabilities(model_file), strict=True
    ):
        for text, index in zip(row, np.argsort(-shares)[:2], strict=True):
            value, number, label = text.decode().split(":")
            assert float(value) == pytest.approx(shares[index], abs=2e-6)
            assert (int(number), label) == (index, NAMES[index])


@pytest.mark.parametrize(
    ("model", "version", "name", "values", "kind", "status", "word"),
    [
        ("other", "", "images", PIXELS, "UINT8", "404", "tiny"),
        ("tiny", "2", "images", PIXELS, "UINT8", "404", "version"),
        ("tiny", "", "input", PIXELS, "UINT8", "400", "images"),
        ("tiny", "", "images", PIXELS.astype(np.float32), "FP32", "400", "FP32"),
        ("tiny", "", "images", PIXELS[0], "UINT8", "400", "shape"),
        ("tiny", "", "files", np.array([b"no image"], np.object_), "BYTES", "415", "image"),
    ],
)
def test_the_client_is_told_what_is_wrong(
    triton: Any, model: str, version: str, name: str, values: Any, kind: str, status: str, word: str
) -> None:
    from tritonclient.utils import InferenceServerException

    with pytest.raises(InferenceServerException) as caught:
        triton.infer(model, [tensor(name, values, kind)], version)
    assert caught.value.status() == status
    assert word in caught.value.message()


def test_what_was_computed_is_counted(triton: Any) -> None:
    before = triton.get_inference_statistics("tiny")["model_stats"][0]
    triton.infer("tiny", [tensor("images", PIXELS, "UINT8")])
    (after,) = triton.get_inference_statistics()["model_stats"]
    assert after["inference_count"] - before["inference_count"] == 3
    counts = [each["inference_stats"]["success"]["count"] for each in (before, after)]
    assert counts[1] - counts[0] == 1
    assert after["inference_stats"]["compute_infer"]["ns"] > 0
    assert (
        sum(x["batch_size"] * x["compute_infer"]["count"] for x in after["batch_stats"])
        == (after["inference_count"])
    )


def test_files_go_in_json_too_as_for_openvino_model_server(serving: Serving) -> None:
    data = [{"b64": base64.b64encode(image).decode()} for image in IMAGES]
    files = {"name": "files", "datatype": "BYTES", "shape": [3], "data": data}
    client = serving()
    response = client.post(INFER, json={"inputs": [files]})
    values = {each["name"]: each["data"] for each in response.json()["outputs"]}
    assert list(values) == ["probabilities", "prediction", "status"]
    shares = np.reshape(values["probabilities"], (3, 3))
    assert values["prediction"] == [NAMES[row.argmax()] for row in shares]


def test_features_are_given_on_request(serving: Serving) -> None:
    client = serving()
    images = {"name": "images", "datatype": "UINT8", "shape": [1, *PIXELS.shape[1:]]}
    images |= {"data": PIXELS[0].ravel().tolist()}
    asked = {"inputs": [images], "outputs": [{"name": "features"}]}
    (output,) = client.post(INFER, json=asked).json()["outputs"]
    features = only(client.post("/predict?features=1", content=IMAGES[0]))["features"]
    assert output["shape"] == [1, len(features)]
    assert output["data"] == pytest.approx(features, rel=1e-4)


def test_limits_hold_for_tensors(serving: Serving) -> None:
    client = serving(queue=2, max_pixels=399)
    description = {"name": "images", "datatype": "UINT8", "shape": list(PIXELS.shape)}
    three = description | {"data": PIXELS.ravel().tolist()}
    assert client.post(INFER, json={"inputs": [three]}).status_code == 413
    one = description | {"shape": [1, 20, 20, 3], "data": PIXELS[0].ravel().tolist()}
    assert client.post(INFER, json={"inputs": [one]}).status_code == 413
    late = client.post(INFER, json={"inputs": [one], "parameters": {"timeout": 0.001}})
    assert late.status_code == 504
    packed = client.post(INFER, content=b"", headers={"Content-Encoding": "gzip"})
    assert packed.status_code == 415
    packed = client.post("/predict", content=b"x", headers={"Content-Encoding": "gzip"})
    assert packed.status_code == 415
    assert "Content-Encoding" in packed.json()["error"]
    packed_too = one | {"parameters": {"binary_data_size": PIXELS[0].nbytes}}
    head = json.dumps({"inputs": [packed_too]}).encode()
    length = {"Inference-Header-Content-Length": str(len(head))}
    both = client.post(INFER, content=head + PIXELS[0].tobytes(), headers=length)
    assert both.status_code == 400  # and not 413, as either alone
    headers = {"Content-Encoding": "Identity"}
    assert client.post(INFER, json={"inputs": [one]}, headers=headers).status_code == 413
    assert client.app.state.server.answering.places.taken == 0


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "models/tiny/infer"),
        ("POST", "models/tiny/versions/1/infer"),
        ("GET", "models/tiny"),
        ("POST", "repository/index"),
        ("POST", "repository/models/tiny/unload"),
    ],
)
def test_parameters_in_the_query_are_refused(serving: Serving, method: str, path: str) -> None:
    response = serving(control=True).request(method, f"/v2/{path}?top=3", json={})
    assert response.status_code == 400
    assert "'top'" in response.json()["error"]
