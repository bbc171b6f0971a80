"""What goes into an exported file and comes out, by name: as written, of old files, and damaged."""

import zipfile
from pathlib import Path

import pytest

from resnets.deployment.exported.interface import read_interface
from resnets.errors import ContentError

FIXTURES = Path(__file__).parents[2] / "fixtures/before_trust"


@pytest.mark.parametrize("ending", ["onnx", "xml"])
def test_names_are_those_that_the_runtime_reads(ending: str) -> None:
    path = FIXTURES / f"digits.{ending}"
    if ending == "onnx":
        session = pytest.importorskip("onnxruntime").InferenceSession(path)
        inputs = [each.name for each in session.get_inputs()]
        outputs = [each.name for each in session.get_outputs()]
    else:
        network = pytest.importorskip("openvino").Core().read_model(path)
        inputs, outputs = ([e.any_name for e in es] for es in (network.inputs, network.outputs))
    interface = read_interface(path)
    assert list(interface.inputs) == inputs == ["images"]
    assert list(interface.outputs) == outputs == ["probabilities", "features"]


def test_a_program_of_an_earlier_version_tells_its_names() -> None:
    interface = read_interface(FIXTURES / "digits.pt2")
    assert interface.inputs == ("images",)
    assert interface.outputs == ("softmax", "flatten_1")
    assert interface.header["format"] == "resnets/1"


@pytest.mark.parametrize(
    "graph", [b"{}", b"[", b'{"graph_module": {"signature": 3}}', b"\xff", None]
)
def test_a_graph_without_names_is_refused_in_a_line(graph: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    with zipfile.ZipFile(FIXTURES / "digits.pt2") as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            if not name.endswith("models/model.json"):
                new.writestr(name, old.read(name))
            elif graph is not None:
                new.writestr(name, graph)
    with pytest.raises(ContentError, match=r"net\.pt2: .*names of inputs and outputs"):
        read_interface(path)
