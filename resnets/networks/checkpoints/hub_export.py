"""Folders that timm's and transformers' own loaders read: weights, preprocessing, class names."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnets.errors import UsageError
from resnets.files.writing import write_atomically
from resnets.images import Preprocessing
from resnets.json_text import to_json
from resnets.networks.architecture import Architecture
from resnets.networks.catalog import name_of
from resnets.networks.checkpoints.conversion import convert
from resnets.networks.checkpoints.hub_folder import CONFIG, PREPROCESSOR, WEIGHTS

if TYPE_CHECKING:
    from torch import Tensor

    from resnets.networks.resnet import ResNet

FILES = {"huggingface": (CONFIG, WEIGHTS[0], PREPROCESSOR), "timm": (CONFIG, WEIGHTS[0])}
_RESAMPLING = {"bilinear": 2, "bicubic": 3}  # Pillow's numbers
_TIMM_LACKS = ("resnext50_32x8d", "resnext50_64x4d", "ecaresnet50", "resnetv2_200")  # our names


@dataclass(frozen=True)
class Contents:
    """What a folder is to hold.

    Attributes:
        network: the weights.
        class_names: one a logit.
        preprocessing: of the images to predict.
        temperature: by which the classifier's weights are divided, so that softmax gives
            calibrated probabilities there too.
    """

    network: "ResNet"
    class_names: Sequence[str]
    preprocessing: Preprocessing
    temperature: float = 1.0

    def weights(self, project: str) -> "dict[str, Tensor]":
        """By the project's names, with calibrated logits."""
        import copy

        network = self.network
        if self.temperature != 1.0:
            network = copy.deepcopy(network)
            for parameter in network.get_submodule("fc").parameters():
                parameter.data.div_(self.temperature)
        return {n: v.contiguous().clone() for n, v in convert(network, project).items()}


def write_folder(contents: Contents, project: str, folder: Path) -> None:
    """Write the folder that a project's own loader reads.

    Args:
        contents: what it is to hold.
        project: ``huggingface``, for transformers' ``pipeline("image-classification", FOLDER)``;
            or ``timm``, for ``timm.create_model("local-dir:FOLDER", pretrained=True)``.
        folder: made if it is not there; its files of the names in `FILES` are replaced.

    Raises:
        UsageError: the project has no such network, or cannot prepare images so; before anything
            is written.
    """
    tables = (_timm if project == "timm" else _huggingface)(contents)
    weights = contents.weights(project)
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        write_atomically(folder / name, to_json(table, indent=2).encode())
    from safetensors.torch import save

    write_atomically(folder / WEIGHTS[0], save(weights, {"format": "pt"}))


def _huggingface(contents: Contents) -> dict[str, dict[str, Any]]:
    """The tables in the files of transformers, by the file's name."""
    architecture, names = contents.network.architecture, dict(enumerate(contents.class_names))
    config = {
        "architectures": ["ResNetForImageClassification"],
        "model_type": "resnet",
        "num_channels": architecture.in_channels,
        "embedding_size": architecture.stem_channels,
        "hidden_sizes": list(architecture.channels),
        "depths": list(architecture.depths),
        "layer_type": "bottleneck" if architecture.is_bottleneck else "basic",
        "hidden_act": "relu",
        "downsample_in_first_stage": False,
        "downsample_in_bottleneck": architecture.strided_conv == 1,
        "id2label": {str(number): name for number, name in names.items()},
        "label2id": {name: number for number, name in names.items()},
    }
    return {CONFIG: config, PREPROCESSOR: _processor(contents.preprocessing)}


def _processor(preprocessing: Preprocessing) -> dict[str, Any]:
    """The settings of an image processor.

    It is BiT's, since ConvNeXT's, which Microsoft's ResNets have, squashes images from 384 pixels
    on. Both round down where the crop begins, so that it may lie a pixel beside timm's.
    """
    size, resize = preprocessing.size, preprocessing.resize
    if preprocessing.crop_mode == "border":
        raise UsageError("huggingface has no image processor that adds a border (--crop-mode)")
    squashes = preprocessing.crop_mode == "squash"
    return {
        "image_processor_type": "BitImageProcessor",
        "do_convert_rgb": preprocessing.channels == 3,
        "do_resize": True,
        "size": {"height": resize, "width": resize} if squashes else {"shortest_edge": resize},
        "resample": _RESAMPLING[preprocessing.interpolation],
        "do_center_crop": True,
        "crop_size": {"height": size, "width": size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(preprocessing.mean),
        "image_std": list(preprocessing.std),
    }


def timm_config(contents: Contents) -> dict[str, Any]:
    """The config.json by which timm reads a model file of this package as it is.

    Raises:
        UsageError: timm has no such network, or other names for its weights.
    """
    import torch

    own, theirs = contents.network.state_dict(), convert(contents.network, "timm")
    if own.keys() != theirs.keys() or not all(torch.equal(own[n], theirs[n]) for n in own):
        raise UsageError("timm has other names for the weights of this network")
    return _timm(contents)[CONFIG]


def _timm(contents: Contents) -> dict[str, dict[str, Any]]:
    """The table in the file of timm, by the file's name."""
    architecture, preprocessing = contents.network.architecture, contents.preprocessing
    size, classes = preprocessing.size, architecture.num_classes
    deep = architecture.stem != "imagenet"
    first = "stem.conv" if architecture.is_preact else "conv1"
    config = {
        "architecture": _timms_name(architecture),
        "num_classes": classes,
        "num_features": architecture.channels[-1],
        "label_names": list(contents.class_names),
        "model_args": {"num_classes": classes, "in_chans": architecture.in_channels},
        "pretrained_cfg": {
            "tag": "resnets",
            "custom_load": False,
            "input_size": [architecture.in_channels, size, size],
            "fixed_input_size": False,
            "interpolation": preprocessing.interpolation,
            "crop_pct": _crop_fraction(size, preprocessing.resize),
            "crop_mode": preprocessing.crop_mode,
            "mean": list(preprocessing.mean),
            "std": list(preprocessing.std),
            "num_classes": classes,
            "first_conv": f"{first}.0" if deep and not architecture.is_preact else first,
            "classifier": "head.fc" if architecture.is_preact else "fc",
        },
    }
    return {CONFIG: config}


def _timms_name(architecture: Architecture) -> str:
    """The name of the network, where timm has it.

    Raises:
        UsageError: timm can be told of its networks by name alone, and has none for this one.
    """
    name = name_of(architecture)
    if name is None or name in _TIMM_LACKS:
        raise UsageError(
            "timm has no name for this network; --output FILE.pth writes its weights alone"
        )
    return name


def _crop_fraction(size: int, resize: int) -> float:
    """A fraction of which timm makes just this size before the crop: floor(size / fraction).

    >>> _crop_fraction(224, 256), _crop_fraction(288, 288), _crop_fraction(224, 235)
    (0.875, 1.0, 0.95)
    """
    candidates = (round(size / resize, 2), round(size / resize, 3), size / (resize + 0.5))
    return next(
        fraction
        for fraction in candidates
        if fraction <= 1 and math.floor(size / fraction) == resize
    )
