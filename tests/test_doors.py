"""The public names of packages: all there, and nothing heavy loaded before one is used."""

import subprocess
import sys
from importlib import import_module

import pytest

from resnets.doors import loader

PACKAGES = (
    *("deployment.bench", "deployment.engines", "deployment.export"),
    *("evaluation.doctor", "evaluation.report", "networks", "serving"),
)
HEAVY = {"torch", "matplotlib", "onnxruntime", "openvino", "scipy", "pyarrow"}


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_there_and_is_no_module(package: str) -> None:
    door = import_module(f"resnets.{package}")
    for name in door.__all__:
        assert type(getattr(door, name)).__name__ != "module"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = door.nothing


def test_a_door_alone_loads_nothing_heavy() -> None:
    lines = [f"import resnets.{package}" for package in PACKAGES]
    lines += ["from resnets.deployment.engines import open_engine"]
    code = "\n".join([*lines, "import sys", "print(*sorted(sys.modules))"])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not HEAVY & set(done.stdout.split())


def test_a_name_is_that_of_its_module() -> None:
    import json.decoder

    load_name, list_names = loader("json", decoder="JSONDecoder")
    assert load_name("JSONDecoder") is json.decoder.JSONDecoder
    assert list_names() == ["JSONDecoder"]
