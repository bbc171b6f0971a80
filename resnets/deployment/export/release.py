"""From a model to the files that leave: in three precisions, for four destinations."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from resnets.deployment.engines.choosing import digest
from resnets.deployment.export import triton
from resnets.deployment.export.files import (
    ENDINGS,
    IMAGES,
    TOLERANCE,
    Format,
    chosen_for,
    export,
    pixels_for,
    publish,
    words_for,
)
from resnets.deployment.export.float16 import halve
from resnets.deployment.export.int8 import MAX_LOSS, check_loss, quantise
from resnets.deployment.exported.reading import LARGEST
from resnets.errors import UsageError
from resnets.evaluation import recalibration
from resnets.evaluation.outputs import FITTING, EvaluationImages, NothingNewError, choose_images
from resnets.files import read_input, read_text
from resnets.model_file import Model, load

_Destination = Literal["onnx", "openvino", "torch", "triton"]
_Precision = Literal["float32", "float16", "int8"]

_PLAIN = "PyTorch computes in 16 bits by torch.autocast, and quantises by torchao"


@dataclass(frozen=True)
class Wish:
    """How a model shall leave.

    Attributes:
        to: whose file.
        precision: of the network's arithmetic.
        data: real images, as for `open_data`; by default those that the network was trained on.
        images: how many of them the export is checked on.
        tolerance: largest difference of a probability between the export and PyTorch.
        max_loss: most points of accuracy that int8 may lose.
        overwrite: replace a network in Triton's repository.
        force: write int8 although too few images were compared to know what it loses.
    """

    to: _Destination
    precision: _Precision = "float32"
    data: str | None = None
    images: int = IMAGES
    tolerance: float = TOLERANCE
    max_loss: float = MAX_LOSS
    overwrite: bool = False
    force: bool = False


def place(file: Path, output: Path | None, to: _Destination) -> Path:
    """Where a model goes: beside its file by default, for Triton in a repository there.

    Raises:
        UsageError: the ending is not that of such a file.
    """
    if to == "triton":
        return output or file.parent / "triton" / file.stem
    target = output or file.with_suffix(ENDINGS[to])
    if target.suffix != ENDINGS[to]:
        raise UsageError(f"--output {target}: a file for {to} ends in {ENDINGS[to]}")
    return target


def release(file: Path, target: Path, wish: Wish) -> str:
    """Write the file, or Triton's folder; every check passes before anything is written.

    Args:
        file: the model file of what leaves.
        target: the file; of Triton, the network's folder in the repository.
        wish: how.

    Returns:
        What was found, in words.

    Raises:
        UsageError: a choice is not allowed.
        ContentError: a check fails.
        MissingExtra: what is needed is not installed.
    """
    kind: Format = "onnx" if wish.to == "triton" else wish.to
    if kind == "torch" and wish.precision != "float32":
        raise UsageError(f"{wish.precision} is for onnx, openvino and triton; {_PLAIN}")
    check_loss(wish.max_loss)
    if wish.to == "triton":
        triton.check_name(target.name)
    model = load(file)
    chosen = _labelled(model, wish.data) if wish.precision == "int8" else None
    compared = chosen_for(model, wish.data)
    images, words = pixels_for(model, compared, wish.images), words_for(compared)
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / f"{target.stem}{ENDINGS[kind]}"
        agreement = export(model, made, kind, images, words, wish.tolerance, digest(file))
        told = [str(agreement)]
        if wish.precision == "float16":
            told.append(f"fp16: {halve(model, made, made, images, words)}")
        if chosen is not None:
            told.append(_in_8_bits(model, made, chosen, wish))
        if wish.to == "triton":
            told.append(_serve_by_triton(model, made, target, wish.overwrite))
        else:
            publish(made, target)
    warnings = dict.fromkeys([*compared.warnings, *(chosen.warnings if chosen else ())])
    return "\n".join([*told, *(f"warning: {text}" for text in warnings)])


def _labelled(model: Model, data: str | None) -> EvaluationImages:
    """The new images on which to judge int8, and the training images to calibrate it with.

    Raises:
        UsageError: there is no such source, or none is known.
    """
    source = data or model.description.data.get("source")
    if not source:
        raise UsageError("int8 is calibrated and judged on labelled images: name them with --data")
    try:
        return choose_images(str(source), model.description, FITTING)
    except NothingNewError as error:
        raise UsageError(f"{error.problem}; name other labelled images with --data") from None
    except UsageError as error:
        hint = "" if data else " (name other labelled images with --data)"
        raise UsageError(f"{error}{hint}") from None


def _in_8_bits(model: Model, made: Path, chosen: EvaluationImages, wish: Wish) -> str:
    """Quantise an exported file in its place, and tell what was found."""
    source = str(wish.data or model.description.data.get("source"))
    try:
        validation = recalibration.choose_calibration_images(source, model.description, "validation")
    except UsageError:  # there are none, or none that it was not trained on
        validation = None
    test = (chosen.images, chosen.what)
    scaling = chosen.train or chosen.images
    done = quantise(made, made, scaling, test, wish.max_loss, validation, wish.force)
    return done.in_words(wish.max_loss)


def _serve_by_triton(model: Model, file: Path, target: Path, overwrite: bool) -> str:
    """Put an .onnx file into a model repository, and say what was checked of it."""
    names = model.description.class_names
    folder = triton.write_repository(
        target.parent, target.name, read_input(file, LARGEST), names, overwrite=overwrite
    )
    config = read_text(folder / "config.pbtxt")
    return (
        f"Triton: config.pbtxt {triton.checked_by(config)}; the graph was run by ONNX Runtime, "
        f"not by a server.\n  tritonserver --model-repository {target.parent}"
    )
