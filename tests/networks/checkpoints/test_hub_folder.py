"""Folders with config.json, as timm and transformers write them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from resnets.errors import ContentError
from resnets.networks import ResNet, build
from resnets.networks.checkpoints.conversion import convert
from resnets.networks.checkpoints.hub_folder import is_hub_folder, read_hub_folder

CLASSES = ("ant", "bee", "cat")
HALF = [0.5, 0.5, 0.5]
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
TIMM: dict[str, Any] = {  # timm/resnet50.a1_in1k, without what does not matter here
    "architecture": "resnet50",
    "num_classes": 1000,
    "pretrained_cfg": {
        "input_size": [3, 224, 224],
        "test_input_size": [3, 288, 288],
        "interpolation": "bicubic",
        "crop_pct": 0.95,
        "test_crop_pct": 1.0,
        "crop_mode": "center",
        "mean": MEAN,
        "std": STD,
    },
}
RESNET: dict[str, Any] = {"model_type": "resnet", "num_channels": 3, "hidden_act": "relu"}
CONVNEXT: dict[str, Any] = {  # of microsoft/resnet-50
    "crop_pct": 0.875,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "ConvNextFeatureExtractor",
    "image_mean": MEAN,
    "image_std": STD,
    "resample": 3,
    "size": 224,
}
BIT: dict[str, Any] = {
    "image_processor_type": "BitImageProcessor",
    "do_center_crop": True,
    "crop_size": {"height": 448, "width": 448},
    "size": {"shortest_edge": 500},
    "resample": 2,
    "image_mean": HALF,
    "image_std": HALF,
}


def network() -> ResNet:
    torch.manual_seed(0)
    return build("resnet50", depths=(1, 1, 1, 1), width=8, num_classes=3).eval()


def folder(path: Path, config: Any, processor: Any = None, weights: Any = None) -> Path:
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps(config))
    if processor is not None:
        (path / "preprocessor_config.json").write_text(json.dumps(processor))
    save_file(weights or {"fc.weight": torch.zeros(1)}, path / "model.safetensors")
    return path


def changed(config: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The config with other values in its pretrained_cfg."""
    return config | {"pretrained_cfg": config["pretrained_cfg"] | changes}


@pytest.mark.parametrize(
    ("changes", "size", "resize"),
    [
        ({}, 288, 288),
        ({"test_crop_pct": None}, 288, 303),  # 303.16
        ({"test_input_size": None, "test_crop_pct": None}, 224, 235),  # 235.79
        ({"test_input_size": None, "test_crop_pct": None, "crop_pct": 0.875}, 224, 256),
    ],
)
def test_timms_images_are_as_large_as_it_validates_them(
    changes: dict[str, Any], size: int, resize: int, tmp_path: Path
) -> None:
    """timm 1.0, validate.py: use_test_size; transforms_factory.py: floor(size / crop_pct)."""
    contents = read_hub_folder(folder(tmp_path, changed(TIMM, **changes)))
    seen = contents.preprocessing
    assert (seen.size, seen.resize) == (size, resize)
    assert (seen.interpolation, seen.crop_mode, seen.crop_rounding) == ("bicubic", "center", "even")
    assert (list(seen.mean), list(seen.std)) == (MEAN, STD)
    assert contents.training_size == (224 if size == 288 else None)
    assert contents.class_names == ()
    assert contents.changes["strided_conv"] == 2


def test_timms_labels_crop_mode_and_grey_images_are_read(tmp_path: Path) -> None:
    config = changed(TIMM, crop_mode="squash", mean=HALF, std=[0.1, 0.2, 0.3])
    config |= {"label_names": {"1": "bee", "0": "ant"}, "model_args": {"in_chans": 1}}
    contents = read_hub_folder(folder(tmp_path, config))
    assert contents.class_names == ("ant", "bee")
    assert contents.preprocessing.crop_mode == "squash"
    assert contents.preprocessing.mean == (0.5,)
    assert contents.preprocessing.std == pytest.approx((0.2,))


def test_the_flat_form_of_timms_older_files_is_read(tmp_path: Path) -> None:
    config = {"architecture": "resnet18", "labels": ["a", "b"]} | TIMM["pretrained_cfg"]
    contents = read_hub_folder(folder(tmp_path, config))
    assert (contents.class_names, contents.preprocessing.size) == (("a", "b"), 288)


@pytest.mark.parametrize(
    ("processor", "expected"),
    [
        (CONVNEXT, (224, 256, "bicubic", "center")),
        (CONVNEXT | {"size": {"shortest_edge": 384}}, (384, 384, "bicubic", "squash")),
        (CONVNEXT | {"crop_pct": 0.95, "resample": 2}, (224, 235, "bilinear", "center")),
        (BIT, (448, 500, "bilinear", "center")),
        (
            {"image_processor_type": "ViTImageProcessor", "size": {"height": 96, "width": 96}},
            (96, 96, "bilinear", "squash"),
        ),
    ],
)
def test_image_processors_of_transformers_are_understood(
    processor: Any, expected: tuple[int, int, str, str], tmp_path: Path
) -> None:
    config = RESNET | {"id2label": dict(enumerate(CLASSES)), "layer_type": "basic"}
    contents = read_hub_folder(folder(tmp_path, config, processor))
    seen = contents.preprocessing
    assert (seen.size, seen.resize, seen.interpolation, seen.crop_mode) == expected
    assert seen.crop_rounding == "down"
    assert contents.class_names == CLASSES
    assert not contents.notes


@pytest.mark.parametrize(
    ("depths", "kind", "resize", "interpolation"),
    [
        ([2, 2, 2, 2], "basic", 256, "bilinear"),
        ([2, 2, 2, 2], "bottleneck", 256, "bicubic"),
        ([3, 4, 6, 3], "bottleneck", 235, "bicubic"),
    ],
)
def test_microsofts_networks_get_the_preprocessing_of_their_weights(
    depths: list[int], kind: str, resize: int, interpolation: str, tmp_path: Path
) -> None:
    """Their own file is ConvNeXT's; timm 0.5.4, whose weights they are, is the witness."""
    labels = {number: f"class {number}" for number in range(1000)} | {0: "tench, Tinca tinca"}
    config = RESNET | {"depths": depths, "layer_type": kind, "id2label": labels}
    contents = read_hub_folder(folder(tmp_path / "published", config, CONVNEXT))
    seen = contents.preprocessing
    assert (seen.size, seen.resize, seen.interpolation) == (224, resize, interpolation)
    assert len(contents.notes) == (0 if (kind, resize) == ("bottleneck", 256) else 1)
    assert all("ConvNeXT" in note for note in contents.notes)
    own = config | {"id2label": dict(enumerate(CLASSES))}  # trained on with that processor
    tuned = read_hub_folder(folder(tmp_path / "tuned", own, CONVNEXT))
    assert (tuned.preprocessing.resize, tuned.notes) == (256, ())


@pytest.mark.parametrize("project", ["timm", "huggingface"])
def test_the_network_computes_as_before_it_left(project: str, tmp_path: Path) -> None:
    original = network()
    weights = {name: value.clone() for name, value in convert(original, project).items()}
    config = RESNET | {"id2label": dict(enumerate(CLASSES)), "layer_type": "bottleneck"}
    config = config if project == "huggingface" else TIMM | {"label_names": CLASSES}
    contents = read_hub_folder(folder(tmp_path, config, CONVNEXT, weights))
    assert is_hub_folder(tmp_path)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(contents.network()(images), original(images))


def test_a_stride_in_the_first_convolution_is_read(tmp_path: Path) -> None:
    config = RESNET | {"layer_type": "bottleneck", "downsample_in_bottleneck": True}
    contents = read_hub_folder(folder(tmp_path, config))
    assert contents.changes == {"strided_conv": 1}
    (note,) = contents.notes
    assert "no preprocessor_config.json" in note


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_weights_of_half_precision_become_float32(half: torch.dtype, tmp_path: Path) -> None:
    original = network()
    weights = {name: value.to(half) for name, value in convert(original, "timm").items()}
    contents = read_hub_folder(folder(tmp_path, TIMM | {"label_names": CLASSES}, None, weights))
    restored = contents.network()
    assert {value.dtype for value in restored.parameters()} == {torch.float32}
    expected = original.fc.weight.to(half).float()
    assert torch.equal(restored.fc.weight, expected)


BAD = [
    ([], None, "not a table"),
    ({}, None, "has no architecture"),
    ({"model_type": "bit"}, None, "model_type is 'bit'"),
    (changed(TIMM, interpolation="lanczos"), None, "interpolation is 'lanczos'"),
    (changed(TIMM, test_input_size=[3, 224, 256]), None, "only squares"),
    (changed(TIMM, test_crop_pct=1.5), None, "crop_pct is 1.5"),
    (changed(TIMM, test_crop_pct="x"), None, "crop_pct is 'x'"),
    (changed(TIMM, crop_mode="ten"), None, "crop_mode is 'ten'"),
    (changed(TIMM, mean=["x"]), None, "config.json"),
    (changed(TIMM, input_size=7, test_input_size=7), None, "config.json"),
    (RESNET | {"hidden_act": "gelu"}, CONVNEXT, "hidden_act is 'gelu'"),
    (RESNET | {"id2label": {"0": "a", "2": "b"}}, CONVNEXT, "not from 0 on"),
    (RESNET | {"id2label": ["a", "b"]}, CONVNEXT, "not a table by number"),
    (RESNET | {"num_channels": 10**9}, CONVNEXT, "1000000000 channels"),
    (RESNET, CONVNEXT | {"resample": 1}, "preprocessor_config.json: resample is 1"),
    (RESNET, CONVNEXT | {"size": {"height": 2, "width": 3}}, "only squares"),
    (RESNET, BIT | {"do_center_crop": False}, "would not be square"),
    (RESNET, BIT | {"do_resize": False}, "do_resize"),
    (RESNET, BIT | {"rescale_factor": 1.0}, "rescale_factor is 1.0"),
    (RESNET, BIT | {"image_std": [0.0] * 3}, "std is"),
    (RESNET, BIT | {"resample": [3]}, "preprocessor_config.json"),
]


@pytest.mark.parametrize(("config", "processor", "message"), BAD)
def test_what_cannot_be_prepared_alike_is_refused_in_one_line(
    config: Any, processor: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ContentError, match=message) as error:
        read_hub_folder(folder(tmp_path, config, processor))
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_folder_without_weights_and_one_whose_names_do_not_fit_are_refused(
    tmp_path: Path,
) -> None:
    empty = folder(tmp_path / "empty", TIMM)
    (empty / "model.safetensors").unlink()
    assert not is_hub_folder(empty)
    with pytest.raises(ContentError, match="no weights in it"):
        read_hub_folder(empty)
    weights = {name: value.clone() for name, value in convert(network(), "timm").items()}
    other = folder(tmp_path / "other", TIMM | {"label_names": ["a", "b"]}, None, weights)
    with pytest.raises(ContentError, match=r"2 class names .* the weights have 3 classes"):
        read_hub_folder(other).network()
