"""Export to files of ONNX, OpenVINO and torch.export, each checked before it is kept.

Such a file takes (B, H, W, C) uint8 with any B, H and W: resizing, cropping, normalising and the
calibrated softmax are in the graph, the rest of the description is in the metadata.
"""

import io
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.export import Dim, ExportedProgram
from torch.fx import Node

from resnets.data.sources.objects import Data
from resnets.deployment.engines import open_engine
from resnets.deployment.engines.openvino import core
from resnets.deployment.engines.torch import open_program
from resnets.deployment.export.graph import deployed
from resnets.deployment.export.warnings import suppress_warnings
from resnets.deployment.exported.reading import DESCRIPTION, LARGEST, digest_of_members, report_of
from resnets.deployment.exported.reading import read_openvino as read_checked
from resnets.errors import ContentError, UsageError, require
from resnets.evaluation.engine import Engine, frames_of
from resnets.evaluation.outputs import EvaluationImages, NothingNewError, choose_for_all
from resnets.files.reading import read_input
from resnets.files.writing import write_atomically
from resnets.format import plural
from resnets.images import Pixels
from resnets.integrity import DIGEST, UNSTAMPED, stamped
from resnets.json_text import to_json
from resnets.model_file import Description, Model, with_golden
from resnets.networks.evaluation_mode import evaluating

Write = Callable[[Path, dict[str, Any]], None]  # to a path, with a report of the export


def save_onnx(model: Any, path: Path, header: Mapping[str, str]) -> None:
    """Write an onnx.ModelProto to one file, with `header` as its metadata."""
    del model.metadata_props[:]
    for key, value in {**header, DIGEST: UNSTAMPED}.items():
        model.metadata_props.add(key=key, value=value)
    model.doc_string = _instructions(Description.from_header(header, str(path)))
    write_atomically(path, stamped(model.SerializeToString()))


def _instructions(description: Description) -> str:
    """How somebody uses an exported file who has nothing but the file."""
    channels = {1: "1 channel, grey", 3: "3 channels in the order red, green, blue"}
    seen = description.preprocessing.channels
    return (
        "An image classifier, written by resnets export.\nInput images: uint8 of the shape "
        "(batch, height, width, channels), values 0 to 255, "
        f"{channels.get(seen, '4 channels: red, green, blue, alpha')}, upright, of any height and "
        "width. Resizing, cropping and normalising are in the graph.\nOutput probabilities: "
        f"float32 (batch, classes), {_calibrated(description)}each row sums to 1; the classes are "
        "in the order of class_names in the metadata. The prediction is the most probable class; "
        f"{_status_rule(description)}.\n"
        "Output features: float32 (batch, features), what the classifier sees; by "
        "their cosine with the nearest class mean an image may be unfamiliar (familiarity in the "
        "metadata).\nWith resnets: resnets predict FILE IMAGES"
    )


def _calibrated(description: Description) -> str:
    """Whether probabilities are calibrated, as a word with a comma; empty if not."""
    return "calibrated, " if description.calibration else ""


def _status_rule(description: Description) -> str:
    """How the status follows from the probability of the prediction, as a clause."""
    if not description.calibration:
        return "no threshold was fitted: the status is not calibrated"
    threshold = description.calibration["threshold"]
    if threshold is None:
        return "no probability was high enough for the target: the status is unsure"
    return f"the status is ok from a probability of {threshold:.6g}, unsure below"


def save_openvino(model: Any, path: Path, header: Mapping[str, str], in_half: bool = False) -> None:
    """Write an openvino.Model to an .xml file, and a .bin of weights, in float16 if `in_half`."""
    openvino = require("openvino", "openvino")
    model.set_rt_info(to_json({**header, DIGEST: UNSTAMPED}), [DESCRIPTION])
    openvino.save_model(model, path, compress_to_fp16=in_half)
    weights = read_input(path.with_suffix(".bin"), LARGEST)
    write_atomically(path, stamped(read_input(path, LARGEST), weights))


def read_openvino(path: Path) -> tuple[Any, dict[str, str]]:
    """The openvino.Model that `save_openvino` wrote, and its metadata.

    Raises:
        ContentError: it is damaged, or `resnets export` did not write it.
        MissingExtra: openvino is not installed.
    """
    text, weights, header = read_checked(path)
    return core().read_model(text, weights), header


def with_report(header: Mapping[str, str], report: dict[str, Any]) -> dict[str, str]:
    """The metadata with entries added to the report of the export."""
    return {**header, "export": to_json(report_of(header) | report, sort=True)}


def open_exported(file: Path) -> Engine:
    """An exported file in its runtime: OpenVINO for an .xml, else ONNX Runtime."""
    return open_engine(file, "openvino" if file.suffix == ".xml" else "onnxruntime")


def parts_of(file: Path) -> list[Path]:
    """The files of an export: for OpenVINO the .bin, then the .xml that needs it."""
    return [file.with_suffix(".bin"), file] if file.suffix == ".xml" else [file]


def publish(trial: Path, target: Path) -> None:
    """Copy a checked file with its parts to its target; existing files are replaced."""
    for part in parts_of(trial):
        write_atomically(target.with_suffix(part.suffix), read_input(part, LARGEST))


def size(file: Path) -> int:
    """Bytes of all parts of an exported file."""
    return sum(part.stat().st_size for part in parts_of(file))


TOLERANCE = 1e-3  # of a probability
_RESIZING_FACTOR = 10  # of the tolerance, where the file resizes
IMAGES = 64
_Probabilities = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Agreement:
    """How well an exported file agrees with PyTorch.

    Attributes:
        source: a description of the images.
        images: number of images.
        difference: the largest difference of a probability, over images and classes, 0 to 1, on
            images at the network's size, as this package's engines pass them.
        own_difference: the same on original images, which the file's graph resizes; few of its
            pixels differ from Pillow's by 1 of 255, very few by 2.
        same_answer: number of original images with the same top class.
        tolerance: the largest `difference` that is allowed; `own_difference` may be ten times that.
    """

    source: str
    images: int
    difference: float
    own_difference: float
    same_answer: int
    tolerance: float = TOLERANCE

    @property
    def holds(self) -> bool:
        """Whether the file may be kept."""
        return (
            self.difference <= self.tolerance
            and self.own_difference <= _RESIZING_FACTOR * self.tolerance
        )

    def to_dict(self) -> dict[str, Any]:
        """For the metadata: plain values only."""
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"the same class as PyTorch on {self.same_answer} of {plural(self.images, 'image')} "
            f"(drawn from {self.source}), probabilities within {self.difference:.1g}, "
            f"where the file resizes within {self.own_difference:.1g}"
        )


def compare(
    model: Model, engine: Engine, images: Sequence[Pixels], source: str, tolerance: float
) -> Agreement:
    """Compare an engine with PyTorch.

    Args:
        model: from which the engine's file was made.
        engine: runs the exported file.
        images: (H, W, C) uint8.
        source: a description of the images.
        tolerance: see `Agreement`.

    Raises:
        UsageError: there is no image.
        ContentError: the engine's probabilities are not finite.
    """
    if not images:
        raise UsageError("an export is checked on images, and there is none")
    reference = _reference_probabilities(model, images)
    frames = [frames_of(image[None], model.description.preprocessing) for image in images]
    at_network_size = engine.probabilities(np.concatenate(frames))
    original_size = np.concatenate([engine.graph(image[None])[0] for image in images])
    for probabilities in (at_network_size, original_size):
        if not np.isfinite(probabilities).all():
            raise ContentError("the exported file gives probabilities that are not finite")
    return Agreement(
        source=source,
        images=len(images),
        difference=float(np.abs(reference - at_network_size).max()),
        own_difference=float(np.abs(reference - original_size).max()),
        same_answer=int((reference.argmax(axis=1) == original_size.argmax(axis=1)).sum()),
        tolerance=tolerance,
    )


def _reference_probabilities(model: Model, images: Sequence[Pixels]) -> _Probabilities:
    """PyTorch's calibrated probabilities (N, K) of images (H, W, C)."""
    preprocessing = model.description.preprocessing
    temperature = float(model.description.calibration.get("temperature", 1.0))
    device = next(model.network.parameters()).device
    rows = []
    with evaluating(model.network), torch.inference_mode():
        for image in images:
            pixels = preprocessing.normalise(preprocessing.pixels(image)[None])
            logits = model.network(torch.from_numpy(pixels).to(device)).double() / temperature
            rows.append(logits.softmax(1).cpu().numpy())
    return np.concatenate(rows)


def images_for(model: Model, data: str | None, number: int = IMAGES) -> tuple[list[Pixels], str]:
    """Real images on which to check an export, and a description of them.

    Args:
        model: the network to be exported.
        data: as for `open_data`; None takes the data that the network was trained on, if it is
            still there, else the embedded digits.
        number: the largest number of images, spread evenly over those that `evaluate` takes.

    Raises:
        UsageError, ContentError: the data do not exist; an image cannot be read.
    """
    chosen = choose_export_images(model, data)
    return sample_images(model, chosen, number), describe_images(chosen)


def choose_export_images(model: Model, data: Data | None) -> EvaluationImages:
    """The images on which to check an export: those that `evaluate` takes; see `images_for`.

    If the network was trained on all of them, they are taken nevertheless: they are good enough to
    compare runtimes.
    """
    source = data or str(model.description.data.get("source", "digits"))
    skips = not data and bool(model.description.data.get("skipped"))
    try:
        return _evaluation_images(source, model, skips)
    except (UsageError, ContentError, OSError, ImportError):
        if data:
            raise
        return _evaluation_images("digits", model)


def _evaluation_images(source: Data, model: Model, skips: bool = False) -> EvaluationImages:
    """The images of a source that `evaluate` takes, whatever its classes.

    Args:
        source: as for `open_data`.
        model: the network to be exported.
        skips: leave out images that cannot be read, as its training did.
    """
    choose = partial(choose_for_all, source, [model.description], skip_unreadable=skips)
    try:
        return choose("auto")
    except NothingNewError:
        return choose("all")


def describe_images(chosen: EvaluationImages) -> str:
    """The part and the source in words, without the number of images: only some are compared."""
    return chosen.part.partition(" images, ")[2]


def sample_images(model: Model, chosen: EvaluationImages, number: int) -> list[Pixels]:
    """`number` of the images, spread evenly; see `images_for`."""
    if number < 1:
        raise UsageError(f"{plural(number, 'image')}: at least 1 is needed to compare")
    indices = np.unique(np.linspace(0, len(chosen.images) - 1, number).astype(int))
    channels = model.description.preprocessing.channels
    return [chosen.images.image(int(index), channels) for index in indices]


Format = Literal["onnx", "openvino", "torch"]
ENDINGS: dict[Format, str] = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2"}
_OPSET = 20
_INPUT, _OUTPUTS = "images", ("probabilities", "features")
_AXES = ("batch", "height", "width")
_LARGEST_SIZE = 65536  # of each axis


def export(
    model: Model,
    path: str | Path,
    to: Format,
    images: Sequence[Pixels],
    source: str,
    tolerance: float = TOLERANCE,
    origin: str | None = None,
) -> Agreement:
    """Write a model for another runtime, if the file then predicts what the network predicts.

    Args:
        model: the network to be exported.
        path: of the file to write; an existing one is replaced. OpenVINO's ends in .xml and gets
            a .bin beside it.
        to: the file format.
        images: (H, W, C) uint8 on which the file is compared with PyTorch.
        source: a description of the images, for the report.
        tolerance: largest difference of a probability that is allowed.
        origin: digest of the model file, which tells later that the export was made from it.

    Returns:
        The comparison with PyTorch, which is in the file's metadata, too.

    Raises:
        ContentError: the difference is larger; the file is not written.
        MissingExtra: a package that writes or runs such a file is not installed.
    """
    path = Path(path)
    write = _WRITERS[to](model)
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder) / f"model{ENDINGS[to]}"
        write(trial, {})
        engine = open_program(trial) if to == "torch" else open_exported(trial)
        agreement = compare(model, engine, images, source, tolerance)
        if not agreement.holds:
            raise ContentError(f"{path} is not written: {agreement}; {tolerance:g} is allowed")
        write(trial, {"agreement": agreement.to_dict(), "origin": origin})
        publish(trial, path)
    return agreement


def _metadata(model: Model, report: dict[str, Any]) -> dict[str, str]:
    """The description, as in the header of a model file, with the report of the export."""
    described = with_golden(model.description, model.network)  # which may have changed since
    return with_report(described.to_header(), report)


def _program(model: Model) -> ExportedProgram:
    """The network with its preprocessing as torch.export's graph, for any B, H and W."""
    channels = model.description.preprocessing.channels
    example = torch.zeros((2, 50, 61, channels), dtype=torch.uint8)
    sizes = {place: Dim(name, max=_LARGEST_SIZE) for place, name in enumerate(_AXES)}
    with suppress_warnings("torch.onnx"), torch.no_grad():
        program = torch.export.export(
            deployed(model), (example,), dynamic_shapes={_INPUT: sizes | {3: Dim.STATIC}}
        )
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # has paths of the machine that exports
    return program


def _make_torch(model: Model) -> Write:
    """Writer of a .pt2 file."""
    program = _program(model)
    _name_outputs(program)

    def write(path: Path, report: dict[str, Any]) -> None:
        header = _metadata(model, report)
        torch.export.save(program, path, extra_files={DESCRIPTION: to_json(header)})
        with zipfile.ZipFile(path) as archive:
            header |= {DIGEST: digest_of_members(archive)}
        torch.export.save(program, path, extra_files={DESCRIPTION: to_json(header)})

    return write


def _name_outputs(program: ExportedProgram) -> None:
    """Name the outputs of a program, which are called after operators such as softmax. In place.

    They stay a tuple, in order: a class with named fields would have to be imported by whoever
    loads the file.
    """
    (outputs,) = program.graph.output_node().args
    assert isinstance(outputs, tuple)
    specs = program.graph_signature.output_specs
    for node, spec, name in zip(outputs, specs, _OUTPUTS, strict=True):
        assert isinstance(node, Node)
        node.name = spec.arg.name = name
    program.graph_module.recompile()


def _make_onnx(model: Model) -> Write:
    """Writer of an .onnx file, everything in one file."""
    onnx = _onnx_model(model)
    return lambda path, report: save_onnx(onnx, path, _metadata(model, report))


def _onnx_model(model: Model) -> Any:
    """The graph as an onnx.ModelProto, without metadata.

    Raises:
        MissingExtra: onnx or onnxscript is not installed.
    """
    require("onnx", "onnx")
    require("onnxscript", "onnx")
    proto = _traced(model)
    _tidy(proto)
    proto.producer_name, proto.producer_version = "resnets", version("resnets")
    return proto


def _traced(model: Model) -> Any:
    """The graph as torch writes it."""
    with suppress_warnings("torch.onnx"):
        program = torch.onnx.export(
            _program(model),
            (),
            dynamo=True,
            opset_version=_OPSET,
            input_names=[_INPUT],
            output_names=list(_OUTPUTS),
            verbose=False,
        )
    assert program is not None
    return program.model_proto


def _tidy(proto: Any) -> None:
    """Name the dynamic sizes batch, height and width; remove what only a debugger needs."""
    names: dict[str, str] = {}
    for value in (*proto.graph.input, *proto.graph.output):
        for axis, size in zip(_AXES, value.type.tensor_type.shape.dim, strict=False):
            if size.dim_param:
                size.dim_param = names.setdefault(size.dim_param, axis)
    del proto.graph.value_info[:]  # runtimes infer the shapes in between
    for node in proto.graph.node:
        del node.metadata_props[:]  # the module of PyTorch that it came from


def _make_openvino(model: Model) -> Write:
    """Writer of an .xml file and the .bin with its weights."""
    openvino = core()
    with suppress_warnings("torch.onnx"):
        openvino_model = openvino.read_model(io.BytesIO(_onnx_model(model).SerializeToString()))
    return lambda path, report: save_openvino(openvino_model, path, _metadata(model, report))


_WRITERS: dict[Format, Callable[[Model], Write]] = {
    "onnx": _make_onnx,
    "openvino": _make_openvino,
    "torch": _make_torch,
}
