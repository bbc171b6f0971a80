"""The Dockerfile: linted, and the commands of its slim image run without a container."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from resnets import load, predict

ROOT = Path(__file__).parents[1]
STAGES = ("build", "build-slim")  # of the slim image, as far as they need no container
KEPT = re.compile(r"PIP_|UV_|SSL_|LANG$|.*_proxy$", re.IGNORECASE)  # how this machine gets packages


def instructions(text: str) -> Iterator[tuple[str, str, str]]:
    """Stage, keyword and the rest of each instruction of a Dockerfile."""
    stage = ""
    lines = (line for line in text.splitlines() if not line.startswith("#"))
    for line in filter(None, re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines()):
        keyword, _, rest = line.partition(" ")
        if keyword == "FROM":
            stage = rest.split()[-1]
        yield stage, keyword, rest


def test_hadolint_finds_no_fault() -> None:
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if hadolint is None:
        pytest.skip("hadolint is not installed")
    done = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, check=False)
    assert (done.returncode, done.stdout.decode()) == (0, "")


class Image:
    """The files of an image in a folder: its absolute paths lie below it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        bootstrap = folder / "python"
        subprocess.run([sys.executable, "-m", "venv", bootstrap], check=True)
        kept = {name: value for name, value in os.environ.items() if KEPT.match(name)}
        path = f"{folder}/opt/resnets/bin:{bootstrap}/bin:/usr/bin:/bin"
        self.environment = kept | {"PATH": path, "HOME": str(folder), "PIP_RETRIES": "1"}
        self.place = folder

    def carry_out(self, keyword: str, rest: str) -> None:
        """What docker build does for one instruction."""
        rest = re.sub(r"(?<=[ =])/(?=opt|source)", f"{self.folder}/", f" {rest}").strip()
        if keyword == "WORKDIR":
            self.place = Path(rest)
            self.place.mkdir(parents=True)
        elif keyword == "ENV":
            self.environment |= dict(pair.split("=", 1) for pair in rest.split())
            self.environment["UV_COMPILE_BYTECODE"] = "0"  # for the sake of time
        elif keyword == "COPY":
            *sources, target = rest.split()
            for source in sources:
                copy(ROOT / source, self.place / target)
        elif keyword == "RUN":
            done = self.run(["bash", "-c", rest], self.environment)
            if done.returncode and "Retrying" in done.stderr:
                pytest.skip("no network to install from")
            assert done.returncode == 0, done.stderr

    def run(
        self, command: list[str], environment: Mapping[str, str], place: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the image."""
        return subprocess.run(
            command,
            cwd=place or self.place,
            env=environment,
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )


def copy(source: Path, target: Path) -> None:
    """COPY: a folder's content, or a file into a folder."""
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="the commands are those of Linux")
def test_the_slim_image_predicts_from_an_exported_file_without_torch(
    draw_noise: Callable[..., None], tmp_path: Path
) -> None:
    image = Image(tmp_path / "image")
    for stage, keyword, rest in instructions((ROOT / "Dockerfile").read_text(encoding="utf-8")):
        if stage in STAGES:
            image.carry_out(keyword, rest)
    environment = {"PATH": f"{image.folder}/opt/resnets/bin", "HOME": str(image.folder)}
    model = tmp_path / "model.onnx"
    shutil.copy(ROOT / "resnets" / "shipped" / "resnet20_cifar10.onnx", model)
    photo = tmp_path / "photo.png"
    draw_noise(photo)

    without = image.run(["python", "-c", "import torch"], environment, tmp_path)
    assert "No module named 'torch'" in without.stderr
    done = image.run(
        ["resnets", "predict", "--json", str(model), str(photo)], environment, tmp_path
    )
    assert done.returncode == 0, done.stderr
    (row,), (expected,) = json.loads(done.stdout), predict(load(model, engine="auto"), photo)
    assert row["prediction"] == expected.prediction
    assert row["probability"] == pytest.approx(expected.probability, abs=1e-6)
    refused = image.run(["resnets", "train", "digits"], environment, tmp_path)
    assert refused.returncode == 1
    assert "'torch'" in refused.stderr
    assert "Traceback" not in refused.stderr
