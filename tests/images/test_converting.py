"""Every kind of pixels becomes 8-bit grey, RGB or RGBA, upright."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from PIL import Image, ImageCms, TiffImagePlugin

from resnets.errors import UsageError
from resnets.images import converting, decode, from_pixels
from resnets.images.converting import MODES

Encode = Callable[..., bytes]
Shared = Callable[[str], Path]


def colours(image: np.ndarray[Any, Any]) -> list[tuple[int, ...]]:
    """The pixels of the first row."""
    return [tuple(map(int, pixel)) for pixel in image[0]]


def row(mode: str, *values: Any) -> Image.Image:
    image = Image.new(mode, (len(values), 1))
    for x, value in enumerate(values):
        image.putpixel((x, 0), value)
    return image


def sixteen(*values: int) -> Image.Image:
    return Image.fromarray(np.array([values], np.uint16))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_and_not_clipped(encode: Encode, kind: str) -> None:
    """65535 is white, half of it is grey: Pillow's own conversion makes all above 255 white."""
    data = encode(sixteen(0, 257, 0x8080, 65535 - 257, 65535), kind)
    assert colours(decode(data, channels=1)) == [(0,), (1,), (128,), (254,), (255,)]
    assert colours(decode(data))[2] == (128, 128, 128)


@given(st.lists(st.integers(0, 65535), min_size=1, max_size=20))
def test_16_bit_grey_is_within_half_a_level(encode: Encode, values: list[int]) -> None:
    decoded = decode(encode(sixteen(*values), "PNG"), channels=1).ravel()
    assert np.abs(decoded - np.array(values) / 257).max() <= 0.5


def test_big_endian_16_bit_tiff_is_the_same(shared: Shared) -> None:
    path = shared("badimages/modes/16bit.MM.cropped.tif")
    with Image.open(path) as image:
        assert image.mode == "I;16B"
        expected = np.rint(np.asarray(image).astype(float) / 257)
    np.testing.assert_array_equal(decode(path, channels=1)[..., 0], expected)


def test_12_bit_tiff_is_scaled_by_its_own_white(shared: Shared) -> None:
    path = shared("badimages/modes/12bit.cropped.tif")
    with Image.open(path) as image:
        expected = np.rint(np.asarray(image) * 255.0 / 4095)
    decoded = decode(path, channels=1)[..., 0]
    np.testing.assert_array_equal(decoded, expected)
    assert decoded.any()  # of 65,535, these dark values would all be 0


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((0.0, 0.5, 1.0), (0, 128, 255)),
        ((0.0, 64.0, 255.0), (0, 64, 255)),
        ((0.0, 32896.0, 65535.0), (0, 128, 255)),
        ((-5.0, 1.2e6, 2e6), (0, 153, 255)),
        ((float("nan"), 0.2, 1.0), (0, 51, 255)),
        ((float("-inf"), 0.0, float("inf")), (0, 0, 255)),
    ],
)
def test_floats_are_scaled_by_the_smallest_usual_white(
    encode: Encode, values: tuple[float, ...], expected: tuple[int, ...]
) -> None:
    data = encode(Image.fromarray(np.array([values], np.float32)), "TIFF")
    assert tuple(decode(data, channels=1).ravel().tolist()) == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((0, 200, 255), (0, 200, 255)),
        ((-7, 257, 65535), (0, 1, 255)),
        ((0, 600_000, 1_000_000), (0, 153, 255)),
    ],
)
def test_32_bit_integers_are_scaled_by_the_smallest_usual_white(
    encode: Encode, values: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    data = encode(Image.fromarray(np.array([values], np.int32)), "TIFF")
    assert tuple(decode(data, channels=1).ravel().tolist()) == expected


def test_transparent_16_bit_grey_shows_white(encode: Encode) -> None:
    data = encode(sixteen(0, 1000, 65535), "PNG", transparency=1000)
    assert colours(decode(data)) == [(0, 0, 0), (255, 255, 255), (255, 255, 255)]
    assert colours(decode(data, channels=4))[1][3] == 0


BLACK_WITH_ALPHA = [(0, 0, 0, 0), (0, 0, 0, 128), (0, 0, 0, 255)]


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_alpha_is_composited_on_white(encode: Encode, kind: str) -> None:
    """Half of black on white is 127, as alpha * 0 + (1 - alpha) * 255 says."""
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    data = encode(row("RGBA", *BLACK_WITH_ALPHA), kind, **options)
    assert colours(decode(data)) == [(255,) * 3, (127,) * 3, (0,) * 3]
    assert colours(decode(data, channels=1)) == [(255,), (127,), (0,)]
    assert colours(decode(data, channels=4)) == BLACK_WITH_ALPHA


def test_grey_with_alpha_is_composited_on_white(encode: Encode) -> None:
    data = encode(row("LA", (0, 0), (0, 128), (90, 255)), "PNG")
    assert colours(decode(data)) == [(255,) * 3, (127,) * 3, (90,) * 3]


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_transparent_palette_entry_shows_white(encode: Encode, kind: str) -> None:
    image = row("P", 0, 1)
    image.putpalette([200, 10, 10, 10, 200, 10])
    data = encode(image, kind, transparency=0)
    assert colours(decode(data)) == [(255, 255, 255), (10, 200, 10)]
    assert colours(decode(data, channels=4))[0][3] == 0


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "TIFF"])
def test_a_palette_is_looked_up(encode: Encode, kind: str) -> None:
    image = row("P", 1, 0)
    image.putpalette([200, 10, 10, 10, 200, 10])
    assert colours(decode(encode(image, kind))) == [(10, 200, 10), (200, 10, 10)]


def test_a_transparent_colour_of_rgb_shows_white(encode: Encode) -> None:
    data = encode(row("RGB", (1, 2, 3), (4, 5, 6)), "PNG", transparency=(1, 2, 3))
    assert colours(decode(data)) == [(255, 255, 255), (4, 5, 6)]


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "TIFF"])
def test_one_bit_is_black_and_white(encode: Encode, kind: str) -> None:
    data = encode(row("1", 0, 255), kind)
    assert colours(decode(data)) == [(0, 0, 0), (255, 255, 255)]
    assert colours(decode(data, channels=4)) == [(0, 0, 0, 255), (255, 255, 255, 255)]


@pytest.mark.parametrize("kind", ["TIFF", "JPEG"])
def test_cmyk_is_ink_on_white(encode: Encode, kind: str) -> None:
    image = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    decoded = decode(encode(image, kind))
    np.testing.assert_allclose(decoded[8, 8], (0, 255, 255), atol=3)
    assert decode(encode(image, kind), channels=4).shape == (16, 16, 4)


def test_inverted_cmyk_of_adobe_is_not_a_negative(shared: Shared) -> None:
    """Its corners are magenta on yellow, and black, by Pillow's own test of this file."""
    decoded = decode(shared("badimages/modes/pil_sample_cmyk.jpg"))
    np.testing.assert_allclose(decoded[0, 0], (255, 20, 20), atol=30)
    assert decoded[-1, -1].max() < 60


@pytest.mark.parametrize("colour", [(255, 255, 255), (200, 30, 30), (20, 90, 160)])
def test_lab_is_the_colour_that_was_meant(encode: Encode, colour: tuple[int, ...]) -> None:
    """LittleCMS makes the LAB; in gamut, the way back ends where it began."""
    lab = ImageCms.profileToProfile(
        Image.new("RGB", (2, 2), colour),
        ImageCms.createProfile("sRGB"),
        ImageCms.createProfile("LAB"),
        outputMode="LAB",
    )
    assert lab is not None
    np.testing.assert_allclose(decode(encode(lab, "TIFF"))[0, 0], colour, atol=3)


def test_only_the_first_frame_of_an_animation_is_decoded(encode: Encode) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "green", "blue")]
    for kind, lossless in (("GIF", {}), ("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})):
        data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **lossless)
        assert colours(decode(data))[0] == (255, 0, 0), kind


def test_a_number_of_channels_that_cannot_be_is_a_usage_error(encode: Encode) -> None:
    with pytest.raises(UsageError, match=r"channels is 2; .*1 .*3 .*4"):
        decode(encode(Image.new("RGB", (5, 3)), "PNG"), channels=2)


def test_a_tiff_without_bits_per_sample_is_read(encode: Encode) -> None:
    """The tag's default is 1 bit, for one sample (TIFF 6.0, section 8)."""
    info = TiffImagePlugin.ImageFileDirectory_v2()
    assert colours(decode(encode(row("1", 255, 0), "TIFF", tiffinfo=info)))[0] == (255,) * 3


@given(npst.arrays(np.uint8, st.tuples(*[st.integers(1, 4)] * 2, st.sampled_from([1, 3]))))
def test_the_channels_of_arrays_are_converted_as_pillow_does(pixels: np.ndarray[Any, Any]) -> None:
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    for channels, mode in MODES.items():
        expected = np.asarray(picture.convert(mode)).reshape(*pixels.shape[:2], channels)
        np.testing.assert_array_equal(from_pixels(pixels, channels), expected)


def test_transparent_pixels_of_an_array_show_white() -> None:
    pixels = np.array([[[9, 9, 9, 0], [9, 9, 9, 255]]], np.uint8)
    assert from_pixels(pixels, 3).tolist() == [[[255, 255, 255], [9, 9, 9]]]
    assert from_pixels(pixels, 1).tolist() == [[[255], [9]]]


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_stack_of_images_is_converted_as_each_of_them(
    channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(converting, "_STRIP", 12)  # pixels: two rows of several at a time
    stack = np.random.default_rng(0).integers(0, 256, (4, 3, 5, 3), np.uint8)
    converted = from_pixels(stack, channels)
    assert converted.shape == (4, 3, 5, channels)
    for one, image in zip(converted, stack, strict=True):
        np.testing.assert_array_equal(one, from_pixels(image, channels))
    assert from_pixels(stack[:0], channels).shape == (0, 3, 5, channels)
