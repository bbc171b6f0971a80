import json
import os
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.in_process import call

Untrained = Callable[..., Path]


def run(*words: str | Path, home: str = os.devnull) -> CompletedProcess[str]:
    """A command, by default of a user whose home cannot be written to."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("XDG_CACHE_HOME", raising=False)
        patch.setenv("HOME", home)
        return call(*words)


@pytest.fixture(scope="module")
def model(untrained: Untrained) -> Path:
    return untrained(tuple("0123456789"), 8, 8)


@pytest.fixture(scope="module")
def photo(draw_noise: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    draw_noise(path)
    return path


@pytest.mark.slow
def test_an_exported_network_answers_and_is_measured_as_the_model_it_is_from(
    model: Path, photo: Path, tmp_path: Path
) -> None:
    answers = json.loads(run("predict", model, photo, "--json", "--top", "3").stdout)
    figures = json.loads(run("evaluate", model, "digits", "--json").stdout)
    done = run("export", model, "--to", "onnx", "--images", "5")
    assert done.returncode == 0, done.stderr
    file = model.with_suffix(".onnx")
    assert done.stdout.startswith(
        f"{file}: the same class as PyTorch on 5 of 5 images (drawn from all of digits)"
    )
    assert done.stderr == ""
    for path, more in ((file, ()), (model, ()), (file, ("--engine", "openvino"))):
        rows = json.loads(run("predict", path, photo, "--json", "--top", "3", *more).stdout)
        assert [rows[0][f"top{rank}"] for rank in (1, 2, 3)] == [
            answers[0][f"top{rank}"] for rank in (1, 2, 3)
        ]
        assert rows[0]["probability"] == pytest.approx(answers[0]["probability"], abs=1e-5)
    measured = json.loads(run("evaluate", file, "digits", "--json", home=str(tmp_path)).stdout)
    assert measured["confusion"] == figures["confusion"]
    assert measured["loss"] == pytest.approx(figures["loss"], rel=1e-5)
    assert (tmp_path / ".cache" / "resnets" / "engines.json").is_file()
    again = run("export", model, "--to", "onnx")
    assert again.returncode == 2
    assert "exists; give another --output, or --overwrite" in again.stderr


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["export", "MODEL", "--to", "torch", "--output", "a.onnx"], 2, "ends in .pt2"),
        (["export", "MODEL", "--to", "torch", "--output", "no/a.pt2"], 2, "no folder no"),
        (["export", "MODEL", "--to", "onnx", "--tolerance", "0"], 2, "tolerance"),
        (["export", "nowhere", "--to", "onnx"], 2, "nowhere: no such file"),
        (["predict", "missing.onnx", "PHOTO"], 2, "missing.onnx: no such file"),
        (["predict", "MODEL", "PHOTO", "--engine", "openvino"], 2, "openvino cannot"),
        (["evaluate", "MODEL", "digits", "--engine", "onnxruntime"], 2, "onnxruntime cannot"),
    ],
)
def test_wrong_use_is_told(
    words: list[str], code: int, message: str, model: Path, photo: Path, tmp_path: Path
) -> None:
    lonely = tmp_path / "lonely.safetensors"
    lonely.write_bytes(model.read_bytes())
    files = {"MODEL": str(lonely), "PHOTO": str(photo)}
    done = run(*[files.get(word, word) for word in words])
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_without_model_the_network_of_the_package_answers_and_says_what_it_knows(
    photo: Path,
) -> None:
    done = run("predict", photo)
    assert done.returncode == 0
    assert "knows only 10 classes: airplane, automobile" in done.stderr
    quiet = run("predict", photo, "--json")
    assert quiet.stderr == ""
    assert json.loads(quiet.stdout)[0]["image"] == str(photo)
