import json
from pathlib import Path

import pytest

from tests.in_process import call_script

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "small_sets.py"


@pytest.mark.soak
def test_each_length_and_seed_is_a_row_beside_those_of_earlier_trials(tmp_path: Path) -> None:
    file = tmp_path / "small_sets.json"
    words = ["digits", "--name", "digits", "--network", "resnet14", "--size", "8"]
    for steps in ("1", "2"):
        call_script(SCRIPT, *words, "--steps", steps, "--seeds", "1", "--json-file", file)
    runs = json.loads(file.read_text(encoding="utf-8"))["runs"]
    assert [run["steps"] for run in runs] == [1, 2]
    assert all(0 <= run["right"] <= run["of"] == 161 for run in runs)
    assert all(run["batch"] == 64 for run in runs)
