"""Addresses where paths are meant: refused by name, with exit code 2, by every argument."""

import os
from pathlib import Path

import pytest

import resnets
from resnets.addresses import AS_DATA, AS_FILE, AS_IMAGE, AS_OUTPUT, refuse_address
from resnets.errors import UsageError
from tests.in_process import call

MODEL = "resnet14_cifar10"
IN_EACH_PLACE = (
    *("train URL", "train digits --from URL", "train digits --recipe URL", "train --resume URL"),
    *("train digits --other URL", "train digits --output URL", "find-lr URL", "doctor URL"),
    *("predict MODEL URL", "explain MODEL URL", "predict MODEL a.png --parquet URL"),
    *("evaluate URL digits", "evaluate MODEL URL", "evaluate MODEL digits --other URL"),
    *("calibrate URL digits", "calibrate MODEL URL", "report URL digits", "report MODEL URL"),
    *("compare URL MODEL digits", "compare MODEL MODEL URL", "reproduce he2015-table6 --data URL"),
    *("export URL --to onnx", "export MODEL --to onnx --data URL --output a.onnx"),
    *("bench URL", "convert URL --to timm", "inspect URL", "show URL"),
)


@pytest.mark.parametrize("words", IN_EACH_PLACE)
@pytest.mark.parametrize("url", ["https://example.org/a/b", "s3://bucket/a/b"])
def test_every_argument_says_that_an_address_is_none_of_its_paths(
    words: str, url: str, tmp_path: Path
) -> None:
    if words.startswith("reproduce"):
        words += f" --rows 20 --output {tmp_path / 'runs'}"
    done = call(*words.replace("URL", url).replace("MODEL", MODEL).split(), cwd=tmp_path)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if "address" in line]
    assert f"{url}: an address" in line
    assert not any(tmp_path.glob("*/example.org"))


@pytest.mark.parametrize(
    ("word", "meant", "told"),
    [
        ("gs://bucket/photos", AS_DATA, "hub:NAME"),
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
def test_it_says_what_to_do_instead(word: str | Path, meant: str, told: str) -> None:
    with pytest.raises(UsageError, match="an address") as caught:
        refuse_address(word, meant)
    assert told in str(caught.value)
    assert "://" in str(caught.value)


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
        with pytest.raises(UsageError, match="s3://bucket/x: an address"):
            use("s3://bucket/x")
