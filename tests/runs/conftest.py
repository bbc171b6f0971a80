"""Small data, and the command in processes of its own."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

Start = Callable[..., "subprocess.Popen[str]"]

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"}


@pytest.fixture(scope="session")
def train() -> Start:
    """Start `resnets train` with some words, in a process of its own."""

    def start(*words: Any, **options: Any) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "resnets", "train", *map(str, words), "--no-report"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(command, env=ENVIRONMENT, **(pipes | options))

    return start


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 75 images of three classes and of many sizes: stripes of three directions."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for name, (down, right) in {"level": (1, 0), "upright": (0, 1), "slanted": (1, 1)}.items():
        (folder / name).mkdir()
        for number in range(25):
            height, width = rng.integers(20, 40, 2)
            y, x = np.mgrid[:height, :width]
            wave = np.sin((down * y + right * x) / 2 + rng.uniform(0, 6))[..., None]
            pixels = (
                128 + 90 * wave * rng.uniform(0.4, 1, 3) + rng.normal(0, 10, (height, width, 3))
            )
            image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
            image.save(folder / name / f"{number}.png")
    return folder
