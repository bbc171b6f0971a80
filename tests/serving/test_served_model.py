"""A network is served only if it computes its golden image right."""

import hashlib
import subprocess
import sys
import time
from contextlib import nullcontext
from io import BytesIO
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import pytest
from PIL import Image

from resnets.deployment.engines.selection import sha256_of
from resnets.errors import ContentError
from resnets.evaluation.engine import NotFiniteError
from resnets.files.writing import write_atomically
from resnets.golden import golden_from
from resnets.images import Pixels
from resnets.integrity import DIGEST, UNSTAMPED, stamped
from resnets.model_file import load, read_header
from resnets.serving.answers import Floats
from resnets.serving.served_model import ServedModel, open_served
from tests.in_process import call

EARLIER = Path(__file__).parents[1] / "fixtures" / "before_trust"


def with_golden(model_file: Path, target: Path, golden: str) -> Path:
    """A copy of a model file that tells other probabilities, or none."""
    from safetensors.torch import save

    header = read_header(model_file) | {"golden": golden, DIGEST: UNSTAMPED}
    write_atomically(target, stamped(save(load(model_file).network.state_dict(), header)))
    return target


def test_a_wrong_golden_image_ends_the_command_with_exit_code_1(
    model_file: Path, tmp_path: Path
) -> None:
    pytest.importorskip("uvicorn", reason="the extra serve is not installed")
    wrong = '{"seed": 0, "probabilities": [0.01, 0.98, 0.01]}'
    file = with_golden(model_file, tmp_path / "wrong.safetensors", wrong)
    ended = call("serve", file, "--port", "0", "--max-batch", "2", "--engine", "torch")
    assert ended.returncode == 1
    assert "golden" in ended.stderr
    assert "Traceback" not in ended.stderr


class Unsteady:
    """An engine whose probabilities depend on the number of images."""

    name, threads = "torch", 0

    def __init__(self, model_file: Path) -> None:
        self.description = load(model_file).description

    def probabilities(self, images: Pixels) -> Floats:
        sharp = 0.4 + 0.1 * len(images)
        return np.full((len(images), 3), [sharp, 1 - sharp, 0], np.float32)


class WrongInFours(Unsteady):
    """An engine whose probabilities are right but in batches of four."""

    def probabilities(self, images: Pixels) -> Floats:
        sharp = 0.9 if len(images) == 4 else 0.5
        return np.full((len(images), 3), [sharp, 1 - sharp, 0], np.float32)


class OverflowsForWhite:
    """An engine whose numbers overflow for white images, and for no others in their batch."""

    name, threads = "torch", 0

    def __init__(self, model_file: Path) -> None:
        self.description = load(model_file).description

    def probabilities(self, images: Pixels) -> Floats:
        if places := [n for n, image in enumerate(images) if image.min() == 255]:
            raise NotFiniteError(places, len(images))
        confidence = 0.5 + images.mean((1, 2, 3)) / 1000  # each image has its own
        return np.stack([confidence, 1 - confidence, 0 * confidence], 1).astype(np.float32)


class Timed:
    """An engine that takes some milliseconds a batch, and some an image."""

    name, threads = "torch", 1

    def __init__(self, model_file: Path, a_batch: float, an_image: float) -> None:
        self.description = load(model_file).description
        self.a_batch, self.an_image = a_batch, an_image

    def probabilities(self, images: Pixels) -> Floats:
        end = time.process_time() + (self.a_batch + len(images) * self.an_image) / 1000
        while time.process_time() < end:
            pass
        return np.full((len(images), 3), 1 / 3, np.float32)


@pytest.mark.parametrize(
    ("a_batch", "an_image", "sizes"),
    [
        (0, 0.5, {16}),  # 32 would keep others waiting
        (0.5, 0.5, {8, 16}),
        (0, 40, {1}),  # a batch of two would keep others waiting
        (8, 0.01, {64}),
    ],
)
def test_the_largest_batch_is_one_that_is_as_fast_as_any_and_takes_no_long_time(
    model_file: Path, a_batch: float, an_image: float, sizes: set[int]
) -> None:
    engine = Timed(model_file, a_batch, an_image)
    model = ServedModel("x", model_file, engine)  # type: ignore[arg-type]
    model.close()
    assert model.max_batch in sizes


def test_a_file_without_one_must_agree_alone_and_in_a_batch(
    model_file: Path, tmp_path: Path
) -> None:
    file = with_golden(model_file, tmp_path / "none.safetensors", "{}")
    open_served(file, engine="torch", max_batch=2).close()
    model = ServedModel("x", file, Unsteady(file), max_batch=2)  # type: ignore[arg-type]
    with pytest.raises(ContentError, match="batch"):
        model.check()
    model.close()


def test_the_digest_is_what_everybody_computes_of_the_file(
    model_file: Path, tmp_path: Path
) -> None:
    model = open_served(model_file, engine="torch", max_batch=1)
    assert model.digest == hashlib.sha256(model_file.read_bytes()).hexdigest()
    (tmp_path / "net.xml").write_bytes(b"one")
    (tmp_path / "net.bin").write_bytes(b"two" * 1_000_000)
    assert (
        sha256_of(tmp_path / "net.xml") == hashlib.sha256(b"one" + b"two" * 1_000_000).hexdigest()
    )


def test_an_engine_that_is_wrong_in_batches_only_is_found(model_file: Path) -> None:
    engine = Unsteady(model_file)
    engine.description.golden.update(golden_from(np.array([0.5, 0.5, 0.0])))
    model = ServedModel("x", model_file, engine, max_batch=2)  # type: ignore[arg-type]
    with pytest.raises(ContentError, match="batch"):
        model.check()
    model.close()


@pytest.mark.parametrize("white", [{1}, {0, 2}, {0, 1, 2}, set()])
def test_an_image_whose_numbers_overflow_fails_alone(model_file: Path, white: set[int]) -> None:
    testclient = pytest.importorskip("starlette.testclient")
    from resnets.serving.app import create_app
    from resnets.serving.settings import Settings

    model = ServedModel("x", model_file, OverflowsForWhite(model_file), 4)  # type: ignore[arg-type]
    files = []
    for number in range(3):
        file = BytesIO()
        grey = 255 if number in white else 40 * number
        Image.new("L", (20, 20), grey).save(file, "PNG")
        files.append(("file", (f"{number}.png", file.getvalue())))
    with testclient.TestClient(create_app({"x": model}, Settings()), "http://127.0.0.1") as client:
        compute = Event()
        model.threads.submit(compute.wait, 60)  # so that all three wait for one batch
        waiting = Thread(target=lambda: answers.append(client.post("/predict", files=files)))
        answers: list[Any] = []
        waiting.start()
        while model.batcher.waiting < 3 and waiting.is_alive():
            time.sleep(0.01)
        compute.set()
        waiting.join()
        (response,) = answers
        alone = client.post("/predict", content=files[1][1][1])
    rows = response.json()["predictions"]
    assert [row["error"] is not None for row in rows] == [n in white for n in range(3)]
    assert all("overflow" in rows[n]["error"] for n in white)
    for n in {0, 1, 2} - white:  # each its own
        assert rows[n]["probability"] == pytest.approx(0.5 + 40 * n / 1000, abs=1e-6)
    assert alone.status_code == (422 if 1 in white else 200)


@pytest.mark.parametrize(("max_batch", "is_wrong"), [(1, False), (3, False), (4, True)])
def test_the_golden_image_is_computed_in_the_batch_that_requests_will_have(
    model_file: Path, max_batch: int, is_wrong: bool
) -> None:
    engine = WrongInFours(model_file)
    engine.description.golden.update(golden_from(np.array([0.5, 0.5, 0.0])))
    model = ServedModel("x", model_file, engine, max_batch)  # type: ignore[arg-type]
    with pytest.raises(ContentError, match="batch") if is_wrong else nullcontext():
        model.check()
    model.close()


def test_an_exported_file_of_an_earlier_version_is_served_without_torch() -> None:
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    pytest.importorskip("starlette", reason="the extra serve is not installed")
    code = (
        "import io, sys; from pathlib import Path\n"
        "from PIL import Image; from starlette.testclient import TestClient\n"
        "from resnets.serving.app import create_app\n"
        "from resnets.serving.served_model import open_served\n"
        "from resnets.serving.settings import Settings\n"
        "model = open_served(Path(sys.argv[1]), engine='onnxruntime', max_batch=2)\n"
        "app, file = create_app({'digits': model}, Settings()), io.BytesIO()\n"
        "Image.new('L', (28, 28)).save(file, 'PNG')\n"
        "with TestClient(app, 'http://127.0.0.1') as client:\n"
        "    for path in ('/predict', '/predict?features=1'):\n"
        "        assert client.post(path, content=file.getvalue()).status_code == 200\n"
        "    for path in ('/', '/model', '/metrics', '/openapi.json', '/v2/models/digits'):\n"
        "        assert client.get(path).status_code == 200, path\n"
        "    refusal = client.post('/predict?explain=1', content=file.getvalue())\n"
        "    assert refusal.status_code == 501, refusal.text\n"
        "sys.exit('torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(EARLIER / "digits.onnx")]
    assert subprocess.run(command, timeout=120, check=False).returncode == 0
