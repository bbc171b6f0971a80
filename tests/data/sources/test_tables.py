from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resnets.data.sources.opening import open_data
from resnets.data.sources.tables import number_or_word, read_table
from resnets.errors import ContentError

Folder = Callable[[Iterable[str]], Path]
PATHS = ("a/1.png", "a/2.png", "b/1.png", "b/2.png")


@pytest.fixture
def table(folder: Folder) -> Callable[..., Path]:
    """Four images and a table beside them."""

    def write(text: str, name: str = "labels.csv", encoding: str = "utf-8") -> Path:
        file = folder(PATHS) / name
        file.write_text(text, encoding=encoding)
        return file

    return write


def found(file: Path) -> dict[str, str]:
    images = read_table(file).images["all"]
    words = [images.class_names[label] for label in images.labels]
    return dict(zip(images.names, words, strict=True))


EXPECTED = {"a/1.png": "cat", "b/1.png": "dog"}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("path,label\na/1.png,cat\nb/1.png,dog\n", "labels.csv"),
        ("a/1.png,cat\nb/1.png,dog\n", "labels.csv"),
        ("path\tlabel\na/1.png\tcat\nb/1.png\tdog\n", "labels.tsv"),
        ("Label;Filename\r\ncat;a/1.png\r\ndog;b/1.png\r\n", "german.CSV"),
        ('\ufeffimage,width,class\n"a/1.png",6,"cat"\n\nb/1.png,6, dog \n', "excel.csv"),
    ],
    ids=["named", "bare", "tabs", "semicolons", "excel"],
)
def test_columns_are_found_however_the_table_is_written(
    table: Callable[..., Path], text: str, name: str
) -> None:
    assert found(table(text, name)) == EXPECTED


def test_a_split_column_makes_the_splits(table: Callable[..., Path]) -> None:
    file = table(
        "path,label,split\na/1.png,cat,train\nb/1.png,dog,train\na/2.png,cat,Val\nb/2.png,dog,test\n"
    )
    images = read_table(file).images
    assert {split: list(part.names) for split, part in images.items()} == {
        "train": ["a/1.png", "b/1.png"],
        "validation": ["a/2.png"],
        "test": ["b/2.png"],
    }


def test_an_absolute_path_is_taken_as_it_is(table: Callable[..., Path], tmp_path: Path) -> None:
    file = table(f"{tmp_path / 'images' / 'a/1.png'},cat\nb/1.png,dog\n")
    images = read_table(file.rename(tmp_path / "images" / "b" / "l.csv")).images["all"]
    assert images.image(list(images.labels).index(0)).shape == (5, 6, 3)


def test_labels_that_are_numbers_are_in_their_order(table: Callable[..., Path]) -> None:
    file = table("a/1.png,10\na/2.png,9\nb/1.png,-\nb/2.png,100\n")
    assert read_table(file).class_names == ("9", "10", "100", "-")


@given(st.lists(st.integers(0, 10**12), unique=True))
def test_numbers_are_sorted_by_value(values: list[int]) -> None:
    assert sorted(map(str, values), key=number_or_word) == [str(v) for v in sorted(values)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "an empty table; it takes lines of path,label"),
        ("path,label\n", "an empty table"),
        ("path,label\na/1.png,cat\nb/1.png\n", "line 3: 'b/1.png' is not path,label"),
        ("path,label\na/1.png,\n", "line 2: 'a/1.png,' is not path,label"),
        ("path,label,split\na/1.png,cat,later\n", "line 2: split 'later' is none of train, tr"),
        ("path,label\na/1.png,cat\na/1.png,dog\n", "lines 2, 3: a/1.png is listed twice"),
        ('path,label\n"a/1.png,cat\n', "not a table in UTF-8"),
        ("just some text\n", "line 1: 'just some text' is not path,label"),
    ],
)
def test_a_line_that_cannot_be_understood_is_named(
    table: Callable[..., Path], text: str, message: str
) -> None:
    with pytest.raises(ContentError, match=message):
        read_table(table(text))


def test_a_table_in_another_encoding_is_refused(table: Callable[..., Path]) -> None:
    with pytest.raises(ContentError, match="not a table in UTF-8"):
        read_table(table("a/1.png,caf\u00e9\nb/1.png,x\n", encoding="latin-1"))


def test_a_missing_file_is_named_or_skipped(table: Callable[..., Path]) -> None:
    text = "a/1.png,cat\nb/1.png,dog\nb/3.png,dog\n"
    with pytest.raises(ContentError, match=r"^b/3.png: cannot be read \(No such file"):
        open_data(table(text))
    splits = open_data(table(text), skip_unreadable=True, test=0, validation=0)
    assert splits.skipped == (("b/3.png", "cannot be read (No such file or directory)"),)
    assert sorted(splits.train.names) == ["a/1.png", "b/1.png"]
