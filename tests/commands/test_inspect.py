import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from resnets.errors import GuessWarning
from resnets.model_file import read_description
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
    ("words", "code", "message"),
    [
        (["inspect", "nowhere.pth"], 2, "nowhere.pth: no such file"),
        (["inspect", __file__], 1, "not a weight file"),
        (["convert", "nowhere.pth", "--to", "timm"], 2, "nowhere.pth: no such file"),
        (["convert", "nowhere.pth", "--to", "nobody"], 2, "not one of"),
    ],
)
def test_bad_files_and_wrong_use_are_told_apart(words: list[str], code: int, message: str) -> None:
    done = resnets(*words)
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_every_weight_that_is_not_understood_is_listed_and_buffers_are_counted_apart(
    shared: Shared,
) -> None:
    path = shared("weights/apot_res20_4bit.pth.tar")
    facts = json.loads(resnets("inspect", path, "--json").stdout)
    assert len(facts["not_understood"]) == len(facts["left_over"]) == 40
    assert len(facts["training"]) == 105
    table = resnets("inspect", path).stdout
    assert max(map(len, table.splitlines())) < 200  # one name a line
    assert all(name in table for name in facts["not_understood"])
    assert "momentum_buffer" not in table
    assert "105 buffers" in table
    assert table.splitlines()[1].split()[0] == "refused"
    assert "left over" not in table  # nothing else is


def test_convert_refuses_what_it_does_not_understand_or_lists_it_when_told(
    shared: Shared, tmp_path: Path
) -> None:
    words = ("--to", "resnets", "--output", tmp_path / "out.safetensors")
    path = shared("weights/layerfolding_prefold_resnet20.ckpt")
    refused = resnets("convert", path, *words)
    assert (refused.returncode, (tmp_path / "out.safetensors").exists()) == (1, False)
    assert "not understood" in refused.stderr
    done = resnets("convert", path, *words, "--ignore-left-over")
    assert done.returncode == 0, done.stderr
    assert "left out" in done.stderr
    assert "layer3.2.alpha2.alpha" in done.stderr


def test_a_guessed_network_is_measured_at_once_and_takes_the_names_of_the_classes(
    tmp_path: Path,
) -> None:
    state = build("resnet14", width=4, num_classes=10).state_dict()
    torch.save({f"w{i * 7919 % 1000}": v for i, v in enumerate(state.values())}, tmp_path / "w.pth")
    target = tmp_path / "out.safetensors"
    words = ("--to", "resnets", "--output", target, "--size", "8", "--verify", "digits")
    with pytest.warns(GuessWarning, match="shapes and their order"):
        done = resnets("convert", tmp_path / "w.pth", *words)
    assert done.returncode == 0, done.stderr
    assert "accuracy on digits" in done.stdout
    assert "not shown to be better" in done.stderr  # its weights are random
    assert read_description(target).class_names == tuple("0123456789")


def test_what_no_weights_show_is_chosen_by_flags(tmp_path: Path) -> None:
    torch.save(build("resnet20", num_classes=10).state_dict(), tmp_path / "w.pth")
    words = ("--to", "resnets", "--output", tmp_path / "out.safetensors")
    done = resnets("convert", tmp_path / "w.pth", *words, "--shortcut", "padding_after")
    assert done.returncode == 0, done.stderr
    about = read_description(tmp_path / "out.safetensors")
    assert about.architecture["shortcut"] == "padding_after"


def test_how_images_are_prepared_is_shown_and_a_cut_file_is_called_that(
    untrained: Callable[..., Path], tmp_path: Path
) -> None:
    file = untrained(("a", "b"), side=24, resize=30)
    for command in ("inspect", "show"):
        shown = resnets(command, file).stdout
        assert all(word in shown for word in ("24", "30", "bilinear", "center"))
    (tmp_path / "cut.safetensors").write_bytes(file.read_bytes()[:100])
    cut = resnets("inspect", tmp_path / "cut.safetensors")
    assert cut.returncode == 1
    assert "cut off" in cut.stderr
    assert "JSON" not in cut.stderr
