import io
import json
import multiprocessing
import os
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from resnets.data.labelled import LabelledImages
from resnets.data.sources import parquet
from resnets.data.sources.opening import open_data, read_source
from resnets.data.sources.parquet import read_parquet
from resnets.errors import ContentError

Encode = Callable[..., bytes]
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def features(names: Sequence[str] | None) -> dict[str, Any]:
    label = {"names": list(names), "_type": "ClassLabel"} if names else {"_type": "Value"}
    return {"info": {"features": {"img": {"_type": "Image"}, "label": label}}}


@pytest.fixture
def write(tmp_path: Path, encoded: Encode) -> Callable[..., Path]:
    """A parquet file as the hub's, with an image for each label; returns the folder."""

    def make(
        name: str,
        labels: Sequence[Any],
        names: Sequence[str] | None = ("cat", "dog"),
        seed: int = 0,
        columns: tuple[str, str] = ("img", "label"),
        image_type: Any = IMAGE,
    ) -> Path:
        files: list[Any] = [encoded(seed * 1000 + row) for row in range(len(labels))]
        if image_type == IMAGE:
            files = [{"bytes": data, "path": f"{row}.png"} for row, data in enumerate(files)]
        table = pa.table({columns[0]: pa.array(files, image_type), columns[1]: labels})
        metadata = {"huggingface": json.dumps(features(names))} if names != () else None
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table.replace_schema_metadata(metadata), file, row_group_size=3)
        return tmp_path

    return make


def test_cifar_10_is_what_it_is_known_to_be(shared: Callable[[str], Path]) -> None:
    """Counts of Krizhevsky (2009): 6,000 images of each class, 1,000 of them to test."""
    splits = open_data(shared("data/cifar10"))
    assert splits.validation is not None
    assert splits.test is not None
    assert " ".join(splits.class_names) == (
        "airplane automobile bird cat deer dog frog horse ship truck"
    )
    assert np.bincount(splits.train.labels).tolist() == [4500] * 10
    assert np.bincount(splits.validation.labels).tolist() == [500] * 10
    assert np.bincount(splits.test.labels).tolist() == [1000] * 10
    assert splits.warnings == ()
    assert splits.test.image(0).shape == (32, 32, 3)


def test_images_and_labels_stay_together(shared: Callable[[str], Path]) -> None:
    """The rows as pyarrow and Pillow alone read them."""
    folder = shared("data/cifar10")
    images = read_parquet(folder).images["train"]
    for index in (0, 12_499, 12_500, 49_999):
        file = folder / f"train-{index // 12_500:05}-of-00004.parquet"
        row = pq.read_table(file).slice(index % 12_500, 1).to_pylist()[0]
        expected = np.asarray(Image.open(io.BytesIO(row["img"]["bytes"])).convert("RGB"))
        np.testing.assert_array_equal(images.image(index), expected)
        assert images.labels[index] == row["label"]
        assert images.names[index] == f"{file.name}[{index % 12_500}]"


@pytest.mark.parametrize(
    ("files", "splits"),
    [
        (["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"], {"train"}),
        (["train-0.parquet", "test-0.parquet", "validation-0.parquet"], {"train", "test", "valid"}),
        (["train.parquet", "val.parquet"], {"train", "valid"}),
        (["data/train-0.parquet", "data/test_1.parquet"], {"train", "test"}),
        (["train/0000.parquet", "test/0000.parquet"], {"train", "test"}),
        (["plain_text/train/0000.parquet", "plain_text/test/0000.parquet"], {"train", "test"}),
        (["0000.parquet", "0001.parquet"], {"all"}),
    ],
)
def test_a_files_name_or_folder_tells_its_split(
    write: Callable[..., Path], files: list[str], splits: set[str]
) -> None:
    for seed, file in enumerate(files):
        folder = write(file, [0, 1], seed=seed)
    parts = read_parquet(folder).images
    assert {split[:5] for split in parts} == splits
    assert sum(map(len, parts.values())) == 2 * len(files)


def test_one_file_is_a_source_too(write: Callable[..., Path]) -> None:
    folder = write("photos.parquet", [0, 1] * 10)
    splits = open_data(folder / "photos.parquet")
    assert (len(splits.train), len(splits.validation or ()), len(splits.test or ())) == (16, 2, 2)


@pytest.mark.parametrize(
    ("names", "columns", "image_type", "labels"),
    [
        (("cat", "dog"), ("img", "label"), IMAGE, [0, 1]),
        (("cat", "dog"), ("img", "label"), pa.binary(), [0, 1]),
        ((), ("image", "label"), pa.large_binary(), ["cat", "dog"]),
        (None, ("image", "class"), IMAGE, ["cat", "dog"]),
        ((), ("image", "fine_label"), IMAGE, pa.array(["cat", "dog"]).dictionary_encode()),
    ],
    ids=["hub", "bytes", "no metadata", "values", "dictionary"],
)
def test_columns_are_found_whatever_their_type(
    write: Callable[..., Path],
    encoded: Encode,
    names: Any,
    columns: tuple[str, str],
    image_type: Any,
    labels: Any,
) -> None:
    images = read_parquet(write("0.parquet", labels, names, 7, columns, image_type)).images["all"]
    assert images.class_names == ("cat", "dog")
    assert images.labels.tolist() == [0, 1]
    assert images.encoded(1) == encoded(7001)


def test_numbers_without_names_are_classes_in_their_order(write: Callable[..., Path]) -> None:
    assert read_parquet(write("0.parquet", [10, 9, 9], ())).class_names == ("9", "10")


def test_a_test_split_without_labels_is_left_out_by_name(write: Callable[..., Path]) -> None:
    write("train.parquet", [0, 1])
    content = read_parquet(write("test.parquet", [-1, -1], seed=1))
    assert set(content.images) == {"train"}
    assert content.warnings == ("the test split is left out: none of its images has a label",)


@pytest.mark.parametrize(("labels", "value"), [([0, 2, 1], "2"), ([0, 1, -7], "-7")])
def test_a_label_that_means_no_class_is_named(
    write: Callable[..., Path], labels: list[int | None], value: str
) -> None:
    with pytest.raises(ContentError, match=rf"0.parquet\[\d\] is {value}, not in 0..1"):
        read_parquet(write("0.parquet", labels))


def test_a_row_without_bytes_is_an_unreadable_image(tmp_path: Path, encoded: Encode) -> None:
    rows = [{"bytes": encoded(i), "path": None} for i in range(4)]
    rows[2]["bytes"] = None
    table = pa.table({"image": pa.array(rows, IMAGE), "label": [0, 1, 0, 1]})
    pq.write_table(table, tmp_path / "train.parquet")
    with pytest.raises(ContentError, match=r"^train.parquet\[2\]: holds no image bytes \(pass"):
        open_data(tmp_path)
    splits = open_data(tmp_path, skip_unreadable=True, validation=0, test=0)
    assert splits.skipped == (("train.parquet[2]", "holds no image bytes"),)


def test_columns_that_are_not_there_are_told(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"], "label": [0]}), tmp_path / "train.parquet")
    with pytest.raises(ContentError, match=r"no column of encoded images \(bytes\); it has 'text'"):
        read_parquet(tmp_path)
    pq.write_table(pa.table({"image": [b"a"], "text": ["a"]}), tmp_path / "train.parquet")
    with pytest.raises(ContentError, match="no column of labels; it has 'image', 'text'"):
        read_parquet(tmp_path)


def test_files_of_several_data_sets_are_refused(write: Callable[..., Path]) -> None:
    write("birds/train.parquet", [0, 1])
    with pytest.raises(ContentError, match=r"several data sets.*'birds', 'cars'.*folder of one"):
        read_parquet(write("cars/train.parquet", [0, 1]))


def test_a_file_without_split_beside_others_with_one_is_refused(
    write: Callable[..., Path],
) -> None:
    write("train.parquet", [0, 1])
    with pytest.raises(ContentError, match=r"more\.parquet does not say its split"):
        read_parquet(write("more.parquet", [0, 1]))


@pytest.mark.parametrize("damage", [lambda _: b"", lambda data: data[:-50], lambda _: b"PAR1"])
def test_a_broken_file_is_named(
    write: Callable[..., Path], damage: Callable[[bytes], bytes]
) -> None:
    write("train-0.parquet", [0, 1])
    folder = write("train-1.parquet", [0, 1], seed=1)
    file = folder / "train-1.parquet"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ContentError, match=r"train-1.parquet: not a readable parquet file \("):
        read_parquet(folder)


def test_a_file_of_another_layout_is_named(write: Callable[..., Path]) -> None:
    write("train-0.parquet", [0, 1])
    with pytest.raises(ContentError, match=r"train-1.parquet: not a readable parquet file \("):
        read_parquet(write("train-1.parquet", [0, 1], columns=("picture", "label")))


def third_image(images: LabelledImages) -> bytes:
    """What a worker process does."""
    return images.image(2).tobytes()


@pytest.mark.parametrize("in_memory", [2**28, 0], ids=["in memory", "mapped"])
def test_images_reach_a_worker_process(
    write: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    in_memory: int,
) -> None:
    monkeypatch.setattr(parquet, "IN_MEMORY", in_memory)
    monkeypatch.setenv("RESNETS_CACHE", str(tmp_path / "cache"))
    images = read_parquet(write("train.parquet", [0, 1] * 5)).images["train"]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(third_image, (images,)) == images.image(2).tobytes()


def test_large_files_are_mapped_once_and_again_when_they_change(
    write: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write("train-0.parquet", [0, 1] * 300)
    folder = write("train-1.parquet", [1, 0, 0], seed=1)
    expected = read_parquet(folder).images["train"]
    monkeypatch.setattr(parquet, "IN_MEMORY", 0)
    monkeypatch.setenv("RESNETS_CACHE", str(tmp_path / "cache"))
    for _ in range(2):
        images = read_parquet(folder).images["train"]
        assert len(list((tmp_path / "cache").iterdir())) == 1
        assert list(images.names) == list(expected.names)
        assert [images.encoded(i) for i in range(603)] == [expected.encoded(i) for i in range(603)]
    assert len(pickle.dumps(images)) < 20_000  # labels and names, no image
    write("train-1.parquet", [1, 0, 0, 1], seed=2)
    assert len(read_parquet(folder).images["train"]) == 604


def test_a_file_that_changed_within_a_tick_of_the_clock_is_unpacked_again(
    write: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of the same size and time, so soon after the first that no clock tells them apart."""
    folder = write("train.parquet", [0, 1, 0])
    monkeypatch.setattr(parquet, "IN_MEMORY", 0)
    monkeypatch.setenv("RESNETS_CACHE", str(tmp_path / "cache"))
    before = read_parquet(folder).images["train"].encoded(0)
    file = folder / "train.parquet"
    status = file.stat()
    assert before.count(b"IDAT") == 1
    file.write_bytes(file.read_bytes().replace(before, before.replace(b"IDAT", b"TADI")))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert file.stat().st_size == status.st_size
    assert read_parquet(folder).images["train"].encoded(0) != before
    with monkeypatch.context() as patch:  # what is older than that is not unpacked again
        os.utime(file, (1e9, 1e9))
        read_parquet(folder)
        patch.setattr(parquet, "_write_mapped", None)
        read_parquet(folder)


NAN = float("nan")


@pytest.mark.parametrize(
    ("labels", "names", "classes", "numbers"),
    [
        ([-1, 1, -1, 1], (), ("-1", "1"), [0, 1, 0, 1]),
        ([-1, 0, 1, 0], (), ("-1", "0", "1"), [0, 1, 2, 1]),
        ([0, 1, 2, -1], (), ("0", "1", "2"), [0, 1, 2]),
        ([0, 1, -1, None], ("cat", "dog"), ("cat", "dog"), [0, 1]),
        ([0.0, 1.0, NAN, 1.0], (), ("0", "1"), [0, 1, 1]),
        (["cat", "", "dog", None], (), ("cat", "dog"), [0, 1]),
        (["cat", "nan", "dog", "<NA>"], (), ("cat", "dog"), [0, 1]),
        ([True, False, None, True], (), ("False", "True"), [1, 0, 1]),
    ],
)
def test_what_is_a_label_and_what_is_none(
    write: Callable[..., Path],
    labels: list[Any],
    names: tuple[str, ...],
    classes: tuple[str, ...],
    numbers: list[int],
) -> None:
    content = read_parquet(write("0.parquet", labels, names))
    assert set(content.class_names) == set(classes)
    label_names = [content.class_names[label] for label in content.images["all"].labels]
    assert label_names == [classes[number] for number in numbers]
    left_out = len(labels) - len(numbers)
    assert bool(left_out) == any(
        "without a label" in text and str(left_out) in text for text in content.warnings
    )


def test_images_and_labels_stay_together_where_some_have_none(write: Callable[..., Path]) -> None:
    folder = write("0.parquet", [None, "b", "a", "", "b"], ())
    images = read_parquet(folder).images["all"]
    assert [images.names[index] for index in range(3)] == [f"0.parquet[{row}]" for row in (1, 2, 4)]
    assert [images.class_names[label] for label in images.labels] == ["b", "a", "b"]


def test_a_label_that_is_no_whole_number_is_refused(write: Callable[..., Path]) -> None:
    with pytest.raises(ContentError, match=r"0\.5; a label must be one whole number"):
        read_parquet(write("0.parquet", [0.5, 1.0], ()))


@pytest.mark.parametrize("labels", [[[0], [0, 1]], [["a"], ["b"]]])
def test_several_labels_an_image_are_called_multi_label(
    write: Callable[..., Path], labels: list[Any]
) -> None:
    with pytest.raises(ContentError, match=r"multi-label.*a label must be one"):
        read_parquet(write("0.parquet", labels))


def test_upper_case_endings_are_parquet_files(write: Callable[..., Path]) -> None:
    folder = write("TRAIN-0.PARQUET", [0, 1, 0, 1])
    assert set(read_source(folder).images) == {"train"}


def test_predictions_beside_images_are_not_the_data(
    write: Callable[..., Path], tmp_path: Path, encoded: Encode
) -> None:
    answers = pa.table({"image": ["a/1.png"], "prediction": ["a"], "probability": [0.5]})
    for name in ("a/1.png", "b/1.png"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(encoded(len(name)))
    pq.write_table(answers, tmp_path / "photos/answers.parquet")
    content = read_source(tmp_path / "photos")
    assert content.kind == "folder"
    assert "answers.parquet" in content.warnings[0]
    folder = write("train-0.parquet", [0, 1, 0, 1])
    pq.write_table(answers, folder / "answers.parquet")
    content = read_source(folder)
    assert set(content.images) == {"train"}
    assert "answers.parquet" in content.warnings[0]
