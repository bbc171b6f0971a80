"""`resnets.convert` and `resnets.inspect`: the commands of these names, from Python."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import resnets
from resnets.deployment.inspection import InspectedExport, InspectedWeights
from resnets.errors import ContentError, UsageError
from resnets.images import Preprocessing
from resnets.model_file import Description, Model, architecture_of, save
from resnets.networks import build
from tests.in_process import call

NAMES = ("ant", "bee", "cat")
SEEN = Preprocessing(8, 8, (0.5,) * 3, (0.5,) * 3)
EXPORTED = Path(__file__).parent / "fixtures/before_trust/digits.onnx"


def content(file: Path) -> tuple[Any, bytes]:
    """The header of a file of safetensors, whose entries have no order, and what follows."""
    whole = file.read_bytes()
    if file.suffix == ".json":
        return json.loads(whole), b""
    end = 8 + int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8:end])
    header["__metadata__"].pop("digest", None)  # of the bytes, in their order
    return header, whole[end:]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with torchvision's names."""
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("theirs") / "theirs.pth"
    torch.save(build("resnet18", num_classes=3).state_dict(), file)
    return file


@pytest.mark.parametrize("which", ["theirs", "resnet14_cifar10", "exported"])
def test_what_a_file_holds_is_what_the_command_prints_as_json(which: str, weights: Path) -> None:
    model = {"theirs": weights, "exported": EXPORTED}.get(which, which)
    facts = resnets.inspect(model)
    assert facts.to_dict() == json.loads(call("inspect", model, "--json").stdout)
    assert isinstance(facts, InspectedExport if which == "exported" else InspectedWeights)
    assert len(repr(facts)) < 200


def test_the_file_of_a_run_is_inspected_and_a_run_without_one_is_refused(tmp_path: Path) -> None:
    network = build("resnet14", width=4, num_classes=2)
    description = Description(network.architecture.to_dict(), ("a", "b"), SEEN)
    images = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 3), np.uint8)
    words: dict[str, Any] = {"epochs": 1, "batch_size": 4, "progress": False, "report": False}
    save(tmp_path / "start.safetensors", network, description)
    words["start"] = str(tmp_path / "start.safetensors")
    run = resnets.train((images, ["a", "b"] * 8), output=tmp_path / "run", **words)
    assert resnets.inspect(run) == resnets.inspect(tmp_path / "run")
    with pytest.raises(UsageError, match="output=False"):
        resnets.inspect(replace(run, path=None))  # as one of output=False is
    file = resnets.convert(run, tmp_path / "copy.safetensors", to="resnets")
    assert content(file) == content(tmp_path / "run" / "model.safetensors")


@pytest.mark.parametrize("to", ["resnets", "huggingface", "timm"])
def test_what_is_written_is_what_the_command_writes(to: Any, weights: Path, tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("\n".join(NAMES), encoding="utf-8")
    target = tmp_path / "python" / "out"
    target.parent.mkdir()
    how: dict[str, Any] = {"size": 288, "crop_fraction": 0.95, "mean": [0.5] * 3, "std": [0.25] * 3}
    assert resnets.convert(weights, target, to=to, class_names=NAMES, **how) == target
    other = tmp_path / "out"
    words = ["--size", 288, "--crop-fraction", 0.95, "--mean", *[0.5] * 3, "--std", *[0.25] * 3]
    words += ["--to", to, "--class-names", names, "--output", other]
    assert call("convert", weights, *words).returncode == 0
    files = sorted(target.iterdir()) if target.is_dir() else [target]
    theirs = sorted(other.iterdir()) if other.is_dir() else [other]
    assert [each.name for each in files] == [each.name for each in theirs]
    assert [content(each) for each in files] == [content(each) for each in theirs]


@pytest.mark.soak
def test_a_loaded_network_is_converted_as_its_file(weights: Path, tmp_path: Path) -> None:
    file = resnets.convert(weights, tmp_path / "m.safetensors", to="resnets", class_names=NAMES)
    own = tmp_path / "loaded" / "a.safetensors"
    for to, name in (("resnets", "a.safetensors"), ("torchvision", "b.pth")):
        outputs = [tmp_path / "file" / name, tmp_path / "loaded" / name]
        for source, output in zip((file, resnets.load(file)), outputs, strict=True):
            output.parent.mkdir(exist_ok=True)
            resnets.convert(source, output, to=to)  # type: ignore[arg-type]
        first, second = (resnets.load_checkpoint(output).state_dict() for output in outputs)
        assert all(torch.equal(first[key], second[key]) for key in first)
    pixels = np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8)
    before, after = (resnets.predict(each, pixels, top=3)[0].top for each in (file, own))
    assert before == after


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"to": "keras"}, "`to` 'keras' is not one of torchvision, timm"),
        ({"to": "torchvision", "size": 64}, "`size`: out.pth holds weights alone"),
        ({"to": "resnets", "class_names": ["a", "b"]}, "`class_names`: 2 names; the network has 3"),
        ({"to": "resnets", "class_names": "none.txt"}, "none.txt: no such file"),
        ({"to": "resnets", "strided_conv": 3}, "`strided_conv` 3 is not one of 1, 2"),
        ({"to": "resnets", "blur": "gauss"}, "`blur` 'gauss' is not one of binomial, average"),
        ({"to": "resnets", "resize": 9, "crop_fraction": 1}, "`resize` and `crop_fraction`"),
        ({"to": "resnets", "mean": [0.5]}, "`mean` and `std` need as many"),
        ({"to": "resnets", "crop_mode": "ten"}, "ten"),
    ],
)
def test_wrong_use_is_refused_in_keywords_before_anything_is_written(
    arguments: dict[str, Any], message: str, weights: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        resnets.convert(weights, tmp_path / "out.pth", **arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "choice", [{"shortcut": "padding"}, {"strided_conv": 1}, {"blur": "average"}]
)
def test_what_a_model_file_says_of_its_network_is_not_chosen(
    choice: dict[str, Any], weights: Path, tmp_path: Path
) -> None:
    model, target = tmp_path / "model.safetensors", tmp_path / "out.safetensors"
    resnets.convert(weights, model, to="resnets")
    with pytest.raises(UsageError, match=f"`{next(iter(choice))}`: .*leave it out"):
        resnets.convert(model, target, to="resnets", **choice)
    words = [f"--{name.replace('_', '-')}={value}" for name, value in choice.items()]
    assert call("convert", model, "--to", "resnets", "--output", target, *words).returncode == 2
    assert not target.exists()


def test_weights_of_a_folder_that_are_not_understood_are_left_out_where_that_is_allowed(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = resnets.convert(weights, tmp_path / "theirs", to="huggingface")
    (file,) = folder.glob("*.safetensors")
    save_file(load_file(file) | {"scale": torch.ones(3)}, file, {"format": "pt"})
    target = tmp_path / "out.safetensors"
    with pytest.raises(ContentError, match="ignore_left_over"):
        resnets.convert(file, target, to="resnets")
    resnets.convert(file, target, to="resnets", ignore_left_over=True)
    assert "left out: scale" in capsys.readouterr().err
    assert resnets.load(target).network.architecture.num_classes == len(NAMES)


def test_nothing_is_written_over_unless_it_is_allowed(weights: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.safetensors"
    target.write_bytes(b"mine")
    with pytest.raises(UsageError, match="exists; give another `output`, or `overwrite=True`"):
        resnets.convert(weights, target, to="resnets")
    assert target.read_bytes() == b"mine"
    resnets.convert(weights, target, to="resnets", overwrite=True)
    assert resnets.load(target).description.class_names == ("class 0", "class 1", "class 2")
    with pytest.raises(UsageError, match=r"theirs\.pth"):
        resnets.convert(weights, weights, to="torchvision", overwrite=True)


def test_what_no_other_project_has_is_refused(weights: Path, tmp_path: Path) -> None:
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 2))
    own = Model(network, Description(architecture_of(network), ("a", "b"), SEEN))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="network of your own"):
        resnets.convert(own, tmp_path / "out.pth", to="timm")
    with pytest.raises(UsageError, match="convert writes its weights"):
        resnets.convert(EXPORTED, tmp_path / "out.pth", to="timm")
    with pytest.raises(UsageError, match="nowhere"):
        resnets.inspect(tmp_path / "nowhere")
    (tmp_path / "text.pth").write_text("no weights", encoding="utf-8")
    with pytest.raises(ContentError):
        resnets.inspect(tmp_path / "text.pth")


def test_a_crop_that_timm_begins_elsewhere_is_told(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = resnets.convert(weights, tmp_path / "timm", to="timm")
    assert "pixel" in capsys.readouterr().err.partition("--class-names")[2]
    resnets.convert(folder, tmp_path / "again", to="timm")  # of which the crop is timm's already
    assert "pixel further" not in capsys.readouterr().err
