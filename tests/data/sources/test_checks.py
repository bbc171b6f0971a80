from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest

from resnets import doctor
from resnets.data.labelled import LabelledImages, joined
from resnets.data.sources.checks import all_unreadable
from resnets.data.sources.opening import open_data, read_source
from resnets.data.splits import SplitRule
from resnets.data.storage import PixelStorage
from resnets.errors import ContentError

Folder = Callable[[Iterable[str]], Path]


def per_class(*classes: str, count: int = 5) -> list[str]:
    return [f"{name}/{number}.png" for name in classes for number in range(count)]


def test_a_broken_file_is_named_with_reason_and_remedy(folder: Folder) -> None:
    root = folder(per_class("cat", "dog"))
    (root / "cat/0.png").write_bytes(b"")
    with pytest.raises(
        ContentError,
        match=r"^cat/0\.png: 0 bytes.*\(repair or delete it, or pass --skip-unreadable\)$",
    ):
        open_data(root)


def test_files_of_several_folders_can_be_deleted_and_other_images_cannot(folder: Folder) -> None:
    (images,) = read_source(folder(per_class("cat", "dog"))).images.values()
    both = joined([images, images])
    assert "delete it," in both.remedy()
    assert "delete them," in both.remedy(several=True)
    storage = PixelStorage(np.zeros((1, 8, 8, 3), np.uint8), "image {}".format)
    pixels = LabelledImages(storage, [0], images.class_names)
    assert "delete" not in joined([images, pixels]).remedy()


def test_of_many_broken_files_the_first_are_named_and_all_are_counted(
    folder: Folder, draw_noise: Callable[..., None]
) -> None:
    root = folder(per_class("cat", "dog", count=12))
    for number in range(12):
        (root / f"cat/{number}.png").write_bytes(b"<html>not found</html>")
    with pytest.raises(ContentError, match=r"^12 images cannot be read: cat/0.*9 more") as caught:
        open_data(root)
    assert str(caught.value).count("not an image") == 1, "a reason is told once"
    assert "besides" in str(caught.value)
    assert "'cat'" in str(caught.value)  # a class that is empty then, told in the same round
    draw_noise(root / "cat/whole.png")
    with pytest.raises(ContentError, match="12 images cannot be read") as caught:
        open_data(root)
    assert "besides" not in str(caught.value)


def test_one_message_names_what_is_no_image_and_what_breaks_off_in_every_split(
    folder: Folder,
) -> None:
    names = [f"{split}/{name}" for split in ("train", "val") for name in per_class("cat", "dog")]
    root = folder(names)
    whole = (root / "train/dog/1.png").read_bytes()
    broken = ["train/cat/0.png", "train/dog/1.png", "val/cat/2.png"]
    (root / broken[0]).write_bytes(b"")
    for name in broken[1:]:
        (root / name).write_bytes(whole[: len(whole) // 2])
    for _ in range(2):  # the second time all of them begin like images
        with (
            pytest.raises(ContentError, match=f"^{len(broken)} images cannot be read") as caught,
            all_unreadable(lambda: read_source(root).images.values()),
        ):
            open_data(root).train.stacked()
        assert all(name in str(caught.value) for name in broken)
        (root / broken[0]).write_bytes(whole[: len(whole) // 2])


def test_skipping_reports_what_was_left_out_and_trains_on_the_rest(folder: Folder) -> None:
    root = folder(per_class("cat", "dog"))
    whole = (root / "dog/1.png").read_bytes()
    (root / "cat/0.png").write_bytes(b"")
    (root / "dog/1.png").write_bytes(whole[: len(whole) // 2])
    splits = open_data(root, skip_unreadable=True, validation=0, test=0)
    assert [name for name, _ in splits.skipped] == ["cat/0.png", "dog/1.png"]
    assert all(reason for _, reason in splits.skipped)
    assert len(splits.train) == 8
    assert splits.train.stacked().shape == (8, 5, 6, 3)


def test_a_file_that_breaks_off_is_named_when_it_is_used(folder: Folder) -> None:
    root = folder(per_class("cat", "dog"))
    whole = (root / "dog/1.png").read_bytes()
    (root / "dog/1.png").write_bytes(whole[: len(whole) // 2])
    splits = open_data(root, validation=0, test=0)
    with pytest.raises(ContentError, match=r"^dog/1\.png: .*pass --skip-unreadable"):
        splits.train.stacked()


def test_a_class_of_which_no_image_is_readable_is_refused(folder: Folder) -> None:
    root = folder([*per_class("cat", "dog"), "owl/1.png"])
    (root / "owl/1.png").write_bytes(b"")
    with pytest.raises(ContentError, match="no readable images of 'owl'; add some, or delete"):
        open_data(root, skip_unreadable=True)


def test_classes_of_one_or_two_images_are_warned_of(folder: Folder) -> None:
    splits = open_data(folder([*per_class("cat", "dog"), *per_class("owl", count=2)]))
    assert splits.warnings == (
        "validation has no images of 'owl' (too few to draw from)",
        "test has no images of 'owl' (too few to draw from)",
    )


@pytest.mark.parametrize(("count", "left"), [(2, "2"), (3, "2 after the test images were drawn")])
def test_what_is_left_of_few_images_is_counted_as_the_user_counts(
    folder: Folder, count: int, left: str
) -> None:
    not_drawn = open_data(folder(per_class("cat", "dog", count=count))).not_drawn
    (validation,) = [text for text in not_drawn if text.startswith("no validation images")]
    assert f"the largest has {left})" in validation


def test_the_same_image_under_two_labels_is_warned_of(folder: Folder) -> None:
    root = folder(per_class("cat", "dog"))
    (root / "dog/copy.png").write_bytes((root / "cat/3.png").read_bytes())
    (warning,) = open_data(root, validation=0, test=0).warnings
    assert warning.startswith(
        "1 image with two labels, such as cat/3.png (train) and dog/copy.png (train): "
    )
    assert "delete" in warning


def test_the_same_image_to_learn_and_to_score_is_warned_of(folder: Folder) -> None:
    root = folder([f"{s}/{path}" for s in ("train", "test") for path in per_class("cat", "dog")])
    (root / "test/cat/copy.png").write_bytes((root / "train/cat/3.png").read_bytes())
    (warning,) = open_data(root, validation=0).warnings
    assert warning == (
        "1 image in two splits, such as train/cat/3.png (train) and test/cat/copy.png (test)"
    )


def test_a_copy_is_drawn_with_its_original(folder: Folder) -> None:
    """So the test split holds no image that was learnt, unless the copies outnumber it."""
    root = folder(per_class("cat", "dog", count=40))
    for number in range(40):
        (root / f"cat/copy-{number}.png").write_bytes((root / f"cat/{number}.png").read_bytes())
    assert open_data(root, validation=0, test=0.2).warnings == ()


@pytest.mark.parametrize(
    ("count", "sizes"), [(1, (2, 0, 0)), (2, (4, 0, 0)), (3, (4, 0, 2)), (4, (4, 2, 2))]
)
def test_a_split_that_gets_no_image_is_none_and_said(
    count: int, sizes: tuple[int, ...], folder: Folder
) -> None:
    splits = open_data(folder(per_class("cat", "dog", count=count)))
    parts = (splits.train, splits.validation, splits.test)
    assert tuple(0 if part is None else len(part) for part in parts) == sizes
    text = " ".join(splits.not_drawn)
    for name, size in zip(("train", "validation", "test"), sizes, strict=True):
        assert (f"no {name} images" in text) == (not size)


def test_a_split_of_which_no_image_is_readable_is_none_and_said(folder: Folder) -> None:
    root = folder([f"{s}/{path}" for s in ("train", "val") for path in per_class("cat", "dog")])
    for path in (root / "val").rglob("*.png"):
        path.write_bytes(b"")
    splits = open_data(root, skip_unreadable=True)
    assert splits.validation is None
    assert any("no validation images" in text for text in splits.not_drawn)


def test_a_group_that_fills_its_class_leaves_no_split_without_images(folder: Folder) -> None:
    root = folder([f"{name}/only_{name}/{n}.png" for name in ("cat", "dog") for n in range(6)])
    splits = open_data(root, split_rule=SplitRule(group_by="folder:1"))
    assert (splits.validation, splits.test) == (None, None)
    assert sum("together" in text for text in splits.not_drawn) == 2


@pytest.mark.parametrize(("both", "refused"), [(2, False), (5, True)])
def test_many_images_in_two_class_folders_are_called_multi_label(
    both: int, refused: bool, folder: Folder
) -> None:
    root = folder(per_class("cat", "dog", count=6))
    for number in range(both):
        (root / f"dog/cat-{number}.png").write_bytes((root / f"cat/{number}.png").read_bytes())
    if not refused:
        assert any("with two labels" in text for text in open_data(root).warnings)
        return
    with pytest.raises(ContentError, match=r"5 of 12 .* cat/0.png and dog/.*multi-label"):
        open_data(root)
    texts = [finding.text for finding in doctor(root).findings if finding.level == "error"]
    assert any("multi-label" in text for text in texts)
