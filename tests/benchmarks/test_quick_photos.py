import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.in_process import call_script

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "quick_photos.py"


def write_parquet(file: Path, count: int) -> None:
    """Images of noise in two classes, one of them darker."""
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    random, rows = np.random.default_rng(0), []
    for number in range(count):
        pixels = random.integers(0, 120, (32, 32, 3), np.uint8) + 130 * (number % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(packed := io.BytesIO(), "png")
        rows.append({"image": {"bytes": packed.getvalue()}, "label": number % 2})
    parquet.write_table(pyarrow.Table.from_pylist(rows), file)


def test_each_setting_and_seed_is_a_row_and_other_training_images_measure_it(
    tmp_path: Path,
) -> None:
    write_parquet(tmp_path / "train-0.parquet", 60)  # and no validation file, which is not opened
    words = [tmp_path, "--network", "resnet14", "--training", "24", "--measured", "12"]
    file = tmp_path / "quick_photos.json"
    for settings in ("before", "before,crop60"):
        call_script(SCRIPT, *words, "--size", "16", "--settings", settings, "--json-file", file)
    runs = json.loads(file.read_text(encoding="utf-8"))["runs"]
    assert [run["setting"] for run in runs] == ["before", "crop60"]
    assert all(run["images"] == 24 and run["measured"][1] == 12 for run in runs)
