"""Folders of timm and of Hugging Face's transformers: config.json beside the weights.

What these say of the preprocessing and the class names is read here, without torch.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from resnets.errors import ContentError, UsageError
from resnets.fields import short
from resnets.files.reading import read_text
from resnets.headers import parse_json
from resnets.images import Preprocessing
from resnets.images.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from resnets.networks.catalog import CATALOG

if TYPE_CHECKING:
    from resnets.networks.resnet import ResNet

CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # the first that is there
_ENDINGS = (".safetensors", ".bin", ".pth")
_RESAMPLING = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers
_WHOLE_FROM = 384  # from this side on, ConvNeXT's processor squashes images and crops nothing
_BY_SHORTEST_EDGE = ("CLIP", "Bit", "ConvNext")  # processors for which one number is that side
_SHOWN = {"depths", "width", "stem_width", "num_classes", "in_channels"}  # by shapes of weights

# microsoft/resnet-* were made of timm 0.5.4's weights (transformers: convert_resnet_to_pytorch.py)
# but carry the processor of facebook/convnext-base-224-22k-1k. What timm 0.5.4 says of them (its
# resnet.py, default_cfgs), by depths and kind of block: crop fraction and interpolation.
_MICROSOFT: dict[tuple[str, tuple[int, ...]], tuple[float, Literal["bilinear", "bicubic"]]] = {
    ("basic", (2, 2, 2, 2)): (0.875, "bilinear"),
    ("basic", (3, 4, 6, 3)): (0.875, "bilinear"),
    ("bottleneck", (2, 2, 2, 2)): (0.875, "bicubic"),
    ("bottleneck", (3, 4, 6, 3)): (0.95, "bicubic"),
    ("bottleneck", (3, 4, 23, 3)): (0.95, "bicubic"),
    ("bottleneck", (3, 8, 36, 3)): (0.95, "bicubic"),
}


@dataclass(frozen=True)
class HubFolder:
    """What a folder of timm or of transformers holds.

    Attributes:
        weights: the file of them.
        project: whose folder it is.
        preprocessing: of the images to predict.
        training_size: side of the training images in pixels, where it is another one.
        class_names: one a logit; empty if the folder does not say.
        changes: fields of `Architecture` that names and shapes of the weights leave open.
        notes: what the user should know, a line each.
    """

    weights: Path
    project: Literal["timm", "huggingface"]
    preprocessing: Preprocessing
    training_size: int | None
    class_names: tuple[str, ...]
    changes: dict[str, Any]
    notes: tuple[str, ...] = ()

    def network(self, *, ignore_left_over: bool = False) -> "ResNet":
        """The network with its weights, in evaluation mode.

        Args:
            ignore_left_over: as for `load_checkpoint`.

        Raises:
            ContentError: the weights are not those of the residual network in config.json.
        """
        from resnets.networks.checkpoints.foreign import load_checkpoint

        network = load_checkpoint(self.weights, ignore_left_over=ignore_left_over, **self.changes)
        names, channels = len(self.class_names), self.preprocessing.channels
        architecture = network.architecture
        if channels != architecture.in_channels or names not in (0, architecture.num_classes):
            raise ContentError(
                f"{self.weights.parent / CONFIG}: {names} class names and images of {channels} "
                f"channels; the weights have {architecture.num_classes} classes and "
                f"{architecture.in_channels} channels"
            )
        return network


def is_hub_folder(folder: Path) -> bool:
    """Whether a folder has a config.json and weights beside it."""
    return (folder / CONFIG).is_file() and _find_weights(folder) is not None


def read_hub_folder(folder: Path) -> HubFolder:
    """What a folder of timm (pretrained_cfg) or of transformers (model_type resnet) holds.

    Raises:
        OSError: a file cannot be read.
        ContentError: it is no such folder, or its images are prepared in another way than this
            package can; the message names the file and the value.
    """
    path, weights = folder / CONFIG, _find_weights(folder)
    if weights is None:
        raise ContentError(f"{folder}: no weights in it ({', '.join(WEIGHTS)})")
    config = read_table(path)
    try:
        if "architecture" in config:
            return _of_timm(config, weights)
        if config.get("model_type") == "resnet":
            return _of_transformers(config, folder, weights)
    except (UsageError, TypeError, ValueError, OverflowError, ArithmeticError) as error:
        raise ContentError(f"{path}: {error}") from None
    raise ContentError(
        f"{path}: neither timm's (it has no architecture) nor of a ResNet of transformers "
        f"(model_type is {short(config.get('model_type'))})"
    )


def _find_weights(folder: Path) -> Path | None:
    """The file of weights in a folder: by its usual name, or the only one of its kind."""
    for name in WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    for ending in _ENDINGS:
        files = sorted(folder.glob(f"*{ending}"))
        if len(files) == 1:
            return files[0]
    return None


def read_table(path: Path) -> dict[str, Any]:
    """The table in a JSON file. Raises ContentError."""
    try:
        values = parse_json(read_text(path))
    except ContentError as error:
        raise ContentError(f"{path}: {error}") from None
    if not isinstance(values, dict):
        raise ContentError(f"{path}: not a table")
    return values


def _of_timm(config: Mapping[str, Any], weights: Path) -> HubFolder:
    """A folder of timm 1.0: see `load_model_config_from_path` in its models/_hub.py."""
    nested = config.get("pretrained_cfg")
    values = dict(config) | dict(nested if isinstance(nested, Mapping) else {})
    entry = CATALOG.get(str(config["architecture"]))
    architecture = entry.architecture.to_dict() if entry else {}
    trained = _square(values.get("input_size", (3, 224, 224)))
    size = _square(values.get("test_input_size") or values.get("input_size", (3, 224, 224)))
    crop = values.get("test_crop_pct") or values.get("crop_pct") or 0.875
    channels = _channels(config, values)
    preprocessing = Preprocessing(
        size=size,
        resize=math.floor(size / _number(crop, "crop_pct")),
        mean=_of_channels(values.get("mean", IMAGENET_MEAN), channels),
        std=_of_channels(values.get("std", IMAGENET_STD), channels),
        interpolation=values.get("interpolation", "bicubic"),
        crop_mode=values.get("crop_mode") or "center",
        crop_rounding="even",
    )
    training_size = trained if trained != size else None
    changes = {name: value for name, value in architecture.items() if name not in _SHOWN}
    return HubFolder(weights, "timm", preprocessing, training_size, _timm_names(values), changes)


def _timm_names(values: Mapping[str, Any]) -> tuple[str, ...]:
    """The class names: `label_names`, a list or a table by number; or `labels` of older files."""
    names = values.get("label_names") or values.get("labels") or ()
    if isinstance(names, Mapping):
        return _numbered(names)
    return tuple(map(str, names))


def _numbered(names: Any) -> tuple[str, ...]:
    """The values of a table whose keys are the numbers from 0."""
    if not isinstance(names, Mapping):
        raise UsageError(f"the class names are {short(names)}, not a table by number")
    by_number = {int(number): str(name) for number, name in names.items()}
    if sorted(by_number) != list(range(len(by_number))):
        raise UsageError(f"class names for the numbers {short(sorted(by_number))}, not from 0 on")
    return tuple(by_number[number] for number in range(len(by_number)))


def _channels(config: Mapping[str, Any], values: Mapping[str, Any]) -> int:
    """Channels of the images."""
    arguments = config.get("model_args")
    in_channels = arguments.get("in_chans") if isinstance(arguments, Mapping) else None
    return int(in_channels or values.get("input_size", (3,))[0])


def _square(shape: Any) -> int:
    """The side of images of shape (C, H, W)."""
    _, height, width = shape
    if height != width or not isinstance(height, int):
        raise UsageError(f"input size {short(shape)}: only squares are supported")
    return height


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise UsageError(f"{name} is {short(value)}, not a fraction above 0 and at most 1")
    return float(value)


def _of_channels(values: Any, channels: int) -> tuple[float, ...]:
    """Means, or standard deviations, for the channels: one for all, or RGB's for a grey image."""
    if channels not in (1, 3, 4):
        raise UsageError(f"images of {short(channels)} channels; supported are 1, 3 and 4")
    numbers = tuple(map(float, values if isinstance(values, list | tuple) else (values,)))
    if len(numbers) == channels:
        return numbers
    if len(numbers) == 1:
        return numbers * channels
    return (sum(numbers) / len(numbers),) * channels


def _of_transformers(config: Mapping[str, Any], folder: Path, weights: Path) -> HubFolder:
    """A folder of transformers' ResNets."""
    if config.get("hidden_act", "relu") != "relu" or config.get("downsample_in_first_stage"):
        raise UsageError(
            f"hidden_act is {short(config.get('hidden_act'))} and downsample_in_first_stage "
            f"{short(config.get('downsample_in_first_stage'))}; supported are relu and false"
        )
    names = config.get("id2label") or {}
    strided_conv = 1 if config.get("downsample_in_bottleneck") else 2
    channels = int(config.get("num_channels", 3))
    class_names = _numbered(names)
    path, notes = folder / PREPROCESSOR, []
    if path.is_file():
        table = read_table(path)
        try:
            preprocessing = _processed(table, channels)
        except (UsageError, TypeError, ValueError, ArithmeticError) as error:
            raise ContentError(f"{path}: {error}") from None
        if better := _microsofts(config, class_names, table):
            crop, interpolation = better
            resize = math.floor(224 / crop)
            preprocessing = Preprocessing(
                224,
                resize,
                IMAGENET_MEAN,
                IMAGENET_STD,
                interpolation=interpolation,
                crop_rounding="even",
            )
            notes.append(
                f"{path.name} is another network's (ConvNeXT's, as in microsoft/resnet-*): images "
                f"are prepared as timm 0.5.4 says of these weights, {interpolation} to {resize} "
                "and cropped to 224 pixels"
            )
    else:
        mean, std = _of_channels(IMAGENET_MEAN, channels), _of_channels(IMAGENET_STD, channels)
        preprocessing = Preprocessing(224, 256, mean, std)
        notes.append(
            f"{folder}: no {PREPROCESSOR}: images are taken to be resized to 256 and cropped to "
            "224 pixels, bilinear, with ImageNet's mean and std"
        )
    changes = {"strided_conv": strided_conv} if config.get("layer_type") != "basic" else {}
    return HubFolder(
        weights, "huggingface", preprocessing, None, class_names, changes, tuple(notes)
    )


def _microsofts(
    config: Mapping[str, Any], class_names: tuple[str, ...], table: Mapping[str, Any]
) -> tuple[float, Literal["bilinear", "bicubic"]] | None:
    """Crop fraction and interpolation of the weights of microsoft/resnet-*, where they differ.

    Networks that were trained on with that processor have other classes, and keep it.
    """
    is_imagenet = len(class_names) == 1000 and class_names[0].startswith("tench")
    settings = (table.get("crop_pct"), table.get("resample"), _side(table.get("size")))
    if not is_imagenet or settings != (0.875, 3, 224):
        return None
    kind = str(config.get("layer_type", "bottleneck")), tuple(config.get("depths", ()))
    trained_with = _MICROSOFT.get(kind)
    return trained_with if trained_with != (0.875, "bicubic") else None


def _processed(table: Mapping[str, Any], channels: int) -> Preprocessing:
    """The preprocessing of an image processor of transformers.

    Raises:
        UsageError: it does what this package cannot.
    """
    kind = str(table.get("image_processor_type") or table.get("feature_extractor_type") or "")
    if table.get("do_resize", True) is False or table.get("do_rescale", True) is False:
        raise UsageError("do_resize or do_rescale is false: images of one size are not supported")
    if not math.isclose(table.get("rescale_factor", 1 / 255), 1 / 255, rel_tol=1e-6):
        raise UsageError(f"rescale_factor is {short(table['rescale_factor'])}, not 1/255")
    interpolation = _RESAMPLING.get(table.get("resample", 2))
    if interpolation is None:
        raise UsageError(
            f"resample is {short(table.get('resample'))}; supported are 2 (bilinear) and 3 "
            "(bicubic)"
        )
    size, resize, mode = _sizes(table, kind)
    normalises = table.get("do_normalize", True)
    return Preprocessing(
        size=size,
        resize=resize,
        mean=_of_channels(table.get("image_mean", IMAGENET_MEAN) if normalises else 0.0, channels),
        std=_of_channels(table.get("image_std", IMAGENET_STD) if normalises else 1.0, channels),
        interpolation=interpolation,  # type: ignore[arg-type]
        crop_mode=mode,
    )


def _sizes(table: Mapping[str, Any], kind: str) -> tuple[int, int, Literal["center", "squash"]]:
    """Size, resize and crop mode of an image processor."""
    size_entry = table.get("size")
    side = _side(size_entry)
    by_shorter_side = isinstance(size_entry, Mapping) and "shortest_edge" in size_entry
    by_shorter_side |= isinstance(size_entry, int) and kind.startswith(_BY_SHORTEST_EDGE)
    if kind.startswith("ConvNext"):
        if side >= _WHOLE_FROM:
            return side, side, "squash"
        return side, int(side / _number(table.get("crop_pct") or 0.875, "crop_pct")), "center"
    mode: Literal["center", "squash"] = "center" if by_shorter_side else "squash"
    if table.get("do_center_crop"):
        return _side(table.get("crop_size")), side, mode
    if by_shorter_side:
        raise UsageError("do_center_crop is false: images would not be square")
    return side, side, mode


def _side(size: Any) -> int:
    """The side in a size of transformers: a number, or a table of one or two."""
    sides = set(size.values()) if isinstance(size, Mapping) else {size}
    if len(sides) != 1 or not all(isinstance(side, int) for side in sides):
        raise UsageError(f"size {short(size)}: only squares are supported")
    side: int = sides.pop()
    return side
