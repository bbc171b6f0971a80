"""Quantisation of an OpenVINO model to int8 by NNCF, Intel's tool for it.

As in `int8_onnx`, only the network itself is changed. The biases correct the mean rounding error
("fast bias correction" of NNCF).
"""

import contextlib
import io
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from resnets.deployment.engines.openvino import core
from resnets.deployment.export.int8_onnx import Batch, Choice, quantise_best
from resnets.errors import ContentError, require
from resnets.evaluation.logits import Floats

_WITH_WEIGHTS = ("Convolution", "GroupConvolution", "MatMul")


def to_int8(model: Any, batches: Sequence[Batch]) -> tuple[Any, Choice]:
    """Quantise a model, with its first and last layer in float32 where that pays off.

    Args:
        model: an `openvino.Model` whose input takes images (B, H, W, C) of uint8 and whose first
            output is probabilities (B, K). It is not changed.
        batches: real images for the calibration; at least 2 batches.

    Raises:
        MissingExtra: openvino or nncf is not installed.
        UsageError: there are fewer than two batches.
        ContentError: the model has no convolution.
    """
    require("openvino", "openvino")
    require("nncf", "openvino")
    return quantise_best(model, batches, quantise_graph, _probabilities)


def _outside(model: Any) -> tuple[list[str], list[str]]:
    """The names of operators outside the network, and of its layers with weights in order.

    The network is everything from the first convolution to the classifier.

    Raises:
        ContentError: the model has no convolution.
    """
    order = model.get_ordered_ops()
    with_weights = [op for op in order if op.get_type_name() in _WITH_WEIGHTS]
    first = next((op for op in with_weights if op.get_type_name() != "MatMul"), None)
    if first is None:
        raise ContentError("the model has no convolution; it is no network of this project")
    reached: set[str] = {first.get_friendly_name()}
    for op in order:
        if any(
            value.get_source_output().get_node().get_friendly_name() in reached
            for value in op.inputs()
        ):
            reached.add(op.get_friendly_name())
    layers = [op.get_friendly_name() for op in with_weights if op.get_friendly_name() in reached]
    last = next(index for index, op in enumerate(order) if op.get_friendly_name() == layers[-1])
    after = {op.get_friendly_name() for op in order[last + 1 :]}
    outside = [
        op.get_friendly_name()
        for op in order
        if op.get_type_name() not in ("Constant", "Parameter", "Result")
        and (op.get_friendly_name() not in reached or op.get_friendly_name() in after)
    ]
    return outside, layers


def quantise_graph(model: Any, batches: Sequence[Batch], in_float: Sequence[str]) -> Any:
    """The model with its network in int8, except for the layers in `in_float`."""
    import nncf

    nncf.set_log_level(logging.ERROR)
    outside, layers = _outside(model)
    excluded = [{"first": layers[0], "last": layers[-1]}[end] for end in in_float]
    with contextlib.redirect_stdout(io.StringIO()):  # hides its progress bars
        return nncf.quantize(
            model.clone(),
            nncf.Dataset(batches),
            subset_size=len(batches),
            preset=nncf.QuantizationPreset.MIXED,
            ignored_scope=nncf.IgnoredScope(names=[*outside, *excluded], validate=False),
        )


def rescale_logits(model: Any, factor: float) -> Any:
    """Multiply the logits of a model by a number, which changes the temperature. In place.

    Args:
        model: an `openvino.Model` whose first output is a softmax.
        factor: above 0.
    """
    from openvino import opset13 as operators

    softmax = model.outputs[0].get_node().input_value(0).get_node()
    scale = operators.constant(np.array(factor, np.float32))
    scaled = operators.multiply(softmax.input_value(0), scale)
    softmax.input(0).replace_source_output(scaled.output(0))
    model.validate_nodes_and_infer_types()
    return model


def _probabilities(model: Any, images: Batch) -> Floats:
    """The first output of a model, (B, K)."""
    return np.asarray(core().compile_model(model, "CPU")([images])[0], np.float64)
