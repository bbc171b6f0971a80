import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from resnets.errors import ContentError, UsageError
from resnets.images import Preprocessing
from resnets.images.resizing import resized_shape

IMAGENET = Preprocessing(224, 256, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
Pixels = np.ndarray[Any, np.dtype[np.uint8]]


def noise(height: int, width: int, channels: int = 3) -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)


def plain(channels: int, size: int, resize: int) -> Preprocessing:
    return Preprocessing(size, resize, (0.5,) * channels, (0.25,) * channels)


def triangles(length: int, new_length: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The antialiased bilinear filter by its definition, (new_length, length)."""
    scale = length / new_length
    centres = (np.arange(new_length) + 0.5) * scale
    distance = np.abs(np.arange(length) + 0.5 - centres[:, None]) / max(scale, 1)
    weights = np.maximum(1 - distance, 0)
    return weights / weights.sum(1, keepdims=True)


@given(st.integers(20, 90), st.integers(20, 90), st.integers(5, 60), st.integers(0, 20))
def test_pixels_are_those_of_resizing_all_and_cropping(
    height: int, width: int, size: int, more: int
) -> None:
    """The filter's formula on the whole image is the witness; computed is only what is kept."""
    image, resize = noise(height, width), size + more
    new_height, new_width = resized_shape(height, width, resize)
    planes = image.transpose(2, 0, 1)
    whole = triangles(height, new_height) @ planes @ triangles(width, new_width).T
    top, left = (new_height - size) // 2, (new_width - size) // 2
    expected = whole[:, top : top + size, left : left + size]
    pixels = plain(3, size, resize).pixels(image)
    assert pixels.shape == (3, size, size)
    assert pixels.flags.c_contiguous
    assert np.abs(pixels - expected).max() < 1.05


@pytest.mark.parametrize(("height", "width"), [(375, 500), (500, 333), (97, 120), (1600, 1200)])
def test_pixels_are_those_of_pillow(height: int, width: int) -> None:
    """Resizing all and cropping, as is usual before published weights."""
    image = noise(height, width)
    new_height, new_width = resized_shape(height, width, 256)
    whole = Image.fromarray(image).resize((new_width, new_height), Image.Resampling.BILINEAR)
    top, left = (new_height - 224) // 2, (new_width - 224) // 2
    expected = np.asarray(whole)[top : top + 224, left : left + 224].transpose(2, 0, 1)
    assert np.abs(IMAGENET.pixels(image).astype(int) - expected).max() <= 1


def centred(picture: Image.Image, size: int, fill: tuple[int, ...]) -> Image.Image:
    """torchvision's `center_crop`, and timm's `center_crop_or_pad`, with Pillow alone."""
    width, height = picture.size
    left, top = max(0, size - width) // 2, max(0, size - height) // 2
    padded = Image.new("RGB", (max(width, size), max(height, size)), fill)
    padded.paste(picture, (left, top))
    left, top = round((padded.width - size) / 2.0), round((padded.height - size) / 2.0)
    return padded.crop((left, top, left + size, top + size))


def published(image: Pixels, mode: str, kernel: str, size: int, resize: int) -> Pixels:
    """The transforms of timm 1.0 (`transforms_imagenet_eval`), written down a second time."""
    picture, (height, width, _) = Image.fromarray(image), image.shape
    if mode == "squash":
        sides = resize, resize
    elif mode == "border":
        ratio = max(height, width) / resize
        sides = round(width / ratio), round(height / ratio)
    else:
        longer = int(resize * max(height, width) / min(height, width))
        sides = (longer, resize) if width > height else (resize, longer)
    resized = picture.resize(sides, Image.Resampling[kernel.upper()])
    return np.asarray(centred(resized, size, (124, 116, 104)), int).transpose(2, 0, 1)


@pytest.mark.parametrize(("height", "width"), [(375, 500), (333, 250), (97, 120), (60, 300)])
@pytest.mark.parametrize(("size", "resize"), [(64, 73), (96, 96), (63, 90)])
@pytest.mark.parametrize("kernel", ["bilinear", "bicubic"])
@pytest.mark.parametrize("mode", ["center", "squash", "border"])
def test_pixels_are_those_of_the_published_transforms(
    mode: Any, kernel: Any, size: int, resize: int, height: int, width: int
) -> None:
    image = noise(height, width)
    changes: dict[str, Any] = {"interpolation": kernel, "crop_mode": mode, "crop_rounding": "even"}
    preprocessing = replace(IMAGENET, size=size, resize=resize, **changes)
    difference = preprocessing.pixels(image) - published(image, mode, kernel, size, resize)
    whole = kernel == "bicubic" or mode != "center"
    assert np.abs(difference).max() <= (0 if whole else 2)  # the crop alone: two roundings
    assert (np.abs(difference) > 1).mean() < 0.005


@pytest.mark.parametrize("mode", ["squash", "border"])
@pytest.mark.parametrize("shape", [(50_000, 1, 3), (1, 50_000, 3)])
def test_no_crop_mode_needs_memory_for_an_extreme_shape(mode: Any, shape: tuple[int, ...]) -> None:
    pixels = replace(IMAGENET, crop_mode=mode).pixels(np.full(shape, 7, np.uint8))
    assert pixels.shape == (3, 224, 224)
    assert pixels.min() == 7


def test_a_frame_holds_what_the_network_sees_at_its_window() -> None:
    """With an excess of 3 pixels, the crop begins at 2 as in torchvision, at 1 as before."""
    for rounding, start in (("down", 1), ("even", 2)):
        preprocessing = Preprocessing(5, 8, (0.5,), (0.25,), crop_rounding=rounding)  # type: ignore[arg-type]
        image = noise(9, 20, 1)
        window = preprocessing.window
        assert window.start == start
        seen = preprocessing.frame(image)[window, window].transpose(2, 0, 1)
        np.testing.assert_array_equal(seen, preprocessing.pixels(image))


def test_descriptions_that_earlier_versions_could_write_stay_as_they_were() -> None:
    assert IMAGENET.to_dict().keys() == {"size", "resize", "mean", "std"}
    bicubic = replace(IMAGENET, interpolation="bicubic", crop_mode="squash", crop_rounding="even")
    assert Preprocessing.from_dict(json.loads(json.dumps(bicubic.to_dict()))) == bicubic


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_an_image_of_the_right_size_is_only_transposed(channels: int) -> None:
    image = noise(32, 32, channels)
    pixels = plain(channels, 32, 32).pixels(image)
    np.testing.assert_array_equal(pixels, image.transpose(2, 0, 1))


def test_an_image_with_the_right_shorter_side_is_only_cropped() -> None:
    image = noise(256, 300)
    pixels = IMAGENET.pixels(image)
    np.testing.assert_array_equal(pixels, image[16:240, 38:262].transpose(2, 0, 1))


@pytest.mark.parametrize("shape", [(100_000, 1, 3), (1, 100_000, 3)])
def test_an_extreme_shape_costs_no_memory(shape: tuple[int, ...]) -> None:
    """Resized whole, it would have 6.5 thousand million pixels."""
    assert IMAGENET.pixels(np.full(shape, 7, np.uint8)).max() == 7


def test_numbers_are_as_the_formula_says() -> None:
    pixels = noise(8, 8).transpose(2, 0, 1)[None]
    normalised = IMAGENET.normalise(pixels)
    mean = np.array(IMAGENET.mean)[:, None, None]
    std = np.array(IMAGENET.std)[:, None, None]
    assert normalised.dtype == np.float32
    assert normalised.shape == (1, 3, 8, 8)
    np.testing.assert_allclose(normalised, (pixels / 255 - mean) / std, atol=1e-6)
    np.testing.assert_array_equal(normalised[0], IMAGENET.normalise(pixels[0]))


@pytest.mark.parametrize(
    ("image", "what"),
    [
        (noise(5, 5, 1), r"\(5, 5, 1\) and type uint8; expected \(H, W, 3\)"),
        (noise(5, 5)[0], r"\(5, 3\)"),
        (noise(5, 5).astype(np.float32), "type float32"),
        (noise(5, 5)[:0], "without pixels"),
    ],
)
def test_an_image_of_another_kind_is_a_usage_error(image: Any, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        IMAGENET.pixels(image)


finite = st.floats(-10, 10)
positive = st.floats(0.001, 10)


@given(st.data(), st.sampled_from([1, 3, 4]), st.integers(1, 8192), st.integers(1, 8192))
def test_it_comes_back_from_json(data: st.DataObject, channels: int, one: int, other: int) -> None:
    mean = data.draw(st.tuples(*[finite] * channels))
    std = data.draw(st.tuples(*[positive] * channels))
    original = Preprocessing(min(one, other), max(one, other), mean, std)
    assert original.channels == channels
    assert Preprocessing.from_dict(json.loads(json.dumps(original.to_dict()))) == original


BAD = {
    "size is 0, not 1 to 8192": {"size": 0},
    "size is 224.0; it must be an integer": {"size": 224.0},
    "size is True; it must be an integer": {"size": True},
    "resize is 1000000000, not 1 to": {"resize": 10**9},
    "size 224 is more than resize 200": {"resize": 200},
    "mean is .*it must be a tuple": {"mean": "[]"},
    r"mean is \(0.5, 0.5\), not a tuple of 1": {"mean": (0.5, 0.5)},
    "1 means, but 3 standard deviations": {"mean": (0.5,)},
    r"mean is \(nan, .*each item a number": {"mean": (float("nan"), 0.5, 0.5)},
    r"std is \('a', .*each item a number": {"std": ("a", 1, 1)},
    r"std is \(0, 1, 1\), not above 0": {"std": (0, 1, 1)},
    "interpolation is 'lanczos'; it must be one of bilinear, bicubic": {"interpolation": "lanczos"},
    "crop_mode is 'five'; it must be one of center": {"crop_mode": "five"},
    "crop_rounding is 'up'; it must be one of down": {"crop_rounding": "up"},
}


@pytest.mark.parametrize(("what", "change"), BAD.items(), ids=list(BAD))
def test_what_cannot_be_is_refused(what: str, change: dict[str, Any]) -> None:
    values = IMAGENET.to_dict() | change
    with pytest.raises(ContentError, match=what):
        Preprocessing.from_dict(values)
    tuples = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
    with pytest.raises(UsageError):
        Preprocessing(**tuples)


@pytest.mark.parametrize("values", [{}, {"size": 3}, IMAGENET.to_dict() | {"x": 1}, [], None, 3])
def test_other_names_are_a_content_error(values: Any) -> None:
    with pytest.raises(ContentError, match="preprocessing"):
        Preprocessing.from_dict(values)


def test_importing_images_imports_no_torch_and_no_simplejpeg() -> None:
    """Predicting with an exported network must start fast."""
    code = "import resnets.images, sys; print({'torch', 'simplejpeg'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"
