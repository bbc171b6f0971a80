"""``resnets export``: a network as a file for other runtimes, checked before it is kept."""

from pathlib import Path
from typing import Annotated, Literal

import tyro

from resnets.commands import run
from resnets.errors import ContentError, UsageError

Format = Literal["onnx", "openvino", "torch"]


def main(argv: list[str]) -> int:
    """Run ``resnets export`` with ``argv``."""
    return run(export, argv, config=(tyro.conf.FlagCreatePairsOff,))


def export(
    model: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MODEL")],
    /,
    to: Format,
    output: Path | None = None,
    data: str | None = None,
    images: int = 64,
    tolerance: float = 1e-3,
    overwrite: bool = False,
) -> None:
    """Write a network as a file for other runtimes, checked against PyTorch before it is kept.

    The file takes raw images, (B, H, W, C) uint8 of any B, H and W: resizing, cropping,
    normalising and the calibrated softmax are inside. It gives `probabilities` and `features`.

    Args:
        model: a model file, or the folder of a run.
        to: whose file: onnx (.onnx), openvino (.xml and .bin) or torch (.pt2, of torch.export).
        output: where to; by default beside MODEL, where `predict` finds an .onnx by itself.
        data: images to check the file on, as for `resnets train`; by default what the network was
            trained on where that is still there, else the embedded digits.
        images: how many of them.
        tolerance: the largest difference of a probability that is allowed; ten times as much where
            the file resizes the images.
        overwrite: replace what is at `output`.
    """
    from resnets import model_file
    from resnets.deployment.checking import images_for
    from resnets.deployment.choosing import digest
    from resnets.deployment.export import ENDINGS
    from resnets.deployment.export import export as write

    file = model_file.in_run(model)
    target = output or file.with_suffix(ENDINGS[to])
    if target.suffix != ENDINGS[to]:
        raise UsageError(f"--output {target}: a file for {to} ends in {ENDINGS[to]}")
    if not target.parent.is_dir():
        raise ContentError(f"{target.parent}: no such folder")
    if target.exists() and not overwrite:
        raise UsageError(f"{target} exists; give another --output, or --overwrite")
    if not 0 < tolerance <= 1:
        raise UsageError(f"--tolerance {tolerance}: above 0, at most 1")
    loaded = model_file.load(file)
    pixels, source = images_for(loaded, data, images)
    agreement = write(loaded, target, to, pixels, source, tolerance, digest(file))
    print(f"{target}: {agreement}")
