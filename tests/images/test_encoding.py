"""Pillow, which reads what was written, is the witness."""

import io

import numpy as np
import pytest
from PIL import Image

from resnets.errors import ContentError
from resnets.images.encoding import fitted


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def file_of(pixels: np.ndarray, kind: str, **options: object) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, kind, **options)
    return content.getvalue()


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_an_image_that_fits_is_copied_byte_by_byte(kind: str) -> None:
    data = file_of(noise(20, 40, 3), kind)
    encoded = fitted(data, 20, 90)
    assert encoded.data == data
    assert encoded.copied
    assert (encoded.width, encoded.height) == (40, 20)


def test_a_larger_image_becomes_a_jpeg_whose_shorter_side_is_that_size() -> None:
    for data in (file_of(noise(60, 90, 3), "JPEG"), file_of(noise(60, 90), "PNG")):
        encoded = fitted(data, 20, 90)
        image = opened(encoded.data)
        assert (image.format, encoded.ending) == ("JPEG", ".jpg")
        assert image.size == (encoded.width, encoded.height) == (30, 20)
        assert image.mode == opened(data).mode


def test_a_smaller_image_of_another_format_becomes_png_without_loss() -> None:
    pixels = noise(20, 30, 3)
    for image in (file_of(pixels, "BMP"), pixels):
        encoded = fitted(image, 20, 90)
        assert encoded.ending == ".png"
        assert np.array_equal(np.asarray(opened(encoded.data)), pixels)


def test_what_jpeg_cannot_hold_is_copied_at_any_size() -> None:
    transparent = file_of(noise(60, 60, 4), "PNG")
    deep = file_of(noise(60, 60).astype(np.uint16) * 257, "PNG")
    for data in (transparent, deep):
        assert fitted(data, 20, 90).data == data


def test_a_turned_photo_is_stored_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = file_of(noise(40, 80, 3), "JPEG", exif=exif)
    encoded = fitted(data, 20, 90)
    assert opened(encoded.data).size == (encoded.width, encoded.height) == (20, 40)
    copied = fitted(data, 40, 90)
    assert copied.data == data
    assert (copied.width, copied.height) == (40, 80)


def test_a_damaged_image_is_not_copied() -> None:
    with pytest.raises(ContentError, match="broken"):
        fitted(file_of(noise(20, 20, 3), "JPEG")[:-200], 20, 90)
