import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from resnets.errors import ContentError
from resnets.images import decode, probe
from resnets.images.probing import _FRAMES_COUNTED, _gif_frames

Encode = Callable[..., bytes]
Shared = Callable[[str], Path]
RED = Image.new("RGB", (30, 20), "red")


def test_the_manifest_says_the_same(shared: Shared) -> None:
    """Format, mode, size, frames and orientation, as Pillow read them there."""
    folder, compared = shared("badimages"), 0
    with (folder / "MANIFEST.tsv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    for row in rows:
        try:
            seen = probe(folder / row["file"])
        except ContentError:
            continue
        if row["mode"] == "-":  # the first header is sound; Pillow failed later
            continue
        compared += 1
        orientation = int(row["exif_orientation"] or 1)
        size = (seen.height, seen.width) if orientation >= 5 else (seen.width, seen.height)
        facts = (seen.format, seen.mode, "{}x{}".format(*size), seen.orientation)
        assert facts == (row["format"], row["mode"], row["size"], orientation), row["file"]
        if row["file"] != "broken/no_rows_per_strip.tif":
            assert seen.frames == int(row["frames"]), row["file"]
    assert compared > 90


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_the_size_is_that_of_the_upright_image(encode: Encode, kind: str, orientation: int) -> None:
    data = encode(RED, kind, orientation=orientation)
    seen = probe(data)
    assert (seen.height, seen.width) == decode(data).shape[:2]
    assert seen.orientation == orientation


@pytest.mark.parametrize(
    ("kind", "image", "bits"),
    [
        ("PNG", Image.new("1", (4, 4)), 1),
        ("PNG", RED, 8),
        ("PNG", Image.fromarray(np.zeros((4, 4), np.uint16)), 16),
        ("TIFF", Image.fromarray(np.zeros((4, 4), np.uint16)), 16),
        ("TIFF", Image.fromarray(np.zeros((4, 4), np.float32)), 32),
        ("TIFF", Image.fromarray(np.zeros((4, 4), np.int32)), 32),
        ("JPEG", RED, 8),
        ("GIF", RED, 8),
        ("WEBP", RED, 8),
    ],
)
def test_bits_are_those_of_the_file(
    encode: Encode, kind: str, image: Image.Image, bits: int
) -> None:
    assert probe(encode(image, kind)).bits == bits


def test_16_bit_colours_are_seen_though_pillow_hides_them(shared: Shared) -> None:
    assert probe(shared("badimages/modes/monkey16.png")).bits == 16
    assert probe(shared("badimages/modes/12bit.cropped.tif")).bits == 12


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("frames", [1, 2, 7])
def test_frames_are_counted(encode: Encode, kind: str, frames: int) -> None:
    images = [Image.new("RGB", (8, 8), (40 * number, 0, 0)) for number in range(frames)]
    data = encode(images[0], kind, save_all=True, append_images=images[1:])
    assert probe(data).frames == frames
    assert decode(data).shape == (8, 8, 3)


def test_frames_of_gif_are_pillows(shared: Shared) -> None:
    for path in sorted(shared("badimages/animated").glob("*.gif")):
        with Image.open(path) as image:
            assert _gif_frames(path.read_bytes()) == image.n_frames, path.name  # type: ignore[attr-defined]


def test_a_gif_of_a_million_frames_takes_no_time(encode: Encode) -> None:
    """Pillow's count takes half a minute for 14 MB of them."""
    whole = encode(Image.new("P", (1, 1)), "GIF")
    start = whole.index(b",\0\0\0\0", 13)
    frame = whole[start:-1]
    assert probe(whole[:start] + frame * 1_000_000 + b";").frames == 1_000_000


def test_a_tiff_is_counted_to_a_thousand(encode: Encode) -> None:
    """A chain of directories may lead back to its start: 4 bytes at 4 say where the first is."""
    whole = bytearray(encode(Image.new("L", (4, 4)), "TIFF"))
    first = int.from_bytes(whole[4:8], "little")
    link = first + 2 + 12 * int.from_bytes(whole[first : first + 2], "little")
    assert whole[link : link + 4] == bytes(4)
    whole[link : link + 4] = first.to_bytes(4, "little")
    assert probe(bytes(whole)).frames <= _FRAMES_COUNTED


@pytest.mark.parametrize(
    ("mode", "kind", "options", "transparent"),
    [
        ("RGB", "PNG", {}, False),
        ("RGBA", "PNG", {}, True),
        ("LA", "PNG", {}, True),
        ("L", "PNG", {"transparency": 3}, True),
        ("P", "PNG", {"transparency": 0}, True),
        ("P", "GIF", {}, False),
        ("RGB", "JPEG", {}, False),
    ],
)
def test_transparency_is_seen(
    encode: Encode, mode: str, kind: str, options: dict[str, Any], transparent: bool
) -> None:
    assert probe(encode(RED.convert(mode), kind, **options)).transparent == transparent


def test_what_is_unusual_about_a_file_is_seen(encode: Encode, tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    frames = [RED.convert("RGBA"), Image.new("RGBA", (30, 20), (0, 0, 255, 90))]
    path.write_bytes(encode(frames[0], "PNG", save_all=True, append_images=frames[1:]))
    moving = probe(path)
    assert (moving.format, moving.frames, moving.transparent) == ("PNG", 2, True)
    rotated = probe(encode(RED.convert("CMYK"), "JPEG", orientation=6))
    assert (rotated.mode, rotated.orientation) == ("CMYK", 6)
    assert probe(encode(Image.fromarray(np.zeros((4, 4), np.uint16)), "PNG")).bits == 16
