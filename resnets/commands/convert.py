"""``resnets convert``: the weights of one project under the names of another."""

import math
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from resnets import model_file, model_path
from resnets.commands import run
from resnets.commands.flags import Cache
from resnets.deployment.exported.reading import refuse_exported
from resnets.errors import UsageError
from resnets.escaping import say
from resnets.files.outputs import writable, writable_folder
from resnets.files.reading import existing, read_text
from resnets.format import plural
from resnets.headers import TORCH_ENDINGS
from resnets.images import Preprocessing
from resnets.images.preprocessing import IMAGENET_MEAN, IMAGENET_STD, CropMode, Interpolation
from resnets.networks.architecture import Filter

if TYPE_CHECKING:
    from resnets.networks import ResNet

_Weightless = Literal["padding", "padding_after", "none"]  # shortcuts
_Filter = Literal["binomial", "average"]
_FILTERS: dict[str | None, Filter] = {"binomial": True, "average": "average"}

_Project = Literal["torchvision", "timm", "huggingface", "resnets"]
_WEIGHT_FILES = (".safetensors", *TORCH_ENDINGS)


@dataclass(frozen=True)
class _Source:
    """What is converted.

    Attributes:
        file: it was in.
        network: with its weights.
        description: if it is this project's model file.
        preprocessing: of the images, if it is known.
        class_names: one a logit, if they are known.
        notes: what the user should know, a line each.
    """

    file: str
    network: "ResNet"
    description: model_file.Description | None = None
    preprocessing: Preprocessing | None = None
    class_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def main(argv: list[str]) -> int:
    """Run ``resnets convert`` with ``argv``."""
    return run(convert, argv, config=(tyro.conf.FlagCreatePairsOff,))


def convert(
    model: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MODEL")],
    /,
    to: _Project,
    output: Path | None = None,
    class_names: Path | None = None,
    size: int | None = None,
    resize: int | None = None,
    crop_fraction: float | None = None,
    crop_mode: CropMode | None = None,
    interpolation: Interpolation | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    strided_conv: Literal[1, 2] | None = None,
    shortcut: _Weightless | None = None,
    blur: _Filter | None = None,
    verify: Annotated[str | None, tyro.conf.arg(metavar="DATA")] = None,
    cache: Cache = None,
    ignore_left_over: bool = False,
    overwrite: bool = False,
) -> None:
    """Write a checkpoint under the names of another project.

    Args:
        model: a model file, the folder of a run, a network of the package by name, a folder of timm
            or transformers with config.json, or any checkpoint that `resnets inspect` recognises.
        to: the project whose names to use. `huggingface` makes a folder for `from_pretrained` and
            `pipeline`, `timm` one for `create_model("local-dir:FOLDER", pretrained=True)`,
            `resnets` a model file.
        output: where to; by default beside MODEL, or here for a network of the package, with
            the project's name in it. With `--to timm`, a name that ends like .pth or .safetensors
            gets the weights alone.
        class_names: text file with one class name a line; by default those that MODEL has.
        size: side in pixels of the square that the network sees. By default, as in MODEL; where
            that does not say, 32 for networks for small images, else 224. It need not be the size
            of training: many networks are better at a larger one.
        resize: side in pixels to which images are resized before that square is cut out.
        crop_fraction: the same as size / resize, rounded down; by default 0.875, and 1 for small
            images.
        crop_mode: which side becomes `resize`: center, the shorter; squash, both, whatever the
            shape; border, the longer, with a border around the image. By default center.
        interpolation: how images are resized, by default bilinear.
        mean: the mean of each channel, from 0 to 1, with which the network was trained; by
            default ImageNet's.
        std: the standard deviation of each channel, likewise.
        strided_conv: 1 if a bottleneck's stride is in its first convolution, as in the paper;
            the names do not show it. By default 2, as in nearly all networks.
        shortcut: which shortcuts the network has, where no weights show it: `padding` or
            `padding_after` (zeros on both sides of the channels, or after them), or `none`.
        blur: which filter takes the place of a stride, where the network has any: `binomial`
            (timm's resnetblur) or `average` (resnetaa).
        verify: labelled images as for `resnets evaluate`, on which to measure the network before
            anything is written. Classes without names get those of the images.
        cache: for shards at an address, how much of them to keep on the local disk, such as 50GB.
        ignore_left_over: leave out weights that are not understood, such as the step sizes of a
            quantisation, although the network may then compute something else. They are listed.
        overwrite: replace what is at `output`.
    """
    file = model_path.find_weights(model)
    refuse_exported(file, "convert writes its weights")
    if class_names is not None:
        existing(class_names)
    target = output or _beside(file, to)
    if cache is not None and verify is None:
        raise UsageError("--cache: give --verify, too; nothing else is read from an address")
    if resize is not None and crop_fraction is not None:
        raise UsageError("--resize and --crop-fraction: give one of them")
    _check_target(target, to, overwrite, [file] if class_names is None else [file, class_names])
    chosen = {"strided_conv": strided_conv, "shortcut": shortcut, "blur": _FILTERS.get(blur)}
    changes = {field: value for field, value in chosen.items() if value is not None}
    source = _read(file, changes, ignore_left_over)
    flags: dict[str, Any] = {"size": size, "resize": resize, "crop_fraction": crop_fraction}
    flags |= {"crop_mode": crop_mode, "interpolation": interpolation, "mean": mean, "std": std}
    _refuse_unused(flags | {"class_names": class_names}, to, target, verify)
    description = _described(source, flags, _names(class_names, source, verify, cache))
    if verify is not None:
        _verify(source.network, description, verify, cache)
    _write(source, description, to, target)
    for note in source.notes:
        say(note)
    say(
        f"{target}: {plural(source.network.architecture.num_classes, 'class')}, in the names of "
        f"{to}"
    )


def _refuse_unused(flags: dict[str, Any], to: str, target: Path, verify: str | None) -> None:
    """Refuse what a file of weights alone cannot hold, unless it is for `verify`.

    Raises:
        UsageError: it names the flags.
    """
    flags_set = [
        f"--{name.replace('_', '-')}" for name, value in flags.items() if value is not None
    ]
    if flags_set and verify is None and to != "resnets" and not _is_folder(to, target):
        raise UsageError(
            f"{', '.join(flags_set)}: {target.name} holds weights alone, so this would have no "
            "effect; leave it out, or write a model file (--to resnets) or a folder (--to timm, "
            "huggingface)"
        )


def _is_folder(to: str, target: Path) -> bool:
    """Whether a folder is written."""
    return to == "huggingface" or (to == "timm" and target.suffix not in _WEIGHT_FILES)


def _check_target(target: Path, to: str, overwrite: bool, inputs: list[Path]) -> None:
    """Refuse to write over an input, or over what is there unless told to.

    Raises:
        UsageError: as it says.
    """
    from resnets.networks.checkpoints.hub_export import FILES

    parts = [target]
    if _is_folder(to, target):
        writable_folder(target)
        parts = [target / name for name in FILES[to]] if target.is_dir() else []
    for part in parts:
        writable(part, inputs)
    if target.exists() and not overwrite:
        raise UsageError(f"{target} exists; give another --output, or --overwrite")


def _read(file: Path, changes: dict[str, Any], ignore_left_over: bool) -> _Source:
    """The network in a file, and what is known of it."""
    if model_file.is_model_file(file):
        model = model_file.load(file)
        description = model.description
        return _Source(
            str(file),
            model.network,
            description,
            description.preprocessing,
            description.class_names,
        )
    from resnets.networks.checkpoints import hub_folder

    if not hub_folder.is_hub_folder(file.parent):
        return _Source(str(file), _loaded(file, changes, ignore_left_over))
    hub = hub_folder.read_hub_folder(file.parent)
    if hub.weights != file:
        return _Source(str(file), _loaded(file, changes, ignore_left_over))
    hub = replace(hub, changes=hub.changes | changes)
    network, names = hub.network(), hub.class_names
    return _Source(str(file), network, None, hub.preprocessing, names, hub.notes)


def _loaded(file: Path, changes: dict[str, Any], ignore_left_over: bool) -> "ResNet":
    """The network of a checkpoint; weights that are left out are listed."""
    from resnets.networks.checkpoints.foreign import load_checkpoint, read_checkpoint

    if ignore_left_over and (names := read_checkpoint(file, **changes).left_over.unknown):
        say(f"left out: {', '.join(names)}", file=sys.stderr)
    return load_checkpoint(file, ignore_left_over=ignore_left_over, **changes)


def _verify(
    network: "ResNet", known: model_file.Description, images: str, cache: str | None
) -> None:
    """Measure the network on labelled images, and print its accuracy."""
    from resnets.api import evaluate
    from resnets.data.sources.opening import with_cache

    metrics = evaluate(model_file.Model(network, known), with_cache(images, cache)).metrics
    say(f"accuracy on {images}: {metrics.top1}")
    if not metrics.better_than_chance:
        say(
            "warning: not shown to be better than always predicting the largest class: the order "
            "of the classes, --mean and --std may be others, or what no weights show "
            "(--shortcut, --strided-conv, --blur)",
            file=sys.stderr,
        )


def _write(source: _Source, known: model_file.Description, to: str, target: Path) -> None:
    """Write the network as the project `to` has it."""
    from resnets.networks.checkpoints import conversion, hub_export

    if to == "resnets":
        model_file.save(target, source.network, known)
    elif _is_folder(to, target):
        temperature = float(known.calibration.get("temperature", 1.0))
        contents = hub_export.Contents(
            source.network, known.class_names, known.preprocessing, temperature
        )
        hub_export.write_folder(contents, to, target)
    else:
        conversion.write(conversion.convert(source.network, to), target)


def _described(
    source: _Source, flags: dict[str, Any], names: tuple[str, ...]
) -> model_file.Description:
    """The description with the network's own architecture, the class names and what flags say.

    With other preprocessing, what was measured and fitted before is no longer true of it.
    """
    preprocessing = _preprocessing(source, {n: v for n, v in flags.items() if v is not None})
    description = source.description
    if description is None:
        description = model_file.Description({}, names, preprocessing, data={"source": source.file})
    elif description.preprocessing != preprocessing:
        description = replace(description, metrics={}, calibration={}, familiarity={})
    architecture = source.network.architecture.to_dict()
    return replace(
        description, architecture=architecture, class_names=names, preprocessing=preprocessing
    )


def _names(
    path: Path | None, source: _Source, images: str | None, cache: str | None
) -> tuple[str, ...]:
    """One class name a logit: from a text file, or as known, or the images', or made up."""
    number = source.network.architecture.num_classes
    if path is None and images is not None and not source.class_names:
        from resnets.data.sources.opening import open_data, with_cache

        names = tuple(open_data(with_cache(images, cache)).class_names)
        if len(names) != number:
            raise UsageError(
                f"--verify {images}: {plural(len(names), 'class')}; the network has {number}"
            )
        return names
    if path is None:
        return source.class_names or tuple(f"class {index}" for index in range(number))
    names = tuple(line.strip() for line in read_text(path).splitlines() if line.strip())
    if len(names) != number:
        raise UsageError(
            f"{path}: {plural(len(names), 'name')}; the network has {plural(number, 'class')}"
        )
    return names


def _preprocessing(source: _Source, flags: dict[str, Any]) -> Preprocessing:
    """What is known of the preprocessing, with what the flags say.

    A new size without `resize` or `crop_fraction` keeps the fraction that is cropped.
    """
    architecture, known = source.network.architecture, source.preprocessing
    channels, small = architecture.in_channels, architecture.is_for_small_images
    for name in ("mean", "std"):
        count = len(flags.get(name, ())) or channels
        if count != channels or (known is None and name not in flags and channels != 3):
            raise UsageError(
                f"the network takes {channels} channels; --mean and --std need as many numbers"
            )
    before = known or _usual(channels, 32 if small else 224)
    fraction = flags.pop("crop_fraction", None)
    size = flags.get("size", before.size)
    resize = flags.pop("resize", None)
    if fraction is not None and not 0 < fraction <= 1:
        raise UsageError(f"--crop-fraction {fraction}: it must be above 0 and at most 1")
    if resize is None:
        resize = math.floor(size / fraction) if fraction else before.resize * size // before.size
    return replace(before, resize=resize, **flags)


def _usual(channels: int, side: int) -> Preprocessing:
    """The preprocessing of most networks: 224 pixels cut from 256, or 32 pixels as they are."""
    mean, std = (IMAGENET_MEAN, IMAGENET_STD) if channels == 3 else ((0.5,) * channels,) * 2
    return Preprocessing(side, side * 8 // 7 if side == 224 else side, mean, std)


def _beside(file: Path, to: str) -> Path:
    """Where the result goes by default."""
    endings = {"torchvision": ".pth", "resnets": ".safetensors"}
    name = file.name.partition(".")[0]
    return model_path.folder_beside(file) / f"{name}-{to}{endings.get(to, '')}"
