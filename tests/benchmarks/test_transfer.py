import json
from pathlib import Path

import pytest

from tests.in_process import call_script

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "transfer.py"


def test_each_way_and_seed_is_a_row_and_what_is_there_is_not_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESNETS_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "transfer.json"
    words = ["digits", "--name", "digits", "--start", "resnet14_cifar10", "--size", "8"]
    words += ["--per-class", "2", "--seeds", "1", "--changes", '{"epochs": 1}']
    for ways in ("frozen", "frozen,transfer"):
        call_script(SCRIPT, *words, "--ways", ways, "--json-file", file)
    runs = json.loads(file.read_text(encoding="utf-8"))["runs"]
    assert [run["way"] for run in runs] == ["frozen", "transfer"]
    assert all(run["images"] == 20 and run["validation"][1] == 500 for run in runs)
