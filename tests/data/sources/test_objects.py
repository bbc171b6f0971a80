"""Labelled images that Python programs hold: every form of the same images is the same data."""

import io
import itertools
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from resnets.data.sources import objects
from resnets.data.sources.objects import GROUPS, _Grouped, grouped
from resnets.data.sources.opening import open_data, read_source
from resnets.data.splits import SplitRule, Splits
from resnets.data.white_level import find_white_level
from resnets.errors import ContentError, UsageError

NAMES = ("cat", "dog", "owl")


def noise(count: int, seed: int = 0, side: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, side, side, 3) and labels (N,) of three classes, each of which is there."""
    random = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(3), random.integers(0, 3, count - 3)])
    return random.integers(0, 256, (count, side, side, 3), np.uint8), labels


class Items(Dataset):
    """A data set that gives what a function makes of an image."""

    def __init__(self, images: Any, labels: Any, make: Callable[[Any], Any] = lambda x: x) -> None:
        self.images, self.labels, self.make = images, labels, make

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return self.make(self.images[index]), self.labels[index]


class CIFAR10:
    """With the attributes of torchvision's; none of its images is asked for one by one."""

    def __init__(self, data: Any, targets: Any) -> None:
        self.data, self.targets, self.classes = data, targets, list(NAMES)
        self.transform = "unused"

    def __len__(self) -> int:
        return len(self.targets)


class ImageFolder:
    """With the attributes of torchvision's."""

    def __init__(self, root: Path) -> None:
        self.root, self.transform = str(root), None
        self.classes = sorted(folder.name for folder in root.iterdir())
        self.samples = [
            (str(path), label)
            for label, name in enumerate(self.classes)
            for path in sorted((root / name).iterdir())
        ]

    def __len__(self) -> int:
        return len(self.samples)


def forms_of_pixels(images: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """The same pixels and labels, as people hold them."""
    words = [NAMES[label] for label in labels]
    channels_first = torch.from_numpy(images).movedim(3, 1)
    pictures = [Image.fromarray(image) for image in images]
    classified = Items(
        images, torch.from_numpy(labels), lambda x: torch.from_numpy(x / 255).movedim(2, 0)
    )
    classified.classes = NAMES
    return {
        "arrays": (images, words),
        "arrays, labels (N, 1)": (images, np.array(words)[:, None]),
        "a list of two": [images, words],
        "by name": {"images": images, "labels": words},
        "tensors": (channels_first, words),
        "tensors in 0..1": (channels_first / 255, words),
        "pictures": (pictures, words),
        "pairs": [*zip(pictures, words, strict=True)],
        "mixed pairs": [*zip([*pictures[:2], *images[2:]], words, strict=True)],
        "a data set": Items(pictures, words),
        "a data set of tensors with classes": classified,
        "a subset": Subset(Items(pictures * 2, words * 2), range(len(words))),
        "CIFAR10": CIFAR10(images, labels.tolist()),
    }  # fmt: skip


def seen(splits: Splits) -> dict[str, list[str]]:
    """The labels of each split, in order."""
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    return {
        name: [splits.class_names[label] for label in part.labels]
        for name, part in parts.items()
        if part is not None
    }


@settings(max_examples=8, deadline=None)
@given(st.integers(6, 40), st.integers(0, 2**16), st.integers(0, 3))
def test_the_same_pixels_are_the_same_data_whatever_holds_them(
    count: int, seed: int, draw: int
) -> None:
    images, labels = noise(count, seed)
    forms = forms_of_pixels(images, labels)
    first = open_data(forms["arrays"], seed=draw)
    assert sum(map(len, seen(first).values())) == count
    for name, form in forms.items():
        splits = open_data(form, seed=draw)
        assert splits.fingerprint == first.fingerprint, name
        assert seen(splits) == seen(first), name
        np.testing.assert_array_equal(splits.train.stacked(), first.train.stacked(), name)


def test_grey_images_and_numbered_classes_are_those_of_mnist() -> None:
    images, labels = noise(30)
    grey = images[..., 0]
    digits = CIFAR10(torch.from_numpy(grey), torch.from_numpy(labels))
    digits.classes = ["0 - zero", "1 - one", "2 - two"]
    assert open_data(digits).class_names == ("0 - zero", "1 - one", "2 - two")
    plain = open_data((grey, labels))
    assert plain.class_names == ("0", "1", "2")
    assert (
        open_data((torch.from_numpy(grey), labels.astype(float))).fingerprint == plain.fingerprint
    )
    pictures = [Image.fromarray(image) for image in grey]
    assert open_data((pictures, labels)).fingerprint == plain.fingerprint
    tensors = TensorDataset(torch.from_numpy(grey)[:, None], torch.from_numpy(labels))
    assert open_data(tensors).fingerprint == plain.fingerprint


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of class folders."""
    root = tmp_path_factory.mktemp("photos")
    images, labels = noise(36)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        file = root / NAMES[label] / f"{number:02}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(file)
    return root


def listed(root: Path) -> list[tuple[Path, str]]:
    return [(path, path.parent.name) for path in root.glob("*/*.png")]


def forms_of_paths(root: Path) -> dict[str, Any]:
    pandas = pytest.importorskip("pandas")
    pairs = listed(root)
    paths, words = zip(*pairs, strict=True)
    return {
        "pairs": pairs,
        "turned round": pairs[::-1],
        "two lists": ([*map(str, paths)], list(words)),
        "two columns": (pandas.Series(paths), pandas.Series(words, index=range(5, 41))),
        "two arrays": (np.array([*map(str, paths)]), np.array(words)),
        "ImageFolder": ImageFolder(root),
        "bytes": [(path.read_bytes(), word) for path, word in pairs],
    }


def test_the_same_files_are_the_same_data_whatever_names_them(photos: Path) -> None:
    whole = open_data(photos)
    for name, form in forms_of_paths(photos).items():
        splits = open_data(form)
        assert splits.fingerprint == whole.fingerprint, name
        if name != "bytes":
            files = [Path(path).name for path in splits.train.names]
            assert files == [Path(path).name for path in whole.train.names], name
            np.testing.assert_array_equal(splits.train.stacked(), whole.train.stacked())


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_a_frame_of_paths_and_labels_is_the_same_data(library: str, photos: Path) -> None:
    module = pytest.importorskip(library)
    pairs = listed(photos)[::-1]
    columns = {"Label": [word for _, word in pairs], "file": [str(path) for path, _ in pairs]}
    frame = module.table(columns) if library == "pyarrow" else module.DataFrame(columns)
    assert open_data(frame).fingerprint == open_data(photos).fingerprint
    columns["Label"][0] = columns["Label"][5] = None
    frame = module.table(columns) if library == "pyarrow" else module.DataFrame(columns)
    splits = open_data(frame)
    assert "2 images without a label" in splits.warnings[0]
    assert sum(map(len, seen(splits).values())) == 34


def test_a_frame_may_have_categories_missing_numbers_splits_and_groups(photos: Path) -> None:
    pandas = pytest.importorskip("pandas")
    pairs = sorted(listed(photos))
    frame = pandas.DataFrame(
        {
            "path": [path for path, _ in pairs],
            "class": pandas.Categorical([word for _, word in pairs]),
            "subset": ["val" if number % 4 == 1 else "train" for number in range(len(pairs))],
            "number": [float(number % 3) for number in range(len(pairs))],
            "patient": [number // 3 for number in range(len(pairs))],
            "row": "a column like any other",
        },
        index=range(100, 100 + len(pairs)),
    )
    splits = open_data(frame, test=0)
    assert [len(part) for part in seen(splits).values()] == [27, 9]
    assert splits.split["validation"] == {"from": "source"}
    by_patient = SplitRule(group_by="column:patient")
    splits = open_data(frame.drop(columns="subset"), split_rule=by_patient, test=0.2)
    patients = [
        {pairs_of(frame)[Path(name).name] for name in part.names}
        for part in (splits.train, splits.validation, splits.test)
        if part is not None
    ]
    assert len(patients) == 3
    assert not set.intersection(*patients)
    assert sum(map(len, patients)) == 12
    frame.loc[[103, 107], "number"] = None
    numbered = frame[["path", "number"]].rename(columns={"number": "label"})
    by_number = open_data(numbered)
    assert by_number.class_names == ("0", "1", "2")
    assert "2 images without a label" in by_number.warnings[0]


def pairs_of(frame: Any) -> dict[str, int]:
    return {path.name: patient for path, patient in zip(frame.path, frame.patient, strict=True)}


def test_a_data_set_of_the_hub_is_read_in_the_order_it_is_in(photos: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(NAMES))}
    pairs = listed(photos)
    content = {
        "image": [str(path) for path, _ in pairs],
        "label": [NAMES.index(word) for _, word in pairs],
    }
    whole = datasets.Dataset.from_dict(content, datasets.Features(features))
    expected = open_data(photos).fingerprint
    assert open_data(whole).fingerprint == expected
    assert open_data(whole.shuffle(seed=3)).fingerprint == expected
    assert open_data(whole.with_format("torch")).fingerprint == expected
    assert open_data(datasets.DatasetDict(data=whole)).fingerprint == expected
    parted = whole.train_test_split(0.25, seed=0)
    splits = open_data(parted)
    assert splits.test is not None
    assert len(splits.test) == 9
    words = [NAMES[label] for label in parted["test"]["label"]]
    assert seen(splits)["test"] == words
    content["label"][:3] = [-1] * 3
    unknown = datasets.Dataset.from_dict(content, datasets.Features(features))
    assert "3 images without a label" in open_data(unknown).warnings[0]
    with pytest.raises(UsageError, match="IterableDataset"):
        open_data(whole.to_iterable_dataset())


def test_splits_are_taken_as_they_are_given(photos: Path) -> None:
    images, labels = noise(40)
    train, validation, test = (
        (images[part], labels[part]) for part in (slice(20), slice(20, 30), slice(30, 40))
    )
    by_name = open_data({"training": train, "val": validation, "test": test})
    assert [len(part) for part in seen(by_name).values()] == [20, 10, 10]
    assert open_data((train, validation, test)).fingerprint == by_name.fingerprint
    assert by_name.split["source"] == "python: array of 40 images"
    assert by_name.test is not None
    assert by_name.test.names[0] == "test array[0]"
    unlabelled = open_data({"train": train, "test": (images[30:], [None] * 10)}, test=0)
    assert unlabelled.test is None
    assert "test split is left out" in unlabelled.warnings[0]


def test_classes_of_several_sets_are_matched_by_their_names() -> None:
    images, labels = noise(30)
    train, test = (CIFAR10(images, labels.tolist()) for _ in range(2))
    test.classes = ["owl", "cat", "dog"]
    splits = open_data({"train": train, "test": test})
    assert splits.class_names == NAMES
    assert splits.test is not None
    assert splits.test.labels.tolist() == [(label - 1) % 3 for label in labels]
    numbered = open_data({"train": train, "test": (images, labels)})
    assert numbered.test is not None
    assert numbered.test.labels.tolist() == labels.tolist()


def test_a_group_for_each_image_keeps_groups_in_one_split(photos: Path) -> None:
    images, labels = noise(40)
    groups = np.arange(40) // 4
    split_rule = SplitRule(group_by=f"column:{GROUPS}")
    splits = open_data(_Grouped((images, labels), groups), split_rule=split_rule, test=0.2)
    by_group = [
        {int(name[6:-1]) // 4 for name in part.names}
        for part in (splits.train, splits.validation, splits.test)
        if part is not None
    ]
    assert len(by_group) == 3
    assert sum(map(len, by_group)) == 10
    pairs = listed(photos)[::-1]
    wards = [int(path.stem) % 5 for path, _ in pairs]
    splits = open_data(_Grouped(pairs, wards), split_rule=split_rule, test=0.2)
    by_ward = [
        {int(Path(name).stem) % 5 for name in part.names}
        for part in (splits.train, splits.validation, splits.test)
        if part is not None
    ]
    assert sum(map(len, by_ward)) == 5
    with pytest.raises(UsageError, match="39 groups for 40 images"):
        open_data(_Grouped((images, labels), groups[:-1]), split_rule=split_rule)
    frame = [
        (path, path.parent.name, "test" if int(path.stem) % 5 == 0 else "train")
        for path, _ in pairs
    ]
    pandas = pytest.importorskip("pandas")
    parted = pandas.DataFrame(frame, columns=["path", "label", "split"])
    splits = open_data(_Grouped(parted, wards), split_rule=split_rule, test=0.2)
    assert splits.split["groups"] == {"train": 3, "validation": 1, "test": 1}
    in_splits = {"train": (images, labels), "test": (images[:3], labels[:3])}
    with pytest.raises(UsageError, match="dict with 'train', 'test'"):
        open_data(_Grouped(in_splits, groups), split_rule=split_rule)
    splits = open_data(
        _Grouped(in_splits, {"train": groups, "test": [90, 91, 91]}), split_rule=split_rule
    )
    assert splits.split["groups"]["test"] == 2


def test_groups_are_a_text_a_column_or_values_in_the_order_of_the_images() -> None:
    data = noise(12)
    assert grouped("photos", "folder:1") == ("photos", "folder:1")
    assert grouped(data, None) == (data, None)
    assert grouped(data, "patient") == (data, "column:patient")
    held, text = grouped(data, range(12))
    assert (held.groups, text) == (range(12), f"column:{GROUPS}")
    with pytest.raises(UsageError, match=r"list.*order.*folder:LEVEL"):
        grouped("photos", [1, 2])


def test_the_transform_of_a_known_data_set_is_not_used_and_that_is_said() -> None:
    images, labels = noise(30)
    data = CIFAR10(images, labels.tolist())
    assert any("transform" in text for text in open_data(data).warnings)


def test_a_data_set_too_large_to_hold_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = noise(30)
    held = open_data(Items(images, labels))
    monkeypatch.setattr(objects, "_IN_MEMORY", 1000)
    splits = open_data(Items(images, labels, make=np.copy))
    assert splits.fingerprint == held.fingerprint
    assert type(splits.train.storage).__name__ == "DatasetStorage"
    again = pickle.loads(pickle.dumps(splits.train))  # noqa: S301  (as a worker gets it)
    np.testing.assert_array_equal(again.stacked(), held.train.stacked())


def test_sixteen_bit_pictures_are_scaled_by_the_white_of_all_of_them(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    deep = [Image.fromarray(random.integers(0, 4096, (5, 4), np.uint16)) for _ in range(12)]
    for number, image in enumerate(deep):
        (tmp_path / str(number % 2)).mkdir(exist_ok=True)
        image.save(tmp_path / str(number % 2) / f"{number:02}.tif")
    files = read_source(tmp_path).images["all"]
    held = read_source([(image, number % 2) for number, image in enumerate(deep)]).images["all"]
    white = find_white_level(files).white
    assert white.to_dict() == find_white_level(held).white.to_dict() != {}
    for number, name in enumerate(files.names):
        expected = files.with_white(white).image(number)
        pixels = held.with_white(white).image(int(Path(name).stem))
        np.testing.assert_array_equal(pixels, expected)


X, Y = noise(12)
UNIT = torch.from_numpy(X).movedim(3, 1) / 255
DARK = 0.5 * (torch.arange(12) == 7)[:, None, None, None]


def rolled(image: np.ndarray, turns: Any = itertools.count()) -> np.ndarray:  # noqa: B008
    """Another image each time, as random augmentation makes it."""
    return np.roll(image, next(turns), axis=0)


class Stream(IterableDataset):
    def __iter__(self) -> Any:
        return iter([])


class LazyFrame:
    """As that of polars, which warns where its columns are asked for."""

    def collect(self) -> Any: ...
    def collect_schema(self) -> Any: ...

    @property
    def columns(self) -> list[str]:
        raise RuntimeWarning("this resolves the schema")


def png() -> bytes:
    file = io.BytesIO()
    Image.fromarray(X[0]).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (5, ["int", "data is"]),
        (X, ["ndarray", "data is"]),
        (["a.png", "b.png"], [r"list\[0\]", "a.png", "label"]),
        ([("a.png", "cat"), "b.png", ("c.png", "dog")], [r"list\[1\]", "b.png"]),
        ([], ["empty"]),
        ({}, ["empty"]),
        ((X, Y[:5]), ["12 images", "5 labels"]),
        ((X, np.eye(3)[Y]), [r"\(12, 3\)", "argmax"]),
        ((X / 255, Y), ["float64", "uint8"]),
        ((X.transpose(0, 3, 1, 2), Y), [r"\(12, 3, 6, 6\)", "transpose"]),
        ((X[0, 0], Y), [r"\(6, 3\)", "N, H, W"]),
        ((UNIT - DARK, Y), [r"tensor\[7\]", "-0.47", "0..1"]),
        (((X, Y), (X, Y)), ["two sets", "train", "test"]),
        ((Items(X, Y), Items(X, Y)), ["two sets"]),
        ({"train": (X, Y), "extra": (X, Y)}, ["extra", "validation"]),
        ({"train": (X, Y), "training": (X, Y)}, ["at most once"]),
        (DataLoader(Items(X, Y)), ["DataLoader", "loader.dataset"]),
        (Stream(), ["Stream", r"list\(", "data is"]),
        (zip(X, Y, strict=True), ["zip", r"list\("]),
        ({"train": (pair for pair in zip(X, Y, strict=True))}, ["generator", r"list\("]),
        (LazyFrame(), ["LazyFrame", r"\.collect\("]),
        (Items(X, Y, rolled), [r"Items\[0\]", "random"]),
    ],
)  # fmt: skip
def test_what_is_no_labelled_images_is_refused_in_words(data: Any, words: list[str]) -> None:
    with pytest.raises(ValueError, match="(?s)" + ".*".join(words)) as caught:
        open_data(data)
    assert isinstance(caught.value, UsageError | ContentError)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ((X, [1.5, *Y[1:]]), [r"array\[0\]", "1.5"]),
        ((X, [*Y[:3], b"cat", *Y[4:]]), [r"array\[3\]", "cat"]),
        ((X, [None] * 12), ["none of the 12 images"]),
        (CIFAR10(X, [*Y[:4], 3, *Y[5:]]), [r"CIFAR10\[4\]", "3", r"0\.\.2"]),
        (CIFAR10(X, [-1, *Y[1:]]), [r"CIFAR10\[0\]", "-1"]),
        ({"train": CIFAR10(X, Y), "test": (X, ["cow"] * 12)}, [r"test array\[0\]", "cow"]),
        ([("a.png", "cat"), ("b.png", "dog"), ("a.png", "dog")], ["a.png", "0 and 2"]),
        ([("nowhere/a.png", "cat"), ("b.png", "dog")], ["nowhere/a.png"]),
        ([(X[0], "cat"), ({}, "dog")], [r"list\[1\]", "not an image"]),
        ([(png()[:40], "cat"), (X[0], "dog"), (png(), "dog")], [r"list\[0\]"]),
        ((X, Y * 0), ["one class"]),
    ],
)
def test_faults_are_named_by_index_and_value(data: Any, words: list[str]) -> None:
    with pytest.raises(ContentError, match="(?s)" + ".*".join(words)):
        open_data(data, skip_unreadable=False).train.stacked()


def test_unreadable_images_can_be_left_out() -> None:
    pairs = [(image, label) for image, label in zip([*X[:-1], b"no image"], Y, strict=True)]
    splits = open_data(pairs, skip_unreadable=True, test=0, validation=0)
    assert len(splits.train) == 11
    assert splits.skipped[0][0] == "list[11]"
