"""Metrics add up to what was asked; log lines say who asked and never what."""

import asyncio
import json
import logging
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("prometheus_client", reason="the extra serve is not installed")

from prometheus_client.parser import text_string_to_metric_families

from resnets.commands.serve import _Limits
from resnets.evaluation.familiarity import Familiarity, class_directions, fit_familiarity
from resnets.serving.access import Access, Rate
from resnets.serving.drift import Drift
from resnets.serving.events import Events
from resnets.serving.logs import log, logging_to_stderr
from tests.serving.conftest import image_bytes

Serving = Callable[..., Any]


def samples(client: Any) -> dict[tuple[str, ...], float]:
    """The value of each metric by its name and the values of its labels."""
    response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def test_an_event_whose_timer_fails_keeps_no_other_from_being_counted() -> None:
    seen: list[str] = []
    events: Events[str] = Events(seen.append)
    with pytest.raises(RuntimeError):
        events.tell("outside of a loop")

    async def tell() -> None:
        events.tell("inside")
        await asyncio.sleep(0.3)

    asyncio.run(tell())
    assert seen == ["inside"]


def test_an_image_that_comes_again_for_a_label_or_a_heat_map_is_counted_once(
    serving: Serving, tmp_path: Path
) -> None:
    client = serving(collect=tmp_path)
    model = client.app.state.server.models["tiny"]
    seen: list[object] = []
    client.app.state.server.answering.answered = lambda *image: seen.append(image)

    def counted() -> tuple[float, ...]:
        values = samples(client)
        images = values["resnets_images_total", "tiny", "not calibrated"]
        return images, values["resnets_confidence_count", "tiny"], len(model.drift._statuses)

    for path in ("predict", "predict?repeated=1", "predict?explain=1&repeated=1"):
        assert client.post(f"/{path}", content=image_bytes()).status_code == 200
    assert client.post("/collect?label=owl", content=image_bytes()).status_code == 201
    assert (counted(), len(seen)) == ((1, 1, 1), 1)
    client.post("/predict", content=image_bytes())
    assert (counted(), len(seen)) == ((2, 2, 2), 2)


def test_requests_images_batches_and_limits_are_counted(serving: Serving) -> None:
    client = serving(queue=7)
    for _ in range(3):
        client.post("/predict", content=image_bytes())
    client.post("/predict", content=b"%PDF")
    files = [("file", ("a.png", image_bytes())), ("file", ("b.png", image_bytes()[:50]))]
    client.post("/predict", files=files)
    client.get("/nothing")
    values = samples(client)
    assert values["resnets_requests_total", "/predict", "200"] == 4
    assert values["resnets_requests_total", "/predict", "415"] == 1
    assert values["resnets_requests_total", "other", "404"] == 1
    assert values["resnets_images_total", "tiny", "not calibrated"] == 4
    assert values["resnets_images_total", "tiny", "unreadable"] == 2
    assert values["resnets_unreadable_images_total", "another format"] == 1
    assert values["resnets_unreadable_images_total", "damaged"] == 1
    assert values["resnets_batch_images_sum", "tiny"] == 4
    for phase in ("decode", "queue", "compute"):
        assert values["resnets_phase_seconds_count", "tiny", phase] == 4
    assert values["resnets_confidence_count", "tiny"] == 4
    assert values["resnets_limit", "queue"] == 7
    assert values["resnets_places_taken",] == 0
    assert values["resnets_ready",] == 1
    assert any(name == "resnets_model" for name, *_ in values)
    if sys.platform == "linux":
        assert values["resnets_resident_memory_bytes",] > 10 << 20


def test_every_limit_that_a_user_can_set_is_a_gauge(serving: Serving, tmp_path: Path) -> None:
    limits = {
        "queue": ("queue", 7),
        "timeout": ("timeout_seconds", 5.5),
        "max_body": ("body_bytes", 1 << 20),
        "max_pixels": ("image_pixels", 10**6),
        "grace": ("grace_seconds", 2.5),
    }
    changed = {flag: value for flag, (_, value) in limits.items()}
    client = serving(Access(rate=Rate(50)), **changed, collect=tmp_path, collect_mb=3)
    values = samples(client)
    limits |= {
        "max_batch": ("max_batch of tiny", 4),
        "collect_mb": ("collect_bytes", 3 << 20),
        "rate": ("requests_per_second", 50),
        "workers": ("workers", 1),
    }
    for name, value in limits.values():
        assert values["resnets_limit", name] == value
    assert {field.name for field in fields(_Limits)} <= {*limits}  # --help's
    without = samples(serving())
    assert ("resnets_limit", "collect_bytes") not in without
    assert ("resnets_limit", "requests_per_second") not in without


def test_gauges_are_measured_before_anybody_asks(serving: Serving) -> None:
    client = serving()  # of several processes only one is asked, and tells of all
    client.get("/v2/health/live")
    text = client.app.state.server.metrics.text().decode()
    assert "resnets_ready 1.0" in text
    assert 'resnets_limit{name="queue"}' in text


def test_drift_is_the_distance_of_the_means_in_usual_distances() -> None:
    random = np.random.default_rng(0)
    images = random.normal((3, 0, 0, 0, 0, 0), size=(4000, 6))
    known = fit_familiarity(class_directions(images, np.zeros(len(images))), images[:2000])
    same, other = Drift(known), Drift(known)
    for features in images[2000:2900]:
        same.add(features.astype(np.float32))
        other.add(-features.astype(np.float32))
    assert same.distance is not None
    assert other.distance is not None
    assert same.distance < 4 / np.sqrt(900)  # 1 / sqrt(n), and the validation mean's own error
    center = np.asarray(known.center, np.float64)
    usual = np.sqrt(1 - center @ center)
    assert other.distance == pytest.approx(2 * np.linalg.norm(center) / usual, rel=0.1)
    again = Familiarity.from_dict(known.to_dict()).center
    np.testing.assert_allclose(again, known.center, atol=1e-3)


def test_drift_is_unknown_for_files_of_earlier_versions() -> None:
    drift = Drift(None)
    drift.add(np.ones(3, np.float32))
    assert drift.distance is None


def test_a_request_is_one_line_with_ids_and_without_content(
    serving: Serving, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "resnets.serving")
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    client = serving()
    response = client.post(
        "/predict?top=2&model=tiny",
        files=[("file", ("private name.png", image_bytes()))],
        headers={"X-Request-ID": "order-7", "traceparent": trace},
    )
    assert response.headers["x-request-id"] == "order-7"
    assert response.headers["traceparent"] == trace
    samples(client)  # has everything before it counted and logged
    lines = [record.message for record in caplog.records if record.name == "resnets.serving"]
    (line,) = [line for line in lines if '"/metrics"' not in line]  # logged by now or not
    entry = json.loads(line)
    assert (entry["method"], entry["path"], entry["status"]) == ("POST", "/predict", 200)
    assert (entry["id"], entry["traceparent"]) == ("order-7", trace)
    assert "private" not in line
    assert "tiny" not in line


def test_without_an_access_log_faults_are_still_logged(
    serving: Serving, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "resnets.serving")
    client = serving(access_log=False)
    assert client.post("/predict", content=image_bytes()).status_code == 200
    assert client.post("/predict", content=b"no image").status_code == 415
    assert 'path="/predict",status="415"' in client.get("/metrics").text
    assert not [record for record in caplog.records if record.name == "resnets.serving"]
    monkeypatch.setattr(client.app.state.server.answering, "answers", lambda *_: 1 / 0)
    client.post("/predict", content=image_bytes())
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize("wrong", ["a b", "x" * 200, 'quote"', "é", ""])
def test_ids_that_are_no_plain_word_are_replaced(serving: Serving, wrong: str) -> None:
    headers = {"X-Request-ID": wrong.encode("latin-1"), "traceparent": b"00-nonsense"}
    response = serving().get("/v2/health/live", headers=headers)
    assert response.headers["x-request-id"].isalnum()
    assert "traceparent" not in response.headers


def test_a_fault_is_a_500_with_its_traceback_in_the_log_only(
    serving: Serving, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = serving()

    def fails(*_: object) -> None:
        raise RuntimeError("a secret of the inside")

    monkeypatch.setattr(client.app.state.server.answering, "answers", fails)
    response = client.post("/predict", content=image_bytes())
    assert response.status_code == 500
    assert "secret" not in response.text
    assert "secret" in caplog.text
    assert client.app.state.server.answering.places.taken == 0


@pytest.mark.skipif(sys.platform == "win32", reason="pipes are of another kind there")
def test_a_reader_of_the_log_that_has_stopped_stops_nothing() -> None:
    code = (
        "from resnets.serving.logs import log, logging_to_stderr\n"
        "with logging_to_stderr():\n"
        "    for place in range(2000): log('request', text='x' * 200)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE) as process:
        try:
            assert process.wait(60) == 0  # nobody reads its standard error
        finally:
            process.kill()


def test_log_lines_arrive(capfd: pytest.CaptureFixture[str]) -> None:
    with logging_to_stderr():
        log("started", model="ü")
    (line,) = capfd.readouterr().err.splitlines()
    assert json.loads(line)["model"] == "ü"


def test_what_libraries_say_is_a_line_of_json_too(capfd: pytest.CaptureFixture[str]) -> None:
    with logging_to_stderr():
        logging.getLogger("uvicorn.error").warning("no HTTP: %r\n", "x")
        try:
            raise ValueError("\x1b[2Jwrong")
        except ValueError:
            logging.getLogger("asyncio").exception("it failed")
    first, second, *traceback = capfd.readouterr().err.splitlines()
    assert json.loads(first)["text"] == "no HTTP: 'x'\n"
    assert json.loads(second)["event"] == "error"
    assert traceback[-1] == "ValueError: \\x1b[2Jwrong"  # no terminal obeys it
