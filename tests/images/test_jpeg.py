"""The orientation of a JPEG is what Pillow reads, however its metadata are written."""

import io
import struct

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from resnets.images.converting import orientation_of
from resnets.images.jpeg import _orientation_in, read_frame
from resnets.images.opening import IGNORE_PILLOW_WARNINGS

PLAIN = io.BytesIO()
Image.new("RGB", (8, 8)).save(PLAIN, "JPEG")

entries = st.lists(
    st.tuples(
        st.sampled_from([0x010F, 0x0112, 0x0112, 0x0128, 0x8769]),  # maker, orientation, unit, EXIF
        st.sampled_from([1, 2, 3, 3, 4, 5, 99]),
        st.sampled_from([0, 1, 1, 1, 2, 70_000]),
        st.sampled_from([*range(10), 90, 60_000]),
    ),
    max_size=4,
)


def exif(order: str, rows: list[tuple[int, int, int, int]], start: int = 8) -> bytes:
    """An APP1 segment with one directory; a value of 16 bits stands first in its four bytes."""
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}I", start)
    body = b"".join(struct.pack(f"{order}HHIHH", *row, 0) for row in rows)
    return b"Exif\0\0" + head + struct.pack(f"{order}H", len(rows)) + body + bytes(4)


def with_segments(*segments: bytes) -> bytes:
    written = (b"\xff\xe1" + struct.pack(">H", len(each) + 2) + each for each in segments)
    return b"\xff\xd8" + b"".join(written) + PLAIN.getvalue()[2:]


def agrees(data: bytes) -> bool:
    frame = read_frame(data)
    assert frame is not None
    with IGNORE_PILLOW_WARNINGS:
        return frame.orientation == orientation_of(Image.open(io.BytesIO(data)))


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_ordinary_orientation_is_read(order: str, orientation: int) -> None:
    segment = exif(order, [(0x010F, 2, 1, 0), (0x0112, 3, 1, orientation)])
    assert _orientation_in([segment]) == orientation
    assert agrees(with_segments(segment))


@given(st.sampled_from("<>"), entries, st.sampled_from([8, 8, 8, 0, 9, 30, 2**31]))
@example("<", [(0x0112, 3, 1, 6), (0x0112, 3, 1, 3)], 8)
@example("<", [(0x010F, 2, 9, 90), (0x0112, 3, 1, 3)], 8)
def test_any_directory_is_read_as_pillow_reads_it(
    order: str, rows: list[tuple[int, int, int, int]], start: int
) -> None:
    assert agrees(with_segments(exif(order, rows, start)))


@given(st.integers(0, 47), st.integers(0, 255))
@settings(max_examples=200)
def test_any_changed_byte_is_read_as_pillow_reads_it(place: int, value: int) -> None:
    segment = bytearray(exif("<", [(0x010F, 2, 1, 0), (0x0112, 3, 1, 6)]))
    segment[place % len(segment)] = value
    assert agrees(with_segments(bytes(segment)))


@given(st.integers(0, 44))
def test_a_segment_cut_short_is_read_as_pillow_reads_it(length: int) -> None:
    assert agrees(with_segments(exif(">", [(0x0112, 3, 1, 6), (0x0128, 3, 1, 2)])[:length]))


@pytest.mark.parametrize("elsewhere", ["6", "3"])
def test_several_segments_are_read_as_pillow_reads_them(elsewhere: str) -> None:
    xmp = b'http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation="%s"/>' % elsewhere.encode()
    six, none = exif("<", [(0x0112, 3, 1, 6)]), exif("<", [])
    for segments in ([xmp], [none, xmp], [six, xmp], [six, none], [none, six]):
        assert agrees(with_segments(*segments))
