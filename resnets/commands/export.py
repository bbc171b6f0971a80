"""``resnets export``: a network as a file for other runtimes, checked before it is kept."""

from pathlib import Path
from typing import Annotated, Literal

import tyro

from resnets.commands import run
from resnets.commands.flags import Cache
from resnets.commands.notices import tell_assumed
from resnets.escaping import say_text

_Destination = Literal["onnx", "openvino", "torch", "triton"]


def main(argv: list[str]) -> int:
    """Run ``resnets export`` with ``argv``."""
    return run(export, argv, config=(tyro.conf.FlagCreatePairsOff,))


def export(
    model: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MODEL")],
    /,
    to: _Destination,
    output: Path | None = None,
    int8: bool = False,
    fp16: bool = False,
    max_loss: float | None = None,
    data: str | None = None,
    images: int = 64,
    tolerance: float = 1e-3,
    overwrite: bool = False,
    force: bool = False,
    cache: Cache = None,
) -> None:
    """Write a network as a file for other runtimes, checked against PyTorch before it is kept.

    The file takes raw images, (B, H, W, C) uint8 of any B, H and W: resizing, cropping,
    normalising and the calibrated softmax are inside. It gives `probabilities` and `features`.
    With --int8, the accuracy on test images is measured before and after; nothing is written if it
    drops too much, or if there are too few images to tell. The file gets a temperature and
    thresholds of its own. A file in 8 or 16 bits is used only where you name it as MODEL; lying
    beside the model file, it changes nothing.

    Args:
        model: a model file, the folder of a run, published weights by id, such as
            timm/resnet50.a1_in1k, or a network of the package by name.
        to: kind of file: onnx (.onnx), openvino (.xml and .bin), torch (.pt2, of torch.export) or
            triton (a folder in a model repository of Triton Inference Server).
        output: where to; by default beside MODEL, where `predict` finds an .onnx by itself, or here
            for a network of the package.
        int8: compute in integers of 8 bits, calibrated on training images of the data.
        fp16: compute in floating point of 16 bits, for GPUs.
        max_loss: with --int8, the largest allowed drop in accuracy on the test images, in
            percentage points; by default 0.5.
        data: images to check the file on, as for `resnets train`, for --int8 labelled ones; by
            default what the network was trained on where that is still there, else the embedded
            digits.
        images: how many of them.
        tolerance: the largest difference of a probability that is allowed; ten times as much where
            the file resizes the images.
        overwrite: replace what is at `output`.
        force: with --int8, write the file even if too few images were compared to exclude a loss of
            more than 5 points.
        cache: for shards at an address, how much of them to keep on the local disk, such as 50GB.
    """
    from resnets.deployment.export.int8 import MAX_LOSS
    from resnets.deployment.export.release import (
        ExportOptions,
        precision_of,
        release,
        target_of,
    )
    from resnets.model_file import read_description
    from resnets.model_path import find_model

    precision = precision_of(int8, fp16, max_loss, force)
    most = MAX_LOSS if max_loss is None else max_loss
    options = ExportOptions(to, precision, data, images, tolerance, most, overwrite, force, cache)
    file = find_model(model)
    target = target_of(file, output, options)
    tell_assumed(read_description(file))
    say_text(f"{target}: {release(file, target, options)}")
