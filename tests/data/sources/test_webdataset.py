"""WebDataset's own writer makes the files."""

import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import webdataset

from resnets import cli
from resnets.data import shards
from resnets.data.sources import webdataset as ours
from resnets.data.sources.opening import open_data, read_source
from resnets.errors import ContentError


@pytest.fixture
def write(tmp_path: Path, encoded: Callable[..., bytes]) -> Callable[..., Path]:
    """A tar file of two samples for each label, which `parts` makes members of."""

    def make(name: str, parts: Callable[[int], dict[str, Any]], count: int = 4) -> Path:
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with webdataset.TarWriter(str(path)) as writer:
            for number in range(count):
                image = {
                    "__key__": f"{path.stem}/{number:04}",
                    "png": encoded(seed_of(name) + number),
                }
                writer.write(image | parts(number))
        return path

    return make


def seed_of(name: str) -> int:
    return sum(name.encode())


def test_the_images_of_others_are_read_by_split_and_label(
    write: Callable[..., Path], encoded: Callable[..., bytes]
) -> None:
    train = write("train-0.tar", lambda number: {"cls": number % 3})
    write("train-1.tar", lambda number: {"cls": 2 - number % 3})
    write("val-0.tar", lambda number: {"cls": number % 3}, count=3)
    content = read_source(train.parent)
    assert {split: len(images) for split, images in content.images.items()} == {
        "train": 8,
        "validation": 3,
    }
    assert content.class_names == ("0", "1", "2")
    images = content.images["train"]
    assert images.labels.tolist() == [0, 1, 2, 0, 2, 1, 0, 2]
    assert images.encoded(1) == encoded(seed_of("train-0.tar") + 1)
    assert images.names[1] == "train-0.tar/train-0/0001.png"
    assert len(read_source(train).images["train"]) == 4


def test_the_names_of_classes_are_those_of_the_descriptions(write: Callable[..., Path]) -> None:
    name = ("bee", "ant")
    both = write("a.tar", lambda n: {"cls": n % 2, "json": {"class": name[n % 2]}})
    assert read_source(both).class_names == name
    words = write("b.tar", lambda n: {"cls": name[n % 2].encode()})
    assert read_source(words).class_names == ("ant", "bee")
    only = write("c.tar", lambda n: {"json": {"label": n % 2}})
    assert read_source(only).images["all"].labels.tolist() == [0, 1, 0, 1]


def test_splits_are_drawn_and_commands_take_the_folder(
    write: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write("a.tar", lambda number: {"cls": number % 2}, count=12).parent
    splits = open_data(folder, validation=0.2, test=0.2)
    assert splits.test is not None
    assert splits.validation is not None
    assert cli.main(["doctor", str(folder)]) == 0
    assert "12" in capsys.readouterr().out


def test_a_file_is_looked_through_once_and_again_when_it_has_changed(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RESNETS_CACHE", str(tmp_path / "cache"))
    path = write("a.tar", lambda number: {"cls": number % 2})
    before = [*read_source(path).images["all"].names]
    with monkeypatch.context() as patch:
        patch.setattr(ours, "_scan", lambda _: pytest.fail("looked through again"))
        assert [*read_source(path).images["all"].names] == before
    write("a.tar", lambda number: {"cls": number % 2}, count=6)
    assert len(read_source(path).images["all"]) == 6


@pytest.mark.parametrize("parts", [{}, {"json": {"caption": "a cat"}}, {"txt": "a cat"}])
def test_images_without_labels_are_one_clear_error(
    write: Callable[..., Path], parts: dict[str, Any]
) -> None:
    path = write("a.tar", lambda _: parts)
    with pytest.raises(ContentError, match=r"a/0000\.png has no label.*\.cls"):
        read_source(path)


def test_a_damaged_file_is_one_clear_error(write: Callable[..., Path]) -> None:
    path = write("a.tar", lambda number: {"cls": number % 2})
    whole = path.read_bytes()
    with tarfile.open(path) as tar:
        image = tar.getmember("a/0002.png")
    for length in (image.offset + 100, image.offset_data + 20):
        path.write_bytes(whole[:length])
        with pytest.raises(ContentError, match=r"a\.tar: .*download it again") as caught:
            read_source(path)
        assert "\n" not in str(caught.value)
    path.write_bytes(whole[:1024])
    with pytest.raises(ContentError):
        read_source(path)


def test_a_description_that_is_no_json_is_one_clear_error(write: Callable[..., Path]) -> None:
    path = write("a.tar", lambda _: {"json": b"{" + json.dumps(1).encode()})
    with pytest.raises(ContentError, match="JSON"):
        read_source(path)


def test_images_without_a_label_are_left_out_and_counted(write: Callable[..., Path]) -> None:
    some = write("a.tar", lambda n: {"cls": n % 2} if n != 1 else {"txt": "a cat"}, count=6)
    content = read_source(some)
    assert content.images["all"].labels.tolist() == [0, 0, 1, 0, 1]
    assert content.images["all"].names[1] == "a.tar/a/0002.png"
    assert any("1 image without a label" in text and "a/0001" in text for text in content.warnings)
    empty = write("b.tar", lambda n: {"cls": b"" if n == 0 else str(n % 2).encode()})
    assert len(read_source(empty).images["all"]) == 3


@pytest.mark.parametrize("parts", [{}, {"cls": -1}, {"cls": b"nan"}])
def test_a_split_without_labels_is_left_out(
    write: Callable[..., Path], parts: dict[str, Any]
) -> None:
    folder = write("train-0.tar", lambda number: {"cls": number % 2}).parent
    write("test-0.tar", lambda _: parts)
    content = read_source(folder)
    assert [*content.images] == ["train"]
    assert any("test split is left out" in text for text in content.warnings)


def test_minus_one_may_be_a_class(write: Callable[..., Path]) -> None:
    path = write("a.tar", lambda number: {"cls": (-1, 1)[number % 2]})
    assert {*read_source(path).class_names} == {"-1", "1"}


def test_an_image_of_the_wrong_size_is_unreadable_like_any_other(
    write: Callable[..., Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def parts(number: int) -> dict[str, Any]:
        image = {3: b"", 5: b"x" * 5000}.get(number)
        return {"cls": number % 2} | ({} if image is None else {"png": image})

    for module in (ours, shards):
        monkeypatch.setattr(module, "MAX_BYTES", 4096)
    path = write("a.tar", parts, count=12)
    with pytest.raises(ContentError, match=r"2 images cannot be read: .*a/0003\.png: 0 bytes"):
        open_data(path)
    splits = open_data(path, validation=0, test=0, skip_unreadable=True)
    assert len(splits.train) == 10
    assert cli.main(["doctor", str(path)]) == 1
    shown = capsys.readouterr().out
    assert "a/0003.png: 0 bytes" in shown
    assert "a/0005.png: is larger than" in shown


def test_a_tar_file_without_an_image_is_named(write: Callable[..., Path]) -> None:
    folder = write("train-0.tar", lambda number: {"cls": number % 2}).parent
    write("train-1.tar", lambda _: {}, count=0)
    write("val-0.tar", lambda _: {}, count=0)
    content = read_source(folder)
    assert [*content.images] == ["train"]
    assert any("train-1.tar" in text and "val-0.tar" in text for text in content.warnings)
