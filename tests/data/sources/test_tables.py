import json
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resnets.data.sources.opening import open_data, read_source
from resnets.data.sources.table_columns import several_labels
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


@pytest.mark.parametrize(
    ("labels", "example"),
    [
        (("1.37", "2", "2.5"), "1.37 (line 1)"),
        (("3", "-0.5", "1e-3"), "-0.5 (line 2)"),
        (("1.0", "2.0", "3"), ""),
        (("1.5T", "3.5", "7"), ""),
    ],
)
def test_labels_that_are_no_whole_numbers_are_classes_and_a_warning_says_so(
    table: Callable[..., Path], labels: tuple[str, ...], example: str
) -> None:
    places = ("a/1.png", "a/2.png", "b/1.png")
    rows = zip(places, labels, strict=True)
    content = read_table(table("".join(f"{place},{label}\n" for place, label in rows)))
    assert sorted(content.class_names) == sorted(labels)
    assert len(content.warnings) == (example != "")
    assert example in "".join(content.warnings)


@given(st.lists(st.integers(0, 10**12), unique=True))
def test_numbers_are_sorted_by_value(values: list[int]) -> None:
    assert sorted(map(str, values), key=number_or_word) == [str(v) for v in sorted(values)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "an empty table; .*path,label"),
        ("path,label\n", "an empty table"),
        ("path,label\na/1.png,cat\nb/1.png\n", "line 3: 'b/1.png' is not path,label"),
        ("path,label\na/1.png,\n", "none of its 1 image has a label"),
        ("path,label,split\na/1.png,cat,later\n", "line 2: split 'later' is none of train, tr"),
        ("path,label\na/1.png,cat\na/1.png,dog\n", "lines 2, 3: a/1.png is listed twice"),
        ('path,label\n"a/1.png,cat\n', "not a table in UTF-8"),
        ("just some text\n", "line 1: 'just some text' is not path,label"),
        ("id,age,kind\nq7,31,x\n", "line 1: 'id,age,kind': no column holds paths.*looked for"),
        ("path,age,kind\na/1.png,2,x\nb/1.png,7,y\n", "line 1: 'path,age,kind': no column of lab"),
        ("path,label\na/1.png,['cat']\nb/1.png,dog\n", "line 2.*multi-label"),
        ("path,label\na/1.png,cat|dog\na/2.png,cat\nb/1.png,dog\n", "line 2.*multi-label"),
        ("path,tag\na/1.png,haze wet\na/2.png,haze\nb/1.png,wet\n", "line 2.*multi-label"),
        ("path,cat,dog\na/1.png,1,0\nb/1.png,1,1\n", "line 3.*'cat', 'dog'.*multi-label"),
        ("path,label\na/1.png,cat\na/1.png,dog\n", "listed twice.*multi-label"),
        ("path,label,is_valid\na/1.png,cat,perhaps\n", "split 'perhaps' is none of true, false"),
    ],
)
def test_a_line_that_cannot_be_understood_is_named(
    table: Callable[..., Path], text: str, message: str
) -> None:
    with pytest.raises(ContentError, match=message):
        read_table(table(text))


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-16-le", "utf-16-be", "utf-8-sig"])
def test_a_table_in_another_encoding_is_read(table: Callable[..., Path], encoding: str) -> None:
    file = table("path,label\na/1.png,caf\u00e9\nb/1.png,x\n", encoding=encoding)
    content = read_table(file)
    assert content.class_names == ("caf\u00e9", "x")
    assert any("Windows-1252" in text for text in content.warnings) == (encoding == "cp1252")


def test_what_is_no_text_is_no_table(table: Callable[..., Path]) -> None:
    file = table("")
    file.write_bytes(b"path,label\n\x81\x8d\x8f,\x90\n")
    with pytest.raises(ContentError, match="not a table in UTF-8"):
        read_table(file)


@pytest.mark.parametrize(
    "text",
    [
        "image_id,breed\na/1,cat\nb/1,dog\n",
        "kind|where\ncat|a/1.png\ndog|b/1.png\n",
        "photo,what\n./a/1.png,cat\n./b/1.png,dog\n",
        "path;label\na\\1.png;cat\nb\\1.png;dog\n",
        "id;kind\na\\1;cat\nb\\1;dog\n",
        "a/1.png cat\nb/1.png dog\n",
        "img,cat,dog\na/1.png,1.0,0.0\nb/1.png,0.0,1.0\n",
        "fname,dog,cat,bird\na/1.png,False,True,False\nb/1.png,True,False,False\n",
        "name,labels\na/1.png,cat\nb/1.png,dog\n",
    ],
)
def test_columns_are_told_by_the_files_that_they_name(
    table: Callable[..., Path], text: str
) -> None:
    found_labels = {name.removeprefix("./"): label for name, label in found(table(text)).items()}
    assert found_labels == EXPECTED


@pytest.mark.parametrize("header", ["id,breed", "path,label", "file,who"])
def test_images_may_lie_in_a_folder_beside_the_table(folder: Folder, header: str) -> None:
    root = folder(["train/a1.png", "train/b1.png", "test/c1.png"])
    (root / "labels.csv").write_text(f"{header}\na1,cat\nb1,dog\n", encoding="utf-8")
    assert found(root / "labels.csv") == {"train/a1.png": "cat", "train/b1.png": "dog"}


def test_images_without_a_label_are_left_out_and_counted(table: Callable[..., Path]) -> None:
    file = table("path,label\na/1.png,cat\na/2.png,\nb/1.png,dog\nb/2.png,\n")
    assert found(file) == EXPECTED
    (warning,) = read_table(file).warnings
    assert "2 images without a label" in warning


@pytest.mark.parametrize("flag", ["is_valid", "IS_VAL"])
def test_a_column_of_yes_and_no_may_say_the_split(table: Callable[..., Path], flag: str) -> None:
    images = read_table(
        table(f"fname,label,{flag}\na/1.png,cat,False\nb/1.png,dog,false\na/2.png,cat,True\n")
    ).images
    assert {split: len(part) for split, part in images.items()} == {"train": 2, "validation": 1}
    images = read_table(table("fname,label,is_test\na/1.png,cat,0\nb/1.png,dog,1\n")).images
    assert {split: len(part) for split, part in images.items()} == {"train": 1, "test": 1}


@pytest.mark.parametrize(
    "labels",
    [
        ["golden retriever", "labrador retriever", "golden eagle"],
        ["red cube", "red ball", "blue cube", "blue ball", "green cube", "green ball"],
        ["Salmon, smoked", "Ham, smoked", "cheese"],
        ["a|b"],
        ["(unknown) bird", "bird"],
    ],
)
def test_names_of_several_words_are_one_label(labels: list[str]) -> None:
    assert several_labels(labels) == ""


@pytest.mark.parametrize(
    "labels",
    [["cat;dog", "dog;cat"], ["a, b", "a", "b"], ["x|y", "y|z", "x|z"], ["[1, 2]", "[2]"]],
)
def test_several_labels_in_one_are_recognised(labels: list[str]) -> None:
    assert several_labels(labels)


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_metadata_of_the_hub_labels_a_folder_of_images(folder: Folder, ending: str) -> None:
    """https://huggingface.co/docs/datasets/image_dataset: file_name, and columns of one's own."""
    root = folder(["images/1.png", "images/2.png"])
    rows = [("images/1.png", "cat"), ("images/2.png", "dog")]
    text = "file_name,label\n" + "".join(f"{name},{label}\n" for name, label in rows)
    if ending == "jsonl":
        lines = [json.dumps({"file_name": name, "label": label}) for name, label in rows]
        text = "\n".join(lines) + "\n"
    (root / f"metadata.{ending}").write_text(text, encoding="utf-8")
    for source in (root, root / f"metadata.{ending}"):
        images = read_source(source).images["all"]
        labels = [images.class_names[label] for label in images.labels]
        assert list(zip(images.names, labels, strict=True)) == rows


def test_metadata_of_the_hub_in_folders_of_splits(folder: Folder) -> None:
    root = folder(["train/1.png", "train/2.png", "test/1.png"])
    for split, rows in {"train": "1.png,cat\n2.png,dog\n", "test": "1.png,dog\n"}.items():
        text = f"file_name,label\n{rows}"
        (root / split / "metadata.csv").write_text(text, encoding="utf-8")
    content = read_source(root)
    assert content.class_names == ("cat", "dog")
    assert {split: [*part.names] for split, part in content.images.items()} == {
        "train": ["train/1.png", "train/2.png"],
        "test": ["test/1.png"],
    }


def test_captions_are_no_labels(folder: Folder) -> None:
    root = folder(["cat/1.png", "dog/1.png"])
    rows = '{"file_name": "cat/1.png", "text": "a cat", "size": 3}\n'
    (root / "metadata.jsonl").write_text(rows, encoding="utf-8")
    assert read_source(root).kind == "folder"


@pytest.mark.parametrize("missing", ["null", "NaN", '""'])
def test_a_missing_label_in_json_is_no_class(missing: str, folder: Folder) -> None:
    root = folder(["1.png", "2.png", "3.png"])
    labels = ['"cat\u2028"', '"dog"', missing]  # U+2028 ends a line of text, but not one of JSON
    rows = (f'{{"file_name": "{i}.png", "label": {each}}}' for i, each in enumerate(labels, 1))
    (root / "metadata.jsonl").write_text("\n".join(rows), encoding="utf-8")
    parts = read_source(root)
    assert parts.class_names == ("cat", "dog")
    assert [*parts.images["all"].names] == ["1.png", "2.png"]
    assert "1 image without a label" in " ".join(parts.warnings)


@pytest.mark.parametrize("missing", ["", "NaN", "nan", "<NA>"])
def test_what_pandas_writes_for_a_missing_label_is_no_class(
    missing: str, table: Callable[..., Path]
) -> None:
    text = f"path,label\na/1.png,None\nb/1.png,dog\na/2.png,{missing}\n"
    parts = read_table(table(text))
    assert parts.class_names == ("None", "dog")
    assert "1 image without a label" in " ".join(parts.warnings)


def test_objects_of_the_hub_are_called_multi_label(folder: Folder) -> None:
    root = folder(["1.png", "2.png"])
    rows = [{"file_name": "1.png", "label": [0, 1]}, {"file_name": "2.png", "label": [1]}]
    text = "\n".join(map(json.dumps, rows))
    (root / "metadata.jsonl").write_text(text, encoding="utf-8")
    with pytest.raises(ContentError, match="multi-label"):
        read_source(root)


def test_a_missing_file_is_named_or_skipped(table: Callable[..., Path]) -> None:
    text = "a/1.png,cat\nb/1.png,dog\nb/3.png,dog\n"
    with pytest.raises(ContentError, match=r"^b/3.png: cannot be read \(No such file"):
        open_data(table(text))
    splits = open_data(table(text), skip_unreadable=True, test=0, validation=0)
    assert splits.skipped == (("b/3.png", "cannot be read (No such file or directory)"),)
    assert sorted(splits.train.names) == ["a/1.png", "b/1.png"]
