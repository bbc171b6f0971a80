"""What can be checked of a model repository without a server.

The fields and their numbers are those of Triton's model_config.proto; where tritonclient is
installed, its own schema reads the configuration too.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from resnets.deployment.export.triton import _configuration, check_schema, write_repository
from resnets.errors import ContentError, UsageError

onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")

NAMES = ("ant", "bee", "cat", "dog", "Ölkäfer")

# message: field: (number, type, repeated), from model_config.proto
FIELDS: dict[str, dict[str, tuple[int, str, bool]]] = {
    "Input": {"name": (1, "string", False), "data_type": (2, "Type", False),
              "dims": (4, "int64", True)},
    "Output": {"name": (1, "string", False), "data_type": (2, "Type", False),
               "dims": (3, "int64", True), "label_filename": (4, "string", False)},
    "Batching": {"preferred_batch_size": (1, "int32", True),
                 "max_queue_delay_microseconds": (2, "uint64", False)},
    "Config": {"name": (1, "string", False), "max_batch_size": (4, "int32", False),
               "input": (5, "Input", True), "output": (6, "Output", True),
               "default_model_filename": (8, "string", False),
               "dynamic_batching": (11, "Batching", False), "backend": (17, "string", False)},
}  # fmt: skip
TYPES = {"TYPE_INVALID": 0, "TYPE_UINT8": 2, "TYPE_FP16": 10, "TYPE_FP32": 11}


def documented_schema() -> Any:
    """The class of the message that a configuration is."""
    descriptor_pb2, descriptor_pool, message_factory = (
        pytest.importorskip(f"google.protobuf.{name}")
        for name in ("descriptor_pb2", "descriptor_pool", "message_factory")
    )
    file = descriptor_pb2.FileDescriptorProto(name="documented.proto", syntax="proto3")
    kinds = file.enum_type.add(name="Type")
    for name, number in TYPES.items():
        kinds.value.add(name=name, number=number)
    for message, fields in FIELDS.items():
        made = file.message_type.add(name=message)
        for name, (number, kind, repeated) in fields.items():
            field = made.field.add(name=name, number=number, label=3 if repeated else 1)
            if kind == "Type":
                field.type, field.type_name = field.TYPE_ENUM, ".Type"
            elif kind in FIELDS:
                field.type, field.type_name = field.TYPE_MESSAGE, f".{kind}"
            else:
                field.type = getattr(field, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("Config"))


def parsed(text: str) -> Any:
    text_format = pytest.importorskip("google.protobuf.text_format")
    return text_format.Parse(text, documented_schema()())


def test_a_repository_has_the_folders_that_triton_looks_for(graph: bytes, tmp_path: Path) -> None:
    folder = write_repository(tmp_path / "new" / "repository", "small", graph, NAMES)
    files = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    assert files == {"config.pbtxt", "labels.txt", "1/model.onnx"}
    assert (folder / "1" / "model.onnx").read_bytes() == graph
    assert (folder / "labels.txt").read_text("utf-8").splitlines() == list(NAMES)
    assert [path.name for path in folder.parent.iterdir()] == ["small"]


def test_the_configuration_says_what_the_graph_takes_and_gives(graph: bytes) -> None:
    config = parsed(_configuration("small", graph, 32, 500))
    assert (config.name, config.backend, config.max_batch_size) == ("small", "onnxruntime", 32)
    assert config.dynamic_batching.max_queue_delay_microseconds == 500
    (entry,) = config.input
    assert (entry.name, entry.data_type, list(entry.dims)) == ("images", 2, [-1, -1, 3])
    probabilities, features = config.output
    assert (probabilities.name, list(probabilities.dims)) == ("probabilities", [5])
    assert (features.name, list(features.dims)) == ("features", [16])
    assert (probabilities.label_filename, features.label_filename) == ("labels.txt", "")


def test_onnx_runtime_takes_what_the_configuration_promises(graph: bytes) -> None:
    """A request of each shape that the configuration allows, as the server's backend makes it."""
    onnxruntime = pytest.importorskip("onnxruntime")
    config = parsed(_configuration("small", graph, 4, 0))
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    for batch, side in ((1, 9), (config.max_batch_size, 30)):
        dims = [side if size == -1 else size for size in config.input[0].dims]
        images = np.zeros((batch, *dims), np.uint8)
        outputs = session.run([port.name for port in config.output], {config.input[0].name: images})
        for port, output in zip(config.output, outputs, strict=True):
            assert output.shape == (batch, *port.dims)


def test_tritons_own_schema_reads_it(graph: bytes) -> None:
    pytest.importorskip("tritonclient.grpc", reason="tritonclient[grpc] is not installed")
    assert check_schema(_configuration("small", graph, 4, 0)).startswith("checked against")
    with pytest.raises(ContentError, match="no_such_field"):
        check_schema("no_such_field: 1")


def test_a_network_is_only_replaced_when_asked(graph: bytes, tmp_path: Path) -> None:
    folder = write_repository(tmp_path, "small", graph, NAMES)
    with pytest.raises(UsageError, match=r"small exists; give another --output, or --overwrite"):
        write_repository(tmp_path, "small", graph, NAMES)
    write_repository(tmp_path, "small", graph, NAMES[::-1], overwrite=True)
    assert (folder / "labels.txt").read_text("utf-8").splitlines() == list(NAMES[::-1])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("../small", {}, "the name '../small'"),
        ("", {}, "the name ''"),
        ("small", {"max_batch": 0}, "max batch 0"),
        ("small", {"delay": -1}, "delay -1"),
    ],
)
def test_what_the_server_would_refuse_is_refused(
    name: str, options: dict[str, int], message: str, graph: bytes, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        write_repository(tmp_path, name, graph, NAMES, **options)  # type: ignore[arg-type]


def test_a_fixed_batch_and_a_label_of_two_lines_are_refused(graph: bytes, tmp_path: Path) -> None:
    fixed = onnx.load_from_string(graph)
    fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    with pytest.raises(ContentError, match=r"images: .*dynamic batch"):
        write_repository(tmp_path, "small", fixed.SerializeToString(), NAMES)
    with pytest.raises(ContentError, match=r"labels\.txt.*line"):
        write_repository(tmp_path, "small", graph, ("two\nlines", *NAMES[1:]))
    assert not list(tmp_path.iterdir())
