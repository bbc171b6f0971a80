"""Pixels that the processes of a machine decode together, by real processes."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from resnets.training.shared_pixels import filled_together
from tests.processes import several

SHAPE = (50, 4, 3, 3)
SCRIPT = """
import json, os, sys, torch
from resnets.data import storage
from resnets.errors import ContentError
from resnets.training import shared_pixels
from resnets.training.parallel import processes

storage.in_threads.__defaults__ = (4, lambda _: None)  # rows at a time
case, folder = sys.argv[1:]
rank, done, reasons = int(os.environ["RANK"]), [], ""
if case == "no such memory":
    del os.memfd_create
if case == "closed to one" and rank == 1:
    shared_pixels._mapped = lambda *_: None

def fill(array, rows):
    done.extend(rows)
    if case == "damaged" and 30 in rows:
        raise ContentError("photo 30: damaged")
    for row in rows:
        array[row] = row

with processes(torch.device("cpu")):
    try:
        pixels = shared_pixels.filled_together((50, 4, 3, 3), fill).tolist()
    except ContentError as error:
        pixels, reasons = None, str(error)
with open(f"{folder}/{rank}.json", "w") as file:
    json.dump([sorted(done), pixels, reasons], file)
"""


def results(tmp_path: Path, case: str) -> tuple[list[list[int]], list[object], list[str]]:
    """For each of three processes: the rows that it filled, the array, and an error's text."""
    (tmp_path / "script.py").write_text(SCRIPT, encoding="utf-8")
    done = several(case, tmp_path, script=tmp_path / "script.py", processes=3)
    assert done.returncode == 0, done.stderr
    files = (tmp_path / f"{rank}.json" for rank in range(3))
    rows, pixels, reasons = zip(
        *(json.loads(file.read_text("utf-8")) for file in files), strict=True
    )
    return list(rows), list(pixels), list(reasons)


def every() -> object:
    return np.broadcast_to(np.arange(50).reshape(-1, 1, 1, 1), SHAPE).tolist()


@pytest.mark.slow
def test_each_process_fills_its_share_and_reads_all(tmp_path: Path) -> None:
    rows, pixels, _ = results(tmp_path, "as usual")
    assert sorted(row for part in rows for row in part) == list(range(50))
    assert {len(part) for part in rows} == {16, 17}
    assert pixels == [every()] * 3


@pytest.mark.slow
@pytest.mark.parametrize("case", ["no such memory", "closed to one"])
def test_without_shared_memory_each_fills_all(case: str, tmp_path: Path) -> None:
    rows, pixels, _ = results(tmp_path, case)
    assert rows == [list(range(50))] * 3
    assert pixels == [every()] * 3


@pytest.mark.slow
def test_what_one_cannot_read_is_an_error_of_all(tmp_path: Path) -> None:
    _, pixels, reasons = results(tmp_path, "damaged")
    assert pixels == [None] * 3
    assert reasons == ["photo 30: damaged"] * 3


def test_a_process_alone_fills_all() -> None:
    def fill(array: np.ndarray, rows: range) -> None:
        array[rows.start : rows.stop] = 7

    assert (filled_together(SHAPE, fill) == 7).all()


TRAINING = """
import os, sys
from pathlib import Path
import resnets

folder = Path(sys.argv[1])

def look(record):
    if isinstance(record, resnets.Step):
        shared = "memfd:resnets-pixels" in Path("/proc/self/maps").read_text()
        (folder / f"{os.environ['RANK']}.txt").write_text(str(shared))

if __name__ == "__main__":
    words = {"epochs": 1, "image_size": 8, "batch_size": 8, "start": None, "report": False}
    resnets.train(folder / "photos", "resnet14", output=False, callbacks=[look], **words)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such memory")
def test_a_training_shares_its_photos(draw_noise: Callable[..., None], tmp_path: Path) -> None:
    for seed in range(24):
        draw_noise(tmp_path / f"photos/{'ab'[seed % 2]}/{seed}.png", 10, 10, seed)
    (tmp_path / "script.py").write_text(TRAINING, encoding="utf-8")
    done = several(tmp_path, script=tmp_path / "script.py")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "0.txt").read_text("utf-8") == "True"  # the others have no callbacks
