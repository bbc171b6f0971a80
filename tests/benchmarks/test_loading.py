import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.in_process import call_script

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "loading.py"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset's reader leaves files open
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_each_loader_reads_the_photos_in_every_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("webdataset")
    for number in range(12):
        file = tmp_path / "photos" / "ab"[number % 2] / f"{number}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 256, (60, 80, 3), np.uint8)
        Image.fromarray(noise).save(file)
    words = ("--rounds", 2, "--epochs", 1, "--batch-size", 4, "--workers", 0)
    file = tmp_path / "loading.json"
    done = call_script(SCRIPT, tmp_path / "photos", *words, "--json-file", file)
    assert done.returncode == 0, done.stderr
    loaders = {each["name"]: each for each in json.loads(file.read_text("utf-8"))["loaders"]}
    away = ["shards 50 ms away", "shards 50 ms away, cached"]
    assert [*loaders] == ["folder", "shards", *away, "torch", "webdataset"]
    assert all(len(each["images_per_second"]) == 2 for each in loaders.values())
    assert all(min(each["images_per_second"]) > 0 for each in loaders.values())
    assert loaders["folder"]["ratios"] == [1, 1]
    monkeypatch.syspath_prepend(ROOT / "results")
    from benchmark_tables import TABLES

    assert "shards 50 ms away, cached" in TABLES["loading"](tmp_path)
