"""The description of the routes is valid OpenAPI, complete, and true of what the server answers."""

import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.serving.conftest import image_bytes

Serving = Callable[..., Any]


@pytest.fixture
def described(serving: Serving) -> tuple[Any, Mapping[str, Any]]:
    client = serving(queue=3)
    return client, client.get("/openapi.json").json()


def check(document: Mapping[str, Any], method: str, path: str, response: Any) -> None:
    """Check a response against what is said of its status."""
    jsonschema = pytest.importorskip("jsonschema")
    responses = document["paths"][path][method.lower()]["responses"]
    assert str(response.status_code) in responses
    content = responses[str(response.status_code)]["content"]
    kind = response.headers["content-type"].partition(";")[0]
    assert kind in content
    if "schema" in content[kind]:
        schema = {**content[kind]["schema"], "components": document["components"]}
        jsonschema.Draft202012Validator(schema).validate(response.json())


def test_it_is_valid_openapi(described: tuple[Any, Mapping[str, Any]]) -> None:
    validator = pytest.importorskip("openapi_spec_validator")
    validator.validate(described[1])


def test_every_route_is_described_and_no_other(described: tuple[Any, Mapping[str, Any]]) -> None:
    from starlette.routing import Route

    from resnets.serving.openapi import _OPERATIONS

    client, document = described
    routes = {
        (re.sub(r":\w+}", "}", route.path), method.lower())
        for route in client.app.routes
        if isinstance(route, Route)
        for method in (route.methods or set()) - {"HEAD"}
    }
    listed = {(path, method) for path, item in document["paths"].items() for method in item}
    assert listed == routes
    by_hand = {(path, method) for path, item in _OPERATIONS.items() for method in item}
    assert by_hand <= routes
    assert all(item["summary"] for path in document["paths"].values() for item in path.values())


@pytest.mark.parametrize(
    "path",
    [
        "/v2",
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/models/stats",
        "/openapi.json",
        "/docs",
        "/metrics",
    ],
)
def test_what_is_read_fits_its_schema(described: tuple[Any, Any], path: str) -> None:
    client, document = described
    check(document, "GET", path, client.get(path))


@pytest.mark.parametrize("end", ["", "/ready", "/config", "/stats"])
@pytest.mark.parametrize("name", ["tiny", "other"])
def test_what_is_said_of_a_model_fits_its_schema(
    described: tuple[Any, Any], name: str, end: str
) -> None:
    client, document = described
    for base, path in (
        ("", "/v2/models/{name}"),
        ("/versions/1", "/v2/models/{name}/versions/{version}"),
    ):
        response = client.get(f"/v2/models/{name}{base}{end}")
        check(document, "GET", f"{path}{end}", response)


bodies = st.sampled_from([b"", image_bytes(), image_bytes()[:90], b"%PDF-1.7", image_bytes(80)])
queries = st.dictionaries(
    st.sampled_from(["top", "model", "features", "explain"]),
    st.sampled_from(["0", "1", "3", "x", "tiny"]),
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=bodies | st.binary(max_size=20), query=queries, timeout=st.sampled_from(["", "9", "x"]))
def test_whatever_is_sent_to_predict_the_answer_fits_its_schema(
    described: tuple[Any, Any], body: bytes, query: dict[str, str], timeout: str
) -> None:
    client, document = described
    headers = {"X-Request-Timeout": timeout} if timeout else {}
    response = client.post("/predict", params=query, content=body, headers=headers)
    check(document, "POST", "/predict", response)


values = st.none() | st.integers(-1, 9) | st.text(max_size=4) | st.lists(st.integers(-1, 256))


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(change=st.dictionaries(st.sampled_from(["name", "datatype", "shape", "data"]), values))
def test_whatever_tensor_is_sent_the_answer_fits_its_schema(
    described: tuple[Any, Any], change: dict[str, Any]
) -> None:
    client, document = described
    tensor = {"name": "images", "datatype": "UINT8", "shape": [1, 1, 1, 3], "data": [1, 2, 3]}
    response = client.post("/v2/models/tiny/infer", json={"inputs": [tensor | change]})
    check(document, "POST", "/v2/models/{name}/infer", response)


def test_what_labelling_answers_fits_its_schema(serving: Serving, tmp_path: Path) -> None:
    client = serving(collect=tmp_path)
    document = client.get("/openapi.json").json()
    client.post("/predict", content=image_bytes())
    check(document, "GET", "/queue", client.get("/queue"))
    bodies = [image_bytes(seed=1), image_bytes(seed=1), image_bytes()[:90], b"%PDF-1.7", b""]
    for body in bodies:
        response = client.post("/collect?label=cat", content=body)
        check(document, "POST", "/collect", response)
    digest = client.post("/collect?label=cat", content=bodies[0]).json()["digest"]
    for _ in range(2):
        check(document, "DELETE", "/collect/{digest}", client.delete(f"/collect/{digest}"))
    check(document, "GET", "/queue/{digest}", client.get("/queue/none"))
    check(document, "GET", "/model", client.get("/model"))
    assert "401" not in document["paths"]["/static/{name}"]["get"]["responses"]


def test_the_page_loads_nothing_from_elsewhere(described: tuple[Any, Any]) -> None:
    client, document = described
    response = client.get("/docs")
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert not re.search(r"<script|src=|href=\"(?!#|openapi\.json)", response.text)
    for path in document["paths"]:
        assert path in response.text
    assert "Authorization" not in response.text.partition("<main>")[0]


def test_a_key_and_a_rate_are_described_wherever_they_are_asked_for(serving: Serving) -> None:
    from resnets.serving.access import Access, Keys

    keys = Keys((hashlib.sha256(b"a-key-of-enough-length").digest(),))
    client = serving(access=Access(keys=keys))
    document = client.get("/openapi.json").json()
    for path in ("/metrics", "/model", "/v2", "/v2/models/{name}/stats"):
        response = client.get(path.format(name="tiny"))
        assert response.status_code == 401
        check(document, "GET", path, response)
        assert "429" in document["paths"][path]["get"]["responses"]
    assert "401" not in document["paths"]["/v2/health/live"]["get"]["responses"]
    assert "Authorization: Bearer" in client.get("/docs").text.partition("<main>")[0]


def test_heat_maps_alone_are_described_for_one_image_and_for_several(
    described: tuple[Any, Mapping[str, Any]],
) -> None:
    pytest.importorskip("captum", reason="the extra explain is not installed")
    client, document = described
    headers = {"Accept": "image/png"}
    one, two = ([("file", ("a.png", image_bytes()))] * count for count in (1, 2))
    for files, status in ((one, 200), (two, 406)):
        response = client.post("/predict?explain=1", files=files, headers=headers)
        assert response.status_code == status
        check(document, "POST", "/predict", response)


def test_the_commands_that_are_shown_name_the_scheme_that_a_proxy_speaks(serving: Serving) -> None:
    client = serving()
    for scheme in ("http", "https", None):
        headers = {} if scheme is None else {"X-Forwarded-Proto": scheme}
        page = client.get("/docs", headers=headers).text
        assert f"curl --data-binary @photo.jpg {scheme or 'http'}://" in page
