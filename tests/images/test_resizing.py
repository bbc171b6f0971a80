from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from resnets.errors import UsageError
from resnets.images import centre_crop, resize, vectorised
from resnets.images.resizing import Filter, resampled, resized_shape, resized_to, square

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
sides = st.integers(1, 60)


def noise(height: int, width: int, channels: int = 3) -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)


@given(sides, sides, sides, st.sampled_from([1, 3, 4]), st.sampled_from(["bilinear", "bicubic"]))
def test_torch_is_within_one_level_of_pillow(
    height: int, width: int, size: int, channels: int, kernel: Any
) -> None:
    image = noise(height, width, channels)
    if kernel == "bicubic":  # no value is clipped: torch and Pillow clip in other orders
        image = 64 + image // 2
    box = (0, 0, height, width)
    fast, slow = (each(image, box, size, kernel) for each in (vectorised.square, square))
    assert fast.shape == slow.shape == (size, size, channels)
    assert fast.flags.c_contiguous
    assert np.abs(fast.astype(int) - slow).max() <= 1


@given(sides, sides, st.integers(1, 80))
def test_the_shorter_side_is_as_asked_and_the_shape_is_kept(
    height: int, width: int, side: int
) -> None:
    shape = resize(noise(height, width), side).shape
    assert min(shape[:2]) == side
    longer = side * max(height, width) / min(height, width)
    assert longer - 1 < max(shape[:2]) <= longer
    assert shape[:2] == resized_shape(height, width, side)
    assert (shape[0] < shape[1]) <= (height < width)


def test_resizing_is_pillows_antialiased_bilinear() -> None:
    image = noise(50, 75)
    expected = Image.fromarray(image).resize((30, 20), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(resize(image, 20), np.asarray(expected))


@pytest.mark.parametrize("kernel", get_args(Filter))
def test_every_filter_is_pillows(kernel: Filter) -> None:
    """Of pixels, and of a map of numbers, which is not rounded."""
    image, heat = noise(50, 75), np.random.default_rng(1).random((9, 7, 1)).astype(np.float32)
    filters = Image.Resampling[kernel.upper()]
    expected = Image.fromarray(image).resize((31, 90), filters)
    np.testing.assert_array_equal(resized_to(image, 90, 31, kernel), np.asarray(expected))
    large = Image.fromarray(heat[..., 0]).resize((30, 20), filters)
    resized = resized_to(heat, 20, 30, kernel)
    assert resized.dtype == np.float32
    np.testing.assert_array_equal(resized[..., 0], np.asarray(large))


@given(sides, sides, sides, sides)
def test_batches_are_resized_as_single_images_are(
    height: int, width: int, tall: int, wide: int
) -> None:
    image = noise(height, width)
    batch = torch.from_numpy(np.stack([image, image[::-1]])).permute(0, 3, 1, 2)
    resized = vectorised.resized(batch, tall, wide).permute(0, 2, 3, 1).numpy()
    for one, single in zip(resized, (image, image[::-1]), strict=True):
        assert np.abs(one.astype(int) - resized_to(single, tall, wide)).max() <= 1


def test_channels_do_not_mix() -> None:
    """Alpha is a channel like the others: an exported graph will not weigh colours with it."""
    image = noise(40, 40, 4)
    alone = [resize(image[..., channel : channel + 1], 16) for channel in range(4)]
    np.testing.assert_array_equal(resize(image, 16), np.concatenate(alone, axis=2))


def test_a_constant_image_stays_constant() -> None:
    for value in (0, 1, 127, 255):
        image = np.full((37, 91, 3), value, np.uint8)
        assert (resize(image, 16) == value).all()
        assert (vectorised.square(image, (3.4, 5.6, 20.2, 30.9), 50) == value).all()


def test_nothing_to_resize_gives_the_very_image() -> None:
    image = noise(20, 30)
    assert resize(image, 20) is image


def test_a_box_is_resized_where_it_is() -> None:
    """A box of whole pixels that keeps its size is a slice."""
    image = noise(30, 40)
    np.testing.assert_array_equal(resampled(image, (3, 5, 10, 12), 10, 12), image[3:13, 5:17])
    fast = vectorised.square(image, (3, 5, 10, 10), 10)
    np.testing.assert_array_equal(fast, image[3:13, 5:15])


@given(sides, sides)
def test_the_middle_has_as_much_on_either_side(height: int, width: int) -> None:
    size = min(height, width)
    crop = centre_crop(noise(height, width), size)
    top, left = (height - size) // 2, (width - size) // 2
    expected = noise(height, width)[top : top + size, left : left + size]
    np.testing.assert_array_equal(crop, expected)
    assert abs((height - size - top) - top) <= 1


def test_a_square_that_does_not_fit_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="a square of 21 pixels does not fit into 30 x 20"):
        centre_crop(noise(20, 30), 21)


@pytest.mark.parametrize("kernel", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [8, 24, 50])
def test_resized_crops_are_those_of_pillow(size: int, kernel: Any) -> None:
    pixels = torch.from_numpy(np.stack([noise(24, 31)[::step] for step in (1, -1)] * 30))
    if kernel == "bicubic":  # no value is clipped: Pillow also clips between rows and columns
        pixels = 64 + pixels // 2
    random = np.random.default_rng(2)
    extents = np.stack([random.integers(1, 25, 60), random.integers(1, 32, 60)], 1)
    corners = (random.random((60, 2)) * ([24, 31] - extents + 1)).astype(int)
    boxes = np.concatenate([corners, extents], 1)
    ours = vectorised.resized_boxes(pixels, boxes, size, kernel).numpy().astype(int)
    for image, (top, left, tall, wide), result in zip(pixels.numpy(), boxes, ours, strict=True):
        crop = Image.fromarray(image[top : top + tall, left : left + wide])
        filters = Image.Resampling[kernel.upper()]
        theirs = np.asarray(crop.resize((size, size), filters)).astype(int)
        assert abs(result - theirs).max() <= 1  # Pillow rounds twice


def test_a_crop_of_everything_at_its_own_size_is_the_image() -> None:
    pixels = torch.from_numpy(np.stack([noise(16, 16, 1)] * 3))
    assert torch.equal(
        vectorised.resized_boxes(pixels, np.tile([0, 0, 16, 16], (3, 1)), 16), pixels
    )
