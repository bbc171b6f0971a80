from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from resnets.deployment.export.float16 import _float16_graph
from resnets.deployment.export.int8_onnx import _probabilities

onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")

Make = Callable[[int], Any]


def test_sixteen_bits_halve_the_weights_and_keep_inputs_and_outputs(
    graph: bytes, images: Make
) -> None:
    halved = _float16_graph(graph)
    halved_graph = onnx.load_from_string(halved).graph
    kinds = Counter(item.data_type for item in halved_graph.initializer)
    assert kinds[onnx.TensorProto.FLOAT16] == 6  # three weights, three biases
    assert kinds[onnx.TensorProto.FLOAT] == 2  # of the preparation
    ends = [
        value.type.tensor_type.elem_type for value in (*halved_graph.input, *halved_graph.output)
    ]
    assert ends == [onnx.TensorProto.UINT8, onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT]
    new = images(40)
    difference = np.abs(_probabilities(graph, new) - _probabilities(halved, new)).max()
    assert 0 < difference < 2e-3


def test_values_beyond_sixteen_bits_outside_of_the_network_stay_whole(
    graph: bytes, images: Make
) -> None:
    """Pixels times 2 ** 20 and back: 65,504 is the largest number of 16 bits."""
    model = onnx.load_from_string(graph)
    array = onnx.numpy_helper.from_array
    model.graph.initializer.append(array(np.array(2.0**20, np.float32), "large"))
    make = onnx.helper.make_node
    model.graph.node[1].input[0] = "back"
    model.graph.node.insert(1, make("Mul", ["numbers", "large"], ["up"]))
    model.graph.node.insert(2, make("Div", ["up", "large"], ["back"]))
    new = images(20)
    wide = model.SerializeToString()
    np.testing.assert_allclose(
        _probabilities(_float16_graph(wide), new),
        _probabilities(_float16_graph(graph), new),
        atol=1e-6,
    )
