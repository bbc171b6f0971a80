import base64
import io

import numpy as np
import pytest
from PIL import Image

from resnets.evaluation.report.thumbnails import heat_thumbnail, part, thumbnail


def opened(picture) -> Image.Image:
    kind, _, data = picture.uri.partition(",")
    assert kind == "data:image/webp;base64"
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert image.size == (picture.width, picture.height)
    return image


def test_a_small_image_is_kept_pixel_by_pixel():
    pixels = np.random.default_rng(0).integers(0, 256, (28, 32, 3), np.uint8)
    picture = thumbnail(pixels)
    assert picture.coarse
    assert np.array_equal(np.asarray(opened(picture).convert("RGB")), pixels)


@pytest.mark.parametrize("shape", [(300, 600), (2000, 3), (65, 65)])
def test_a_large_image_becomes_small_and_keeps_its_shape(shape):
    picture = thumbnail(np.full((*shape, 3), 77, np.uint8))
    opened(picture)
    assert not picture.coarse
    assert max(picture.width, picture.height) <= 160
    assert picture.width / picture.height == pytest.approx(shape[1] / shape[0], rel=0.05, abs=0.01)
    assert len(picture.uri) < 2000


def test_heat_is_seen_where_it_is():
    heat = np.zeros((8, 8), np.float32)
    heat[:4] = 1
    colours = np.asarray(
        opened(heat_thumbnail(np.full((8, 8, 3), 128, np.uint8), heat)).convert("RGB")
    )
    grey = np.ptp(colours.astype(int), axis=2)
    assert grey[20:60].min() > 50
    assert grey[110:].max() < 20


def test_a_part_covers_its_box():
    pixels = np.arange(100, dtype=np.uint8).reshape(10, 10, 1)
    assert part(pixels, (2.5, 0.0, 4.0, 10.0)).shape == (5, 10, 1)
    assert part(pixels, (0.0, 0.0, 10.0, 10.0)).shape == (10, 10, 1)
