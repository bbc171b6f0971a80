import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from resnets.networks import build
from tests.in_process import call as resnets

Shared = Callable[[str], Path]


def test_a_real_foreign_checkpoint_is_described(shared: Shared) -> None:
    path = shared("weights/akamaster_resnet20.th")
    done = resnets("inspect", path)
    assert done.returncode == 0, done.stderr
    for words in ("resnet20", "akamaster/pytorch_resnet_cifar10", "padding", "269,722 (float32)"):
        assert words in done.stdout
    facts = json.loads(resnets("inspect", path, "--json").stdout)
    assert facts["depths"] == [3, 3, 3]
    assert facts["parameters"] == 269_722  # He et al. 2015, table 6, say 0.27 million
    assert facts["missing"] == facts["left_over"] == []


def test_what_is_missing_and_left_over_is_said(tmp_path: Path) -> None:
    state = build("resnet14", width=4).state_dict()
    del state["layer2.0.bn1.weight"], state["fc.weight"], state["fc.bias"]
    torch.save({"model": state | {"queue": torch.zeros(3)}}, tmp_path / "part.pth")
    done = resnets("inspect", tmp_path / "part.pth")
    assert "no classifier" in done.stdout
    assert "missing     layer2.0.bn1.weight" in done.stdout
    assert "left over   model.queue" in done.stdout


def test_what_convert_writes_is_recognised_and_never_overwritten(tmp_path: Path) -> None:
    torch.save(build("resnet18", num_classes=3).state_dict(), tmp_path / "r18.pth")
    done = resnets("convert", tmp_path / "r18.pth", "--to", "huggingface")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "r18-huggingface"
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["depths"] == [2, 2, 2, 2]
    assert len(config["id2label"]) == 3
    facts = json.loads(resnets("inspect", folder / "model.safetensors", "--json").stdout)
    assert (facts["network"], facts["layout"]) == ("resnet18", "huggingface")
    again = resnets("convert", tmp_path / "r18.pth", "--to", "huggingface")
    assert again.returncode == 2
    assert "--overwrite" in again.stderr


@pytest.mark.parametrize("ending", ["onnx", "xml", "pt2"])
def test_an_exported_file_tells_what_goes_in_and_comes_out(ending: str) -> None:
    path = Path(__file__).parents[1] / f"fixtures/before_trust/digits.{ending}"
    facts = json.loads(resnets("inspect", path, "--json").stdout)
    outputs = ["softmax", "flatten_1"] if ending == "pt2" else ["probabilities", "features"]
    assert (facts["inputs"], facts["outputs"]) == (["images"], outputs)
    assert (facts["classes"], facts["precision"]) == (10, "float32")
    shown = resnets("inspect", path).stdout
    assert ", ".join(outputs) in shown
    assert "64 images" in shown


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["inspect", "nowhere.pth"], 2, "nowhere.pth: no such file"),
        (["inspect", __file__], 1, "not a weight file"),
        (["convert", "nowhere.pth", "--to", "timm"], 2, "nowhere.pth: no such file"),
        (["convert", "nowhere.pth", "--to", "nobody"], 2, "not one of"),
    ],
)
def test_bad_files_and_wrong_use_are_told_apart(words: list[str], code: int, said: str) -> None:
    done = resnets(*words)
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr
