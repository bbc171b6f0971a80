"""Export of a model file for four runtimes, in three precisions."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from resnets.data.sources.objects import Data
from resnets.data.sources.opening import files_of, with_cache
from resnets.deployment.engines.selection import digest
from resnets.deployment.export import triton
from resnets.deployment.export.files import (
    ENDINGS,
    IMAGES,
    TOLERANCE,
    Format,
    choose_export_images,
    describe_images,
    export,
    parts_of,
    publish,
    sample_images,
)
from resnets.deployment.export.float16 import convert_to_float16
from resnets.deployment.export.int8 import MAX_LOSS, check_loss, quantise
from resnets.deployment.exported.reading import LARGEST, refuse_exported
from resnets.errors import UsageError
from resnets.evaluation import recalibration
from resnets.evaluation.outputs import FITTING, EvaluationImages, NothingNewError, choose_images
from resnets.files.outputs import refuse_existing, writable
from resnets.files.reading import read_input, read_text
from resnets.model_file import Model, load
from resnets.model_path import folder_beside

_Destination = Literal["onnx", "openvino", "torch", "triton"]
_Precision = Literal["float32", "float16", "int8"]

_PYTORCH_HINT = "in PyTorch, use torch.autocast for 16 bits and torchao for int8"


@dataclass(frozen=True)
class ExportOptions:
    """How a model is exported.

    Attributes:
        to: the format of the file.
        precision: in which the network computes.
        data: real images, as for `open_data`; by default those that the network was trained on.
        images: number of them on which the export is checked.
        tolerance: largest allowed difference of a probability between the export and PyTorch.
        max_loss: largest allowed loss of accuracy by int8, in percentage points.
        overwrite: replace a network in Triton's repository.
        force: write int8 even if too few images were compared to know its loss.
        cache: of images at an address on the local disk, such as 50GB; None for none.
    """

    to: _Destination
    precision: _Precision = "float32"
    data: str | None = None
    images: int = IMAGES
    tolerance: float = TOLERANCE
    max_loss: float = MAX_LOSS
    overwrite: bool = False
    force: bool = False
    cache: str | None = None


@dataclass(frozen=True)
class Released:
    """A file that was exported.

    Attributes:
        results: of its checks.
        warnings: of the images on which it was checked.
    """

    results: tuple[str, ...]
    warnings: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join([*self.results, *(f"warning: {text}" for text in self.warnings)])


def target_of(file: Path, output: Path | None, options: ExportOptions) -> Path:
    """Where a model file is exported to, once it is clear that it may be written there.

    Args:
        file: the model file.
        output: the file or folder to write; None: beside the model file.
        options: what to write, and whether it may replace something.

    Raises:
        UsageError: it may not be written, or an option is not allowed.
    """
    refuse_exported(file, "export begins with it")
    target = _output_path(folder_beside(file) / file.name, output, options.to)
    if options.to == "triton":
        triton.check_folder(target)
    else:
        for part in parts_of(target):
            writable(part, [file, *files_of(options.data or "")])
    refuse_existing(target, options.overwrite)
    if not 0 < options.tolerance <= 1:
        raise UsageError(f"--tolerance {options.tolerance}: above 0, at most 1")
    return target


def precision_of(
    int8: bool, fp16: bool, max_loss: float | None, force: bool
) -> Literal["float32", "float16", "int8"]:
    """The precision by the flags for it.

    Raises:
        UsageError: they do not go together.
    """
    if int8 and fp16:
        raise UsageError("--int8 and --fp16: choose one")
    if not int8 and (max_loss is not None or force):
        name = "--force" if max_loss is None else "--max-loss"
        raise UsageError(f"{name} is for --int8, which alone may lose accuracy; leave it out")
    return "int8" if int8 else "float16" if fp16 else "float32"


def _output_path(file: Path, output: Path | None, to: _Destination) -> Path:
    """The path of the export: by default beside the model file, for Triton in a repository there.

    Raises:
        UsageError: the suffix is wrong for the format.
    """
    if to == "triton":
        return output or file.parent / "triton" / file.stem
    target = output or file.with_suffix(ENDINGS[to])
    if target.suffix != ENDINGS[to]:
        raise UsageError(f"--output {target}: a file for {to} ends in {ENDINGS[to]}")
    return target


def release(file: Path, target: Path, options: ExportOptions) -> Released:
    """Export a model file; nothing is written before all checks have passed.

    Args:
        file: the model file.
        target: the file to write; for Triton, the network's folder in the repository.
        options: format, precision and limits.

    Returns:
        The results of the checks.

    Raises:
        UsageError: an option is not allowed.
        ContentError: a check fails.
        MissingExtra: a package that is needed is not installed.
    """
    kind: Format = "onnx" if options.to == "triton" else options.to
    if kind == "torch" and options.precision != "float32":
        raise UsageError(f"{options.precision} is for onnx, openvino and triton; {_PYTORCH_HINT}")
    check_loss(options.max_loss)
    if options.to == "triton":
        triton.check_name(target.name)
    model = load(file)
    data = _data(model, options)
    chosen = _int8_images(model, data) if options.precision == "int8" else None
    compared = choose_export_images(model, data)
    images, words = sample_images(model, compared, options.images), describe_images(compared)
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder) / f"{target.stem}{ENDINGS[kind]}"
        agreement = export(model, trial, kind, images, words, options.tolerance, digest(file))
        results = [str(agreement)]
        if options.precision == "float16":
            results.append(f"fp16: {convert_to_float16(model, trial, trial, images, words)}")
        if chosen is not None:
            results.append(_quantise(model, trial, chosen, data, options))
        if options.to == "triton":
            results.append(_write_to_triton(model, trial, target, options.overwrite))
        else:
            publish(trial, target)
    warnings = dict.fromkeys([*compared.warnings, *(chosen.warnings if chosen else ())])
    return Released(tuple(results), tuple(warnings))


def _data(model: Model, options: ExportOptions) -> Data | None:
    """The images that are given, with their cache; None if none are.

    Raises:
        UsageError: there is a cache, but no images at an address.
    """
    if options.cache is None:
        return options.data
    return with_cache(options.data or model.description.data.get("source", ""), options.cache)


def _int8_images(model: Model, data: Data | None) -> EvaluationImages:
    """New images on which to evaluate int8, and training images to calibrate it.

    Raises:
        UsageError: the source does not exist, or none is known.
    """
    source = data or model.description.data.get("source")
    if not source:
        raise UsageError(
            "int8 is calibrated and evaluated on labelled images: give them with --data"
        )
    try:
        return choose_images(source, model.description, FITTING)
    except NothingNewError as error:
        raise UsageError(f"{error.problem}; give other labelled images with --data") from None
    except UsageError as error:
        hint = "" if data else " (give other labelled images with --data)"
        raise UsageError(f"{error}{hint}") from None


def _quantise(
    model: Model,
    file: Path,
    chosen: EvaluationImages,
    data: Data | None,
    options: ExportOptions,
) -> str:
    """Quantise an exported file in place; the results as lines of text."""
    source = data or str(model.description.data.get("source"))
    try:
        validation = recalibration.choose_calibration_images(
            source, model.description, "validation"
        )
    except UsageError:  # none, or the network was trained on all of them
        validation = None
    test = (chosen.images, chosen.what)
    scaling = chosen.train or chosen.images
    quantisation = quantise(file, file, scaling, test, options.max_loss, validation, options.force)
    return quantisation.in_words(options.max_loss)


def _write_to_triton(model: Model, file: Path, target: Path, overwrite: bool) -> str:
    """Add an .onnx file to a model repository; the results of its checks as text."""
    names = model.description.class_names
    folder = triton.write_repository(
        target.parent, target.name, read_input(file, LARGEST), names, overwrite=overwrite
    )
    config = read_text(folder / "config.pbtxt")
    return (
        f"Triton: config.pbtxt {triton.check_schema(config)}; the graph was run by ONNX Runtime, "
        f"not by a server.\n  tritonserver --model-repository {target.parent}"
    )
