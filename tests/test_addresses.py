"""Addresses where paths are meant: refused by name, with exit code 2, by every argument."""

import os
from pathlib import Path

import pytest

import resnets
from resnets.addresses import AS_DATA, AS_FILE, AS_IMAGE, AS_OUTPUT, is_remote, refuse_address
from resnets.errors import UsageError
from tests.in_process import call

MODEL = "resnet14_cifar10"
AS_DATA_ONLY = (
    *("train URL", "find-lr URL", "doctor URL", "evaluate MODEL URL", "calibrate MODEL URL"),
    *("report MODEL URL", "compare MODEL MODEL URL", "reproduce he2015-table6 --data URL"),
    *("predict MODEL URL", "explain MODEL URL"),
    *("train digits --other URL", "evaluate MODEL digits --other URL"),
    "export MODEL --to onnx --data URL --output a.onnx",
)
IN_EACH_PLACE = (
    *("train digits --from URL", "train digits --recipe URL", "train --resume URL"),
    "train digits --output URL",
    "predict MODEL a.png --parquet URL",
    "evaluate URL digits",
    *("calibrate URL digits", "report URL digits", "compare URL MODEL digits"),
    *("export URL --to onnx", "bench URL", "convert URL --to timm", "inspect URL", "show URL"),
)
CASES = [
    *((words, url) for words in IN_EACH_PLACE for url in ("https://example.org/a/b", "s3://a/b")),
    *((words, url) for words in AS_DATA_ONLY for url in ("https://example.org/a.zip", "ftp://a/b")),
]


@pytest.mark.parametrize(("words", "url"), CASES)
def test_every_argument_says_that_an_address_is_none_of_its_paths(
    words: str, url: str, tmp_path: Path
) -> None:
    if words.startswith("reproduce"):
        words += f" --rows 20 --output {tmp_path / 'runs'}"
    done = call(*words.replace("URL", url).replace("MODEL", MODEL).split(), cwd=tmp_path)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if "address" in line]
    assert f"{url}: an address" in line
    assert not any(tmp_path.glob("*/example.org*"))


@pytest.mark.parametrize(
    ("word", "meant", "advice"),
    [
        ("abfs://bucket/photos", AS_DATA, "hub:NAME"),
        ("HTTPS://example.org/photos.zip", AS_DATA, "hub:NAME"),
        ("https://huggingface.co/datasets/uoft-cs/cifar10", AS_DATA, "hub:uoft-cs/cifar10"),
        ("hf://datasets/uoft-cs/cifar10", AS_DATA, "hub:uoft-cs/cifar10"),
        ("file:///photos", AS_DATA, "without file://"),
        ("https://example.org/a.jpg", AS_IMAGE, "curl -L https://example.org/a.jpg | resnets"),
        ("s3://bucket/a.jpg", AS_IMAGE, "download"),
        ("s3://bucket/model.safetensors", AS_FILE, "download"),
        (Path("https://example.org/net.onnx"), AS_OUTPUT, "copy"),  # which loses a slash
    ],
)
def test_it_says_what_to_do_instead(word: str | Path, meant: str, advice: str) -> None:
    with pytest.raises(UsageError, match="an address") as caught:
        refuse_address(word, meant)
    assert advice in str(caught.value)
    assert "://" in str(caught.value)


HUB = "https://huggingface.co/datasets/uoft-cs/cifar10"


@pytest.mark.parametrize(
    "word",
    [
        *("s3://bucket/shards", "GS://b", "https://example.org/a%20b/"),
        *(f"{HUB}/resolve/main/plain_text/train-{{0..1}}.parquet", f"{HUB}/resolve/v1/a.TAR"),
    ],
)
def test_folders_in_remote_places_are_data(word: str) -> None:
    assert is_remote(word)


@pytest.mark.parametrize("page", ["", "/tree/main/data", "/blob/main/a.parquet", "/resolve/main/a"])
def test_a_page_of_the_hub_is_not_a_folder_of_data(page: str) -> None:
    with pytest.raises(UsageError, match="hub:uoft-cs/cifar10"):
        is_remote(HUB + page)


@pytest.mark.parametrize("word", ["photos", "C:/photos", "ftp://example.org/a", "file:///photos"])
def test_other_words_are_no_remote_folders(word: str) -> None:
    assert not is_remote(word)


@pytest.mark.parametrize(
    "word",
    ["https://me:secret@example.org/a", "s3://b/a?X-Amz-Signature=secret", "http://e.org/a#secret"],
)
def test_what_may_be_a_secret_is_refused_and_not_repeated(word: str) -> None:
    with pytest.raises(UsageError, match="environment") as caught:
        is_remote(word)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "word", ["s3:/a/b", "s3://", "gs:///a", "https:/me:secret@a/b", Path("s3://a/b")]
)
def test_an_address_without_a_host_is_refused_before_anything_is_asked(word: str | Path) -> None:
    with pytest.raises(UsageError, match=r"://(BUCKET|HOST)/") as caught:
        is_remote(word)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("word", ["photos", "C:/photos", "C:\\photos", "hub:a/b", "a:b", "x//y"])
def test_paths_are_no_addresses(word: str) -> None:
    refuse_address(word, AS_DATA)


@pytest.mark.skipif(os.name == "nt", reason="no colon in names of folders there")
def test_a_folder_of_such_a_name_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("https:/example.org").mkdir(parents=True)
    refuse_address("https://example.org", AS_DATA)


def test_python_is_told_the_same() -> None:
    for use in (resnets.load, resnets.doctor, lambda url: resnets.predict(MODEL, url)):
        with pytest.raises(UsageError, match="ftp://host/x: an address"):
            use("ftp://host/x")
