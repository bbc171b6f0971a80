import json
from pathlib import Path

import pytest

from tests.in_process import call_script

ROOT = Path(__file__).parents[2]


def test_every_way_of_saving_is_measured_beside_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "saving.json"
    words = ("resnet14", "--rounds", "1", "--threads", "1", "--json-file", file)
    done = call_script(ROOT / "benchmarks" / "saving.py", *words)
    assert done.returncode == 0, done.stderr
    results = json.loads(file.read_text(encoding="utf-8"))
    for row in results["compared"]:
        threads = ["a thread", "a thread that gets the bytes"]
        assert list(row["ways"]) == ["none", "waiting", *threads, "async_save"]
        for way, times in row["ways"].items():
            assert times["whole"][0] > times["call"][0] >= 0, way
    assert results["parts"][0]["megabytes"] == pytest.approx(8 * 0.175, rel=0.2)  # and names
    monkeypatch.syspath_prepend(ROOT / "results")
    from benchmark_tables import TABLES

    table = TABLES["saving"](tmp_path)
    assert table.count("| async_save |") == len(results["compared"])
