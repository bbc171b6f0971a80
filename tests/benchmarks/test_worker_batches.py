import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "worker_batches.py"


@pytest.mark.soak
def test_a_short_run_measures_every_way(tmp_path: Path) -> None:
    file = tmp_path / "worker_batches.json"
    options = ["--rounds", "1", "--batch-size", "8", "--workers", "1", "--json-file", file]
    command = [sys.executable, SCRIPT, *options]
    done = subprocess.run(command, check=False, timeout=300, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    results = json.loads(file.read_text(encoding="utf-8"))
    assert [way["name"] for way in results["ways"]] == ["pipe", "shared memory", "DataLoader"]
    for way in results["ways"]:
        assert all(value[0] > 0 for value in (way["computing"], way["waiting"]))
