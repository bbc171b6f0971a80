from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from resnets.deployment.export.int8_onnx import (
    _best_layers,
    _divergence,
    _probabilities,
    network_nodes,
    quantise_graph,
    rescale_logits,
    to_int8,
)
from resnets.errors import ContentError, UsageError

onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")

Make = Callable[[int], Any]


def types(content: bytes) -> dict[str, int]:
    """The ONNX number of the type of each weight."""
    graph = onnx.load_from_string(content).graph
    return {item.name: item.data_type for item in graph.initializer}


def operators(content: bytes) -> list[Any]:
    return list(onnx.load_from_string(content).graph.node)


@pytest.fixture(scope="module")
def small(graph: bytes, images: Make) -> bytes:
    return quantise_graph(graph, [images(16)], [])


def test_eight_bits_answer_like_float_on_new_images(
    graph: bytes, small: bytes, images: Make
) -> None:
    new = images(60)
    wished, quantised = _probabilities(graph, new), _probabilities(small, new)
    assert np.abs(wished - quantised).max() < 0.06
    assert (wished.argmax(1) == quantised.argmax(1)).mean() > 0.9
    assert np.abs(wished - quantised).max() > 1e-5  # it is not the float graph


def test_weights_have_a_scale_for_each_output_channel_in_whole_numbers(small: bytes) -> None:
    data_types = types(small)
    assert data_types["w1_quantized"] == data_types["w2_quantized"] == onnx.TensorProto.INT8
    shapes = {i.name: tuple(i.dims) for i in onnx.load_from_string(small).graph.initializer}
    assert shapes["w1_scale"] == (8,)
    assert shapes["w2_scale"] == (16,)
    assert "w1" not in data_types


def test_what_prepares_images_and_makes_probabilities_stays_in_float(small: bytes) -> None:
    """No whole numbers before the transposition's output, nor after the classifier's."""
    rounded = {node.input[0] for node in operators(small) if node.op_type == "QuantizeLinear"}
    assert "x" in rounded  # the first convolution reads it
    assert not rounded & {"numbers", "scaled", "shifted", "probabilities"}


@pytest.mark.parametrize(("end", "weight"), [("first", "w1"), ("last", "w3")])
def test_a_layer_stays_in_float_when_asked(
    end: str, weight: str, graph: bytes, images: Make
) -> None:
    data_types = types(quantise_graph(graph, [images(8)], [end]))
    assert data_types[weight] == onnx.TensorProto.FLOAT
    assert data_types["w2_quantized"] == onnx.TensorProto.INT8


def test_the_choice_follows_the_distortion_on_held_out_images(graph: bytes, images: Make) -> None:
    batches = [images(number) for number in (9, 8, 7, 6)]
    content, choice = to_int8(graph, batches)
    assert choice.in_float == _best_layers(choice.distortion)
    held_out = batches[-1]  # a quarter
    assert choice.batches == 3
    measured = _divergence(_probabilities(graph, held_out), _probabilities(content, held_out))
    assert measured == pytest.approx(choice.distortion[choice.in_float], rel=1e-6)


@pytest.mark.parametrize(
    ("nothing", "first", "last", "both", "kept"),
    [
        (1, 0.9, 0.9, 0.85, ()),
        (1, 0.1, 0.9, 0.09, ("first",)),
        (1, 0.1, 0.9, 0.05, ("first", "last")),
        (1, 0.7, 0.5, 0.45, ("last",)),
        (1, 0.9, 0.9, 0.6, ("first", "last")),
        (0, 0, 0, 0, ()),
    ],
)
def test_a_layer_in_float_must_take_away_a_fifth_of_the_distortion(
    nothing: float, first: float, last: float, both: float, kept: tuple[str, ...]
) -> None:
    divergences = {(): nothing, ("first",): first, ("last",): last, ("first", "last"): both}
    assert _best_layers(divergences) == kept


def test_the_divergence_is_that_of_its_definition() -> None:
    """KL((1/2, 1/2) || (1/4, 3/4)) = ln 2 - ln 3 / 2 (Kullback and Leibler 1951)."""
    divergence = _divergence(np.array([[0.5, 0.5]]), np.array([[0.25, 0.75]]))
    assert divergence == pytest.approx(np.log(2) - np.log(3) / 2)


def test_too_few_images_and_a_graph_without_network_are_refused(graph: bytes, images: Make) -> None:
    with pytest.raises(UsageError, match=r"1 batch .*at least 2"):
        to_int8(graph, [images(2)])
    empty = onnx.load_from_string(graph)
    del empty.graph.node[4:]
    with pytest.raises(ContentError, match="no convolution"):
        network_nodes(empty.graph)


@pytest.mark.parametrize("factor", [0.3, 2.0])
def test_rescaled_logits_are_another_temperature(factor: float, graph: bytes, images: Make) -> None:
    """Softmax of f times the logits is proportional to the probabilities to the power of f."""
    before = _probabilities(graph, images(3))
    changed = rescale_logits(onnx.load_from_string(graph), factor).SerializeToString()
    powers = before**factor
    expected = powers / powers.sum(axis=1, keepdims=True)
    assert _probabilities(changed, images(3)) == pytest.approx(expected, abs=1e-5)
