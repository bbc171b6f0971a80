"""What is white in images of 16 or 32 bits a value is decided once for all of them."""

import io
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from resnets.errors import ContentError
from resnets.images import Preprocessing, White, decode, decode_crop, from_pillow, read_deep
from resnets.images.white import _USUAL, Clipped, Levels, clipped

Array = np.ndarray[Any, Any]


def tiff(values: Array) -> bytes:
    """An image as Pillow writes it, or by hand what it does not write."""
    if values.dtype == np.uint32:
        return by_hand(values)
    file = io.BytesIO()
    Image.fromarray(values).save(file, "TIFF")
    return file.getvalue()


def by_hand(values: Array) -> bytes:
    """A TIFF of unsigned integers of 32 bits (TIFF 6.0, section 2)."""
    height, width = values.shape
    data = values.astype("<u4").tobytes()
    tags = [(256, width), (257, height), (258, 32), (259, 1), (262, 1), (273, 122), (277, 1)]
    tags += [(279, len(data)), (339, 1)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(4) + data


def ramps(top: float, kind: str) -> list[Array]:
    """Eight ramps from 0 to a value, each beginning elsewhere."""
    ramp = np.linspace(0, 1, 64 * 64)
    scaled = [np.roll(ramp, 131 * number).reshape(64, 64) * top for number in range(8)]
    return [values.astype(kind) for values in scaled]


def white_of(images: list[Array]) -> White:
    levels = Levels()
    for values in images:
        kind_and_values = read_deep(tiff(values))
        assert kind_and_values is not None
        levels.note(*kind_and_values)
    return levels.white()


def levels_of(images: list[Array]) -> Array:
    """The images as they are decoded once white is known, as int."""
    white = white_of(images)
    return np.stack([decode(tiff(values), channels=1, white=white) for values in images]).astype(
        int
    )


EXACT = np.stack(ramps(255, "float64"))[..., None]


@pytest.mark.parametrize(
    ("kind", "tops"),
    [
        ("float32", (1, 1.0001, 1.1, 255, 255.5, 256, 4095, 4096, 65535, 65536, 66000)),
        ("int32", (255, 256, 4095, 4096, 65535, 65536)),
        ("uint32", (255, 4095, 4100, 65535, 2**24 - 1, 2**32 - 1)),
        ("uint16", (255, 260, 4095, 4100, 65535)),
    ],
)
def test_the_same_ramps_in_any_usual_range_decode_alike(kind: str, tops: tuple[float, ...]) -> None:
    """What is a little above a usual range is as much brighter, and integers were cut off."""
    for top in tops:
        exact = min(_USUAL, key=lambda white: abs(np.log(white / top)))
        factor = max(1.0, top / exact) if top < 70_000 else 1.0
        expected = np.minimum(EXACT * factor, 255)
        most = 0.501 if kind == "float32" else 1.501
        assert np.abs(levels_of(ramps(top, kind)) - expected).max() <= most, top


def test_fractions_and_bytes_that_go_just_above_white_decode_alike() -> None:
    sets = [levels_of(ramps(top, "float32")) for top in (1, 1.0001, 255, 255.5)]
    for levels in sets[1:]:
        assert np.abs(levels - sets[0]).max() <= 1


def test_values_that_are_no_light_say_nothing_of_white() -> None:
    """NaN, infinity and what is below 0."""
    images = ramps(1, "float32")
    for values in images:
        values[0, :5] = [np.nan, np.inf, -np.inf, -3, -1e9]
    assert white_of(images) == White(float32=1)
    decoded = decode(tiff(images[0]), channels=1, white=White(float32=1))
    assert decoded[0, :5, 0].tolist() == [0, 255, 0, 0, 0]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_image_without_a_number_is_refused_not_black(value: float) -> None:
    with pytest.raises(ContentError, match="finite"):
        decode(tiff(np.full((4, 4), value, np.float32)), channels=1)


def test_a_few_hot_pixels_or_one_odd_image_change_nothing() -> None:
    images = ramps(1, "float32")
    images[3][5, 5] = 1e6
    assert white_of(images) == White(float32=1)
    dark = [values / 100 for values in ramps(4095, "float32")]
    assert white_of([*dark[:7], *ramps(4095, "float32")[7:]]) == White(float32=4095)


def test_a_dark_image_stays_dark() -> None:
    """Alone it would be taken for one of fractions, and be as bright as the others."""
    images = ramps(255, "float32")
    images[0] = images[0] / 255
    levels = levels_of(images)
    assert levels[0].max() <= 1
    assert levels[1:].max() == 255


@given(st.floats(1.01, 1.25), st.sampled_from([1.0, 255.0, 65535.0]))
def test_alone_an_image_is_not_blackened_by_values_just_above(factor: float, white: float) -> None:
    """Where nothing was decided: by earlier versions' files, or by hand."""
    values = np.array([[0, white / 2, white, white * factor]], np.float32)
    assert decode(tiff(values), channels=1).ravel().tolist() == [0, 128, 255, 255]


def test_integers_without_sign_do_not_wrap() -> None:
    values = np.array([[0, 2**31, 2**32 - 1]], np.uint32)
    white = White(int32=2**32 - 1)
    assert decode(tiff(values), channels=1, white=white).ravel().tolist() == [0, 128, 255]


def test_each_kind_of_numbers_has_a_white_of_its_own() -> None:
    levels = Levels()
    for values in (*ramps(1, "float32"), *ramps(4095, "uint16")):
        kind_and_values = read_deep(tiff(values))
        assert kind_and_values is not None
        levels.note(*kind_and_values)
    assert levels.white() == White(float32=1, int16=4095)


def test_images_of_8_bits_and_12_bit_tiffs_have_no_say(shared: Callable[[str], Path]) -> None:
    file = io.BytesIO()
    Image.new("L", (3, 3), 7).save(file, "PNG")
    assert read_deep(file.getvalue()) is None
    path = shared("badimages/modes/12bit.cropped.tif")
    assert read_deep(path.read_bytes()) is None
    white = White(int16=255)
    np.testing.assert_array_equal(decode(path, white=white), decode(path))


def test_what_is_above_white_is_counted() -> None:
    values = np.array([[0, 1, 1.5, 7, np.nan, np.inf, -np.inf]], np.float32)
    assert clipped("float32", values, White(float32=1)) == Clipped(3, 1, 1, np.inf)
    assert clipped("float32", values, White(float32=1)) + clipped(
        "float32", values[:, :2], White(float32=1)
    ) == Clipped(3, 1, 2, np.inf)


def test_crops_and_pillow_images_take_the_same_white() -> None:
    values, white = ramps(4095, "uint16")[0], White(int16=4095)
    expected = decode(tiff(values), channels=1, white=white)
    cropped = decode_crop(tiff(values), lambda h, w: (0, 0, h, w), 64, channels=1, white=white)
    np.testing.assert_array_equal(cropped, expected)
    np.testing.assert_array_equal(from_pillow(Image.fromarray(values), 1, white), expected)


def test_white_travels_with_the_preprocessing_and_may_be_absent() -> None:
    earlier = {"size": 8, "resize": 8, "mean": [0.5], "std": [0.25]}
    plain = Preprocessing.from_dict(earlier)
    assert plain.white == White()
    assert plain.to_dict() == earlier  # which earlier versions read
    known = Preprocessing(8, 8, (0.5,), (0.25,), White(float32=255.0, int16=4095.0))
    assert Preprocessing.from_dict(json.loads(json.dumps(known.to_dict()))) == known


@pytest.mark.parametrize(
    "white",
    [7, {"float64": 1}, {"int16": 0}, {"int16": -1}, {"int16": "1"}, {"int16": float("nan")},
     {"int16": float("inf")}, {"int16": True}, [1]],
)  # fmt: skip
def test_a_white_that_is_none_is_refused(white: Any) -> None:
    values = {"size": 8, "resize": 8, "mean": [0.5], "std": [0.25], "white": white}
    with pytest.raises(ContentError, match="white"):
        Preprocessing.from_dict(values)
