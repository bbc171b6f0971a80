"""``resnets convert``: the weights of one project under the names of another."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from resnets import model_file, model_path
from resnets.commands import run
from resnets.deployment.exported.reading import refuse_exported
from resnets.errors import UsageError
from resnets.escaping import say
from resnets.files import existing, read_text, writable, writable_folder
from resnets.images import Preprocessing
from resnets.shipped import FOLDER

if TYPE_CHECKING:
    from resnets.networks import ResNet

_Project = Literal["torchvision", "timm", "huggingface", "resnets"]
_IMAGENET_MEAN, _IMAGENET_STD = (
    (0.485, 0.456, 0.406),
    (0.229, 0.224, 0.225),
)  # torchvision's weights


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
    mean: tuple[float, ...] = _IMAGENET_MEAN,
    std: tuple[float, ...] = _IMAGENET_STD,
    strided_conv: Literal[1, 2] | None = None,
    overwrite: bool = False,
) -> None:
    """Write a checkpoint under the names of another project.

    Args:
        model: a model file, the folder of a run, a network of the package by name, or any
            checkpoint that `resnets inspect` recognises.
        to: the project whose names to use. `huggingface` makes a folder for `from_pretrained`,
            `resnets` a model file.
        output: where to; by default beside MODEL, or here for a network of the package, with
            the project's name in it.
        class_names: text file with one class name a line; for a model file they stay as they are.
        size: side in pixels of the square that the network sees (only with `--to resnets`);
            32 for networks for small images, else 224 by default.
        mean: of each channel, from 0 to 1, with which the network was trained (likewise).
        std: standard deviation of each channel (likewise).
        strided_conv: 1 if a bottleneck's stride is in its first convolution, as in the paper;
            the names do not show it. By default 2, as in nearly all networks.
        overwrite: replace what is at `output`.
    """
    from resnets.networks.checkpoints import conversion

    file = model_path.find_weights(model)
    refuse_exported(file, "convert writes its weights")
    if class_names is not None:
        existing(class_names)
    target = output or _beside(file, to)
    if to == "huggingface":
        writable_folder(target)
        parts = [target / name for name in conversion.HUGGINGFACE_FILES] if target.is_dir() else []
    else:
        parts = [target]
    for part in parts:
        writable(part, [file] if class_names is None else [file, class_names])
    if target.exists() and not overwrite:
        raise UsageError(f"{target} exists; give another --output, or --overwrite")
    changes: dict[str, int] = {} if strided_conv is None else {"strided_conv": strided_conv}
    network, known = _read(file, changes)
    names = _read_names(class_names, network, known)
    if to == "resnets":
        preparation = known.preprocessing if known else _preprocessing(network, size, mean, std)
        data = {"source": str(file)}
        description = known or model_file.Description({}, names, preparation, data=data)
        model_file.save(target, network, _with_names(description, network, names))
    elif to == "huggingface":
        conversion.write_huggingface(network, names, target)
    else:
        conversion.write(conversion.convert(network, to), target)
    say(f"{target}: {network.architecture.num_classes} classes, in the names of {to}")


def _read(file: Path, changes: dict[str, int]) -> "tuple[ResNet, model_file.Description | None]":
    """The network in a file; its description too if it is this project's model file."""
    if model_file.is_model_file(file):
        model = model_file.load(file)
        return model.network, model.description
    from resnets.networks.checkpoints.foreign import load_checkpoint  # torch, after --help

    return load_checkpoint(file, **changes), None


def _with_names(
    description: model_file.Description, network: "ResNet", names: tuple[str, ...]
) -> model_file.Description:
    """The description with the network's own architecture and the class names."""
    from dataclasses import replace

    architecture = network.architecture.to_dict()
    return replace(description, architecture=architecture, class_names=names)


def _read_names(
    path: Path | None, network: "ResNet", known: model_file.Description | None
) -> tuple[str, ...]:
    """One class name a logit: from a text file, or as known, or made up."""
    number = network.architecture.num_classes
    if path is None:
        return known.class_names if known else tuple(f"class {index}" for index in range(number))
    names = tuple(line.strip() for line in read_text(path).splitlines() if line.strip())
    if len(names) != number:
        raise UsageError(f"{path}: {len(names)} names; the network has {number} classes")
    return names


def _preprocessing(
    network: "ResNet", size: int | None, mean: tuple[float, ...], std: tuple[float, ...]
) -> Preprocessing:
    """The preprocessing that the flags ask for."""
    small = network.architecture.stem == "cifar"
    side = size or (32 if small else 224)
    channels = network.architecture.in_channels
    if len(mean) != channels or len(std) != channels:
        raise UsageError(
            f"the network takes {channels} channels; --mean has {len(mean)} and --std {len(std)}"
        )
    return Preprocessing(size=side, resize=side if small else side * 8 // 7, mean=mean, std=std)


def _beside(file: Path, to: str) -> Path:
    """Where the result goes by default."""
    endings = {"huggingface": "", "resnets": ".safetensors"}
    name = file.name.partition(".")[0]
    folder = Path() if file.parent == FOLDER else file.parent
    return folder / f"{name}-{to}{endings.get(to, '.pth')}"
