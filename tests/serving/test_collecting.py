"""Labels of users become a folder that `doctor` and `train` read; unsure images wait for one."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from resnets import cli
from resnets.data.sources.folders import read_folder
from resnets.evaluation.predict import Prediction, Status
from resnets.model_file import read_description
from resnets.serving.answers import Outputs
from resnets.serving.worth_labelling import Candidate, Queue, digest_of
from tests.serving.conftest import image_bytes

Serving = Callable[..., Any]


def labels_in(folder: Path) -> list[dict[str, Any]]:
    text = (folder / "labels.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_labelled_images_are_a_data_set(
    serving: Serving, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    client = serving(collect=tmp_path / "new/labels")
    for seed in range(4):
        content = image_bytes(seed=seed)
        label = ("cat", "fox")[seed % 2]  # a class of the model, and a new one
        response = client.post(f"/collect?label={label}", content=content)
        assert response.status_code == 201
        assert (tmp_path / "new/labels" / response.json()["image"]).read_bytes() == content
    (first, *_) = labels_in(tmp_path / "new/labels")
    assert (first["label"], first["model"]) == ("cat", "tiny")
    assert first["digest"] == client.get("/model").json()["models"][0]["digest"] != ""
    assert first["prediction"] in ("cat", "dog", "owl")
    assert cli.main(["doctor", str(tmp_path / "new/labels"), "--json"]) == 0
    counts = json.loads(capsys.readouterr().out)
    assert "fox" in str(counts)
    content = read_folder(tmp_path / "new/labels")
    assert not content.warnings  # of labels.jsonl, which belongs there
    assert [path for path, _ in content.passed_over] == ["labels.jsonl"]
    (tmp_path / "new/labels/labels.jsonl").write_text('{"file": "a.png", "label": "cat"}\n')
    assert "labels.jsonl" in " ".join(read_folder(tmp_path / "new/labels").warnings)  # a user's


@pytest.mark.slow
def test_what_users_labelled_is_trained_on(serving: Serving, tmp_path: Path) -> None:
    client, folder, run = (
        serving(collect=tmp_path / "labels"),
        tmp_path / "labels",
        tmp_path / "run",
    )
    for seed in range(12):
        label = ("cat", "fox")[seed % 2]
        response = client.post(f"/collect?label={label}", content=image_bytes(seed=seed))
        assert response.status_code == 201
    words = ["train", str(folder), "--output", str(run), "--network", "resnet14"]
    assert cli.main([*words, "--epochs", "1", "--image-size", "16", "--no-report"]) == 0
    description = read_description(run / "model.safetensors")
    assert description.class_names == ("cat", "fox")
    counts = description.data["counts"]
    assert sum(sum(each.values()) for each in counts.values()) == 12


def test_a_label_has_no_spaces_around_it_and_is_no_file_of_the_folder(
    serving: Serving, tmp_path: Path
) -> None:
    (tmp_path / "notes").write_text("of a user")
    client = serving(collect=tmp_path)
    assert client.post("/collect?label=cat%20", content=image_bytes()).status_code == 201
    assert client.post("/collect?label=%20fox", content=image_bytes(seed=1)).status_code == 201
    assert {path.parent.name for path in tmp_path.glob("*/*.png")} == {"cat", "fox"}
    assert client.post("/collect?label=notes", content=image_bytes(seed=2)).status_code == 422
    gone = client.post(f"/collect?label=cat&image={'0' * 64}")
    assert gone.status_code == 404


def test_an_image_is_stored_once_with_its_latest_label(serving: Serving, tmp_path: Path) -> None:
    client = serving(collect=tmp_path)
    statuses = [
        client.post(f"/collect?label={label}", content=image_bytes()).status_code
        for label in ("cat", "cat", "dog")
    ]
    assert statuses == [201, 200, 201]
    assert [path.parent.name for path in tmp_path.glob("*/*")] == ["dog"]
    again = serving(collect=tmp_path)  # as after a restart
    assert again.post("/collect?label=dog", content=image_bytes()).status_code == 200
    digest = again.post("/collect?label=dog", content=image_bytes()).json()["digest"]
    assert again.delete(f"/collect/{digest}").status_code == 404  # not of this process
    assert client.delete(f"/collect/{digest}").status_code == 200
    assert not [path for path in tmp_path.rglob("*") if path.is_dir() and not any(path.iterdir())]
    assert not list(tmp_path.glob("*/*.png"))


@pytest.mark.parametrize(
    "label",
    ["", "../up", "a/b", "con", ".hidden", "train", "CAT", "x" * 101, "labels.jsonl", "\ufffd"],
)
def test_names_that_are_no_safe_class_are_refused(
    serving: Serving, tmp_path: Path, label: str
) -> None:
    response = serving(collect=tmp_path).post(
        "/collect", params={"label": label}, content=image_bytes()
    )
    assert response.status_code == 422
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("label", "advice"),
    [("..", None), ("._", None), ("con", "_con"), (".aux", "_aux"), (".a/b", "a_b"), ("x.", "x")],
)
def test_the_name_that_a_refusal_advises_is_allowed_and_like_the_one_that_was_sent(
    serving: Serving, tmp_path: Path, label: str, advice: str | None
) -> None:
    client = serving(collect=tmp_path)
    reason = client.post("/collect", params={"label": label}, content=image_bytes()).json()["error"]
    advised = re.search("take '(.*)'", reason)
    assert (advised and advised[1]) == advice
    if advice:
        taken = client.post("/collect", params={"label": advice}, content=image_bytes())
        assert taken.status_code == 201


def test_what_is_no_image_is_not_stored(serving: Serving, tmp_path: Path) -> None:
    client = serving(collect=tmp_path)
    assert client.post("/collect?label=cat", content=b"#!/bin/sh").status_code == 415
    assert client.post("/collect?label=cat", content=image_bytes()[:80]).status_code == 422
    assert client.post("/collect?label=cat").status_code == 400
    assert client.post("/collect", content=image_bytes()).status_code == 400
    form = client.post("/collect?label=cat", files={"file": ("a.png", image_bytes())})
    assert form.status_code == 415
    assert "form" in form.json()["error"]
    assert not list(tmp_path.iterdir())


def test_a_server_that_stops_takes_no_label(serving: Serving, tmp_path: Path) -> None:
    client = serving(collect=tmp_path)
    client.app.state.server.stop()
    response = client.post("/collect?label=cat", content=image_bytes())
    assert response.status_code == 503
    assert client.app.state.server.answering.places.taken == 0


def test_a_full_folder_takes_no_more(serving: Serving, tmp_path: Path) -> None:
    client = serving(collect=tmp_path, collect_mb=1)
    collection = client.app.state.server.collection
    collection.most = 3_000
    codes = [
        client.post("/collect?label=cat", content=image_bytes(seed=seed)).status_code
        for seed in range(4)
    ]
    assert codes[0] == 201
    assert codes[-1] == 507
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.png")) <= 3_000


def test_images_that_were_moved_away_make_room(serving: Serving, tmp_path: Path) -> None:
    client = serving(collect=tmp_path)
    client.app.state.server.collection.most = 2_000  # one image

    def label(seed: int) -> int:
        response = client.post("/collect?label=cat", content=image_bytes(seed=seed))
        return int(response.status_code)

    assert [label(0), label(1)] == [201, 507]
    for path in tmp_path.rglob("*.png"):
        path.unlink()
    assert label(1) == 201
    next(tmp_path.rglob("*.png")).unlink()
    assert label(1) == 201  # the label is not taken for one of an image that is still there


def test_nothing_is_kept_without_the_flag_or_for_other_sites(
    serving: Serving, tmp_path: Path
) -> None:
    client = serving()
    client.post("/predict", content=image_bytes())
    assert client.get("/queue").status_code == 404
    assert client.post("/collect?label=cat", content=image_bytes()).status_code == 404
    foreign = {"Origin": "https://example.org"}
    keeping = serving(collect=tmp_path)
    response = keeping.post("/collect?label=cat", content=image_bytes(), headers=foreign)
    assert response.status_code == 403


def test_images_wait_until_they_are_labelled(serving: Serving, tmp_path: Path) -> None:
    client = serving(collect=tmp_path)
    contents = [image_bytes(seed=seed) for seed in range(3)]
    for content in (*contents, contents[0]):
        client.post("/predict", content=content)
    waiting = client.get("/queue").json()["images"]
    assert len(waiting) == 3
    digest = waiting[0]["digest"]
    picture = client.get(f"/queue/{digest}")
    assert picture.content in contents
    assert "sandbox" in picture.headers["content-security-policy"]
    response = client.post(f"/collect?label=owl&image={digest}")
    assert response.json()["image"] == f"owl/{digest}.png"
    assert client.get(f"/queue/{digest}").status_code == 404
    assert len(client.get("/queue").json()["images"]) == 2
    for _ in range(2):  # one whose label is taken back waits again
        assert client.delete(f"/collect/{digest}").status_code == 200
        assert client.get("/queue").json()["images"] == waiting
        client.post(f"/collect?label=owl&image={digest}")


def candidate(
    name: str,
    probability: float,
    features: list[float] | None = None,
    status: Status = "unsure",
) -> Candidate:
    row = None if features is None else np.array(features, np.float32)
    prediction = Prediction(name, "cat", probability, status)
    return Candidate(
        name.encode(),
        digest_of(name.encode()),
        name,
        "tiny",
        prediction,
        Outputs(np.ones(1, np.float32), status, (("cat", probability),), row),
    )


def test_an_image_that_is_sent_again_waits_once_and_not_with_a_label(
    serving: Serving, tmp_path: Path
) -> None:
    """As the page does: it asks for the heat map of an image that was answered before."""
    client = serving(collect=tmp_path)

    def waiting_after(path: str) -> list[str]:
        assert client.post(path, content=image_bytes()).status_code == 200
        return [each["digest"] for each in client.get("/queue").json()["images"]]

    digest = digest_of(image_bytes())
    assert [waiting_after("/predict") for _ in range(2)] == [[digest], [digest]]
    assert client.post("/collect?label=cat", content=image_bytes()).status_code == 201
    assert waiting_after("/predict") == []
    (path,) = tmp_path.glob("cat/*.png")
    path.unlink()  # moved away: it has no label here
    assert waiting_after("/predict") == [digest]


def test_the_order_is_by_doubt_but_nearly_equal_images_do_not_follow_each_other() -> None:
    queue = Queue()
    for each in (
        candidate("sure", 0.9, [0, 1]),
        candidate("doubtful", 0.4, [1, 0]),
        candidate("its twin", 0.41, [1, 0.001]),
    ):
        queue.add(each)
    assert [each.name for each in queue.ordered()] == ["doubtful", "sure", "its twin"]
    plain = Queue()
    for probability in (0.5, 0.3, 0.9):
        plain.add(candidate(str(probability), probability))
    plain.add(candidate("strange", 0.99, status="unfamiliar"))
    assert [each.name for each in plain.ordered()] == ["strange", "0.3", "0.5", "0.9"]


def test_of_too_many_images_the_surest_leave() -> None:
    queue = Queue(images=2)
    for probability in (0.9, 0.3, 0.5):
        queue.add(candidate(str(probability), probability))
    assert {each.name for each in queue.ordered()} == {"0.3", "0.5"}
    small = Queue(size=5)  # bytes
    for name in ("0.91", "0.32"):
        small.add(candidate(name, float(name)))
    assert [each.name for each in small.ordered()] == ["0.32"]


def test_labels_are_collected_by_one_process_only(model_file: Path, tmp_path: Path) -> None:
    words = [str(model_file), "--collect", str(tmp_path), "--workers", "2"]
    assert cli.main(["serve", *words]) == 2
