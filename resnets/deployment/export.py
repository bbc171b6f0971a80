"""Files for other runtimes: ONNX, OpenVINO's and torch.export's, each checked before it is kept.

What such a file takes is (B, H, W, C) uint8 with any B, H and W: resizing, cropping, normalising
and the calibrated softmax are in the graph, the rest of the description in the metadata.
"""

import io
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from torch.export import Dim, ExportedProgram

from resnets.deployment.checking import TOLERANCE, Agreement, compare
from resnets.deployment.exported import DESCRIPTION, digest_of_members
from resnets.deployment.graph import deployed
from resnets.deployment.quiet import quietly
from resnets.deployment.torch_runtime import open_program
from resnets.deployment.writing import (
    Write,
    opened,
    publish,
    save_onnx,
    save_openvino,
    with_report,
)
from resnets.errors import ContentError, require
from resnets.images import Pixels
from resnets.integrity import DIGEST
from resnets.json_text import to_json
from resnets.model_file import Model

Format = Literal["onnx", "openvino", "torch"]
ENDINGS: dict[Format, str] = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2"}
OPSET = 20
INPUT, OUTPUTS = "images", ("probabilities", "features")
AXES = ("batch", "height", "width")
LARGEST = 65536  # of each of them


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
    made = WRITERS[to](model)
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


def metadata(model: Model, report: dict[str, Any]) -> dict[str, str]:
    """The description as the header of a model file has it, and the report of the export."""
    return with_report(model.description.to_header(), report)


def program(model: Model) -> ExportedProgram:
    """The network with its preprocessing as torch.export's graph, for any B, H and W."""
    channels = model.description.preprocessing.channels
    example = torch.zeros((2, 50, 61, channels), dtype=torch.uint8)
    sizes = {place: Dim(name, max=LARGEST) for place, name in enumerate(AXES)}
    with quietly("torch.onnx"), torch.no_grad():
        made = torch.export.export(
            deployed(model), (example,), dynamic_shapes={INPUT: sizes | {3: Dim.STATIC}}
        )
    for node in made.graph.nodes:
        node.meta.pop("stack_trace", None)  # names files of the machine that exports
    return made


def make_torch(model: Model) -> Write:
    """Writer of a .pt2 file."""
    made = program(model)

    def write(path: Path, report: dict[str, Any]) -> None:
        header = metadata(model, report)
        torch.export.save(made, path, extra_files={DESCRIPTION: to_json(header)})
        with zipfile.ZipFile(path) as archive:
            header |= {DIGEST: digest_of_members(archive)}
        torch.export.save(made, path, extra_files={DESCRIPTION: to_json(header)})

    return write


def make_onnx(model: Model) -> Write:
    """Writer of an .onnx file, everything in one file."""
    onnx = onnx_model(model)
    return lambda path, report: save_onnx(onnx, path, metadata(model, report))


def onnx_model(model: Model) -> Any:
    """The graph as an onnx.ModelProto, without metadata.

    Raises:
        MissingExtra: onnx or onnxscript is not installed.
    """
    require("onnx", "onnx")
    require("onnxscript", "onnx")
    with quietly("torch.onnx"):
        made = torch.onnx.export(
            program(model),
            (),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=list(OUTPUTS),
            verbose=False,
        )
    assert made is not None
    proto = made.model_proto
    tidy(proto)
    proto.producer_name, proto.producer_version = "resnets", version("resnets")
    proto.doc_string = __doc__
    return proto


def tidy(proto: Any) -> None:
    """Call the sizes that may change batch, height and width; drop what only a debugger needs."""
    names: dict[str, str] = {}
    for value in (*proto.graph.input, *proto.graph.output):
        for axis, size in zip(AXES, value.type.tensor_type.shape.dim, strict=False):
            if size.dim_param:
                size.dim_param = names.setdefault(size.dim_param, axis)
    del proto.graph.value_info[:]  # what is in between gets its shape from these
    for node in proto.graph.node:
        del node.metadata_props[:]  # which module of PyTorch's each came from


def make_openvino(model: Model) -> Write:
    """Writer of an .xml file and the .bin with its weights."""
    openvino = require("openvino", "openvino")
    with quietly("torch.onnx"):
        made = openvino.Core().read_model(io.BytesIO(onnx_model(model).SerializeToString()))
    return lambda path, report: save_openvino(made, path, metadata(model, report))


WRITERS: dict[Format, Callable[[Model], Write]] = {
    "onnx": make_onnx,
    "openvino": make_openvino,
    "torch": make_torch,
}
