"""A model repository for NVIDIA's Triton Inference Server: a folder that the server loads.

    REPOSITORY/NAME/config.pbtxt     inputs, outputs, and how requests are batched
    REPOSITORY/NAME/labels.txt       the class of each probability, one per line
    REPOSITORY/NAME/1/model.onnx     the graph

The server returns probabilities and features. docs/other-things.md shows how a client computes the
status (ok, unsure, not calibrated or unfamiliar) from them and the graph's metadata.

The configuration is written in the text form of protobuf, with fields of Triton's
model_config.proto (docs.nvidia.com: Triton Inference Server, Model Configuration).
"""

import importlib.util
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from resnets.errors import ContentError, UsageError, require
from resnets.files.outputs import refuse_existing, writable_folder
from resnets.files.writing import write_atomically
from resnets.json_text import to_json

# by the number of the type in ONNX
_TYPES = {2: "TYPE_UINT8", 1: "TYPE_FP32", 10: "TYPE_FP16", 7: "TYPE_INT64"}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_MAX_BATCH = 64
_DELAY = 1000  # microseconds that a request waits for others, to be computed in one batch


def write_repository(
    folder: Path,
    name: str,
    content: bytes,
    class_names: Sequence[str],
    *,
    max_batch: int = _MAX_BATCH,
    delay: int = _DELAY,
    overwrite: bool = False,
) -> Path:
    """Add a network to a model repository, completely or not at all.

    Args:
        folder: the repository; other networks in it are not changed.
        name: of the network on the server: letters, digits, ``_``, ``-`` and ``.``.
        content: the bytes of an ONNX file with a dynamic batch.
        class_names: one for each probability, in order.
        max_batch: largest number of images in a batch.
        delay: microseconds that a request waits for others, to be computed in one batch.
        overwrite: replace a network of this name.

    Returns:
        The network's folder in the repository.

    Raises:
        UsageError: a name or number is not allowed, or the network exists already.
        ContentError: a class name has a line break, or Triton cannot serve the graph.
        MissingExtra: onnx is not installed.
    """
    check_name(name)
    if max_batch < 1 or delay < 0:
        raise UsageError(f"max batch {max_batch}, delay {delay}: at least 1 and 0")
    target = folder / name
    refuse_existing(target, overwrite)
    if multiline := [label for label in class_names if len(label.splitlines()) > 1]:
        raise ContentError(
            f"class name {multiline[0]!r}: labels.txt has one per line; remove its line break"
        )
    text = _configuration(name, content, max_batch, delay)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=f".{name}.") as temporary:
        staged = Path(temporary) / name
        (staged / "1").mkdir(parents=True)
        write_atomically(staged / "1" / "model.onnx", content)
        labels = "".join(f"{label}\n" for label in class_names)
        write_atomically(staged / "labels.txt", labels.encode())
        write_atomically(staged / "config.pbtxt", text.encode())
        if target.exists():
            shutil.rmtree(target)
        staged.rename(target)
    return target


def check_folder(target: Path) -> None:
    """Check that a network may be written to a folder.

    Raises:
        UsageError: the folder cannot be created, or has other content, which would be lost.
    """
    writable_folder(target)
    if target.is_dir() and any(target.iterdir()) and not (target / "config.pbtxt").is_file():
        raise UsageError(
            f"{target}: not empty, and not a network of Triton (it has no config.pbtxt); "
            "give another --output"
        )


def check_name(name: str) -> None:
    """Check the name of a network on the server.

    Raises:
        UsageError: it has another character than letters, digits, ``_``, ``-`` and ``.``.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(f"the name {name!r}: use letters, digits, '_', '-' and '.'")


def _configuration(name: str, content: bytes, max_batch: int, delay: int) -> str:
    """The text of config.pbtxt, from the graph's own inputs and outputs.

    Raises:
        ContentError: an input or output has another type, or its batch is of a fixed size.
        MissingExtra: onnx is not installed.
    """
    graph = require("onnx", "onnx").load_from_string(content).graph
    weights = {item.name for item in graph.initializer}
    inputs = [_port(item) for item in graph.input if item.name not in weights]
    first, *others = (_port(item) for item in graph.output)
    outputs = [[*first, 'label_filename: "labels.txt"'], *others]
    return "\n".join(
        [
            f"name: {to_json(name)}",
            'backend: "onnxruntime"',
            'default_model_filename: "model.onnx"',
            f"max_batch_size: {max_batch}",
            *_block("input", inputs),
            *_block("output", outputs),
            "dynamic_batching {",
            f"  max_queue_delay_microseconds: {delay}",
            "}",
            "",
        ]
    )


def _port(item: Any) -> list[str]:
    """The fields of an input or output, without the batch axis, which `max_batch_size` implies."""
    tensor = item.type.tensor_type
    kind = _TYPES.get(tensor.elem_type)
    batch, *sizes = tensor.shape.dim
    if kind is None or batch.HasField("dim_value"):
        raise ContentError(f"{item.name}: Triton needs a numeric type and a dynamic batch")
    dims = ", ".join(str(size.dim_value) if size.HasField("dim_value") else "-1" for size in sizes)
    return [f"name: {to_json(item.name)}", f"data_type: {kind}", f"dims: [ {dims} ]"]


def _block(name: str, items: Sequence[Sequence[str]]) -> list[str]:
    """A repeated field whose values are messages, as lines of text."""
    return [line for item in items for line in (f"{name} {{", *(f"  {x}" for x in item), "}")]


def check_schema(text: str) -> str:
    """Check the configuration against Triton's schema, and say whether that was possible.

    It is possible if tritonclient is installed.

    Raises:
        ContentError: it does not follow the schema.
    """
    if importlib.util.find_spec("tritonclient") is None:
        return "not checked against Triton's schema (to check: pip install tritonclient[grpc])"
    schema = require("tritonclient.grpc.model_config_pb2", "onnx")
    text_format = require("google.protobuf.text_format", "onnx")
    try:
        text_format.Parse(text, schema.ModelConfig())
    except text_format.ParseError as error:
        raise ContentError(f"config.pbtxt: {error}") from None
    return "checked against Triton's schema"
