"""A crop decoded for training is what decoding all, cropping and resizing gives; only sooner."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from resnets.errors import ContentError, UsageError
from resnets.images import decode, decode_crop, jpeg, vectorised
from resnets.images.resizing import square

Encode = Callable[..., bytes]
Shared = Callable[[str], Path]
Pixels = np.ndarray[Any, np.dtype[np.uint8]]
SUBSAMPLING = {"4:4:4": 0, "4:2:2": 1, "4:2:0": 2}


def scene(height: int, width: int, seed: int = 0) -> Image.Image:
    """Blobs of colour: smooth enough for JPEG to keep, and unlike themselves when turned."""
    blobs = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), np.uint8)
    return Image.fromarray(blobs).resize((width, height), Image.Resampling.BICUBIC)


def plainly(data: bytes, box: tuple[int, ...], size: int) -> Pixels:
    """Pillow alone: all of it upright, then a crop, then bilinear."""
    top, left, height, width = box
    part = Image.fromarray(decode(data)).crop((left, top, left + width, top + height))
    return np.asarray(part.resize((size, size), Image.Resampling.BILINEAR))


def difference(one: Pixels, other: Pixels) -> float:
    return float(np.abs(one.astype(int) - other).mean())


@settings(max_examples=60)
@given(
    orientation=st.integers(1, 8),
    subsampling=st.sampled_from(list(SUBSAMPLING)),
    progressive=st.booleans(),
    fast=st.booleans(),
    data=st.data(),
)
def test_a_crop_is_what_cropping_the_whole_gives(
    encode: Encode,
    orientation: int,
    subsampling: str,
    progressive: bool,
    fast: bool,
    data: st.DataObject,
) -> None:
    """Within 3 levels, and no pixel has moved by more than half a pixel.

    Decoding at reduced scale averages squares where resizing averages with a wider triangle, and
    torch's square places its samples otherwise: either moves what is seen, and so changes a pixel
    by up to half of how much its neighbours differ, along both sides.
    """
    options = {"subsampling": SUBSAMPLING[subsampling], "progressive": progressive}
    photo = encode(scene(90, 130), "JPEG", quality=95, orientation=orientation, **options)
    height, width = (130, 90) if orientation >= 5 else (90, 130)
    top, left = data.draw(st.integers(0, height - 8)), data.draw(st.integers(0, width - 8))
    tall = data.draw(st.integers(8, height - top))
    wide = data.draw(st.integers(8, width - left))
    box, size = (top, left, tall, wide), data.draw(st.sampled_from([8, 20, 64]))
    seen = []
    crop = decode_crop(
        photo,
        lambda *shape: seen.append(shape) or box,
        size,
        resample=vectorised.square if fast else square,
    )
    assert seen == [(height, width)]
    assert crop.shape == (size, size, 3)
    assert crop.flags.c_contiguous
    expected = plainly(photo, box, size)
    moved = sum(np.abs(np.diff(expected.astype(float), axis=axis)).mean() / 2 for axis in (0, 1))
    assert difference(crop, expected) < 3 + moved


def test_at_full_scale_a_crop_is_exactly_the_crop(shared: Shared) -> None:
    """Of real photos whose colours are stored at full resolution: the same bytes."""
    random, compared = np.random.default_rng(0), 0
    for path in sorted(shared("photos").iterdir())[:60]:
        data = path.read_bytes()
        with Image.open(io.BytesIO(data)) as image:
            full = {layer[1:3] for layer in image.layer} == {(1, 1)}
        height, width, _ = decode(data).shape
        tall, wide = random.integers(50, min(height, width, 440), 2)
        top, left = random.integers(0, height - tall), random.integers(0, width - wide)
        box = (int(top), int(left), int(tall), int(wide))
        if full:
            compared += 1
            crop = decode_crop(data, lambda *_, box=box: box, 224)
            np.testing.assert_array_equal(crop, plainly(data, box, 224), err_msg=path.name)
    assert compared > 20


def test_simplejpeg_and_pillow_give_the_same_pixels(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On real photos, bit for bit."""
    paths = sorted(shared("photos").iterdir())[::4]
    assert jpeg.simplejpeg() is not None
    fast = [decode(path) for path in paths]
    monkeypatch.setattr(jpeg, "simplejpeg", lambda: None)
    for path, pixels in zip(paths, fast, strict=True):
        np.testing.assert_array_equal(pixels, decode(path), err_msg=path.name)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("L", {}),
        ("RGB", {"subsampling": 2}),
        ("RGB", {"progressive": True}),
        ("RGB", {"keep_rgb": True}),
        ("RGB", {"restart_marker_rows": 1}),
        ("CMYK", {}),
    ],
)
def test_jpeg_of_every_kind_is_the_same_without_simplejpeg(
    encode: Encode,
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
    options: dict[str, Any],
    channels: int,
) -> None:
    data = encode(scene(45, 67).convert(mode), "JPEG", **options)
    box = (3, 4, 20, 30)
    fast = [decode(data, channels=channels), decode_crop(data, lambda *_: box, 16)]
    monkeypatch.setattr(jpeg, "simplejpeg", lambda: None)
    np.testing.assert_array_equal(fast[0], decode(data, channels=channels))
    assert fast[0].shape == (45, 67, channels)
    assert difference(fast[1], decode_crop(data, lambda *_: box, 16)) < 2


@pytest.mark.parametrize("library", ["simplejpeg", "Pillow"])
@pytest.mark.parametrize("subsampling", list(SUBSAMPLING))
def test_rows_above_the_end_come_out_the_same(
    encode: Encode, monkeypatch: pytest.MonkeyPatch, subsampling: str, library: str
) -> None:
    """A decoder that stops below a row gives the rows above bit for bit."""
    if library == "Pillow":
        monkeypatch.setattr(jpeg, "simplejpeg", lambda: None)
    noise = np.random.default_rng(0).integers(0, 256, (100, 40, 3), np.uint8)
    data = encode(Image.fromarray(noise), "JPEG", subsampling=SUBSAMPLING[subsampling])
    frame = jpeg.read_frame(data)
    assert frame is not None
    whole = jpeg.decode_frame(data, frame, 3)
    for bottom in range(1, 101):
        rows = jpeg.decode_frame(data, frame, 3, bottom=bottom)
        assert bottom <= len(rows) <= min(100, bottom + 31)
        np.testing.assert_array_equal(rows[:bottom], whole[:bottom])


@pytest.mark.parametrize("library", ["simplejpeg", "Pillow"])
def test_large_photos_are_decoded_at_reduced_scale(
    encode: Encode, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    if library == "Pillow":
        monkeypatch.setattr(jpeg, "simplejpeg", lambda: None)
    data = encode(scene(401, 640), "JPEG", quality=95)
    sides = {side: decode(data, minimum_side=side).shape[:2] for side in (402, 200, 201, 100, 50)}
    assert sides == {
        402: (401, 640),
        201: (401, 640),
        200: (201, 320),
        100: (101, 160),
        50: (51, 80),
    }
    small = decode(data, minimum_side=50)
    shrunk = np.asarray(scene(401, 640).resize((80, 51), Image.Resampling.BOX))
    assert difference(small, shrunk) < 3


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP", "TIFF"])
def test_a_crop_of_any_other_format_is_exact(encode: Encode, kind: str) -> None:
    data = encode(scene(60, 50), kind)
    crop = decode_crop(data, lambda *_: (5, 6, 40, 30), 16)
    np.testing.assert_array_equal(crop, plainly(data, (5, 6, 40, 30), 16))


@pytest.mark.parametrize(
    "box",
    [(0, 0, 31, 40), (0, 0, 30, 41), (-1, 0, 5, 5), (0, -1, 5, 5), (0, 0, 0, 5), (9, 9, 5, 0)],
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_box_outside_the_image_is_a_usage_error(
    encode: Encode, kind: str, box: tuple[int, ...]
) -> None:
    with pytest.raises(UsageError, match="40 x 30"):
        decode_crop(encode(scene(30, 40), kind), lambda *_: box, 8)


def test_an_error_of_the_chooser_is_not_blamed_on_the_file(encode: Encode) -> None:
    with pytest.raises(ZeroDivisionError):
        decode_crop(encode(scene(30, 40), "JPEG"), lambda *_: 1 // 0, 8)


@pytest.mark.parametrize("fraction", [0.3, 0.6, 0.99])
def test_a_photo_cut_short_is_refused_whatever_the_box(encode: Encode, fraction: float) -> None:
    """Even where all rows of the box are there: an image must not come and go between epochs."""
    whole = encode(scene(200, 200), "JPEG")
    with pytest.raises(ContentError, match="truncated"):
        decode_crop(whole[: int(len(whole) * fraction)], lambda *_: (0, 0, 8, 8), 8)


def test_a_progressive_jpeg_of_a_thousand_scans_is_refused(encode: Encode) -> None:
    whole = encode(scene(16, 16), "JPEG", progressive=True)
    scan = whole[whole.rindex(b"\xff\xda") : -2]
    data = whole[:-2] + scan * 1000 + whole[-2:]
    with pytest.raises(ContentError, match="scans; at most 500"):
        decode(data)


def test_a_two_image_photo_of_a_phone_is_its_first_image(encode: Encode) -> None:
    first, second = scene(40, 60, 0), scene(40, 60, 1)
    data = encode(first, "MPO", save_all=True, append_images=[second], quality=95)
    assert difference(decode(data), np.asarray(first)) < 5
