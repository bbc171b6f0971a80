"""The clients predict what `resnets.predict` does, and say in words what is wrong."""

import asyncio
import json
import socket
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import resnets
from resnets.cli import main
from resnets.errors import MissingExtra, UsageError
from resnets.evaluation.predict import Prediction
from resnets.serving import (
    AsyncClient,
    Client,
    ClientClosed,
    DetailedPrediction,
    NothingAnswers,
    NotReachable,
    ServerFailed,
)
from tests.serving.conftest import NAMES, image_bytes
from tests.serving.running import running

httpx2 = pytest.importorskip("httpx2", reason="the extra serve is not installed")


@pytest.fixture(scope="module")
def url(model_file: Path) -> Iterator[str]:
    """The address of a real server."""
    pytest.importorskip("uvicorn", reason="the extra serve is not installed")
    from resnets.serving.app import create_app
    from resnets.serving.served_model import open_served
    from resnets.serving.settings import Settings

    model = open_served(model_file, name="tiny", engine="torch", max_batch=4)
    with running(create_app({"tiny": model}, Settings())) as address:
        yield f"http://{address}"


@pytest.fixture
def images(tmp_path: Path) -> list[Any]:
    """One image of each kind that a program may hold, and a file that cannot be read."""
    pixels = np.asarray(Image.open(BytesIO(image_bytes(seed=1))))
    (tmp_path / "a.jpg").write_bytes(image_bytes(form="JPEG"))
    (tmp_path / "b.tif").write_bytes(image_bytes(form="TIFF"))  # no server reads it
    (tmp_path / "c.png").write_bytes(image_bytes()[:90])
    deep = Image.fromarray(np.arange(400, dtype=np.uint16).reshape(20, 20) * 160)
    grey = Image.fromarray(pixels[..., 0])
    return [tmp_path, image_bytes(), pixels, pixels[..., 0], np.stack([pixels] * 2), deep, grey]


def same(ours: list[Prediction], theirs: list[Prediction]) -> None:
    """Compare predictions of a client with those of `resnets.predict`."""
    assert [(x.image, x.prediction, x.status) for x in ours] == [
        (x.image, x.prediction, x.status) for x in theirs
    ]
    assert [bool(x.error) for x in ours] == [bool(x.error) for x in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        assert [name for name, _ in mine.top] == [name for name, _ in other.top]
        assert [x for _, x in mine.top] == pytest.approx([x for _, x in other.top], abs=1e-6)


def test_predictions_are_those_of_predict(url: str, model_file: Path, images: list[Any]) -> None:
    with Client(url) as client:
        assert client.models() == ["tiny"]
        assert client.class_names() == NAMES
        same(client.predict(images, top=3), resnets.predict(model_file, images, top=3))
        assert client.predict([]) == []


def test_one_odd_file_loses_none_of_the_others(url: str, model_file: Path, tmp_path: Path) -> None:
    odd = {
        "cut.png": image_bytes()[:90],
        "empty.jpg": b"",
        "other.jpg": b"%PDF-1.7",
        "text.jpg": b"hello",
        "two\nlines.png": b"a text",
    }
    for name, content in odd.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere")
    files = [*sorted(tmp_path.iterdir()), image_bytes(), b""]

    async def predict() -> list[Prediction]:
        async with AsyncClient(url) as client:
            return await client.predict(files)

    with Client(url) as client:
        for answered in (client.predict(files), asyncio.run(predict())):
            local = resnets.predict(model_file, files)
            same(answered, local)
            assert [each.error for each in answered] == [each.error for each in local]


def test_a_file_larger_than_the_server_takes_fails_alone(model_file: Path) -> None:
    pytest.importorskip("uvicorn", reason="the extra serve is not installed")
    from resnets.serving.app import create_app
    from resnets.serving.served_model import open_served
    from resnets.serving.settings import Settings

    model = open_served(model_file, name="tiny", engine="torch", max_batch=1)
    app = create_app({"tiny": model}, Settings(max_body=20_000))
    files = [image_bytes(), image_bytes(200), bytes(9_000_000), image_bytes(seed=1)]
    with running(app) as address, Client(f"http://{address}") as client:
        answered = client.predict(files)
    assert [each.status == "unreadable" for each in answered] == [False, True, True, False]
    # of a proxy before the server, in words of its own
    responses = [
        httpx2.Response(413, text="<html>"),
        httpx2.Response(200, json={"predictions": [ANSWER]}),
    ]
    with Client("http://x", transport=answering(*responses)) as client:
        statuses = [client.predict(image_bytes())[0].status for _ in responses]
    assert statuses == ["unreadable", "ok"]


def test_an_event_loop_is_served_too(url: str, model_file: Path, images: list[Any]) -> None:
    async def predict() -> list[Prediction]:
        async with AsyncClient(url) as client:
            assert await client.models() == ["tiny"]
            return await client.predict(images, top=2, model="tiny")

    same(asyncio.run(predict()), resnets.predict(model_file, images, top=2))


def test_features_and_heat_maps_come_with_the_prediction(url: str) -> None:
    pytest.importorskip("captum")
    with Client(url) as client:
        (detailed,) = client.predict(image_bytes(), features=True, explain=True)
    assert isinstance(detailed, DetailedPrediction)
    assert detailed.features is not None
    assert detailed.features.ndim == 1
    assert detailed.explanation is not None
    assert Image.open(BytesIO(detailed.explanation)).format == "PNG"


@pytest.mark.parametrize(
    ("asked", "word"), [({"top": 4}, "top"), ({"top": 0}, "top"), ({"model": "other"}, "tiny")]
)
def test_wrong_arguments_are_refused_in_the_servers_words(
    url: str, asked: dict[str, Any], word: str
) -> None:
    with Client(url) as client, pytest.raises(UsageError, match=word):
        client.predict(image_bytes(), **asked)


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx2", None)
    with pytest.raises(MissingExtra, match=r"httpx2.*\[serve\]"):
        Client("http://127.0.0.1:8000")


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8000", "ftp://example.org", "http://", "", "http://[", "http://a:999999"]
)
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="URL"):
        Client(url)


@pytest.mark.parametrize("key", ["n\u00f6pe", "two\nlines"])
def test_a_key_that_no_server_has_is_refused(key: str) -> None:
    with pytest.raises(UsageError, match="key"):
        Client("http://127.0.0.1:8000", key=key)


def test_where_nothing_listens_it_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = "http://{}:{}".format(*listener.getsockname())
    with Client(url) as client, pytest.raises(NothingAnswers, match=url):
        client.models()
    assert issubclass(NothingAnswers, NotReachable)
    assert main(["predict", "--server", url, "x.png"]) == 1
    assert "resnets serve" in capsys.readouterr().err


def test_the_path_of_predictions_is_no_part_of_the_address(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", "--server", f"{url}/predict", "x.png"]) == 2
    assert "without /predict" in capsys.readouterr().err


def test_a_closed_client_says_so(url: str) -> None:
    async def use_closed() -> None:
        other = AsyncClient(url)
        await other.close()
        with pytest.raises(ClientClosed, match=url):
            await other.predict([image_bytes()])

    asyncio.run(use_closed())
    client = Client(url)
    assert client.predict([image_bytes()])[0].error is None
    client.close()
    for use in (client.models, lambda: client.predict([image_bytes()])):
        with pytest.raises(ClientClosed, match=url) as caught:
            use()
        assert isinstance(caught.value, RuntimeError)  # as it was before it had a name


METADATA = {
    "name": "tiny",
    "inputs": [{"name": "images", "shape": [-1, -1, -1, 3]}],
    "parameters": {"class_names": NAMES, "white": {}},
}
ANSWER = {
    "image": "image",
    "prediction": "cat",
    "probability": 1.0,
    "status": "ok",
    "top": [{"class": "cat", "probability": 1.0}],
    "error": None,
}


def answering(*responses: Any, keys: list[str] | None = None) -> Any:
    """A transport that knows a model, and answers requests for predictions one after another."""
    waiting = iter(responses)

    def answer(request: Any) -> Any:
        if keys is not None:
            keys.append(request.headers.get("Authorization", ""))
        if request.url.path == "/v2":
            return httpx2.Response(200, json={"models": ["tiny"]})
        return httpx2.Response(200, json=METADATA) if request.method == "GET" else next(waiting)

    return httpx2.MockTransport(answer)


def busy(seconds: str) -> Any:
    return httpx2.Response(503, json={"error": "busy"}, headers={"Retry-After": seconds})


def test_a_busy_server_is_asked_again_when_it_says_and_not_beyond_the_timeout() -> None:
    response = httpx2.Response(200, json={"predictions": [ANSWER]})
    keys: list[str] = []
    transport = answering(busy("0"), busy("0"), response, keys=keys)
    with Client("http://x", key="secret", transport=transport) as client:
        assert client.predict(image_bytes())[0].prediction == "cat"
    assert set(keys) == {"Bearer secret"}
    with (
        Client("http://x", timeout=5, transport=answering(busy("60"))) as client,
        pytest.raises(ServerFailed, match="busy"),
    ):
        client.predict(image_bytes())


def test_after_a_refusal_no_other_image_is_asked_for() -> None:
    async def answer(request: Any) -> Any:
        if request.url.path == "/v2":
            return httpx2.Response(200, json={"models": ["tiny"]})
        if request.method == "GET":
            return httpx2.Response(200, json=METADATA)
        if len(await request.aread()) < 100:
            return httpx2.Response(401, json={"error": "the key is no longer valid"})
        return await asyncio.Event().wait()

    async def ask() -> set[Any]:
        async with AsyncClient("http://x", transport=httpx2.MockTransport(answer)) as client:
            with pytest.raises(UsageError):
                await client.predict([image_bytes(), b"\x89PNG\r\n\x1a\n"])
            return asyncio.all_tasks() - {asyncio.current_task()}

    assert not asyncio.run(ask())


@pytest.mark.parametrize(
    ("response", "error"),
    [
        (httpx2.Response(200, text="<html>"), UsageError),
        (httpx2.Response(200, json={"predictions": [{}]}), UsageError),
        (httpx2.Response(200, json=[1]), UsageError),
        (httpx2.Response(502, text="bad gateway"), ServerFailed),
        (httpx2.Response(401, json={"error": "a key is needed"}), UsageError),
        (httpx2.Response(500, json={"error": "a fault"}), ServerFailed),
        (httpx2.Response(504, json={"error": "late"}), ServerFailed),
    ],
)
def test_other_answers_are_errors_that_name_the_server(response: Any, error: type) -> None:
    with (
        Client("http://x", timeout=0.5, transport=answering(response)) as client,
        pytest.raises(error, match="http://x"),
    ):
        client.predict(image_bytes())


def test_the_command_prints_the_same_with_a_server_as_without(
    url: str, model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in range(2):
        (tmp_path / f"{seed}.png").write_bytes(image_bytes(seed=seed))
    words = [str(tmp_path / "*.png"), "--top", "2"]
    for form in (["--json"], ["--csv"]):
        assert main(["predict", "tiny", *words, *form, "--server", url]) == 0
        remote = capsys.readouterr().out
        assert main(["predict", str(model_file), *words, *form, "--engine", "torch"]) == 0
        local = capsys.readouterr().out
        if form == ["--json"]:
            assert [row["prediction"] for row in json.loads(remote)] == [
                row["prediction"] for row in json.loads(local)
            ]
        assert remote.count("\n") == local.count("\n")
    copies = tmp_path / "sorted"
    assert main(["predict", *words, "--sort", str(copies), "--server", url]) == 0
    assert len(list(copies.rglob("*.png"))) == 2


def test_a_word_that_is_a_model_of_the_server_and_a_folder_here_is_refused(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny/0.png").write_bytes(image_bytes())
    monkeypatch.chdir(tmp_path)
    command = ["predict", "--server", url, "--json"]
    assert main([*command, "tiny", "tiny"]) == 2
    assert "./tiny" in capsys.readouterr().err
    for words in (["tiny"], ["./tiny", "tiny"]):
        assert main([*command, *words]) == 0
        assert len(json.loads(capsys.readouterr().out)) == len(words)
    (tmp_path / "tiny/model.safetensors").touch()  # as in the folder where it was trained
    assert main([*command, "tiny", "tiny/0.png"]) == 0


@pytest.mark.parametrize("features", [[], ["--features"]])
@pytest.mark.parametrize("readable", [True, False])
def test_a_parquet_file_is_the_same_with_a_server_as_without(
    url: str, model_file: Path, tmp_path: Path, features: list[str], readable: bool
) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    for seed in range(3):
        whole = readable and seed != 1
        (tmp_path / f"{seed}.png").write_bytes(image_bytes(seed=seed)[: None if whole else 90])
    words = [str(tmp_path), "--top", "2", *features, "--parquet"]
    remote, local = tmp_path / "remote.parquet", tmp_path / "local.parquet"
    assert main(["predict", "tiny", *words, str(remote), "--server", url]) == 1
    assert main(["predict", str(model_file), *words, str(local), "--engine", "torch"]) == 1
    ours, theirs = pq.read_table(remote), pq.read_table(local)
    assert ours.schema == theirs.schema
    assert ("features" in ours.column_names) == bool(features)
    for name in ours.column_names:
        numbers, others = ours[name].to_pylist(), theirs[name].to_pylist()
        if name == "features":
            flat = [x for row in numbers for x in row], [x for row in others for x in row]
            assert len(flat[0]) >= 3 * 8
            assert flat[0] == pytest.approx(flat[1], abs=1e-4)
        elif name.startswith("probability"):
            assert numbers == pytest.approx(others, abs=1e-6)
        else:
            assert numbers == others


@pytest.mark.parametrize("flag", ["--part=1/2", "--on=ray"])
def test_parts_are_refused_with_a_server(
    flag: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["predict", "--server", "http://127.0.0.1:9", "x.png", flag, f"--output={tmp_path}"]
    assert main(words) == 2
    assert flag.partition("=")[0] in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--tta", "--threads=1", "--engine=torch", "--batch-size=1"])
def test_what_the_server_decides_is_refused(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "--server", "http://127.0.0.1:9", "x.png", flag]) == 2
    assert flag.partition("=")[0] in capsys.readouterr().err


def test_what_was_answered_before_the_server_failed_is_kept(
    model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("uvicorn", reason="the extra serve is not installed")
    from resnets.serving.app import create_app
    from resnets.serving.responses import JSON
    from resnets.serving.served_model import open_served
    from resnets.serving.settings import Settings

    app = create_app(
        {"tiny": open_served(model_file, name="tiny", engine="torch", max_batch=1)}, Settings()
    )
    predicted = 0

    async def ends_after_three(scope: Any, receive: Any, send: Any) -> None:
        nonlocal predicted
        predicted += scope.get("path") == "/predict"
        if scope.get("path") != "/predict" or predicted <= 3:
            await app(scope, receive, send)
        else:
            await JSON({"error": "a fault of the server"}, 500)(scope, receive, send)

    for number in range(40):
        (tmp_path / f"{number:02}.png").write_bytes(image_bytes(seed=number))
    with running(ends_after_three) as address:
        words = ["predict", "--server", f"http://{address}", str(tmp_path), "--csv"]
        assert main(words) == 1
        output = capsys.readouterr()
        answered = [line for line in output.out.splitlines()[1:] if ",unanswered," not in line]
        assert 1 <= len(answered) <= 3  # in the order of the images, so that one may miss before
        assert f"{len(answered)} of 40 images" in output.err
        assert predicted < 40  # no more images were sent than tell that it goes on failing
        assert main(["predict", "--server", f"http://{address}", "tinny", "x.png"]) == 2
        assert "tiny" in capsys.readouterr().err
