import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "inference.py"


@pytest.mark.slow
def test_a_short_run_measures_every_contender_and_judges_every_aim(tmp_path: Path) -> None:
    for module in ("onnxruntime", "openvino", "nncf"):
        pytest.importorskip(module, reason=f"{module} is not installed")
    file = tmp_path / "inference.json"
    options = ["--rounds", "1", "--seconds", "0.02", "--largest", "1", "--json-file", str(file)]
    command = [sys.executable, str(SCRIPT), "--models", "model 1", *options]
    done = subprocess.run(command, check=True, timeout=300, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    model = found["models"]["model 1"]
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
    assert {"processor", "cores"} <= found["machine"].keys()
