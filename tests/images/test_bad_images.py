"""Nothing that a file contains does more than raise a ContentError."""

import csv
import io
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from resnets.errors import ContentError
from resnets.images import UNTRUSTED, decode, decode_crop, probe

Encode = Callable[..., bytes]
Shared = Callable[[str], Path]

REFUSED = {  # though the manifest says that Pillow opens them
    "broken/broken_data_stream.png": "unrecognized data stream",  # loads at a second try only
    "broken_libpng/badadler.png": "broken data stream",  # so does this
    "imagetestsuite/c-m1-5e149c14dc7b7c16ff6bcedd1625ca31.png": "unrecognized data stream",
    "bombs/valid_1bit_12000x12000.png": "12000 x 12000 pixels; at most 128,000,000",
}
READ = {  # though the manifest says that Pillow fails: it does so at a later frame
    "fuzz_odd_exceptions/IndexError_ljtseed_017.gif",
    "fuzz_odd_exceptions/IndexError_ljtseed_023.gif",
}
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF")


def manifest(folder: Path) -> list[dict[str, str]]:
    with (folder / "MANIFEST.tsv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def test_every_bad_image_decodes_or_is_a_content_error(shared: Shared) -> None:
    """The manifest tells what Pillow made of each; all 150 are tried."""
    folder = shared("badimages")
    rows = manifest(folder)
    assert len(rows) == 150
    for row in rows:
        name, size, outcome = row["file"], row["size"], row["Pillow 13.0.0 open+load+convert(RGB)"]
        readable = outcome == "ok" and row["format"] in FORMATS and name not in REFUSED
        message = ""
        try:
            pixels = decode(folder / name)
        except ContentError as error:
            message = str(error)
        if message:
            assert not readable, message
            assert message.startswith(f"{folder / name}: "), message
            assert "\n" not in message
            assert REFUSED.get(name, "") in message
        else:
            assert readable or name in READ, name
            assert pixels.dtype == np.uint8
            sides = {f"{pixels.shape[1]}x{pixels.shape[0]}", f"{pixels.shape[0]}x{pixels.shape[1]}"}
            assert size in sides or name in READ, name


def test_the_limit_is_told_of_images_that_not_even_pillow_opens() -> None:
    header = b"IHDR" + struct.pack(">IIBBBBB", 100_000, 100_000, 1, 0, 0, 0, 0)
    image = b"\x89PNG\r\n\x1a\n\0\0\0\r" + header + struct.pack(">I", zlib.crc32(header))
    image += b"\0\0\0\x01IDAT\0\0\0\0\0"
    with pytest.raises(ContentError, match="1,000 pixels"):
        decode(image, max_pixels=1000)


@pytest.mark.parametrize("channels", [1, 4])
def test_bad_images_fare_alike_with_other_channels(shared: Shared, channels: int) -> None:
    folder = shared("badimages")
    for row in manifest(folder):
        path = folder / row["file"]
        try:
            expected = decode(path).shape[:2]
        except ContentError:
            with pytest.raises(ContentError):
                decode(path, channels=channels)
        else:
            assert decode(path, channels=channels).shape == (*expected, channels)


def test_bad_images_fare_alike_without_simplejpeg(shared: Shared, without_simplejpeg: None) -> None:
    folder = shared("badimages")
    for row in manifest(folder):
        if row["format"] == "JPEG" and row["Pillow 13.0.0 open+load+convert(RGB)"] == "ok":
            assert decode(folder / row["file"]).dtype == np.uint8


def test_bad_images_are_cropped_or_refused(shared: Shared) -> None:
    folder = shared("badimages")
    for row in manifest(folder):
        attempt((folder / row["file"]).read_bytes())


SMALL_MEMORY = """
import resource, sys
from pathlib import Path
from resnets.errors import ContentError
from resnets.images import decode, probe
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
resource.setrlimit(resource.RLIMIT_CPU, (250, 250))
for path in sorted(Path(sys.argv[1]).rglob("*.*")):
    for look in (decode, probe):
        try:
            look(path)
        except ContentError:
            pass
print("all seen")
"""


def test_no_bad_image_needs_2_gib_or_warns(shared: Shared) -> None:
    """In a process with its memory and time limited; any warning would be an error."""
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", SMALL_MEMORY, str(shared("badimages"))],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # whose buffers grow with the cores
    )
    assert run.stdout == "all seen\n", run.stderr[-2000:]
    assert "Warning" not in run.stderr  # though libtiff itself writes there


def test_tiff_from_strangers_is_not_even_opened(encode: Encode) -> None:
    data = encode(Image.new("RGB", (2, 2)), "TIFF")
    with pytest.raises(ContentError, match=r"TIFF data.* JPEG, PNG"):
        decode(data, formats=UNTRUSTED)
    assert decode(data).shape == (2, 2, 3)


PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 20, 3), np.uint8))
KINDS = [
    ("JPEG", {"quality": 90}),
    ("JPEG", {"progressive": True}),
    ("JPEG", {"orientation": 6}),
    ("PNG", {"orientation": 6}),
    ("WEBP", {}),
    ("BMP", {}),
    ("GIF", {}),
    ("TIFF", {"compression": "tiff_lzw"}),
]


def attempt(data: bytes) -> None:
    """Everything that reads a file, with a ContentError as the only way to fail."""
    for look in (
        decode,
        probe,
        lambda data: decode_crop(data, lambda height, width: (0, 0, height, width), 4),
    ):
        reason = None
        try:
            look(data)
        except ContentError as error:
            reason = str(error)
        assert reason is None or (reason and "\n" not in reason)


@given(st.binary(max_size=200), st.sampled_from([b"", b"\xff\xd8\xff", b"GIF89a", b"BM", b"II*\0"]))
def test_any_bytes_are_an_image_or_a_content_error(data: bytes, start: bytes) -> None:
    attempt(start + data)


@pytest.mark.parametrize(("kind", "options"), KINDS)
@settings(max_examples=40)
@given(data=st.data())
def test_a_file_cut_short_is_an_image_or_a_content_error(
    encode: Encode, kind: str, options: dict[str, object], data: st.DataObject
) -> None:
    whole = encode(PICTURE, kind, **options)
    attempt(whole[: data.draw(st.integers(0, len(whole)))])


@pytest.mark.parametrize(("kind", "options"), KINDS)
@settings(max_examples=60)
@given(data=st.data())
def test_flipped_bits_leave_an_image_or_a_content_error(
    encode: Encode, kind: str, options: dict[str, object], data: st.DataObject
) -> None:
    damaged = bytearray(encode(PICTURE, kind, **options))
    header = st.integers(0, min(200, len(damaged)) - 1)  # where a flipped bit does most
    places = st.lists(header | st.integers(0, len(damaged) - 1), min_size=1, max_size=6)
    for place in data.draw(places):
        damaged[place] ^= 1 << data.draw(st.integers(0, 7))
    attempt(bytes(damaged))


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_cut_short_is_refused_and_not_filled_with_grey(
    encode: Encode, progressive: bool
) -> None:
    whole = encode(PICTURE, "JPEG", progressive=progressive)
    with pytest.raises(ContentError, match=r"broken JPEG: .*truncated"):
        decode(whole[: len(whole) * 2 // 3])


def damaged(seed: int) -> bytes:
    """A JPEG of some kind with errors in its data, and with its end."""
    random = np.random.default_rng(seed)
    width, height = (int(side) for side in random.integers(40, 200, 2))
    small = Image.fromarray(random.integers(0, 255, (height // 8, width // 8, 3), np.uint8))
    file = io.BytesIO()
    small.resize((width, height)).convert("L" if seed % 5 == 0 else "RGB").save(
        file,
        "JPEG",
        progressive=seed % 3 == 0,
        restart_marker_blocks=int(random.choice([0, 1, 5, 20])),
        subsampling=int(random.integers(3)),
    )
    data = bytearray(file.getvalue())
    start = data.index(b"\xff\xda") + 14
    for place in random.integers(start, len(data) - 2, random.choice([1, 3, 10])):
        data[place] = random.choice([0xFF, 0xD3, random.integers(256)])
    return bytes(data)


@pytest.mark.parametrize("header", [b"P6 2a 3 255\n", b"P6 " + b"1" * 30 + b" 3 255\n"])
def test_bytes_in_a_message_are_shown_as_text(header: bytes) -> None:
    with pytest.raises(ContentError) as refusal:
        decode(header + bytes(50))
    assert "b'" not in str(refusal.value)


def upper_left(height: int, width: int) -> tuple[int, int, int, int]:
    return 0, 0, height // 3, width // 2


READERS = {
    "whole": decode,
    "smaller": lambda data: decode(data, minimum_side=1),
    "crop": lambda data: decode_crop(data, upper_left, 32),
}


@pytest.mark.parametrize("way", READERS)
def test_damaged_jpegs_are_read_alike_with_and_without_simplejpeg(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def outcome(data: bytes) -> str | np.ndarray:
        try:
            return READERS[way](data)
        except ContentError:
            return "refused"

    pytest.importorskip("simplejpeg", reason="needs the extra 'fast'")
    files = [damaged(seed) for seed in range(150)]
    with_library = [outcome(data) for data in files]
    monkeypatch.setattr("resnets.images.jpeg.simplejpeg", lambda: None)
    without = [outcome(data) for data in files]
    for seed, (one, other) in enumerate(zip(with_library, without, strict=True)):
        assert isinstance(one, str) == isinstance(other, str), seed
        if not isinstance(one, str) and not isinstance(other, str):
            assert one.shape == other.shape
            if way != "crop":  # whose colours are interpolated in another way
                assert np.abs(one.astype(int) - other).max() <= 2
    refused = sum(isinstance(one, str) for one in without)
    assert 5 < refused < 145  # both kinds are among them


def test_errors_in_the_data_of_a_jpeg_that_has_its_end_are_passed_over(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = shared("cases/files/needs_simplejpeg.jpg")
    one = decode(path)
    monkeypatch.setattr("resnets.images.jpeg.simplejpeg", lambda: None)
    assert np.abs(one.astype(int) - decode(path)).max() <= 2
