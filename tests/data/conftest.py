"""Small images that tests write, each different."""

import io
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF"}


def encode(seed: int, ending: str = ".png", size: tuple[int, int] = (6, 5)) -> bytes:
    """A file with noise, width x height."""
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, FORMATS.get(ending.lower(), ending[1:]))
    return file.getvalue()


@pytest.fixture(scope="session")
def encoded() -> Callable[..., bytes]:
    return encode


@pytest.fixture
def folder(tmp_path: Path) -> Callable[[Iterable[str]], Path]:
    """Write image files of these relative paths, each with its own pixels."""

    def write(paths: Iterable[str]) -> Path:
        root = tmp_path / "images"
        root.mkdir(exist_ok=True)
        for seed, path in enumerate(paths):
            file = root / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(encode(seed, file.suffix or ".png"))
        return root

    return write
