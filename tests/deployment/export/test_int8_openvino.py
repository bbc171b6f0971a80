from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from resnets.deployment.export.int8_openvino import (
    _outside,
    _probabilities,
    quantise_graph,
    rescale_logits,
)
from resnets.errors import ContentError

openvino = pytest.importorskip("openvino", reason="the extra openvino is not installed")
pytest.importorskip("nncf", reason="the extra openvino is not installed")

Make = Callable[[int], Any]


@pytest.fixture(scope="module")
def model(graph: bytes) -> Any:
    return openvino.Core().read_model(graph)


def kinds(model: Any) -> Counter[str]:
    return Counter(op.get_type_name() for op in model.get_ops())


@pytest.mark.slow
def test_eight_bits_answer_like_float_on_new_images(
    model: Any, images: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    small = quantise_graph(model, [images(16)], [])
    new = images(60)
    wished, quantised = _probabilities(model, new), _probabilities(small, new)
    assert 1e-5 < np.abs(wished - quantised).max() < 0.03
    whole = [op for op in small.get_ops() if op.get_type_name() == "FakeQuantize"]
    assert len(whole) >= 3
    assert not kinds(model)["FakeQuantize"]  # the model that was given stays as it is
    fewer = kinds(quantise_graph(model, [images(8)], ["first", "last"]))
    assert 0 < fewer["FakeQuantize"] < len(whole)
    assert capsys.readouterr().out == ""


def test_only_what_lies_between_the_first_convolution_and_the_classifier_is_the_network(
    model: Any,
) -> None:
    rest, layers = _outside(model)
    by_name = {op.get_friendly_name(): op.get_type_name() for op in model.get_ops()}
    assert [by_name[name] for name in layers] == ["Convolution", "Convolution", "MatMul"]
    assert {by_name[name] for name in rest} >= {"Convert", "Transpose", "Softmax"}
    assert not {by_name[name] for name in rest} & {"Relu", "Convolution", "MatMul"}


def test_a_model_without_convolution_is_refused() -> None:
    from openvino import opset13 as ops

    parameter = ops.parameter([1, 4], np.float32)
    with pytest.raises(ContentError, match="no convolution"):
        _outside(openvino.Model([ops.relu(parameter)], [parameter]))


@pytest.mark.parametrize("factor", [0.3, 2.0])
def test_rescaled_logits_are_another_temperature(factor: float, model: Any, images: Make) -> None:
    """Softmax of f times the logits is proportional to the probabilities to the power of f."""
    before = _probabilities(model, images(3))
    powers = before**factor
    expected = powers / powers.sum(axis=1, keepdims=True)
    probabilities = _probabilities(rescale_logits(model.clone(), factor), images(3))
    assert probabilities == pytest.approx(expected, abs=2e-3)  # OpenVINO may round to 16 bits
    assert np.abs(probabilities - before).max() > 0.05
    assert _probabilities(model, images(3)) == pytest.approx(before)
