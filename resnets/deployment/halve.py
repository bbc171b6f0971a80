"""Exports in floating point of 16 bits, for GPUs, which compute that twice as fast and more.

What goes in and comes out keeps its type, and preparing the images stays in float32, where places
of pixels need it. OpenVINO keeps weights of 16 bits, and computes as the device does it best.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from resnets.deployment.checking import Agreement, compare
from resnets.deployment.exported import read_onnx
from resnets.deployment.half_graph import in_half
from resnets.deployment.writing import (
    Write,
    opened,
    publish,
    read_openvino,
    save_onnx,
    save_openvino,
    with_report,
)
from resnets.errors import ContentError, UsageError, require
from resnets.images import Pixels
from resnets.model_file import Model

TOLERANCE = 0.02  # of a probability; float16 has 11 significant bits


def halve(
    model: Model, source: Path, target: Path, images: Sequence[Pixels], words: str
) -> Agreement:
    """Write an exported file in 16 bits, if it then says what the network says.

    Args:
        model: what was exported, for the comparison.
        source: what `export` wrote for ONNX Runtime or OpenVINO.
        target: where to; with the same ending. An existing file is replaced.
        images: (H, W, C) uint8 on which the file is compared with PyTorch.
        words: what these are.

    Raises:
        UsageError: the file is of another runtime.
        ContentError: a probability differs by more than 0.02; nothing is written.
        MissingExtra: the runtime is not installed.
    """
    if source.suffix not in MAKERS or target.suffix != source.suffix:
        raise UsageError(f"{target}: 16 bits are written to {' or '.join(MAKERS)}")
    write = MAKERS[source.suffix](source)
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder) / target.name
        write(trial, {})
        agreement = compare(model, opened(trial), images, words, TOLERANCE)
        if not agreement.holds:
            raise ContentError(f"{target} is not written in 16 bits: {agreement}")
        write(trial, {"fp16": agreement.to_dict()})
        publish(trial, target)
    return agreement


def make_onnx(source: Path) -> Write:
    """Writer of an .onnx file in 16 bits, with the metadata of the one in float32."""
    onnx = require("onnx", "onnx")
    content, header = read_onnx(source)
    model = onnx.load_from_string(in_half(content))
    return lambda path, report: save_onnx(model, path, with_report(header, report))


def make_openvino(source: Path) -> Write:
    """Writer of an .xml file and a .bin with weights in 16 bits."""
    model, header = read_openvino(source)
    return lambda path, report: save_openvino(model, path, with_report(header, report), True)


MAKERS = {".onnx": make_onnx, ".xml": make_openvino}
