"""The names of an exported graph's inputs and outputs, read without any runtime."""

import os
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resnets.deployment.exported import openvino_check
from resnets.deployment.exported.protobuf import messages_in, text_of
from resnets.deployment.exported.reading import LARGEST, read_onnx, read_openvino, read_torch
from resnets.errors import ContentError
from resnets.files.reading import open_input
from resnets.headers import parse_json
from resnets.packing import BROKEN_ZIP, unpacked_limit, unpacked_member

_GRAPH = 7  # a field of ModelProto in onnx.proto
_INITIALIZER, _INPUT, _OUTPUT = 5, 11, 12  # fields of GraphProto
_TENSOR_NAME, _VALUE_NAME = 8, 1  # of TensorProto and of ValueInfoProto
_PROGRAM = "models/model.json"  # the graph in an archive of torch.export


@dataclass(frozen=True)
class Interface:
    """What goes into a graph and comes out of it, by name and in order; and the file's metadata."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    header: dict[str, str]


def read_interface(path: str | Path) -> Interface:
    """The names of inputs and outputs in a file that `resnets export` wrote.

    Raises:
        OSError: it cannot be read.
        ContentError: it is no such file, or is damaged.
    """
    readers: dict[str, Callable[[str | Path], Interface]] = {
        ".onnx": _of_onnx,
        ".xml": _of_openvino,
        ".pt2": _of_torch,
    }
    return readers[Path(path).suffix.lower()](path)


def _of_onnx(path: str | Path) -> Interface:
    content, header = read_onnx(path)
    (graph,) = messages_in(memoryview(content), _GRAPH)
    weights = {text_of(item, _TENSOR_NAME) for item in messages_in(graph, _INITIALIZER)}
    inputs, outputs = (
        tuple(text_of(item, _VALUE_NAME) for item in messages_in(graph, number))
        for number in (_INPUT, _OUTPUT)
    )
    return Interface(tuple(name for name in inputs if name not in weights), outputs, header)


def _of_openvino(path: str | Path) -> Interface:
    content, _, header = read_openvino(path)
    network = openvino_check.read_network(content)
    names: dict[str, list[str]] = {"Parameter": [], "Result": []}
    for number, layer in network.layers.items():
        if layer.get("type") == "Parameter":
            names["Parameter"].append(layer.get("name", ""))
        elif layer.get("type") == "Result":
            (source,) = (start for end, start in network.edges.items() if end[0] == number)
            port = network.layers[source[0]].find(f"output/port[@id='{source[1]}']")
            names["Result"].append("" if port is None else port.get("names", ""))
    return Interface(tuple(names["Parameter"]), tuple(names["Result"]), header)


def _of_torch(path: str | Path) -> Interface:
    header = read_torch(path)
    try:
        with open_input(path, LARGEST) as file:
            limit = unpacked_limit(os.fstat(file.fileno()).st_size)
            with zipfile.ZipFile(file) as archive:
                (member,) = (m for m in archive.infolist() if m.filename.endswith(_PROGRAM))
                program = parse_json(bytes(unpacked_member(archive, member, limit)))
        signature = program["graph_module"]["signature"]
        inputs = tuple(_tensors(signature["input_specs"], "user_input"))
        outputs = tuple(_tensors(signature["output_specs"], "user_output"))
        return Interface(inputs, outputs, header)
    except (KeyError, TypeError, ValueError, *BROKEN_ZIP) as error:
        why = f": {error}" if isinstance(error, ContentError) else ""
        raise ContentError(f"{path}: its graph has no names of inputs and outputs{why}") from None


def _tensors(specs: list[dict[str, Any]], kind: str) -> Iterator[str]:
    """The names of the tensors that a caller passes or gets; weights are other kinds."""
    for spec in specs:
        if kind in spec:
            yield str(spec[kind]["arg"]["as_tensor"]["name"])
