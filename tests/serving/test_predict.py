"""POST /predict gives what `resnets.predict` gives, and refuses what it must with a reason."""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import resnets
from resnets.serving.answering import pixels_of
from tests.serving.conftest import image_bytes, only

Serving = Callable[..., Any]


def test_the_prediction_is_that_of_predict(serving: Serving, model_file: Path) -> None:
    content = image_bytes(24, "JPEG")
    (expected,) = resnets.predict(model_file, [content], top=3)
    answer = only(serving().post("/predict?top=3", content=content))
    assert answer["prediction"] == expected.prediction
    assert answer["status"] == expected.status
    shares = {each["class"]: each["probability"] for each in answer["top"]}
    assert shares == pytest.approx(dict(expected.top), abs=1e-6)


def test_several_files_are_answered_in_their_order_and_a_bad_one_fails_alone(
    serving: Serving,
) -> None:
    images = [image_bytes(seed=seed) for seed in range(3)]
    files = [(f"{n}.png", content) for n, content in enumerate(images)]
    files.insert(1, ("bad.png", images[0][:60]))
    client = serving()
    response = client.post("/predict", files=[("file", file) for file in files])
    assert response.status_code == 200
    answers = response.json()["predictions"]
    assert [each["image"] for each in answers] == ["0.png", "bad.png", "1.png", "2.png"]
    assert [each["status"] == "unreadable" for each in answers] == [False, True, False, False]
    for content, answer in zip(images, [answers[0], *answers[2:]], strict=True):
        alone = only(client.post("/predict", content=content))
        assert alone["probability"] == pytest.approx(answer["probability"], abs=1e-6)


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 400),
        (b"%PDF-1.7 text", 415),
        (image_bytes()[:100], 422),
        (image_bytes(60), 413),  # pixels
        (b"\0" * 200_001, 413),  # bytes
    ],
)
def test_what_cannot_be_answered_has_the_code_that_says_why(
    serving: Serving, content: bytes, status: int
) -> None:
    client = serving(max_pixels=2_000, max_body=200_000)
    response = client.post("/predict", content=content)
    assert response.status_code == status
    assert "rror" in response.text
    assert client.post("/predict", content=image_bytes()).status_code == 200


def test_answers_of_json_end_with_a_newline(serving: Serving) -> None:
    client = serving()
    answers = [client.get(path) for path in ("/v2", "/model", "/openapi.json", "/nothing")]
    for answer in (*answers, client.post("/predict", content=image_bytes())):
        assert answer.text.endswith("}\n")
        assert answer.json()


def test_an_empty_file_is_told_in_the_words_of_predict(serving: Serving) -> None:
    client = serving()
    (local,) = resnets.predict(client.app.state.server.models["tiny"].path, b"")  # type: ignore[attr-defined]
    for kind in ("application/octet-stream", "image/jpeg"):
        response = client.post("/predict", content=b"", headers={"Content-Type": kind})
        assert response.json()["error"] == local.error
    form = client.post("/predict", files={"file": ("a.jpg", b"")})
    assert only(form)["error"] == local.error
    assert "curl" in client.post("/predict", content=b"").json()["error"]


@pytest.mark.parametrize(
    ("method", "url", "status"),
    [
        ("GET", "/predict", 405),
        ("POST", "/nothing", 404),
        ("POST", "/predict?model=other", 404),
        ("POST", "/predict?top=0", 400),
        ("POST", "/predict?top=4", 400),
        ("POST", "/predict?top=x", 400),
        ("POST", "/predict?features=perhaps", 400),
    ],
)
def test_wrong_requests_are_refused_as_json(
    serving: Serving, method: str, url: str, status: int
) -> None:
    response = serving().request(method, url, content=image_bytes())
    assert response.status_code == status
    assert response.json()["error"]


def test_curl_calls_any_file_a_form(serving: Serving) -> None:
    """curl --data-binary says application/x-www-form-urlencoded, and photos may hold a =."""
    client, headers = serving(), {"Content-Type": "application/x-www-form-urlencoded"}
    photo = image_bytes(form="JPEG", comment=b"a=b", quality=90)
    assert b"=" in photo[:100]
    assert client.post("/predict", content=photo, headers=headers).status_code == 200
    assert client.post("/predict", content=b"a=b", headers=headers).status_code == 415


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        (b"=photo.jpg", 415, "@"),  # --data-binary =photo.jpg
        (b"photo.jpg", 415, "@"),
        (image_bytes(form="JPEG").translate(None, b"\0\r\n"), 422, "--data-binary"),  # --data @
        (image_bytes().translate(None, b"\0\r\n"), 422, "--data-binary"),
    ],
)
def test_slips_with_curl_are_explained(
    serving: Serving, body: bytes, status: int, word: str
) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    response = serving().post("/predict", content=body, headers=headers)
    assert response.status_code == status
    assert word in response.json()["error"]


def test_a_damaged_image_with_line_breaks_is_not_taken_for_a_slip(serving: Serving) -> None:
    kind = {"content-type": "application/x-www-form-urlencoded"}  # as curl --data-binary says
    damaged = image_bytes(60, "JPEG").replace(b"\0", b"\1")
    assert b"\n" in damaged
    assert b"\0" not in damaged
    for body in (damaged, b"\x89PNG\r\n\x1a\n" + b"\xff" * 20, b"\xff\xd8"):
        response = serving().post("/predict", content=body, headers=kind)
        assert response.status_code in (415, 422)
        assert "--data" not in only(response)["error"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/predict", 405), ("POST", "/v2/models/tiny", 405), ("GET", "/predictions", 404)],
)
def test_another_method_or_path_says_what_there_is(
    serving: Serving, method: str, path: str, status: int
) -> None:
    response = serving().request(method, path)
    assert response.status_code == status
    hint = "/docs" if status == 404 else response.headers["allow"]
    assert hint in response.json()["error"]


@pytest.mark.parametrize("path", ["/predict?explian=1", "/predict?Top=1", "/collect?lable=cat"])
def test_an_unknown_parameter_is_refused_and_the_known_ones_are_named(
    serving: Serving, tmp_path: Path, path: str
) -> None:
    response = serving(collect=tmp_path).post(path, content=image_bytes())
    assert response.status_code == 400
    assert "model" in response.json()["error"]


@pytest.mark.parametrize(
    "path", ["/predict?top=1&top=2", "/predict?explain=0&explain=1", "/collect?label=cat&label=dog"]
)
def test_a_parameter_that_is_given_twice_is_refused(
    serving: Serving, tmp_path: Path, path: str
) -> None:
    response = serving(collect=tmp_path).post(path, content=image_bytes())
    assert response.status_code == 400
    assert "twice" in response.json()["error"]
    assert not list(tmp_path.iterdir())


def test_the_known_parameters_are_those_that_are_described(serving: Serving) -> None:
    client = serving()
    described = client.get("/openapi.json").json()["paths"]["/predict"]["post"]["parameters"]
    names = {each["name"] for each in described if each["in"] == "query"}
    known = client.post("/predict?x=1", content=b"x").json()["error"].partition("there are ")[2]
    assert set(known.split(", ")) == names


def test_a_full_server_says_when_to_try_again(serving: Serving) -> None:
    client = serving(queue=2)
    files = [("file", (f"{n}.png", image_bytes())) for n in range(3)]
    response = client.post("/predict", files=files)
    assert response.status_code in (413, 503)
    places = client.app.state.server.answering.places
    places.take(2)
    response = client.post("/predict", content=image_bytes())
    assert response.status_code == 503
    assert int(response.headers["Retry-After"]) >= 1
    places.give_back(2)
    assert client.post("/predict", content=image_bytes()).status_code == 200
    assert places.taken == 0


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("attachment; filename*=UTF-8''%C3%BC%20%27b%27.png", "ü 'b'.png"),
        ("attachment; filename=\"x\"; filename*=utf-8'en'a.png", "a.png"),
        ("attachment; filename*=UTF-8''a%0Ab%FF", "a\\nb\N{REPLACEMENT CHARACTER}"),
        ("inline", "image"),
    ],
)
def test_a_body_has_the_name_that_its_header_says(serving: Serving, header: str, name: str) -> None:
    headers = {"Content-Disposition": header}
    response = serving().post("/predict", content=image_bytes(), headers=headers)
    assert only(response)["image"] == name


def test_a_deadline_of_the_client_is_kept(serving: Serving) -> None:
    client = serving()
    late = client.post(
        "/predict", content=image_bytes(), headers={"X-Request-Timeout": "0.0000001"}
    )
    assert late.status_code == 504
    wrong = client.post("/predict", content=image_bytes(), headers={"X-Request-Timeout": "soon"})
    assert wrong.status_code == 400
    assert client.app.state.server.answering.places.taken == 0


def test_no_client_can_ask_for_more_time_than_the_server_gives(serving: Serving) -> None:
    client, busy = serving(timeout=0.3), threading.Event()
    client.app.state.server.models["tiny"].threads.put(busy.wait, 10)
    try:
        patient = {"X-Request-Timeout": "60"}
        late = client.post("/predict", content=image_bytes(), headers=patient)
    finally:
        busy.set()
    assert late.status_code == 504


def test_readiness_is_told(serving: Serving) -> None:
    client = serving()
    assert client.get("/v2/health/live").status_code == 200
    assert client.get("/v2/health/ready").status_code == 200


@pytest.mark.parametrize(("decoders", "decoded_meanwhile"), [(1, 0), (2, 4)])
def test_on_one_core_the_thread_that_computes_decodes_all_that_waits_before_a_batch(
    serving: Serving, decoders: int, decoded_meanwhile: int
) -> None:
    client = serving(decoders=decoders)
    model = client.app.state.server.models["tiny"]
    waiting: list[int] = []

    def stand_still() -> None:
        until(lambda: model.batcher.waiting >= 4 or model.threads._calls.qsize() >= 4)
        waiting.append(model.batcher.waiting)

    model.threads.put(stand_still)
    files = [("file", (f"{n}.png", image_bytes(seed=n))) for n in range(4)]
    answers = client.post("/predict", files=files).json()["predictions"]
    assert [each["image"] for each in answers] == [f"{n}.png" for n in range(4)]
    assert waiting == [decoded_meanwhile]
    assert set(model.statistics.batches) == {4}


@pytest.mark.parametrize("decoders", [1, 2])
def test_a_large_image_keeps_no_small_one_waiting(serving: Serving, decoders: int) -> None:
    client = serving(decoders=decoders)
    large = image_bytes(1500, compress_level=0)
    busy = threading.Event()
    for _ in range(decoders):
        client.app.state.server.answering._decoders_of_large.put(busy.wait, 60)
    with ThreadPoolExecutor(3) as clients:
        try:
            slow = [clients.submit(client.post, "/predict", content=large) for _ in range(2)]
            until(lambda: client.app.state.server.answering.places.taken == 2)
            for seed in range(3):
                quick = clients.submit(client.post, "/predict", content=image_bytes(seed=seed))
                assert quick.result(60).status_code == 200
            assert not any(each.done() for each in slow)
        finally:
            busy.set()
        assert [each.result(60).status_code for each in slow] == [200, 200]


def test_other_work_on_a_large_image_is_for_the_threads_of_large_ones(serving: Serving) -> None:
    app = serving().app.state.server
    preprocessing = app.models["tiny"].description.preprocessing

    def where(*of_image: Any) -> str:
        pixels_of(*of_image)
        return threading.current_thread().name

    async def thread(side: int) -> str:
        deadline = asyncio.get_running_loop().time() + 20
        return await app.answering.of_image(where, image_bytes(side), preprocessing, deadline)

    assert asyncio.run(thread(20)) == "decode"
    assert asyncio.run(thread(1500)) == "decode large"


def until(condition: Callable[[], bool]) -> None:
    """Wait until something holds."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
