import json
import math
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from resnets.deployment.bench import processes, runtimes
from resnets.deployment.bench.processes import Turn
from resnets.deployment.bench.runtimes import Candidate
from tests.in_process import call_script

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "inference.py"


class InThisProcess(nullcontext[None]):
    """A candidate without a process of its own, whose start takes longer than all that it does."""

    cold_start = call = 0.0

    def __init__(
        self, candidate: Candidate, program: Sequence[str], limit: float = math.inf
    ) -> None:
        super().__init__(self)
        self.candidate, self.program = candidate, program

    def turn(self, batch_size: int, seconds: float) -> Turn:
        requests = (asdict(self.candidate), {"batch_size": batch_size, "seconds": seconds})
        stdin = "".join(f"{json.dumps(request)}\n" for request in requests).encode()
        script, *words = self.program
        done = call_script(Path(script), *words, stdin=stdin)
        response = json.loads(done.stdout.splitlines()[-1])
        return Turn(tuple(response["seconds"]), response["peak_memory"])


@pytest.mark.soak
def test_a_short_run_measures_every_candidate_and_judges_every_aim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("onnxruntime", "openvino", "nncf"):
        pytest.importorskip(module, reason=f"{module} is not installed")
    file = tmp_path / "inference.json"
    options = ["--rounds", "1", "--seconds", "0.02", "--largest", "1", "--json-file", str(file)]
    monkeypatch.setattr(processes, "_Process", InThisProcess)
    monkeypatch.setattr(runtimes, "RUNTIMES", dict(runtimes.RUNTIMES))  # the script adds some
    monkeypatch.setattr(runtimes, "main", lambda: runtimes._serve(sys.stdin, sys.stdout))
    done = call_script(SCRIPT, "--models", "model 1", *options)
    results: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    model = results["models"]["model 1"]
    assert model["failed"] == {}
    speeds = {name: by_size["1"] for name, by_size in model["images_per_second"].items()}
    assert list(speeds) == [
        "eager",
        "predict onnxruntime",
        "onnxruntime",
        "onnxruntime int8",
        "predict openvino",
        "openvino",
        "openvino int8",
        "predict onnxruntime int8",
    ]
    aims = {aim["name"]: aim["ratio"] for aim in model["aims"]}
    to_eager, small_to_eager, to_bare, *int8 = aims.values()
    ours = max(speeds["predict onnxruntime"], speeds["predict openvino"])
    assert to_eager == pytest.approx(ours / speeds["eager"])
    small = speeds["predict onnxruntime int8"]
    assert small_to_eager == pytest.approx(small / speeds["eager"])
    fastest = max(speeds["onnxruntime"], speeds["openvino"])
    assert to_bare == pytest.approx(ours / fastest)
    assert int8[0] == pytest.approx(speeds["onnxruntime int8"] / speeds["onnxruntime"])
    assert done.stdout.count("reached") == len(aims) == 5
    assert {"processor", "cores"} <= results["machine"].keys()
