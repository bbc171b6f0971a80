import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

SHARED = Path(os.environ.get("RESNETS_SHARED", Path(__file__).parents[2] / "shared"))


@pytest.fixture(scope="session")
def shared() -> Callable[[str], Path]:
    """Path of a file or folder of the shared data, or a skip that says what is missing."""

    def find(name: str) -> Path:
        path = SHARED / name
        if not path.exists():
            pytest.skip(f"{name} is not in the shared data folder ({SHARED}; set RESNETS_SHARED)")
        return path

    return find


@pytest.fixture(scope="session")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes the model file of a small network that has learnt nothing, in a folder of its own."""
    import torch

    from resnets.images import Preprocessing
    from resnets.model_file import Description, save
    from resnets.networks import ResNet

    def write(class_names: tuple[str, ...], side: int = 16, resize: int = 20, **facts: Any) -> Path:
        torch.manual_seed(0)
        network = ResNet("residual", (1, 1), width=4, num_classes=len(class_names))
        preprocessing = Preprocessing(side, resize, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
        about = Description(network.architecture.to_dict(), class_names, preprocessing, **facts)
        path = tmp_path_factory.mktemp("untrained") / "model.safetensors"
        save(path, network, about)
        return path

    return write


@pytest.fixture(scope="session", autouse=True)
def traced_once() -> Iterator[None]:
    """A network is traced for ONNX once a process, which takes seconds, whatever exports it."""
    if "torch" not in sys.modules:  # nothing that was collected exports
        yield
        return
    import torch

    from resnets.deployment.export import files

    graphs: dict[tuple[object, ...], Any] = {}
    trace = files._traced

    def traced(model: Any) -> Any:
        about, content = model.description, hashlib.sha256()
        for value in model.network.state_dict().values():
            content.update(bytes(value.cpu().flatten().view(torch.uint8).numpy()))
        choices = model.network.architecture, about.preprocessing
        key = (*choices, about.calibration.get("temperature"), content.digest())
        if key not in graphs:
            graphs[key] = trace(model)
        return deepcopy(graphs[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "_traced", traced)
        yield


@pytest.fixture
def steady_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs with a budget are planned for 0.1 s a step: a busy machine would be refused a short one.

    What happens on the way goes by the clock.
    """
    from resnets.runs.budget import Speed

    speed = Speed(step=0.1, validation=0.1, final=0.1)
    monkeypatch.setattr("resnets.runs.budget.measure", lambda *_: speed)


@pytest.fixture(scope="session")
def draw_noise() -> Callable[..., None]:
    """Writes an image of noise."""

    def write(path: Path, width: int = 40, height: int = 30, seed: int = 0) -> None:
        random = np.random.default_rng(seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 255, (height, width, 3), np.uint8)).save(path)

    return write


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that is marked own_process apart, with the others of its file."""
    if not pyfuncitem.get_closest_marker("own_process") or "RESNETS_OWN_PROCESS" in os.environ:
        return None
    passed, output = _in_a_process(pyfuncitem.path, pyfuncitem.config.rootpath)
    assert pyfuncitem.name in passed, output
    return True


@cache
def _in_a_process(file: Path, root: Path) -> tuple[frozenset[str], str]:
    """The tests of a file that are marked own_process and pass, in one process, and its output."""
    with TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        words = ["-m", "own_process", "-p", "no:xdist", f"--junit-xml={report}", str(file)]
        run = subprocess.run(
            [sys.executable, "-m", "pytest", "--quiet", *words],
            env={**os.environ, "RESNETS_OWN_PROCESS": "1"},
            cwd=root,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        cases = ElementTree.parse(report).iter("testcase") if report.exists() else ()
        return frozenset(x.attrib["name"] for x in cases if not len(x)), run.stdout + run.stderr
