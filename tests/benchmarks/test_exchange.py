import json
from pathlib import Path
from statistics import median

import pytest

from tests.processes import several

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "exchange.py"


@pytest.mark.soak
def test_two_processes_measure_every_way_of_exchanging(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--networks", "resnet14", "--rounds", "1", "--steps", "1", "--size", "8"]
    done = several(*words, "--json-file", tmp_path / "exchange.json", script=SCRIPT)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "exchange.json").read_text(encoding="utf-8"))
    ways = {row["way"]: row for row in results["rows"]}
    assert len(ways) == len(results["rows"]) == 9
    assert all(row["processes"] == 2 and min(row["seconds"]) > 0 for row in results["rows"])
    monkeypatch.syspath_prepend(ROOT / "results")
    from benchmark_tables import TABLES

    table = TABLES["exchange"](tmp_path)
    for way, row in ways.items():
        assert f"| {way} | {1000 * median(row['seconds']):,.0f} (" in table
