"""Large images: their memory is known from the header, and bounded over all threads."""

import io
import resource
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resnets.errors import ContentError
from resnets.images import decode
from resnets.images.memory_budget import _LARGEST, _PIXELS, _Budget, _InUse

MEASURE = """
import resource, subprocess, sys
code = subprocess.run([sys.executable, "-m", "resnets", *sys.argv[1:]], capture_output=True)
print(code.returncode, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def peak(*words: str) -> float:
    """Peak resident memory of a command, in GiB; its exit code must be 0."""
    process = subprocess.run(
        [sys.executable, "-c", MEASURE, *words], capture_output=True, text=True, check=True
    )
    code, kilobytes = map(int, process.stdout.split())
    assert code == 0
    return kilobytes / 2**20


def chunk(name: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)


def png(side: int, kind: int, interlaced: bool = False) -> bytes:
    """A PNG of one colour, made without the memory that its pixels take. kind: 2 RGB, 6 RGBA."""
    pack = zlib.compressobj(1)
    row = bytes(1 + side * (4 if kind == 6 else 3))
    packed = b"".join(pack.compress(row) for _ in range(side)) + pack.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, kind, 0, 0, int(interlaced))
    parts = chunk(b"IHDR", header), chunk(b"IDAT", packed), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.soak
@pytest.mark.parametrize("kind", [6])
def test_any_number_of_large_images_takes_less_than_2_gib(tmp_path: Path, kind: int) -> None:
    for number in range(4):
        (tmp_path / f"{number}.png").write_bytes(png(9000, kind))
    assert peak("predict", str(tmp_path)) < 1.6


@pytest.mark.slow
def test_the_case_of_half_a_megabyte_is_answered(shared: Callable[[str], Path]) -> None:
    assert peak("predict", str(shared("cases/files/big_rgba.png"))) < 1.6


def test_a_tile_that_is_larger_than_its_image_is_refused() -> None:
    side = 60_000  # a tile takes 3.6 GB, the image 256 bytes
    tags = (
        *((256, 16), (257, 16), (258, 8), (259, 5), (262, 1), (277, 1)),
        *((322, side), (323, side), (324, 200), (325, 100)),
    )
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    tiff = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ContentError, match="are allowed"):
        decode(tiff.ljust(300, b"\0"))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


def test_a_webp_that_needs_much_more_than_its_pixels_is_refused() -> None:
    stream = io.BytesIO()
    Image.new("L", (9000, 9000)).convert("RGB").save(stream, "WEBP", method=0, quality=0)
    with pytest.raises(ContentError, match="are allowed"):
        decode(stream.getvalue())


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I;16", "I", "F"]
)
def test_strips_give_the_pixels_that_the_whole_image_gives(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from resnets.images import converting, from_pillow

    random = np.random.default_rng(0).integers(0, 255, (40, 30, 4), np.uint8)
    image = Image.fromarray(random)
    if mode in ("I;16", "I", "F"):
        image = Image.fromarray(random[..., 0].astype({"I;16": "u2", "I": "i4", "F": "f4"}[mode]))
    elif mode == "LAB":
        image = Image.frombytes("LAB", (30, 40), random[..., :3].tobytes())
    else:
        image = image.convert(mode) if mode != "PA" else image.convert("P").convert("PA")
    if mode == "P":
        image.info["transparency"] = 3
    for channels in (1, 3, 4):
        monkeypatch.setattr(converting, "_STRIP", 1 << 20)
        whole = from_pillow(image, channels)
        monkeypatch.setattr(converting, "_STRIP", 70)
        assert np.array_equal(from_pillow(image, channels), whole)


def test_room_is_never_given_twice() -> None:
    room, lock = _Budget(100), threading.Lock()
    used, most = [0], [0]

    def work(count: int) -> None:
        room.take(count)
        with lock:
            used[0] += count
            most[0] = max(most[0], used[0])
        with lock:
            used[0] -= count
        room.give(count)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(work, [10, 60, 90, 35] * 200))
    assert most[0] <= 100
    assert room.used == 0


def test_who_asks_for_more_than_there_is_gets_it_alone() -> None:
    room = _Budget(10)
    room.take(25)
    assert room.used == 25


def test_a_large_image_leaves_room_to_small_ones() -> None:
    room, small = _Budget(100 << 20, modest=50 << 20), 20 << 20
    room.take(90 << 20)
    room.take(small)  # it does not wait
    room.take(small)
    assert not room._has_room(small)
    assert not room._has_room(60 << 20)
    room.give(90 << 20)
    assert room._has_room(200 << 20)  # the only large one
    assert room._has_room(small)


def test_threads_that_read_and_decode_large_images_do_not_wait_for_ever() -> None:
    use = _InUse()

    def work(number: int) -> int:
        for _ in range(50):
            with use:
                use.reading((1 + number) << 26)
                use.decoding((1 + number) << 27, "an image")
                use.reading((1 + number) << 26)  # a second image, the first being done with
                use.decoding((1 + number) << 27, "an image")
        return number

    with ThreadPoolExecutor(6) as pool:
        assert sorted(pool.map(work, range(6), timeout=300)) == list(range(6))
    assert _PIXELS.used == 0


def test_nothing_is_held_after_an_image_that_is_broken_or_refused() -> None:
    for data in (png(3000, 6)[:5000], png(3000, 2)[:-30]):
        with pytest.raises(ContentError):
            decode(data)
    use = _InUse()
    with pytest.raises(ContentError), use:
        use.decoding(_LARGEST + 1, "an image")
    assert _PIXELS.used == 0
