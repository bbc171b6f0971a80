"""Images are upright, whatever their metadata say of how they are stored."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps, PngImagePlugin

from resnets.images import decode
from resnets.images.converting import stored_box, upright

Encode = Callable[..., bytes]
Shared = Callable[[str], Path]

PATTERN = np.random.default_rng(0).integers(0, 256, (3, 5, 3), np.uint8)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_every_orientation_is_applied(encode: Encode, kind: str, orientation: int) -> None:
    """Pillow's ImageOps.exif_transpose is the witness."""
    options = {"lossless": True} if kind == "WEBP" else {}
    image = Image.fromarray(PATTERN)
    decoded = decode(encode(image, kind, orientation=orientation, **options))
    image.getexif()[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(decoded, expected)
    assert decoded.flags.c_contiguous
    assert decoded.flags.writeable


def test_an_orientation_in_xmp_or_in_an_old_text_chunk_is_applied(encode: Encode) -> None:
    """PNG files of before the eXIf chunk hold EXIF as text; some programs write XMP alone."""
    xmp, old = PngImagePlugin.PngInfo(), PngImagePlugin.PngInfo()
    xmp.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="3"/>')
    exif = Image.Exif()
    exif[0x0112] = 3
    old.add_text("Raw profile type exif", f"\nexif\n  8\n{exif.tobytes().hex()}", zip=True)
    for text in (xmp, old):
        decoded = decode(encode(Image.fromarray(PATTERN), "PNG", pnginfo=text))
        np.testing.assert_array_equal(decoded, PATTERN[::-1, ::-1])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_of_jpeg_is_applied(encode: Encode, orientation: int) -> None:
    smooth = Image.fromarray(PATTERN).resize((50, 30))
    plain = decode(encode(smooth, "JPEG", quality=95))
    decoded = decode(encode(smooth, "JPEG", quality=95, orientation=orientation))
    turned = Image.fromarray(plain)
    turned.getexif()[0x0112] = orientation
    np.testing.assert_array_equal(decoded, np.asarray(ImageOps.exif_transpose(turned)))


@pytest.mark.parametrize(
    ("upright_file", "others"),
    [
        ("Landscape_1.jpg", ["Landscape_3.jpg", "Landscape_7.jpg"]),
        ("Portrait_3.jpg", ["Portrait_4.jpg"]),
        ("hopper_orientation_6.jpg", ["hopper_orientation_8.jpg", "hopper_orientation_2.webp"]),
        (
            "hopper_orientation_2.webp",
            [f"hopper_orientation_{number}.webp" for number in (3, 4, 5, 7)],
        ),
    ],
)
def test_rotated_files_of_one_photo_look_alike(
    shared: Shared, upright_file: str, others: list[str]
) -> None:
    folder = shared("badimages/exif_rotated")
    first = decode(folder / upright_file).astype(int)
    for other in others:
        second = decode(folder / other)
        assert np.abs(first - second).mean() < 8, other
        assert np.abs(first - second[::-1]).mean() > 20, other


@pytest.mark.parametrize("orientation", [0, 9, 255, 65535])
def test_an_orientation_that_does_not_exist_changes_nothing(
    encode: Encode, orientation: int
) -> None:
    decoded = decode(encode(Image.fromarray(PATTERN), "PNG", orientation=orientation))
    np.testing.assert_array_equal(decoded, PATTERN)


@given(st.integers(1, 8), st.integers(1, 6), st.integers(1, 6), st.data())
def test_a_box_is_found_where_the_image_is_stored(
    orientation: int, rows: int, columns: int, data: st.DataObject
) -> None:
    stored = np.arange(rows * columns, dtype=np.uint8).reshape(rows, columns, 1)
    seen = upright(stored, orientation)
    height, width, _ = seen.shape
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    tall = data.draw(st.integers(1, height - top))
    wide = data.draw(st.integers(1, width - left))
    y, x, h, w = stored_box((top, left, tall, wide), height, width, orientation)
    part = upright(stored[y : y + h, x : x + w], orientation)
    np.testing.assert_array_equal(part, seen[top : top + tall, left : left + wide])
