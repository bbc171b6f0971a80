"""What convert writes is complete in its new home: preprocessing and class names go with it."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from resnets import load, predict
from resnets.cli import main
from resnets.data.membership import NONE, Generation, TrainedOn
from resnets.images import Preprocessing
from resnets.model_file import Description, Model, read_description, read_header, save
from resnets.networks import build
from tests.calibration import calibration_at

CLASSES = ("ant", "bee", "cat")
SEEN = Preprocessing(48, 54, (0.5,) * 3, (0.25,) * 3, interpolation="bicubic", crop_rounding="even")
CALIBRATION = calibration_at(0.4, temperature=2.5)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    network = build("resnet18", num_classes=3).eval()
    description = Description(network.architecture.to_dict(), CLASSES, SEEN)
    save(tmp_path / "model.safetensors", network, description)
    return tmp_path / "model.safetensors"


def table(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_a_folder_for_transformers_has_its_image_processor_and_class_names(model: Path) -> None:
    assert main(["convert", str(model), "--to", "huggingface"]) == 0
    folder = model.parent / "model-huggingface"
    processor = table(folder / "preprocessor_config.json")
    assert processor["image_processor_type"] == "BitImageProcessor"
    assert processor["size"] == {"shortest_edge": 54}
    assert processor["crop_size"] == {"height": 48, "width": 48}
    assert processor["resample"] == 3  # PIL.Image.Resampling.BICUBIC
    assert processor["image_mean"] == [0.5] * 3
    assert table(folder / "config.json")["id2label"] == dict(zip("012", CLASSES, strict=True))


def test_a_folder_for_timm_has_its_pretrained_cfg_and_class_names(model: Path) -> None:
    assert main(["convert", str(model), "--to", "timm"]) == 0
    config = table(model.parent / "model-timm" / "config.json")
    own = config["pretrained_cfg"]
    assert (config["architecture"], config["label_names"]) == ("resnet18", list(CLASSES))
    assert (own["input_size"], own["crop_mode"]) == ([3, 48, 48], "center")
    assert (own["interpolation"], math.floor(48 / own["crop_pct"])) == ("bicubic", 54)


@pytest.mark.parametrize("project", ["timm", "huggingface"])
def test_a_folder_comes_back_as_the_model_that_it_was(project: str, model: Path) -> None:
    """Transformers rounds down where the crop begins; nothing else is lost."""
    assert main(["convert", str(model), "--to", project]) == 0
    folder, back = model.parent / f"model-{project}", model.parent / "back.safetensors"
    assert main(["convert", str(folder), "--to", "resnets", "--output", str(back)]) == 0
    description = read_description(back)
    rounding: Any = "even" if project == "timm" else "down"
    assert description.preprocessing == replace(SEEN, crop_rounding=rounding)
    assert description.class_names == CLASSES
    weights, original = load_file(back), load_file(model)
    assert all(torch.equal(weights[name], original[name]) for name in original)


@pytest.mark.parametrize(("project", "rounding"), [("timm", "down"), ("huggingface", "even")])
def test_a_project_that_cuts_images_elsewhere_is_told(
    project: str, rounding: str, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = load(model)
    roundings: tuple[Literal["down", "even"], ...] = ("down", "even")
    for own in roundings:
        seen = replace(SEEN, crop_rounding=own)
        save(model, source.network, replace(source.description, preprocessing=seen))
        assert main(["convert", str(model), "--to", project, "--overwrite"]) == 0
        assert ("pixel elsewhere" in capsys.readouterr().out) == (own == rounding)


def test_what_a_folder_has_no_place_for_is_told(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = load(model)
    trained_on = TrainedOn((Generation.of("photos", np.array([7], "u8"), NONE),)).to_dict()
    for values, words in (
        ({}, []),
        ({"calibration": CALIBRATION}, ["thresholds"]),
        ({"trained_on": trained_on}, ["digests"]),
        ({"calibration": CALIBRATION, "trained_on": trained_on}, ["thresholds", "digests"]),
    ):
        save(model, source.network, replace(source.description, **values))
        assert main(["convert", str(model), "--to", "timm", "--overwrite"]) == 0
        text = capsys.readouterr().out
        assert [word for word in ("thresholds", "digests") if word in text] == words


def test_softmax_gives_calibrated_probabilities_there_too(
    model: Path, draw_noise: Callable[..., None]
) -> None:
    source = load(model)
    calibrated = replace(source.description, calibration=CALIBRATION)
    save(model, source.network, calibrated)
    draw_noise(model.parent / "photo.png")
    assert main(["convert", str(model), "--to", "timm"]) == 0
    folder, back = model.parent / "model-timm", model.parent / "back.safetensors"
    assert main(["convert", str(folder), "--to", "resnets", "--output", str(back)]) == 0
    photo = model.parent / "photo.png"
    answers = [predict(each, photo)[0].top for each in (Model(source.network, calibrated), back)]
    for (name, probability), (other, again) in zip(*answers, strict=True):
        assert name == other
        assert probability == pytest.approx(again, abs=1e-6)


def test_the_weights_alone_are_written_where_the_ending_says_so(model: Path) -> None:
    target = model.parent / "weights.pth"
    assert main(["convert", str(model), "--to", "timm", "--output", str(target)]) == 0
    assert "conv1.weight" in torch.load(target)


def test_flags_say_how_images_are_prepared(tmp_path: Path) -> None:
    weights, target = tmp_path / "theirs.pth", tmp_path / "ours.safetensors"
    torch.save(build("resnet18", num_classes=3).state_dict(), weights)
    words = ["convert", str(weights), "--to", "resnets", "--output", str(target), "--overwrite"]

    def made(*flags: str) -> Preprocessing:
        assert main([*words, *flags]) == 0
        return read_description(target).preprocessing

    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    assert made() == Preprocessing(224, 256, mean, std)
    assert made("--size", "288", "--crop-fraction", "1") == Preprocessing(288, 288, mean, std)
    assert made("--crop-fraction", "0.95").resize == 235
    half = ("--mean", *["0.5"] * 3, "--std", *["0.5"] * 3)
    squashed = made(*half, "--crop-mode", "squash", "--interpolation", "bicubic", "--resize", "224")
    assert squashed == Preprocessing(
        224, 224, (0.5,) * 3, (0.5,) * 3, interpolation="bicubic", crop_mode="squash"
    )


def test_a_test_size_of_its_own_gives_up_what_was_measured_at_the_old_one(model: Path) -> None:
    source = load(model)
    save(model, source.network, replace(source.description, calibration=CALIBRATION))
    target = model.parent / "larger.safetensors"
    words = ["convert", str(model), "--to", "resnets", "--output", str(target)]
    assert main([*words, "--size", "64"]) == 0
    description = read_description(target)
    assert description.preprocessing == replace(SEEN, size=64, resize=72)
    assert description.calibration == {}
    assert main([*words, "--overwrite"]) == 0
    assert read_description(target).calibration == CALIBRATION


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--resize", "256", "--crop-fraction", "0.9"], "give one of them"),
        (["--crop-fraction", "0"], "above 0 and at most 1"),
        (["--size", "300", "--resize", "256"], "size 300 is more than resize 256"),
        (["--mean", "0.5", "--std", "0.5"], "takes 3 channels"),
        (["--crop-mode", "ten"], "ten"),
    ],
)
def test_wrong_preprocessing_is_refused_before_anything_is_written(
    flags: list[str], message: str, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(model.parent.iterdir())
    assert main(["convert", str(model), "--to", "resnets", *flags]) == 2
    assert message in capsys.readouterr().err
    assert sorted(model.parent.iterdir()) == before


def test_what_another_project_cannot_say_is_refused(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["convert", str(model), "--to", "huggingface", "--crop-mode", "border"]
    assert main(words) == 2
    assert "border" in capsys.readouterr().err
    assert not (model.parent / "model-huggingface").exists()
    narrow = build("resnet18", width=32, num_classes=3)
    description = replace(read_description(model), architecture=narrow.architecture.to_dict())
    save(model, narrow, description)
    assert main(["convert", str(model), "--to", "timm"]) == 2
    assert "--output FILE.pth" in capsys.readouterr().err


def test_images_of_a_size_of_their_own_are_predicted_at_it(model: Path) -> None:
    target = model.parent / "larger.safetensors"
    words = ["convert", str(model), "--to", "resnets", "--output", str(target)]
    assert main([*words, "--size", "64", "--crop-fraction", "1"]) == 0
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    network = load(target).network
    inputs = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        expected = network((inputs - 0.5) / 0.25).softmax(1)[0].max().item()
    assert predict(target, pixels)[0].probability == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("flag", [("--size", "64"), ("--mean", "0.1", "0.2", "0.3")])
def test_what_weights_alone_cannot_hold_is_refused(
    untrained: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    flag: tuple[str, ...],
) -> None:
    target = tmp_path / "w.pth"
    words = ["convert", str(untrained(CLASSES)), "--to", "torchvision", "--output", str(target)]
    assert main([*words, *flag]) == 2
    assert flag[0] in capsys.readouterr().err
    assert not target.exists()


def test_a_place_for_the_stride_is_refused_where_nothing_has_one(
    bare: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wide = tmp_path / "wide.th"
    torch.save(build("resnet50", width=4, num_classes=3).state_dict(), wide)
    for source, code in ((bare, 2), (wide, 0)):
        target = source.with_suffix(".safetensors")
        words = ["convert", str(source), "--to", "resnets", "--output", str(target)]
        assert main([*words, "--strided-conv", "1"]) == code
        assert ("--strided-conv" in capsys.readouterr().err) == (code == 2)
        assert target.exists() == (code == 0)


def test_without_output_it_writes_beside_the_source_and_replaces_nothing(
    bare: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["convert", str(bare), "--to", "resnets"]
    target = bare.with_name("bare-resnets.safetensors")
    assert main(words) == 0
    assert str(target) in capsys.readouterr().out
    before = target.read_bytes()
    assert main(words) == 2
    assert str(target) in capsys.readouterr().err
    assert target.read_bytes() == before


@pytest.mark.parametrize("flag", [("--max-loss", "1"), ("--force",)])
def test_export_refuses_what_only_int8_has(
    untrained: Callable[..., Path], capsys: pytest.CaptureFixture[str], flag: tuple[str, ...]
) -> None:
    assert main(["export", str(untrained(CLASSES)), "--to", "onnx", *flag]) == 2
    printed = capsys.readouterr().err
    assert flag[0] in printed
    assert "--int8" in printed


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """Weights alone, of a network for small images."""
    torch.manual_seed(0)
    torch.save(build("resnet14", width=4, num_classes=3).state_dict(), tmp_path / "bare.th")
    Image.new("RGB", (32, 32), "red").save(tmp_path / "red.png")
    return tmp_path / "bare.th"


@pytest.mark.soak
def test_what_a_checkpoint_does_not_tell_is_assumed_in_words_and_in_the_file(
    bare: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["convert", str(bare), "--to", "resnets"]) == 0
    printed = capsys.readouterr().out
    for words in ("0.485 0.456 0.406", "0.229 0.224 0.225", "32 pixels", "'class 0'", "--mean"):
        assert words in printed
    file, image = bare.with_name("bare-resnets.safetensors"), bare.with_name("red.png")
    assert read_description(file).assumed == ("mean", "std", "size", "class names")
    assert main(["inspect", str(file)]) == 0
    shown = capsys.readouterr().out
    assert "assumed" in shown
    assert "trained on  the file does not say" in shown
    assert f"converted   from {bare}" in shown
    for command in (
        ["predict", str(file), str(image)],
        ["explain", str(file), str(image), "--output", str(bare.parent / "maps")],
        ["export", str(file), "--to", "torch"],
    ):
        assert main(command) == 0
        assert capsys.readouterr().err.count("assumed: mean, std, size, class names") == 1
    again = file.with_name("again.safetensors")
    words = ["convert", str(file), "--to", "resnets", "--output", str(again), "--mean"]
    assert main([*words, "0.5", "0.5", "0.5"]) == 0
    assert read_description(again).assumed == ("std", "size", "class names")


def test_nothing_is_assumed_where_flags_or_the_file_tell_it(bare: Path, model: Path) -> None:
    (bare.parent / "names.txt").write_text("ant\nbee\ncat\n", encoding="utf-8")
    words = ["--mean", "0.5", "0.5", "0.5", "--std", "0.2", "0.2", "0.2"]
    words += ["--class-names", str(bare.parent / "names.txt")]
    assert main(["convert", str(bare), "--to", "resnets", *words]) == 0
    header = read_header(bare.with_name("bare-resnets.safetensors"))
    assert main(["convert", str(model), "--to", "resnets"]) == 0
    assert "assumed" not in header | read_header(model.with_name("model-resnets.safetensors"))


def test_a_checkpoint_that_earlier_versions_named_as_data_is_none(tmp_path: Path) -> None:
    network = build("resnet14", width=4, num_classes=3)
    before = Description(network.architecture.to_dict(), CLASSES, SEEN, data={"source": "a/b.th"})
    save(tmp_path / "old.safetensors", network, before)
    assert read_description(tmp_path / "old.safetensors").data == {"converted_from": "a/b.th"}
