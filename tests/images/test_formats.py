"""Formats besides the usual ones: portable maps, as GTSRB has them, AVIF, and HEIC of phones."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resnets.errors import ContentError
from resnets.images import ALLOWED, UNTRUSTED, decode, opening, probe
from resnets.images.opening import format_of

RAMP = np.arange(48, dtype=np.uint8).reshape(4, 4, 3) * 5


def plain(magic: str, values: np.ndarray) -> bytes:
    """A portable map in letters, with a remark."""
    numbers = " ".join(map(str, values.ravel().tolist()))
    return f"{magic}\n# a remark\n4 4\n255\n{numbers}\n".encode()


@pytest.mark.parametrize(
    ("data", "channels", "expected"),
    [
        (b"P6\n4 4\n255\n" + RAMP.tobytes(), 3, RAMP),
        (b"P5 4 4 255\n" + RAMP[..., :1].tobytes(), 1, RAMP[..., :1]),
        (plain("P3", RAMP), 3, RAMP),
        (plain("P2", RAMP[..., 0]), 1, RAMP[..., :1]),
        (b"P5\n4 4\n65535\n" + (RAMP[..., 0].astype(int) * 257).astype(">u2").tobytes(), 1, None),
    ],
    ids=["PPM", "PGM", "PPM in letters", "PGM in letters", "PGM of 16 bits"],
)
def test_portable_maps_are_read_as_they_are_specified(
    data: bytes, channels: int, expected: np.ndarray | None, tmp_path: Path
) -> None:
    """https://netpbm.sourceforge.net/doc/ppm.html; a dark one of 16 bits stays dark."""
    if expected is None:
        values = np.frombuffer(data[-32:], ">u2").reshape(4, 4, 1)
        expected = np.rint(values / 257).astype(np.uint8)
    np.testing.assert_array_equal(decode(data, channels=channels), expected)
    (tmp_path / "sign.ppm").write_bytes(data)
    assert probe(tmp_path / "sign.ppm").format == "PPM"


@pytest.mark.parametrize("text", [b"P1 is my favourite", b"P6", b"P9 4 4 255\n", b"PPM 4 4"])
def test_a_text_is_no_portable_map(text: bytes) -> None:
    assert format_of(text) is None


@pytest.mark.skipif("AVIF" not in ALLOWED, reason="this Pillow was built without AVIF")
@pytest.mark.parametrize("ending", [".avif", ".jpg"])
def test_avif_is_read_where_pillow_can(ending: str, tmp_path: Path) -> None:
    smooth = np.repeat(np.arange(0, 240, 15, np.uint8), 16).reshape(16, 16, 1).repeat(3, 2)
    file = io.BytesIO()
    Image.fromarray(smooth).save(file, "AVIF", quality=95)
    (tmp_path / f"photo{ending}").write_bytes(file.getvalue())
    decoded = decode(tmp_path / f"photo{ending}").astype(int)
    assert np.abs(decoded - smooth).max() <= 6
    seen = probe(tmp_path / f"photo{ending}")
    assert seen.format == "AVIF"


HEIC = Path(__file__).parents[1] / "fixtures/heic"
NO_HEIC = pytest.mark.skipif("HEIC" not in ALLOWED, reason="neither pi_heif nor pillow_heif here")


@NO_HEIC
@pytest.mark.parametrize("name", ["ramp.heic", "turned.heic"])
def test_heic_is_read_upright(name: str, tmp_path: Path) -> None:
    """See make_heic.py: a ramp, the second stored as a phone stores what it took on its side."""
    ramp = np.broadcast_to(np.arange(48)[None, :, None] * 5, (32, 48, 3))
    assert np.abs(decode(HEIC / name).astype(int) - ramp).max() <= 4
    seen = probe(HEIC / name)
    assert (seen.format, seen.width, seen.height, seen.orientation) == ("HEIC", 48, 32, 1)
    (tmp_path / "photo.jpg").write_bytes((HEIC / name).read_bytes())
    assert decode(tmp_path / "photo.jpg").shape == (32, 48, 3)


@NO_HEIC
@pytest.mark.parametrize("cut", [40, 200, -5])
def test_broken_heic_is_refused_in_a_line(cut: int) -> None:
    with pytest.raises(ContentError, match=r"^broken HEIC: [^\n]+$"):
        decode((HEIC / "ramp.heic").read_bytes()[:cut])


def test_heic_of_strangers_is_refused() -> None:
    with pytest.raises(ContentError, match="HEIC"):
        decode((HEIC / "ramp.heic").read_bytes(), formats=UNTRUSTED)


def test_without_a_reader_of_heic_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "HEIC", ())
    with pytest.raises(ContentError, match=r"HEIC data; .*\[heic\]"):
        decode(HEIC / "ramp.heic", formats=[each for each in ALLOWED if each != "HEIC"])
    with pytest.raises(ContentError, match="not over HTTP") as caught:  # with the extra neither
        decode((HEIC / "ramp.heic").read_bytes(), formats=UNTRUSTED)
    assert "[heic]" not in str(caught.value)


@pytest.mark.parametrize(("brands", "kind"), [(b"heic", "HEIC"), (b"isom", "MP4 or HEIF")])
def test_other_main_brands_are_heic_if_they_say_so(brands: bytes, kind: str) -> None:
    """ISO/IEC 14496-12, section 4.3: after the main brand and its version, what else it is."""
    assert format_of(b"\0\0\0\x18ftypmif1\0\0\0\0mif1" + brands) == kind
