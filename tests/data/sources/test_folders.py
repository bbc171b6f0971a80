import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from resnets.data.labelled import LabelledImages
from resnets.data.sources import names as names_of_files
from resnets.data.sources import walking
from resnets.data.sources.folders import read_folder
from resnets.data.sources.layout import Layout
from resnets.data.sources.opening import open_data, read_source
from resnets.errors import ContentError, UsageError

Folder = Callable[[Iterable[str]], Path]
CLASSES = ("cat", "dog")


def per_class(prefix: str = "", count: int = 4) -> list[str]:
    return [f"{prefix}{name}/{number}.png" for name in CLASSES for number in range(count)]


def names(images: LabelledImages) -> set[str]:
    return set(images.names)


def test_a_class_folder_is_a_class(folder: Folder) -> None:
    content = read_folder(folder(per_class()))
    images = content.images["all"]
    assert content.class_names == CLASSES
    assert [
        (name, int(label)) for name, label in zip(images.names, images.labels, strict=True)
    ] == [
        *((f"cat/{i}.png", 0) for i in range(4)),
        *((f"dog/{i}.png", 1) for i in range(4)),
    ]
    assert not content.warnings


@pytest.mark.parametrize(
    ("word", "split"),
    [
        ("train", "train"),
        ("training", "train"),
        ("val", "validation"),
        ("valid", "validation"),
        ("validation", "validation"),
        ("dev", "validation"),
        ("test", "test"),
        ("testing", "test"),
        ("TRAIN", "train"),
        ("Val", "validation"),
    ],
)
def test_every_usual_word_for_a_split_means_it(folder: Folder, word: str, split: str) -> None:
    other = "test" if split == "train" else "train"
    content = read_folder(folder([*per_class(f"{word}/"), *per_class(f"{other}/")]))
    assert set(content.images) == {split, other}
    assert names(content.images[split]) == set(per_class(f"{word}/"))


def test_nested_folders_mixed_formats_and_upper_case_endings_are_images_of_their_class(
    folder: Folder,
) -> None:
    paths = ["cat/a/b/1.PNG", "cat/2.Jpg", "cat/a/3.webp", "dog/1.BMP", "dog/x/2.gif", "dog/3.tif"]
    images = read_folder(folder(paths)).images["all"]
    assert names(images) == set(paths)
    assert images.labels.tolist() == [0, 0, 0, 1, 1, 1]


def test_hidden_files_and_what_systems_leave_are_passed_over_and_counted(folder: Folder) -> None:
    root = folder(per_class())
    hidden = ["cat/._1.png", "cat/.DS_Store", "cat/Thumbs.db", ".git/x.png", "dog/desktop.ini"]
    for path in [*hidden, "__MACOSX/cat/1.png", "cat/.ipynb_checkpoints/1.png"]:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"nothing")
    content = read_folder(root)
    assert names(content.images["all"]) == set(per_class())
    assert content.class_names == CLASSES
    assert {path for path, _ in content.passed_over} == {
        *(*hidden[:3], ".git", "dog/desktop.ini", "__MACOSX", "cat/.ipynb_checkpoints")
    }
    (warning,) = content.warnings
    assert "and 6 more" in warning


def test_files_that_are_no_images_are_named(folder: Folder) -> None:
    root = folder(per_class())
    for path in ("cat/notes.txt", "dog/labels.json", "cat/README"):
        (root / path).write_text("text", encoding="utf-8")
    content = read_folder(root)
    assert names(content.images["all"]) == set(per_class())
    (warning,) = content.warnings
    assert warning.startswith("cat/README and 2 more ignored: not an image by its name (JPEG, PNG")


def test_a_file_without_ending_is_judged_by_its_first_bytes(folder: Folder) -> None:
    assert "cat/0001" in read_folder(folder([*per_class(), "cat/0001"])).images["all"].names


def test_images_beside_the_class_folders_are_named(folder: Folder) -> None:
    content = read_folder(folder([*per_class(), "stray.png"]))
    (warning,) = content.warnings
    assert warning.startswith("stray.png ignored:")
    assert "class folder" in warning


def test_images_without_class_folders_are_refused(folder: Folder) -> None:
    with pytest.raises(ContentError, match="2 images, no class folders; put each image in a fold"):
        read_folder(folder(["1.png", "2.png"]))


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ContentError, match="an empty folder; put each image"):
        read_folder(tmp_path)


def test_an_empty_class_is_refused_by_name(folder: Folder) -> None:
    root = folder(per_class())
    (root / "owl").mkdir()
    with pytest.raises(ContentError, match="no readable images of 'owl'; add some, or delete"):
        open_data(root)


def test_class_folders_without_any_image_are_refused(folder: Folder) -> None:
    root = folder([])
    (root / "owl").mkdir()
    with pytest.raises(ContentError, match="no images in 'owl'"):
        read_folder(root)


def test_a_class_missing_from_the_test_split_is_a_warning(folder: Folder) -> None:
    splits = open_data(folder([*per_class("train/"), "test/cat/1.png"]))
    assert splits.warnings == ("test has no images of 'dog'",)


def test_a_class_missing_from_training_is_refused(folder: Folder) -> None:
    paths = [*per_class("train/"), *per_class("test/"), "test/owl/1.png"]
    with pytest.raises(ContentError, match="'owl' in test but not in train"):
        open_data(folder(paths))


@pytest.mark.parametrize("other", ["Cat", "CAT"])
def test_class_names_that_differ_only_by_case_are_refused(folder: Folder, other: str) -> None:
    root = folder([*per_class("train/"), f"test/{other}/1.png", "test/dog/1.png"])
    with pytest.raises(ContentError, match=rf"'{other}' and 'cat' differ only by case"):
        open_data(root)


def test_class_names_that_differ_only_by_how_accents_are_encoded_are_refused(
    folder: Folder,
) -> None:
    with pytest.raises(ContentError, match="differ only by case"):
        open_data(folder([*per_class(), "caf\u00e9/1.png", "cafe\u0301/1.png"]))


def test_one_class_is_refused(folder: Folder) -> None:
    with pytest.raises(ContentError, match=r"one class \('pets'\).*pass that folder"):
        open_data(folder(["pets/cat/1.png", "pets/dog/1.png"]))


def test_two_folders_for_one_split_are_refused(folder: Folder) -> None:
    with pytest.raises(ContentError, match="'val' and 'valid' both mean the validation split"):
        read_folder(folder([*per_class("train/"), *per_class("val/"), *per_class("valid/")]))


def test_splits_beside_classes_are_refused(folder: Folder) -> None:
    with pytest.raises(ContentError, match=r"splits \('train'\) beside other folders.*'owl'"):
        read_folder(folder([*per_class("train/"), "owl/1.png"]))


def test_a_class_may_be_called_like_a_split(folder: Folder) -> None:
    content = read_folder(folder(["car/1.png", "plane/1.png", "train/1.png"]))
    assert content.class_names == ("car", "plane", "train")
    (warning,) = content.warnings
    assert re.search("'train' .* class: .*no class folders", warning)


def test_a_test_split_without_labels_is_left_out_by_name(folder: Folder) -> None:
    content = read_folder(folder([*per_class("train/"), "test/1.png"]))
    assert set(content.images) == {"train"}
    (warning,) = content.warnings
    assert re.search("'test' ignored: .*no class folders", warning)


def test_splits_without_class_folders_are_refused(folder: Folder) -> None:
    with pytest.raises(ContentError, match="no class folders in 'test', 'train'; put each image"):
        read_folder(folder(["train/1.png", "test/1.png"]))


def test_only_a_test_split_cannot_be_learnt_from(folder: Folder) -> None:
    with pytest.raises(ContentError, match="no training images, only 'test'"):
        open_data(folder(per_class("test/")))


def test_images_that_are_only_judged_may_be_of_one_class_and_of_a_test_split_alone(
    folder: Folder,
) -> None:
    path = folder(["test/cat/1.png", "test/cat/2.png"])
    splits = open_data(path, validation=0, test=0, to_learn=False)
    assert splits.class_names == ("cat",)
    assert len(splits.train) == 2
    assert splits.test is None


@pytest.mark.parametrize("start", ["", "train/"])
def test_a_source_that_was_learnt_from_is_known_again_when_it_is_judged(
    start: str, folder: Folder
) -> None:
    path = folder(per_class(start))
    assert open_data(path, to_learn=False).fingerprint == open_data(path).fingerprint


def test_links_are_followed_but_not_in_circles(folder: Folder, tmp_path: Path) -> None:
    root = folder(per_class())
    (tmp_path / "elsewhere").mkdir()
    (root / "dog/0.png").rename(tmp_path / "elsewhere/0.png")
    (root / "dog/linked").symlink_to(tmp_path / "elsewhere")
    (root / "dog/round").symlink_to(root / "dog")
    assert names(read_folder(root).images["all"]) == {
        *per_class(),
        "dog/linked/0.png",
    } - {"dog/0.png"}


def test_a_link_to_nothing_is_an_unreadable_file(folder: Folder) -> None:
    root = folder(per_class())
    (root / "cat/gone.png").symlink_to(root / "nowhere.png")
    with pytest.raises(ContentError, match=r"cat/gone.png: cannot be read \(No such file"):
        open_data(root)


@pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX only")
def test_names_that_are_no_text_can_be_printed(folder: Folder) -> None:
    root = folder(per_class())
    raw = os.fsencode(root / "cat") + b"/caf\xe9.png"
    (root / "cat/0.png").rename(os.fsdecode(raw))
    splits = open_data(root, test=0, validation=0)
    index = list(splits.train.names).index(r"cat/caf\xe9.png")
    assert splits.train.image(index).shape == (5, 6, 3)


def test_a_pipe_that_is_called_like_an_image_is_not_opened(folder: Folder) -> None:
    root = folder(per_class())
    os.mkfifo(root / "cat/pipe.png")
    content = read_folder(root)
    assert names(content.images["all"]) == set(per_class())
    assert [path for path, _ in content.passed_over] == ["cat/pipe.png"]
    assert "cat/pipe.png" in content.warnings[0]


def test_photographs_in_folders_are_opened_whatever_their_sizes(
    shared: Callable[[str], Path], tmp_path: Path
) -> None:
    for number, photo in enumerate(sorted(shared("photos").iterdir())[:40]):
        target = tmp_path / ("even" if number % 2 else "odd") / photo.name
        target.parent.mkdir(exist_ok=True)
        target.symlink_to(photo)
    splits = open_data(tmp_path)
    assert (len(splits.train), len(splits.validation or ()), len(splits.test or ())) == (32, 4, 4)
    assert not splits.warnings
    with pytest.raises(ContentError, match="of one array"):
        splits.train.stacked()


def test_of_broken_files_only_the_readable_ones_are_left_and_the_others_are_reported(
    shared: Callable[[str], Path], tmp_path: Path
) -> None:
    for name in ("truncated", "modes", "not_images", "formats"):
        target = tmp_path / ("odd" if name in ("truncated", "modes") else "other") / name
        target.parent.mkdir(exist_ok=True)
        target.symlink_to(shared(f"badimages/{name}"))
    whole = read_source(tmp_path).images["all"]
    splits = open_data(tmp_path, skip_unreadable=True, test=0, validation=0)
    skipped = {name for name, _ in splits.skipped}
    assert skipped
    assert names(splits.train) == names(whole) - skipped
    for index in range(len(splits.train)):
        assert splits.train.image(index).dtype == "uint8"


@pytest.mark.parametrize(
    "name", ["@Recycle", "#snapshot", "LOST+FOUND", "Network Trash Folder", "$RECYCLE.BIN"]
)
def test_folders_of_systems_are_no_classes(name: str, folder: Folder) -> None:
    content = read_folder(folder([*per_class(), f"{name}/1.png", f"cat/{name}/1.png"]))
    assert content.class_names == CLASSES
    assert names(content.images["all"]) == set(per_class())


def test_photos_of_a_kind_that_is_not_read_are_named(folder: Folder) -> None:
    root = folder(per_class())
    (root / "cat/IMG_1.JXL").write_bytes(b"\xff\x0a")
    (root / "dog/raw.NEF").write_bytes(b"MM\0*")
    (warning,) = read_folder(root).warnings
    assert warning.startswith("cat/IMG_1.JXL and 1 more ignored")
    assert "convert" in warning


def test_photos_in_heic_are_ignored_by_the_name_of_what_reads_them(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name in ((names_of_files, "_IMAGE_ENDINGS"), (walking, "ALLOWED")):
        monkeypatch.setattr(
            module, name, tuple(e for e in getattr(module, name) if "hei" not in e.lower())
        )
    root = folder(per_class())
    (root / "cat/IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    (warning,) = read_folder(root).warnings
    assert warning.startswith("cat/IMG_1.HEIC ignored")
    assert "[heic]" in warning


def test_a_class_of_unread_photos_alone_says_which(folder: Folder) -> None:
    root = folder([])
    for name in ("cat", "dog"):
        (root / name).mkdir()
        (root / name / "1.jxl").write_bytes(b"\xff\x0a")
    with pytest.raises(ContentError, match=r"1\.jxl and 1 more ignored.*convert"):
        read_folder(root)


OURS = {
    "explained": ("contact-sheet.png", "1.png"),
    "heat maps": ("contact-sheet.png", "a.png"),
    "runs": ("cat-1/config.toml", "cat-1/log.jsonl", "cat-1/tensorboard/events"),
    "run": ("config.toml", "log.jsonl", "report.html"),
    "exported": ("model.onnx", "labels.txt"),
}


@pytest.mark.parametrize("name", OURS)
def test_what_this_package_wrote_into_a_folder_is_no_class(name: str, folder: Folder) -> None:
    root = folder(per_class())
    for path in OURS[name]:
        (root / name / path).parent.mkdir(parents=True, exist_ok=True)
        (root / name / path).write_bytes((root / "cat/1.png").read_bytes())
    (root / "report.html").write_text("<html>", encoding="utf-8")
    splits = open_data(root)
    assert splits.class_names == CLASSES
    assert sum(map(len, (splits.train, splits.validation or (), splits.test or ()))) == 8
    assert any(f"{name} " in text and "resnets" in text for text in splits.warnings)


# ------------------------------------------------------------------ splits and variants by name


def nested(*tops: str, classes: tuple[str, ...] = ("forest", "sea"), count: int = 2) -> list[str]:
    return [
        f"{top}/{name}/{number}.png" for top in tops for name in classes for number in range(count)
    ]


@pytest.mark.parametrize(
    ("tops", "words"),
    [
        (("seg_train", "seg_test"), "--train-folder seg_train --test-folder seg_test"),
        (("train_images", "test_images"), "--train-folder train_images"),
        (("TrainingSet", "ValSet", "TestSet"), "--validation-folder ValSet --test-folder TestSet"),
        (("seg_train/seg_train", "seg_test/seg_test"), "--train-folder seg_train/seg_train"),
        (("fold1", "fold2", "fold3"), "--class-level 2"),
        (("color", "grayscale", "segmented"), "variants"),
        (("100X", "400X"), "--class-level 2"),
    ],
)
def test_folders_that_hold_the_same_folders_are_asked_about(
    tops: tuple[str, ...], words: str, folder: Folder
) -> None:
    with pytest.raises(UsageError, match=words) as refused:
        read_folder(folder(nested(*tops)))
    assert "--class-level 1" in str(refused.value)
    assert "'forest', 'sea'" in str(refused.value)


def test_a_flat_folder_beside_splits_does_not_hide_them(folder: Folder) -> None:
    with pytest.raises(UsageError, match="splits"):
        read_folder(folder([*nested("seg_train", "seg_test"), "seg_pred/1.png", "seg_pred/2.png"]))


def test_a_split_that_lacks_a_class_does_not_hide_them(folder: Folder) -> None:
    paths = nested("a_train", classes=("x", "y", "z")) + nested("a_test", classes=("x", "y"))
    with pytest.raises(UsageError, match="--train-folder a_train"):
        read_folder(folder(paths))


@pytest.mark.parametrize(("level", "classes"), [(1, ("cat", "dog")), (2, ("indoor", "outdoor"))])
def test_the_user_says_which_folders_are_the_classes(
    level: int, classes: tuple[str, ...], folder: Folder
) -> None:
    root = folder(nested("cat", "dog", classes=("indoor", "outdoor")))
    content = read_folder(root, Layout(class_level=level))
    assert content.class_names == classes
    assert len(content.images["all"]) == 8
    assert not content.warnings


def test_the_user_says_which_folders_are_the_splits(folder: Folder) -> None:
    root = folder([*nested("seg_train", "seg_test"), "seg_pred/1.png"])
    content = read_folder(root, Layout(train_folder="seg_train/", test_folder="seg_test"))
    assert content.class_names == ("forest", "sea")
    assert {split: len(images) for split, images in content.images.items()} == {
        "train": 4,
        "test": 4,
    }
    assert "seg_pred" in content.warnings[0]


@pytest.mark.parametrize(
    ("layout", "words"),
    [
        (Layout(train_folder="nowhere"), "no such folder.*'seg_test', 'seg_train'"),
        (Layout(test_folder="seg_test"), "--train-folder FOLDER"),
        (Layout(train_folder="seg_test", test_folder="seg_test"), "one folder for two splits"),
    ],
)
def test_folders_of_splits_that_cannot_be_are_refused(
    layout: Layout, words: str, folder: Folder
) -> None:
    root = folder(nested("seg_train", "seg_test"))
    with pytest.raises(UsageError, match=words):
        read_folder(root, layout)


def test_a_level_below_one_is_refused() -> None:
    with pytest.raises(UsageError, match="--class-level 0"):
        Layout(class_level=0)


@pytest.mark.parametrize(
    "paths",
    [
        [f"{name}/images/{n}.png" for name in CLASSES for n in range(3)],
        [*nested("cat", classes=("2020", "2021")), *nested("dog", classes=("2021", "2022"))],
        [*nested("cat", "dog"), "cat/1.png", "dog/1.png"],
    ],
    ids=["one inner folder", "other inner folders", "images beside"],
)
def test_classes_with_folders_of_their_own_are_classes(paths: list[str], folder: Folder) -> None:
    assert read_folder(folder(paths)).class_names == CLASSES


def test_what_is_measured_is_read_as_before(folder: Folder) -> None:
    splits = open_data(folder(nested("cat", "dog", count=9)), to_learn=False)
    assert splits.class_names == CLASSES
    assert "layout" not in splits.split
