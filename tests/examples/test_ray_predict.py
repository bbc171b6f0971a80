"""The example for Ray Data: what its workers do, without Ray; and all of it where Ray is there."""

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from resnets import predict

SCRIPT = Path(__file__).parents[2] / "examples" / "ray_predict.py"


@pytest.fixture(scope="module")
def example() -> Any:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("ray_predict", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def model(untrained: Callable[..., Path]) -> Path:
    return untrained(("ant", "bee", "cat"))


@pytest.fixture(scope="module")
def photos(draw_noise: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five images and a broken one."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(5):
        draw_noise(folder / f"{number}.png", width=20 + number, seed=number)
    (folder / "broken.png").write_bytes(b"\x89PNG broken")
    return folder


def check(table: pa.Table, model: Path, photos: Path) -> None:
    """The rows are what this project's own `predict` says of the files."""
    rows = sorted(table.to_pylist(), key=lambda row: Path(row["image"]).name)
    wished = sorted(predict(model, photos), key=lambda found: Path(found.image).name)
    assert [Path(row["image"]).name for row in rows] == [Path(each.image).name for each in wished]
    for row, each in zip(rows, wished, strict=True):
        assert (row["prediction"], row["status"]) == (each.prediction, each.status)
        assert row["probability"] == (each.probability and pytest.approx(each.probability))
        assert bool(row["error"]) == (row["status"] == "unreadable")
        assert bool(row["error"]) == (Path(row["image"]).name == "broken.png")


def test_a_worker_predicts_a_batch_as_predict_does(example: Any, model: Path, photos: Path) -> None:
    files = sorted(photos.iterdir())
    batch = pa.table(
        {"path": [str(file) for file in files], "bytes": [file.read_bytes() for file in files]}
    )
    found = example.Predictor(str(model))(batch)
    assert found.schema == example.ROWS
    check(found, model, photos)
    only_broken = example.Predictor(str(model))(batch.slice(len(files) - 1))
    assert only_broken.schema == example.ROWS  # else the files could not be read as one table


@pytest.mark.slow
def test_ray_runs_it(model: Path, photos: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="ray[data] is not installed")
    output = tmp_path / "predictions"
    command = [sys.executable, *map(str, (SCRIPT, model, photos, output)), "--batch-size", "2"]
    subprocess.run(command, check=True, timeout=300, capture_output=True)
    check(pq.read_table(output), model, photos)
