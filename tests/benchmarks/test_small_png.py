import json
from pathlib import Path

import numpy as np
from PIL import Image

from tests.in_process import call_script

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "small_png.py"


def test_a_short_run_measures_both_ways_at_every_size(tmp_path: Path) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    Image.fromarray(photo).save(tmp_path / "photo.jpg")
    file = tmp_path / "small_png.json"
    call_script(SCRIPT, tmp_path, "--rounds", "1", "--json-file", file)
    results = json.loads(file.read_text())
    assert [row["side"] for row in results["sizes"]] == [28, 32, 64, 128, 224]
    for row in results["sizes"]:
        assert row["ratios"] == [round(row["pillow"] / row["short"], 3)]
