from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from resnets.images import Preprocessing
from resnets.model_file import Description, Model, save
from resnets.networks import build
from tests.calibration import calibration_at

onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")

CLASSES = 5


def small_graph() -> Any:
    """Images of uint8, NHWC and any size, to probabilities: two convolutions and a classifier.

    The first sees few and coarse values, as a stem does: it suffers most from 8 bits.
    """
    random = np.random.default_rng(0)
    weights = {
        "scale": np.array(1 / 128, np.float32),
        "shift": np.array(1, np.float32),
        "w1": random.standard_normal((8, 3, 3, 3)).astype(np.float32) * 0.3,
        "b1": random.standard_normal(8).astype(np.float32) * 0.1,
        "w2": random.standard_normal((16, 8, 3, 3)).astype(np.float32) * 0.2,
        "b2": random.standard_normal(16).astype(np.float32) * 0.1,
        "w3": random.standard_normal((CLASSES, 16)).astype(np.float32),
        "b3": np.zeros(CLASSES, np.float32),
    }
    same = {"pads": [1, 1, 1, 1], "kernel_shape": [3, 3]}
    rows: list[tuple[str, list[str], str, dict[str, Any]]] = [
        ("Cast", ["images"], "numbers", {"to": onnx.TensorProto.FLOAT}),
        ("Mul", ["numbers", "scale"], "scaled", {}),
        ("Sub", ["scaled", "shift"], "shifted", {}),
        ("Transpose", ["shifted"], "x", {"perm": [0, 3, 1, 2]}),
        ("Conv", ["x", "w1", "b1"], "c1", same),
        ("Relu", ["c1"], "r1", {}),
        ("Conv", ["r1", "w2", "b2"], "c2", same | {"strides": [2, 2]}),
        ("Relu", ["c2"], "r2", {}),
        ("GlobalAveragePool", ["r2"], "p", {}),
        ("Flatten", ["p"], "features", {}),
        ("Gemm", ["features", "w3", "b3"], "logits", {"transB": 1}),
        ("Softmax", ["logits"], "probabilities", {"axis": 1}),
    ]
    node, value = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [node(kind, inputs, [output], **options) for kind, inputs, output, options in rows],
        "small",
        [value("images", onnx.TensorProto.UINT8, ["batch", "height", "width", 3])],
        [
            value("probabilities", onnx.TensorProto.FLOAT, ["batch", CLASSES]),
            value("features", onnx.TensorProto.FLOAT, ["batch", 16]),
        ],
        [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10
    )
    onnx.checker.check_model(model, full_check=True)
    return model


@pytest.fixture(scope="session")
def graph() -> bytes:
    """The bytes of an ONNX file of a small network."""
    content: bytes = small_graph().SerializeToString()
    return content


@pytest.fixture(scope="session")
def images() -> Callable[[int], Any]:
    """So many images (N, 20, 24, 3) with smooth shades, each another."""

    def make(number: int) -> Any:
        random = np.random.default_rng(number)
        corners = random.integers(0, 256, (number, 3, 3, 3)).astype(np.float64)
        tall, wide = (
            np.stack([np.interp(np.linspace(0, 2, side), range(3), row) for row in np.eye(3)])
            for side in (20, 24)
        )
        return np.einsum("nabc,ah,bw->nhwc", corners, tall, wide).astype(np.uint8)

    return make


@pytest.fixture(scope="session")
def model() -> Model:
    """A small network of five classes with statistics as after training, calibrated."""
    torch.manual_seed(0)
    network = build("resnet14", depths=(1, 1, 1), width=4, num_classes=5).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    description = Description(
        network.architecture.to_dict(),
        ("ant", "bee", "cat", "dog", "eel"),
        Preprocessing(16, 20, (0.4, 0.5, 0.6), (0.2, 0.3, 0.2)),
        calibration=calibration_at(0.4, temperature=2.5),
    )
    return Model(network, description)


@pytest.fixture(scope="session")
def model_path(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of `model`, with its own .onnx beside it."""
    from resnets.deployment.engines.selection import digest
    from resnets.deployment.export.files import export, images_for

    path = tmp_path_factory.mktemp("exported") / "model.safetensors"
    save(path, model.network, model.description)
    pixels, source = images_for(model, None, 8)
    export(model, path.with_suffix(".onnx"), "onnx", pixels, source, origin=digest(path))
    return path


@pytest.fixture(scope="session")
def exported(model_path: Path) -> Path:
    """The .onnx of `model`."""
    return model_path.with_suffix(".onnx")
