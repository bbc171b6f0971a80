"""The Dockerfile: linted, and the commands of both images run without a container."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from resnets import load, predict

ROOT = Path(__file__).parents[1]
DOCKERFILE = ROOT / "Dockerfile"
SLIM, FULL = ("build", "build-slim"), ("build", "build-full")  # as far as they need no container
UNREACHABLE = re.compile(r"Retrying|Failed to fetch|error sending request|dns error")
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


def exec_form(keyword: str) -> list[str]:
    """The words of ENTRYPOINT or CMD."""
    lines = instructions(DOCKERFILE.read_text(encoding="utf-8"))
    (words,) = (json.loads(rest) for _, name, rest in lines if name == keyword)
    return list(words)


def test_hadolint_finds_no_fault() -> None:
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if hadolint is None:
        pytest.skip("hadolint is not installed")
    done = subprocess.run([hadolint, DOCKERFILE], capture_output=True, check=False)
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

    @classmethod
    def built(cls, folder: Path, stages: Sequence[str]) -> "Image":
        """The image that these stages of the Dockerfile make."""
        image = cls(folder)
        for stage, keyword, rest in instructions(DOCKERFILE.read_text(encoding="utf-8")):
            if stage in stages:
                image.carry_out(keyword, rest)
        return image

    def carry_out(self, keyword: str, rest: str) -> None:
        """What docker build does for one instruction."""
        rest = re.sub(r"(?<=[ =])/(?=opt|source)", f"{self.folder}/", f" {rest}").strip()
        if keyword == "WORKDIR":
            self.place = Path(rest)
            self.place.mkdir(parents=True)
        elif keyword == "ARG":
            name, _, value = rest.partition("=")
            self.environment[name] = value
        elif keyword == "ENV":
            self.environment |= dict(pair.split("=", 1) for pair in rest.split())
            self.environment["UV_COMPILE_BYTECODE"] = "0"  # for the sake of time
        elif keyword == "COPY":
            *sources, target = rest.split()
            for source in sources:
                copy(ROOT / source, self.place / target)
        elif keyword == "RUN":
            done = self.run(["bash", "-c", rest], self.environment)
            if done.returncode and (line := UNREACHABLE.search(done.stderr)):
                pytest.skip(f"nothing can be installed from here ({line[0]})")
            assert done.returncode == 0, done.stderr

    def resnets(self, words: Sequence[str], place: Path) -> subprocess.CompletedProcess[str]:
        """What `docker run` does: the ENTRYPOINT with words, in a container's own environment."""
        environment = {"PATH": f"{self.folder}/opt/resnets/bin", "HOME": str(self.folder)}
        return self.run([*exec_form("ENTRYPOINT"), *words], environment, place)

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
            timeout=900,
            check=False,
        )


def copy(source: Path, target: Path) -> None:
    """COPY: a folder's content, or a file into a folder."""
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)


@pytest.mark.soak
@pytest.mark.skipif(sys.platform == "win32", reason="the commands are those of Linux")
def test_the_slim_image_predicts_from_an_exported_file_without_torch(
    draw_noise: Callable[..., None], tmp_path: Path
) -> None:
    image = Image.built(tmp_path / "image", SLIM)
    model = tmp_path / "model.onnx"
    shutil.copy(ROOT / "resnets" / "shipped" / "resnet20_cifar10.onnx", model)
    photo = tmp_path / "photo.png"
    draw_noise(photo)

    help_text = image.resnets(exec_form("CMD"), tmp_path)
    assert (help_text.returncode, "predict" in help_text.stdout) == (0, True), help_text.stderr
    done = image.resnets(["predict", "--json", str(model), str(photo)], tmp_path)
    assert done.returncode == 0, done.stderr
    (row,), (expected,) = json.loads(done.stdout), predict(load(model, engine="auto"), photo)
    assert row["prediction"] == expected.prediction
    assert row["probability"] == pytest.approx(expected.probability, abs=1e-6)
    refused = image.resnets(["train", "digits"], tmp_path)
    assert refused.returncode == 1
    assert "'torch'" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.soak
@pytest.mark.skipif(sys.platform == "win32", reason="the commands are those of Linux")
def test_the_full_image_trains_explains_and_exports(
    draw_noise: Callable[..., None], tmp_path: Path
) -> None:
    image = Image.built(tmp_path / "image", FULL)
    draw_noise(tmp_path / "photo.png")
    for words in (
        "train digits --network resnet14 --epochs 1 --device cpu --output run",
        "predict run photo.png",
        "explain run photo.png",
        "export run --to onnx",
        "predict run/model.onnx photo.png",
    ):
        done = image.resnets(words.split(), tmp_path)
        assert done.returncode == 0, done.stderr
