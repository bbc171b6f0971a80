import io
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image

Encode = Callable[..., bytes]


@pytest.fixture(scope="session")
def encode() -> Encode:
    """An image as the bytes of a file; `orientation` is written as EXIF."""

    def encoded(
        image: Image.Image, kind: str, *, orientation: int | None = None, **options: Any
    ) -> bytes:
        if orientation is not None:
            exif = Image.Exif()
            exif[0x0112] = orientation
            options["exif"] = exif
        file = io.BytesIO()
        image.save(file, kind, **options)
        return file.getvalue()

    return encoded


@pytest.fixture
def without_simplejpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the extra `fast` is not installed."""
    monkeypatch.setattr("resnets.images.jpeg.simplejpeg", lambda: None)
