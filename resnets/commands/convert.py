"""``resnets convert``: the weights of one project under the names of another."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from resnets import model_path
from resnets.commands import run
from resnets.commands.flags import Cache
from resnets.deployment import converting
from resnets.deployment.converting import Conversion, FilterName, Project, Weightless
from resnets.deployment.exported.reading import refuse_exported
from resnets.errors import UsageError
from resnets.escaping import say
from resnets.format import plural
from resnets.images.preprocessing import CropMode, Interpolation

if TYPE_CHECKING:
    from resnets.model_file import Model


def main(argv: list[str]) -> int:
    """Run ``resnets convert`` with ``argv``."""
    return run(convert, argv, config=(tyro.conf.FlagCreatePairsOff,))


def convert(
    model: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MODEL")],
    /,
    to: Project,
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
    shortcut: Weightless | None = None,
    blur: FilterName | None = None,
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
    if cache is not None and verify is None:
        raise UsageError("--cache: give --verify, too; nothing else is read from an address")
    preprocessing: dict[str, Any] = {"size": size, "resize": resize, "crop_fraction": crop_fraction}
    preprocessing |= {"crop_mode": crop_mode, "interpolation": interpolation}
    preprocessing |= {"mean": mean, "std": std}
    conversion = Conversion(
        to,
        output or converting.beside(file, to),
        preprocessing,
        {"strided_conv": strided_conv, "shortcut": shortcut, "blur": blur},
        class_names,
        verify,
        cache,
        ignore_left_over,
    )
    prepared = converting.prepare(file, conversion, overwrite=overwrite)
    if conversion.verify is not None:
        _verify(prepared.model, conversion)
    converting.write(prepared, conversion)
    for note in prepared.notes:
        say(note)
    classes = len(prepared.model.description.class_names)
    say(f"{conversion.target}: {plural(classes, 'class')}, in the names of {to}")


def _verify(model: "Model", conversion: Conversion) -> None:
    """Measure the network on labelled images, and print its accuracy."""
    from resnets.api import evaluate

    metrics = evaluate(model, conversion.data()).metrics
    say(f"accuracy on {conversion.verify}: {metrics.top1}")
    if not metrics.better_than_chance:
        say(
            "warning: not shown to be better than always predicting the largest class: the order "
            "of the classes, --mean and --std may be others, or what no weights show "
            "(--shortcut, --strided-conv, --blur)",
            file=sys.stderr,
        )
