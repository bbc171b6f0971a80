"""What a MODEL names, and what is said where it names none."""

import os
import shutil
from pathlib import Path

import pytest

from resnets import shipped
from resnets.errors import UsageError
from resnets.model_path import find_weights, meant


@pytest.mark.parametrize(
    ("path", "word"),
    [
        pytest.param(
            "/dev/zero",
            "device",
            marks=pytest.mark.skipif(os.name == "nt", reason="Windows has none"),
        ),
        ("none.safetensors", "no such file"),
        ("resnet20", "architecture"),
    ],
)
def test_what_is_no_model_is_named_as_what_it_is(path: str, word: str) -> None:
    with pytest.raises(UsageError, match=word) as caught:
        find_weights(path)
    assert ("no such file" in str(caught.value)) == (word == "no such file")


def test_what_is_called_almost_so_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("run1", "runs/bees-5", "photos"):
        Path(folder).mkdir(parents=True)
    for run in ("run1", "runs/bees-5"):
        shutil.copy(shipped.shipped(), Path(run) / "model.safetensors")
    assert meant("runn") == "; nearest: run1"
    assert meant("bees_5") == f"; nearest: {Path('runs/bees-5')}"
    assert "timm/resnet18.a1_in1k" in meant("timm/resnet18.a1_inlk")
    assert "resnet20_cifar10" in meant("resnet20_cifr10")
    for name in shipped.names():  # before longer names that are more like it
        assert meant(name.partition("_")[0]).startswith(f"; nearest: {name}")
    assert meant("timm/resnet18.a1").startswith("; nearest: timm/resnet18.a1_in1k")
    assert meant("ann/my-photos") == "; a network of the hub is hf-hub:ann/my-photos"
    assert "hub" not in meant("photos/xyzzy")
    assert meant("photo") == "", "a folder of photos is no model"


def test_a_folder_of_checkpoints_is_answered_by_one_of_them(tmp_path: Path) -> None:
    for name in ("notes.txt", "resnet20.th"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(UsageError, match=r"give one of them, such as .*resnet20\.th$"):
        find_weights(tmp_path)
