import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from PIL import Image, PngImagePlugin

from resnets.images import decode
from resnets.images.png import SMALL, decode_plain

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
shapes = st.tuples(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3]))


def encode(pixels: Pixels, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(file, "PNG", **options)
    return file.getvalue()


def chunk(name: bytes, content: bytes) -> bytes:
    check = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", check)


def noise(channels: int = 3) -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (5, 6, channels), dtype=np.uint8)


@given(npst.arrays(np.uint8, shapes))
def test_pixels_come_as_they_were_written(pixels: Pixels) -> None:
    decoded = decode_plain(encode(pixels), pixels.shape[2])
    assert decoded is not None
    np.testing.assert_array_equal(decoded, pixels)
    assert decoded.flags.c_contiguous
    assert decoded.flags.writeable


@given(
    npst.arrays(np.uint8, st.just((5, 4, 3))), st.lists(st.integers(0, 4), min_size=5, max_size=5)
)
def test_every_filter_of_a_row_is_undone(rows: Pixels, filters: list[int]) -> None:
    """Whatever the filtered bytes are, Pillow's reader as a whole is the witness."""
    raw = b"".join(bytes([kind]) + row.tobytes() for kind, row in zip(filters, rows, strict=True))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 5, 8, 2, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    decoded = decode_plain(data, 3)
    assert decoded is not None
    np.testing.assert_array_equal(decoded, np.asarray(Image.open(io.BytesIO(data))))


def test_pixels_in_several_chunks_after_others_are_read() -> None:
    others = PngImagePlugin.PngInfo()
    others.add(b"tIME", bytes(7))
    others.add(b"bKGD", bytes(6))
    data = encode(noise(), pnginfo=others)
    start = data.index(b"IDAT") - 4
    length = int.from_bytes(data[start : start + 4], "big")
    content = data[start + 8 : start + 8 + length]
    halves = chunk(b"IDAT", content[:20]) + chunk(b"IDAT", content[20:])
    decoded = decode_plain(data[:start] + halves + data[start + 12 + length :], 3)
    assert decoded is not None
    np.testing.assert_array_equal(decoded, noise())


def test_what_is_not_plain_is_left_to_pillow() -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="3"/>')
    plain = encode(noise())
    others = {
        "text, which may rotate": encode(noise(), pnginfo=text),
        "chromaticities cut short": plain[:33] + chunk(b"cHRM", b"x") + plain[33:],
        "transparent colour": encode(noise(), transparency=(1, 2, 3)),
        "rotated": encode(noise(), exif=turned),
        "palette": io.BytesIO(),
        "16 bits": io.BytesIO(),
        "alpha": io.BytesIO(),
        "large": encode(np.zeros((SMALL, 1, 3), np.uint8).repeat(2, 1)),
        "jpeg": b"\xff\xd8\xff" + bytes(100),
        "nothing": b"",
        "without end": plain[:-12],
        "bit lost": plain[:60] + bytes([plain[60] ^ 1]) + plain[61:],
        "unknown critical chunk": plain[:33] + chunk(b"ABCD", b"x") + plain[33:],
        "empty": b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 0, 0, 8, 2, 0, 0, 0)),
        "interlaced": plain[:16]
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 6, 5, 8, 2, 0, 0, 1))[8:]
        + plain[33:],
    }
    Image.fromarray(noise()).convert("P").save(others["palette"], "PNG")
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(others["16 bits"], "PNG")
    Image.fromarray(noise(4)).save(others["alpha"], "PNG")
    for name, data in others.items():
        content = data.getvalue() if isinstance(data, io.BytesIO) else data
        assert decode_plain(content, 3) is None, name
    assert decode_plain(plain, 1) is None
    assert decode_plain(plain, 3, max_pixels=29) is None


@given(st.integers(0, len(encode(noise())) - 1), st.integers(1, 255))
def test_a_file_with_one_byte_changed_is_left_to_pillow(place: int, change: int) -> None:
    data = bytearray(encode(noise()))
    data[place] ^= change
    assert decode_plain(bytes(data), 3) is None


@given(st.integers(0, len(encode(noise())) - 1))
def test_a_file_that_ends_early_is_left_to_pillow(length: int) -> None:
    assert decode_plain(encode(noise())[:length], 3) is None


def test_decoding_takes_this_way_and_gives_the_same(shared: Callable[[str], Path]) -> None:
    file = shared("data/cifar10") / "test-00000-of-00001.parquet"
    for row in pq.read_table(file, columns=["img"]).slice(0, 500)["img"].to_pylist():
        assert decode_plain(row["bytes"], 3) is not None
        decoded = decode(row["bytes"])
        expected = np.asarray(Image.open(io.BytesIO(row["bytes"])).convert("RGB"))
        np.testing.assert_array_equal(decoded, expected)
