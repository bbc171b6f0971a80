import concurrent.futures
import json
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from tests.in_process import call_script

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "training.py"
BATCH = 4
MULTIPLICATIONS = 40.55e6  # of ResNet-20's convolutions, as fvcore and ptflops count them
STEM = 32 * 32 * 16 * 27


class InThisProcess(nullcontext[None]):
    """A pool without a process, whose start takes longer than all that it does here."""

    def __init__(self, *_: Any) -> None:
        super().__init__(self)

    def submit(self, method: Callable[..., Any], *arguments: Any) -> "Future[Any]":
        future: Future[Any] = Future()
        future.set_result(method(*arguments))
        return future


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the benchmark writes of a short run on random images."""
    file = tmp_path_factory.mktemp("benchmark") / "training.json"
    options = f"--networks resnet20 --batch-size {BATCH} --rounds 1 --steps 2 --json-file {file}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(concurrent.futures, "ProcessPoolExecutor", InThisProcess)
        assert call_script(SCRIPT, *options.split()).returncode == 0
    figures: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return figures


@pytest.mark.slow
def test_the_ratio_is_the_trainers_speed_over_the_plain_loops(results: dict[str, Any]) -> None:
    network = results["networks"]["resnet20"]
    (plain,), (ours,) = (network["rounds"][name] for name in ("plain_loop", "trainer"))
    assert network["ratio"] == pytest.approx(ours / plain, rel=0.02)


@pytest.mark.slow
def test_the_convolutions_are_those_of_the_network(results: dict[str, Any]) -> None:
    parts = results["networks"]["resnet20"]["convolutions"]
    operations = {name: of["milliseconds"] * of["gigaflops"] * 1e6 for name, of in parts.items()}
    whole = 2 * BATCH * MULTIPLICATIONS
    assert operations["forward"] == pytest.approx(whole, rel=0.002)
    assert operations["weight gradient"] == pytest.approx(whole, rel=0.002)
    assert operations["data gradient"] == pytest.approx(whole - 2 * BATCH * STEM, rel=0.002)


@pytest.mark.slow
def test_it_says_what_it_measured(results: dict[str, Any]) -> None:
    assert results["images"] == "random images"
    assert results["batch_size"] == BATCH
    assert {"processor", "cores", "torch"} <= results["machine"].keys()
