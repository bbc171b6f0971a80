import os
import threading
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from resnets.errors import ContentError
from resnets.images import ALLOWED, decode, probe
from resnets.images.opening import IGNORE_PILLOW_WARNINGS, MAX_BYTES, one_line

Encode = Callable[..., bytes]
LOOKS = [decode, probe]


def refusal(source: bytes | Path, **options: int) -> str:
    """The reason, which decoding and probing give alike."""
    reasons = []
    for look in LOOKS:
        with pytest.raises(ContentError) as caught:
            look(source, **options)  # type: ignore[operator]
        reasons.append(str(caught.value))
    assert reasons[0] == reasons[1]
    return reasons[0]


def test_each_reason_is_plain_to_a_person() -> None:
    reads = f"; what can be read is JPEG, PNG, WEBP, BMP, GIF, TIFF, {', '.join(ALLOWED[6:])}"
    assert refusal(b"") == "0 bytes; not an image"
    assert refusal(b"hello world") == f'not an image (it starts with "hello wo"){reads}'
    assert refusal(b"\x89") == f"not an image (it starts with the bytes 89){reads}"
    assert refusal(b"\x00\nab") == f"not an image (it starts with the bytes 00 0a 61 62){reads}"
    assert refusal(b"\xff\x0a jxl") == f"JPEG XL data{reads}"
    assert refusal(b"%PDF-1.7") == f"PDF data{reads}"
    assert refusal(b"\xff\xd8\xff") == "broken JPEG: its header makes no sense"


def test_a_file_is_named_before_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "two\nlines.png"
    path.write_bytes(b"")
    assert refusal(path) == f"{tmp_path}/two\\nlines.png: 0 bytes; not an image"


def test_what_is_not_a_file_is_said_and_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    assert refusal(pipe) == f"{pipe}: cannot be read: not a file but a pipe"
    assert refusal(tmp_path) == f"{tmp_path}: cannot be read: not a file but a folder"
    assert refusal(Path("/dev/zero")) == "/dev/zero: cannot be read: not a file but a device"
    missing = tmp_path / "missing.png"
    assert refusal(missing) == f"{missing}: cannot be read: No such file or directory"
    assert "cannot be read" in refusal(tmp_path / "a\0b.png")
    assert "cannot be read" in refusal(tmp_path / ("long" * 100))


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.png"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)  # a sparse file
    assert "536,870,913 bytes; at most 536,870,912" in refusal(path)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_pixels_are_counted_before_they_are_decoded(encode: Encode, kind: str) -> None:
    data = encode(Image.new("RGB", (30, 40)), kind)
    assert refusal(data, max_pixels=1199).startswith("30 x 40 pixels; at most 1,199 are read")
    assert decode(data, max_pixels=1200).shape == (40, 30, 3)


def test_the_limit_is_ours_whatever_pillows_is(
    encode: Encode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    data = encode(Image.new("1", (12000, 12000)), "PNG")
    assert refusal(data).startswith("12000 x 12000 pixels; at most 128,000,000 are read")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert "128,000,000 pixels" in refusal(data)


def test_a_large_image_within_the_limit_does_not_warn(encode: Encode) -> None:
    """Pillow warns from 89 million pixels; here a warning would be an error."""
    data = encode(Image.new("1", (10000, 9500)), "PNG")
    assert probe(data).width == 10000


def test_warnings_stay_in_whatever_thread_decodes(encode: Encode) -> None:
    """Threads that overlap at random neither leak a warning nor leave a filter behind."""
    data = encode(Image.new("1", (10000, 9500)), "PNG")
    before, escaped = list(warnings.filters), []

    def look() -> None:
        for _ in range(50):
            try:
                probe(data)
            except Exception as error:
                escaped.append(error)

    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not escaped
    assert list(warnings.filters) == before
    assert IGNORE_PILLOW_WARNINGS.inside == 0


def test_other_warnings_are_heard_meanwhile() -> None:
    with IGNORE_PILLOW_WARNINGS, pytest.warns(UserWarning, match="mine"):
        warnings.warn("mine", stacklevel=1)


def test_text_from_a_file_fits_in_one_line() -> None:
    assert one_line("a\r\nb\x1b[31m\u202ec") == "a b [31m c"
    assert len(one_line("x" * 1000)) == 200
