"""Files for other runtimes: ONNX, OpenVINO's and torch.export's, each checked before it is kept.

What such a file takes is (B, H, W, C) uint8 with any B, H and W: resizing, cropping, normalising
and the calibrated softmax are in the graph, the rest of the description in the metadata.
"""

import io
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.export import Dim, ExportedProgram

from resnets.deployment.engines import open_engine
from resnets.deployment.engines.torch import open_program
from resnets.deployment.export.graph import deployed
from resnets.deployment.export.warnings import quietly
from resnets.deployment.exported.reading import DESCRIPTION, LARGEST, digest_of_members, report_of
from resnets.deployment.exported.reading import read_openvino as read_checked
from resnets.errors import ContentError, UsageError, require
from resnets.evaluation.engine import Engine, frames_of
from resnets.evaluation.outputs import EvaluationImages, NothingNewError, choose_for_all
from resnets.files import read_input, write_atomically
from resnets.images import Pixels
from resnets.integrity import DIGEST, UNSTAMPED, stamped
from resnets.json_text import to_json
from resnets.model_file import Model
from resnets.networks.evaluation_mode import evaluating

Write = Callable[[Path, dict[str, Any]], None]  # to a path, with that in the report of the export


def save_onnx(model: Any, path: Path, header: Mapping[str, str]) -> None:
    """Write an onnx.ModelProto in one file, with this metadata instead of its own."""
    del model.metadata_props[:]
    for key, value in {**header, DIGEST: UNSTAMPED}.items():
        model.metadata_props.add(key=key, value=value)
    write_atomically(path, stamped(model.SerializeToString()))


def save_openvino(model: Any, path: Path, header: Mapping[str, str], in_half: bool = False) -> None:
    """Write an openvino.Model to an .xml file and its weights, of 16 bits if so, to a .bin."""
    openvino = require("openvino", "openvino")
    model.set_rt_info(to_json({**header, DIGEST: UNSTAMPED}), [DESCRIPTION])
    openvino.save_model(model, path, compress_to_fp16=in_half)
    weights = read_input(path.with_suffix(".bin"), LARGEST)
    write_atomically(path, stamped(read_input(path, LARGEST), weights))


def read_openvino(path: Path) -> tuple[Any, dict[str, str]]:
    """The openvino.Model that `save_openvino` wrote, and its metadata.

    Raises:
        ContentError: it is damaged, or none that `resnets export` wrote.
        MissingExtra: openvino is not installed.
    """
    text, weights, header = read_checked(path)
    return require("openvino", "openvino").Core().read_model(text, weights), header


def with_report(header: Mapping[str, str], report: dict[str, Any]) -> dict[str, str]:
    """The metadata with more in the report of the export."""
    return {**header, "export": to_json(report_of(header) | report, sort=True)}


def opened(file: Path) -> Engine:
    """A file in the runtime that it was written for: OpenVINO, or ONNX Runtime."""
    return open_engine(file, "openvino" if file.suffix == ".xml" else "onnxruntime")


def parts_of(file: Path) -> list[Path]:
    """An exported file and what belongs to it: OpenVINO's .bin, before the .xml that needs it."""
    return [file.with_suffix(".bin"), file] if file.suffix == ".xml" else [file]


def publish(trial: Path, target: Path) -> None:
    """Put a file that was found good, with its parts, in the place of what was there."""
    for part in parts_of(trial):
        write_atomically(target.with_suffix(part.suffix), read_input(part, LARGEST))


def size(file: Path) -> int:
    """Bytes of an exported file, all its parts together."""
    return sum(part.stat().st_size for part in parts_of(file))


TOLERANCE = 1e-3  # of a probability
_OWN_TOLERANCE = 10  # times as much where the file resizes
IMAGES = 64
_Probabilities = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Agreement:
    """How near an exported file is to PyTorch.

    Attributes:
        source: which images.
        images: how many.
        difference: the largest of any image's probability of any class, 0 to 1, where images
            come at the size that the network wants, as this package's engines give them.
        own_difference: the same, where the file's graph resizes the images as they are; few
            of its pixels are 1 of 255 from Pillow's, seldom one is 2.
        same_answer: how many images as they are have the same likeliest class.
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
            and self.own_difference <= _OWN_TOLERANCE * self.tolerance
        )

    def to_dict(self) -> dict[str, Any]:
        """For the metadata: plain values only."""
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"the same class as PyTorch on {self.same_answer} of {self.images} images "
            f"({self.source}), probabilities within {self.difference:.1g}, "
            f"where the file resizes within {self.own_difference:.1g}"
        )


def compare(
    model: Model, engine: Engine, images: Sequence[Pixels], source: str, tolerance: float
) -> Agreement:
    """Compare an engine with PyTorch.

    Args:
        model: what the engine's file was made from.
        engine: what runs it.
        images: (H, W, C) uint8.
        source: what these are, in words.
        tolerance: see `Agreement`.

    Raises:
        UsageError: there is no image.
        ContentError: the engine's probabilities are not finite.
    """
    if not images:
        raise UsageError("an export is checked on images, and there is none")
    wanted = _wanted_of(model, images)
    frames = [frames_of(image[None], model.description.preprocessing) for image in images]
    prepared = engine.probabilities(np.concatenate(frames))
    own = np.concatenate([engine.graph(image[None])[0] for image in images])
    for found in (prepared, own):
        if not np.isfinite(found).all():
            raise ContentError("the exported file gives probabilities that are not finite")
    return Agreement(
        source=source,
        images=len(images),
        difference=float(np.abs(wanted - prepared).max()),
        own_difference=float(np.abs(wanted - own).max()),
        same_answer=int((wanted.argmax(axis=1) == own.argmax(axis=1)).sum()),
        tolerance=tolerance,
    )


def _wanted_of(model: Model, images: Sequence[Pixels]) -> _Probabilities:
    """PyTorch's calibrated probabilities (N, K) of images (H, W, C), prepared as in training."""
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
    """Real images on which to check an export, and what they are in words.

    Args:
        model: what is exported.
        data: as for `open_data`; None takes what the network was trained on, where that is still
            there, else the digits that are embedded.
        number: at most so many, spread evenly over the part that `evaluate` takes.

    Raises:
        UsageError, ContentError: there is no such source; an image cannot be read.
    """
    chosen = chosen_for(model, data)
    return pixels_for(model, chosen, number), words_for(chosen)


def chosen_for(model: Model, data: str | None) -> EvaluationImages:
    """The images on which to check an export: what `evaluate` takes; see `images_for`.

    Where the network has seen them all, it is those: runtimes can be compared on them as well.
    """
    source = data or str(model.description.data.get("source", "digits"))
    try:
        return _part_of(source, model)
    except (UsageError, ContentError, OSError, ImportError):
        if data:
            raise
        return _part_of("digits", model)


def _part_of(source: str, model: Model) -> EvaluationImages:
    """What `evaluate` takes of a source, whatever its classes are; see `chosen_for`."""
    description = [model.description]
    try:
        return choose_for_all(source, description, "auto")
    except NothingNewError:
        return choose_for_all(source, description, "all")


def words_for(chosen: EvaluationImages) -> str:
    """Which part of which source, without the number of images: only some are compared."""
    return chosen.part.partition(" images, ")[2]


def pixels_for(model: Model, chosen: EvaluationImages, number: int) -> list[Pixels]:
    """Some of the images, spread evenly; see `images_for`."""
    if number < 1:
        raise UsageError(f"{number} images: needs at least 1 to compare")
    places = np.unique(np.linspace(0, len(chosen.images) - 1, number).astype(int))
    channels = model.description.preprocessing.channels
    return [chosen.images.image(int(place), channels) for place in places]


Format = Literal["onnx", "openvino", "torch"]
ENDINGS: dict[Format, str] = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2"}
_OPSET = 20
_INPUT, _OUTPUTS = "images", ("probabilities", "features")
_AXES = ("batch", "height", "width")
_LARGEST_SIDE = 65536  # of each of them


def export(
    model: Model,
    path: str | Path,
    to: Format,
    images: Sequence[Pixels],
    source: str,
    tolerance: float = TOLERANCE,
    origin: str | None = None,
) -> Agreement:
    """Write a model for another runtime, if the file then says what the network says.

    Args:
        model: what is exported.
        path: where to; an existing file is replaced. OpenVINO's ends in .xml and gets a .bin
            beside it.
        to: whose file.
        images: (H, W, C) uint8 on which the file is compared with PyTorch.
        source: what these are, for the report.
        tolerance: largest difference of a probability.
        origin: digest of the model file, by which the export is known as its own.

    Returns:
        The comparison, which is in the file's metadata too.

    Raises:
        ContentError: the file would differ by more; it is not written.
        MissingExtra: what is needed to write or to run such a file is not installed.
    """
    path = Path(path)
    made = _WRITERS[to](model)
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder) / f"model{ENDINGS[to]}"
        made(trial, {})
        engine = open_program(trial) if to == "torch" else opened(trial)
        agreement = compare(model, engine, images, source, tolerance)
        if not agreement.holds:
            raise ContentError(f"{path} is not written: {agreement}; {tolerance:g} is allowed")
        made(trial, {"agreement": agreement.to_dict(), "origin": origin})
        publish(trial, path)
    return agreement


def _metadata(model: Model, report: dict[str, Any]) -> dict[str, str]:
    """The description as the header of a model file has it, and the report of the export."""
    return with_report(model.description.to_header(), report)


def _program(model: Model) -> ExportedProgram:
    """The network with its preprocessing as torch.export's graph, for any B, H and W."""
    channels = model.description.preprocessing.channels
    example = torch.zeros((2, 50, 61, channels), dtype=torch.uint8)
    sizes = {place: Dim(name, max=_LARGEST_SIDE) for place, name in enumerate(_AXES)}
    with quietly("torch.onnx"), torch.no_grad():
        made = torch.export.export(
            deployed(model), (example,), dynamic_shapes={_INPUT: sizes | {3: Dim.STATIC}}
        )
    for node in made.graph.nodes:
        node.meta.pop("stack_trace", None)  # names files of the machine that exports
    return made


def _make_torch(model: Model) -> Write:
    """Writer of a .pt2 file."""
    made = _program(model)

    def write(path: Path, report: dict[str, Any]) -> None:
        header = _metadata(model, report)
        torch.export.save(made, path, extra_files={DESCRIPTION: to_json(header)})
        with zipfile.ZipFile(path) as archive:
            header |= {DIGEST: digest_of_members(archive)}
        torch.export.save(made, path, extra_files={DESCRIPTION: to_json(header)})

    return write


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
    with quietly("torch.onnx"):
        made = torch.onnx.export(
            _program(model),
            (),
            dynamo=True,
            opset_version=_OPSET,
            input_names=[_INPUT],
            output_names=list(_OUTPUTS),
            verbose=False,
        )
    assert made is not None
    proto = made.model_proto
    _tidy(proto)
    proto.producer_name, proto.producer_version = "resnets", version("resnets")
    proto.doc_string = __doc__
    return proto


def _tidy(proto: Any) -> None:
    """Call the sizes that may change batch, height and width; drop what only a debugger needs."""
    names: dict[str, str] = {}
    for value in (*proto.graph.input, *proto.graph.output):
        for axis, size in zip(_AXES, value.type.tensor_type.shape.dim, strict=False):
            if size.dim_param:
                size.dim_param = names.setdefault(size.dim_param, axis)
    del proto.graph.value_info[:]  # what is in between gets its shape from these
    for node in proto.graph.node:
        del node.metadata_props[:]  # which module of PyTorch's each came from


def _make_openvino(model: Model) -> Write:
    """Writer of an .xml file and the .bin with its weights."""
    openvino = require("openvino", "openvino")
    with quietly("torch.onnx"):
        made = openvino.Core().read_model(io.BytesIO(_onnx_model(model).SerializeToString()))
    return lambda path, report: save_openvino(made, path, _metadata(model, report))


_WRITERS: dict[Format, Callable[[Model], Write]] = {
    "onnx": _make_onnx,
    "openvino": _make_openvino,
    "torch": _make_torch,
}
