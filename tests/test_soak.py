"""What shows only after many minutes: memory that grows, and files that stay open.

`make soak` runs these; RESNETS_SOAK_ROUNDS makes them shorter or longer.
"""

import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resnets import load, predict

ROUNDS = int(os.environ.get("RESNETS_SOAK_ROUNDS", "3000"))
WARM_UP = 30  # rounds in which caches fill
GROWTH = 16 << 20  # bytes that fragments of the heap may come to

pytestmark = [
    pytest.mark.slow,
    pytest.mark.soak,
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of many sizes and formats, and two that are broken."""
    folder, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for number, ending in enumerate(["png", "jpg", "webp", "bmp", "tif", "gif"] * 3):
        shape = (*random.integers(8, 400, 2), 3)
        pixels = random.integers(0, 255, shape, np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.{ending}")
    content = (folder / "1.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(content[: len(content) // 2])
    (folder / "empty.png").touch()
    return folder


def held() -> tuple[int, int]:
    """Resident bytes and open files of this process."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir("/proc/self/fd"))  # noqa: PTH208


def repeat(work: Callable[[], object], rounds: int = ROUNDS) -> None:
    """Do the same many times, and see whether something is left each time."""
    for _ in range(WARM_UP):
        work()
    memory, files = held()
    for _ in range(rounds):
        work()
    later, open_files = held()
    assert later - memory < GROWTH
    assert open_files == files


@pytest.mark.parametrize("engine", ["onnxruntime", "torch"])
def test_predicting_again_and_again_keeps_nothing(engine: str, photos: Path) -> None:
    model = load("resnet14_cifar10", engine=engine)
    repeat(lambda: predict(model, photos))


def test_loading_again_and_again_keeps_nothing(photos: Path) -> None:
    repeat(lambda: predict(load("resnet14_cifar10", engine="auto"), photos / "0.png"), ROUNDS // 10)
