import io
import multiprocessing
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from PIL import Image

from resnets.data.labelled import LabelledImages
from resnets.data.sources.opening import open_data
from resnets.data.storage import PixelStorage, RowNames
from resnets.errors import ContentError

Folder = Callable[[Iterable[str]], Path]
Pixels = np.ndarray[Any, np.dtype[np.uint8]]


def made(count: int) -> LabelledImages:
    """Images of one pixel that hold their own number."""
    pixels = np.arange(count, dtype=np.uint8).reshape(count, 1, 1, 1)
    storage = PixelStorage(pixels, RowNames.of(["made"], [count]))
    return LabelledImages(storage, np.arange(count) % 3, ["a", "b", "c"])


@given(st.integers(1, 40), st.data())
def test_a_subset_of_a_subset_is_the_images_that_numpy_would_choose(
    count: int, data: st.DataObject
) -> None:
    images, numbers = made(count), np.arange(count)
    for _ in range(2):
        choice = data.draw(
            st.lists(st.integers(0, len(numbers) - 1))
            if data.draw(st.booleans()) and len(numbers)
            else npst.arrays(bool, len(numbers))
        )
        images = images.subset(choice)
        numbers = numbers[np.asarray(choice, dtype=None if len(choice) else int)]
    assert [int(images.image(i, 1)[0, 0, 0]) for i in range(len(images))] == numbers.tolist()
    assert images.labels.tolist() == (numbers % 3).tolist()
    assert list(images.names) == [f"made[{number}]" for number in numbers]


def test_labels_and_images_must_be_as_many() -> None:
    with pytest.raises(ValueError, match="5 images but 2 labels"):
        LabelledImages(made(5).storage, [0, 1], ["a", "b"])


def test_the_digits_are_what_scikit_learn_holds() -> None:
    from sklearn.datasets import load_digits

    splits = open_data("digits", validation=0, test=0)
    stack = splits.train.stacked(channels=1)
    assert stack.shape == (1797, 8, 8, 1)
    np.testing.assert_array_equal(splits.train.labels, load_digits().target)
    ink = load_digits().images
    np.testing.assert_array_equal(stack[..., 0], np.floor(ink * 255 / 16 + 0.5))
    assert (stack.min(), stack.max()) == (0, 255)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_stack_is_every_image_decoded(folder: Folder, channels: int) -> None:
    root = folder([f"{name}/{number}.png" for name in ("a", "b") for number in range(300)])
    images = open_data(root, validation=0, test=0).train
    stack = images.stacked(channels)
    assert stack.shape == (600, 5, 6, channels)
    for index in (0, 255, 256, 599):
        np.testing.assert_array_equal(stack[index], images.image(index, channels))


def test_the_first_image_of_another_size_is_named(
    folder: Folder, encoded: Callable[..., bytes]
) -> None:
    root = folder([f"{name}/{number}.png" for name in ("a", "b") for number in range(4)])
    (root / "b/2.png").write_bytes(encoded(0, size=(7, 5)))
    with pytest.raises(ContentError, match=r"^b/2.png: 7x5 pixels, but a/0.png has 6x5"):
        open_data(root, validation=0, test=0).train.stacked()


def test_images_of_files_reach_a_worker_process(folder: Folder) -> None:
    root = folder([f"{name}/{number}.png" for name in ("a", "b") for number in range(4)])
    images = open_data(root, validation=0, test=0).train
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        np.testing.assert_array_equal(pool.apply(images.image, (5,)), images.image(5))


def test_an_image_is_the_bytes_of_its_file(folder: Folder) -> None:
    root = folder([f"{name}/{number}.png" for name in ("a", "b") for number in range(4)])
    images = open_data(root, validation=0, test=0).train
    data = images.encoded(5)
    assert data == (root / images.names[5]).read_bytes()
    assert isinstance(data, bytes)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), images.image(5))


def test_a_file_that_has_gone_is_named(folder: Folder) -> None:
    root = folder([f"{name}/{number}.png" for name in ("a", "b") for number in range(4)])
    images = open_data(root, validation=0, test=0).train
    (root / "b/1.png").unlink()
    with pytest.raises(ContentError, match=r"^b/1.png: cannot be read \(No such file"):
        images.image(5)
