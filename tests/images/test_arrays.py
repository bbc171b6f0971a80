"""What the axes of arrays and tensors mean."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from resnets.errors import UsageError
from resnets.images.arrays import array_of, checked_array

SIDES = st.integers(5, 12)  # more than any number of channels


def pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


@given(n=st.sampled_from([1, 2, 5, 6, 100]), height=st.integers(1, 9), width=SIDES)
def test_grey_images_are_the_same_as_a_stack_of_three_axes_and_of_four(
    n: int, height: int, width: int
) -> None:
    stack = pixels(n, height, width)
    np.testing.assert_array_equal(checked_array(stack), stack[..., None])
    np.testing.assert_array_equal(checked_array(stack, several=True), stack[..., None])


@given(height=SIDES, width=SIDES, channels=st.sampled_from([1, 3, 4]))
def test_an_array_with_channels_last_is_one_image_however_many_rows_it_has(
    height: int, width: int, channels: int
) -> None:
    image = pixels(height, width, channels)
    assert checked_array(image) is image
    np.testing.assert_array_equal(array_of(torch.from_numpy(image).movedim(-1, 0)), image)


@given(n=st.sampled_from([2, 5, 6, 100]), height=st.integers(1, 9), width=SIDES)
def test_a_tensor_of_grey_images_is_a_stack(n: int, height: int, width: int) -> None:
    stack = pixels(n, height, width)
    tensor = torch.from_numpy(stack)
    np.testing.assert_array_equal(array_of(tensor), stack[..., None])
    np.testing.assert_array_equal(array_of(tensor[0]), stack[0][..., None])
    np.testing.assert_array_equal(array_of(tensor / 255, several=True), stack[..., None])


@pytest.mark.parametrize("channels", [3, 4])
@given(height=SIDES, width=SIDES)
def test_channels_at_the_wrong_end_are_refused_and_never_taken_for_several_images(
    channels: int, height: int, width: int
) -> None:
    with pytest.raises(UsageError, match="transpose"):
        checked_array(pixels(channels, height, width))
    with pytest.raises(UsageError, match="shape"):
        array_of(torch.from_numpy(pixels(height, width, channels)))
    with pytest.raises(UsageError, match="transpose"):
        checked_array(pixels(2, channels, height, width))


@pytest.mark.parametrize("n", [1, 3, 4, 5])
def test_images_known_to_be_several_are_grey_in_three_axes(n: int) -> None:
    """As the first of a pair (images, labels)."""
    stack = pixels(n, 7, 3)
    assert checked_array(stack, several=True).shape == (n, 7, 3, 1)
    assert array_of(torch.from_numpy(stack), several=True).shape == (n, 7, 3, 1)
