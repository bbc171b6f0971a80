import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import resnets
from resnets.errors import ContentError, UsageError
from resnets.evaluation.inputs import sources_of
from resnets.evaluation.predict import decoded
from resnets.evaluation.source import Source
from resnets.images import Preprocessing, decode

RANDOM = np.random.default_rng(0)


def seeing(channels: int) -> Preprocessing:
    return Preprocessing(8, 8, (0.5,) * channels, (0.2,) * channels)


def read(images: Any, channels: int = 3) -> list[np.ndarray]:
    return [decoded(source, seeing(channels)) for source in sources_of(images, channels)]


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F"])
def test_a_pillow_image_is_read_just_as_its_file(mode: str, channels: int, tmp_path: Path) -> None:
    grey = Image.fromarray(RANDOM.integers(0, 256, (6, 9), np.uint8))
    image = grey.convert("RGB").convert(mode) if mode != "I;16" else grey.convert(mode)
    file = tmp_path / ("image.tif" if mode in ("CMYK", "I", "F") else "image.png")
    image.save(file)
    (pixels,) = read(image, channels)
    np.testing.assert_array_equal(pixels, decode(file, channels=channels))


def test_a_photo_that_was_opened_turned_is_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(RANDOM.integers(0, 256, (6, 9, 3), np.uint8)).save(
        tmp_path / "turned.png", exif=exif
    )
    with Image.open(tmp_path / "turned.png") as image:
        (source,) = sources_of(image)
    assert source.name == str(tmp_path / "turned.png")
    assert isinstance(source.content, np.ndarray)
    assert source.content.shape == (9, 6, 3)
    np.testing.assert_array_equal(source.content, decode(tmp_path / "turned.png"))


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 3), (5, 7, 4)])
def test_arrays_and_tensors_are_read_as_pillow_reads_them(shape: tuple[int, ...]) -> None:
    array = RANDOM.integers(0, 256, shape, np.uint8)
    picture = Image.fromarray(array[..., 0] if shape[2:] == (1,) else array)
    for channels in (1, 3, 4):
        (expected,) = read(picture, channels)
        np.testing.assert_array_equal(read(array, channels)[0], expected)
        first = torch.from_numpy(array.reshape(5, 7, -1)).movedim(-1, 0)
        for tensor in (first, first / 255, (first / 255).half(), first[None]):
            np.testing.assert_array_equal(read(tensor, channels)[0], expected)


def test_many_are_taken_in_any_mixture_and_each_has_a_name(tmp_path: Path) -> None:
    content = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(content, "PNG")
    for name in ("b.png", "a.png"):
        (tmp_path / name).write_bytes(content.getvalue())
    stack = np.zeros((2, 4, 4, 3), np.uint8)
    single, grey = torch.zeros(3, 4, 4), np.zeros((2, 4, 5), np.uint8)
    mixture = [tmp_path, str(tmp_path / "b.*"), content.getvalue(), stack, single, grey]
    sources = list(sources_of(iter(mixture)))
    assert [source.name for source in sources] == [
        str(tmp_path / "a.png"),
        str(tmp_path / "b.png"),
        str(tmp_path / "b.png"),
        "image 2",
        "image 3[0]",
        "image 3[1]",
        "image 4",
        "image 5[0]",
        "image 5[1]",
    ]
    assert [int(decoded(source, seeing(3))[0, 0, 0]) for source in sources] == [255] * 4 + [0] * 5


def test_a_broken_file_that_pillow_opened_is_told_when_it_is_read(tmp_path: Path) -> None:
    content = io.BytesIO()
    Image.fromarray(RANDOM.integers(0, 256, (99, 99, 3), np.uint8)).save(content, "PNG")
    (tmp_path / "half.png").write_bytes(content.getvalue()[:9000])
    with Image.open(tmp_path / "half.png") as image:
        broken, sound = sources_of([image, Image.new("L", (3, 3))])
    with pytest.raises(ContentError, match="truncated"):
        decoded(broken, seeing(3))
    assert decoded(sound, seeing(3)).shape == (3, 3, 3)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((4, 4, 3)), "an array of float64; it must be uint8"),
        (np.zeros((3, 4, 5), np.uint8), r"shape \(3, 4, 5\); it must be \(H, W\)"),
        (np.zeros((4, 0, 3), np.uint8), r"shape \(4, 0, 3\)"),
        (np.zeros(4, np.uint8), r"shape \(4,\)"),
        (torch.zeros(4), r"a tensor of the shape \(4,\); it must be \(H, W\), \(C, H, W\)"),
        (torch.zeros(5, 4, 3), r"a tensor of the shape \(5, 4, 3\)"),
        (torch.full((3, 4, 4), 1.5), "values 1.5 to 1.5"),
        (torch.full((3, 4, 4), torch.nan), "values nan to nan"),
        (torch.zeros(3, 4, 4, dtype=torch.int64), "int64"),
        (7, "int is not an image"),
        ([Path(), None], "NoneType is not an image"),
        ("nowhere/*.png", "no such image"),
    ],
)
def test_what_is_no_image_is_refused_in_words(
    images: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=message):
        list(sources_of(images))


def test_bytes_of_strangers_are_not_read_as_tiff() -> None:
    content = io.BytesIO()
    Image.new("L", (3, 3)).save(content, "TIFF")
    (source,) = sources_of(content.getvalue())
    assert source == Source("image", content.getvalue())
    with pytest.raises(ContentError, match="TIFF data"):
        decoded(source, seeing(3))


def test_bytes_in_any_form_and_open_files_are_read_as_the_file(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    Image.fromarray(RANDOM.integers(0, 256, (6, 9, 3), np.uint8)).save(file)
    data, expected = file.read_bytes(), decode(file)
    with file.open("rb") as stream:
        for form in (bytearray(data), memoryview(data), io.BytesIO(data), stream):
            (pixels,) = read(form)
            np.testing.assert_array_equal(pixels, expected)
    assert len(read([io.BytesIO(data), bytearray(data), file])) == 3


def test_a_file_that_is_open_as_text_is_refused() -> None:
    with pytest.raises(UsageError, match="rb"):
        read(io.StringIO("text"))


def test_an_address_is_told_as_such() -> None:
    with pytest.raises(UsageError, match=r"https://example\.org/a\.jpg: an address"):
        read("https://example.org/a.jpg")


def test_what_libtiff_prints_does_not_reach_the_screen_of_a_program(
    untrained: Callable[..., Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """It writes to the descriptor itself; the reason is in the prediction."""
    file = tmp_path / "odd.tif"
    noise = np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)
    Image.fromarray(noise).save(file, compression="tiff_lzw")
    damaged = bytearray(file.read_bytes())
    damaged[100:1500] = bytes(1400)
    file.write_bytes(damaged)
    model = resnets.load(untrained(("ant", "bee")))
    for form in (file, bytes(damaged), [file, bytes(damaged)]):
        assert all(each.error for each in resnets.predict(model, form))
        assert capfd.readouterr().err == ""
