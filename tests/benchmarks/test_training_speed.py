import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "training.py"
BATCH = 4
MULTIPLICATIONS = 40.55e6  # of ResNet-20's convolutions, as fvcore and ptflops count them
STEM = 32 * 32 * 16 * 27


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the benchmark writes of a short run on random images."""
    file = tmp_path_factory.mktemp("benchmark") / "training.json"
    options = f"--networks resnet20 --batch-size {BATCH} --rounds 1 --steps 2 --json-file {file}"
    subprocess.run([sys.executable, str(SCRIPT), *options.split()], check=True, timeout=300)
    figures: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return figures


@pytest.mark.slow
def test_the_ratio_is_the_trainers_speed_over_the_plain_loops(found: dict[str, Any]) -> None:
    network = found["networks"]["resnet20"]
    (plain,), (ours,) = (network["rounds"][name] for name in ("plain_loop", "trainer"))
    assert network["ratio"] == pytest.approx(ours / plain, rel=0.02)


@pytest.mark.slow
def test_the_convolutions_are_those_of_the_network(found: dict[str, Any]) -> None:
    parts = found["networks"]["resnet20"]["convolutions"]
    operations = {name: of["milliseconds"] * of["gigaflops"] * 1e6 for name, of in parts.items()}
    whole = 2 * BATCH * MULTIPLICATIONS
    assert operations["forward"] == pytest.approx(whole, rel=0.002)
    assert operations["weight gradient"] == pytest.approx(whole, rel=0.002)
    assert operations["data gradient"] == pytest.approx(whole - 2 * BATCH * STEM, rel=0.002)


@pytest.mark.slow
def test_it_says_what_it_measured(found: dict[str, Any]) -> None:
    assert found["images"] == "random images"
    assert found["batch_size"] == BATCH
    assert {"processor", "cores", "torch"} <= found["machine"].keys()
