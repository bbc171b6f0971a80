"""A network is served only if it computes its golden image right."""

import hashlib
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from resnets.deployment.engines.selection import sha256_of
from resnets.errors import ContentError
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
        "import sys; from pathlib import Path\n"
        "from resnets.serving.app import create_app\n"
        "from resnets.serving.served_model import open_served\n"
        "from resnets.serving.settings import Settings\n"
        "model = open_served(Path(sys.argv[1]), engine='onnxruntime', max_batch=2)\n"
        "create_app({'digits': model}, Settings())\n"
        "sys.exit('torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(EARLIER / "digits.onnx")]
    assert subprocess.run(command, timeout=120, check=False).returncode == 0
