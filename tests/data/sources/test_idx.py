import gzip
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from resnets.data.sources.idx import read_idx
from resnets.data.sources.opening import open_data, read_source
from resnets.errors import ContentError

Bytes = np.ndarray[Any, np.dtype[np.uint8]]
NAMES = {
    ("train", "images"): "train-images-idx3-ubyte",
    ("train", "labels"): "train-labels-idx1-ubyte",
    ("test", "images"): "t10k-images-idx3-ubyte",
    ("test", "labels"): "t10k-labels-idx1-ubyte",
}


def idx(array: Bytes) -> bytes:
    return struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def images(count: int, seed: int) -> Bytes:
    return np.random.default_rng(seed).integers(0, 256, (count, 28, 28), dtype=np.uint8)


def labels(count: int) -> Bytes:
    return (np.arange(count) % 10).astype(np.uint8)


@pytest.fixture
def mnist(tmp_path: Path) -> Callable[..., Path]:
    """A folder of the four files, some of them packed."""

    def write(ending: str = "", prefix: str = "", dots: bool = False) -> Path:
        contents = {
            ("train", "images"): images(60, 1),
            ("train", "labels"): labels(60),
            ("test", "images"): images(20, 2),
            ("test", "labels"): labels(20),
        }
        for key, array in contents.items():
            name = NAMES[key].replace("-idx", ".idx") if dots else NAMES[key]
            data = idx(array)
            data = gzip.compress(data) if ending else data
            (tmp_path / f"{prefix}{name}{ending}").write_bytes(data)
        return tmp_path

    return write


@pytest.mark.parametrize("dots", [False, True])
@pytest.mark.parametrize("ending", ["", ".gz"])
def test_the_four_files_are_read_packed_or_not(
    mnist: Callable[..., Path], ending: str, dots: bool
) -> None:
    splits = open_data(mnist(ending, dots=dots))
    assert splits.class_names == tuple("0123456789")
    assert (len(splits.train), len(splits.validation or ()), len(splits.test or ())) == (50, 10, 20)
    assert splits.test is not None
    np.testing.assert_array_equal(splits.test.stacked(channels=1)[..., 0], images(20, 2))
    assert splits.test.labels.tolist() == labels(20).tolist()
    assert splits.test.image(3).shape == (28, 28, 3)


def test_any_one_of_the_files_stands_for_the_four(mnist: Callable[..., Path]) -> None:
    folder = mnist(".gz")
    whole = open_data(folder).fingerprint
    assert open_data(folder / "train-labels-idx1-ubyte.gz").fingerprint == whole


def test_of_several_sets_in_a_folder_one_is_chosen_by_a_file(mnist: Callable[..., Path]) -> None:
    mnist(prefix="letters-")
    folder = mnist(prefix="digits-")
    with pytest.raises(ContentError, match=r"files of 2 data sets.*pass a file of one"):
        read_source(folder)
    content = read_source(folder / "letters-train-images-idx3-ubyte")
    assert content.images["train"].names[0] == "letters-train-images-idx3-ubyte[0]"


def test_classes_txt_names_the_classes(mnist: Callable[..., Path]) -> None:
    folder = mnist()
    words = ["top", "trouser", "pullover", "dress", "coat", *"56789"]
    (folder / "classes.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    assert read_idx(folder).class_names == tuple(words)
    (folder / "classes.txt").write_text("only\ntwo", encoding="utf-8")
    with pytest.raises(ContentError, match="2 names, but the labels go up to 9"):
        read_idx(folder)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (("train", "images"), lambda data: data[:-1], "should hold 47,040 bytes but holds 47,039"),
        (("train", "images"), lambda data: data + b"x", "should hold 47,040 bytes but holds more"),
        (("test", "images"), lambda data: data[:10], "not an IDX file of bytes in 3 dimensions"),
        (("test", "labels"), lambda data: b"\x1f\x8b" + data, "not an IDX file of bytes in 1 dim"),
        (("test", "labels"), lambda _: idx(labels(19)), "20 images, but 19 labels in t10k"),
        (
            ("train", "images"),
            lambda _: struct.pack(">4B3I", 0, 0, 8, 3, 2**31, 2**31, 2**31),
            "not possible",
        ),
        (
            ("train", "images"),
            lambda _: struct.pack(">4B3I", 0, 0, 8, 3, 2**18, 100, 100),
            "should hold 2,621,440,000 bytes but holds 0",
        ),
    ],
)
def test_a_broken_file_is_named(
    mnist: Callable[..., Path],
    file: tuple[str, str],
    change: Callable[[bytes], bytes],
    message: str,
) -> None:
    folder = mnist()
    path = folder / NAMES[file]
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ContentError, match=message) as raised:
        read_idx(folder)
    assert NAMES[file] in str(raised.value)


def test_a_missing_file_is_told(mnist: Callable[..., Path]) -> None:
    folder = mnist()
    (folder / NAMES["test", "labels"]).unlink()
    with pytest.raises(ContentError, match="the test split's labels"):
        read_idx(folder)


def test_a_packed_file_that_broke_off_is_named(mnist: Callable[..., Path]) -> None:
    path = mnist(".gz") / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ContentError, match=r"train-images.*cannot be read.*download it again"):
        read_idx(path.parent)
