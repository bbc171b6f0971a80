"""An OpenVINO model in whole numbers of 8 bits, by NNCF, Intel's tool for it.

As in `quantise_onnx`, only the network itself is changed; the biases make up for the mean error of
the rounding ("fast bias correction" of NNCF).
"""

import contextlib
import io
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from resnets.deployment.export.int8_onnx import Batch, Choice, choose
from resnets.errors import ContentError, require
from resnets.evaluation.logits import Floats

_LEARNT = ("Convolution", "GroupConvolution", "MatMul")


def to_int8(model: Any, batches: Sequence[Batch]) -> tuple[Any, Choice]:
    """Quantise a model, with its first and last layer in float32 where that pays.

    Args:
        model: an `openvino.Model` whose input takes images (B, H, W, C) of uint8 and whose first
            output is probabilities (B, K). It stays as it is.
        batches: real images to calibrate with; at least 2 batches.

    Raises:
        MissingExtra: openvino or nncf is not installed.
        UsageError: there are fewer than two batches.
        ContentError: the model has no convolution.
    """
    require("openvino", "openvino")
    require("nncf", "openvino")
    return choose(model, batches, quantised, _probabilities)


def _outside(model: Any) -> tuple[list[str], list[str]]:
    """The names of what is not the network itself, and of its learnt layers in order.

    The network is what lies between the first convolution and the classifier.

    Raises:
        ContentError: the model has no convolution.
    """
    order = model.get_ordered_ops()
    learnt = [op for op in order if op.get_type_name() in _LEARNT]
    first = next((op for op in learnt if op.get_type_name() != "MatMul"), None)
    if first is None:
        raise ContentError("the model has no convolution; it is no network of this project")
    reached: set[str] = {first.get_friendly_name()}
    for op in order:
        if any(
            value.get_source_output().get_node().get_friendly_name() in reached
            for value in op.inputs()
        ):
            reached.add(op.get_friendly_name())
    layers = [op.get_friendly_name() for op in learnt if op.get_friendly_name() in reached]
    last = next(place for place, op in enumerate(order) if op.get_friendly_name() == layers[-1])
    after = {op.get_friendly_name() for op in order[last + 1 :]}
    rest = [
        op.get_friendly_name()
        for op in order
        if op.get_type_name() not in ("Constant", "Parameter", "Result")
        and (op.get_friendly_name() not in reached or op.get_friendly_name() in after)
    ]
    return rest, layers


def quantised(model: Any, batches: Sequence[Batch], in_float: Sequence[str]) -> Any:
    """The model with its network in 8 bits but for the layers named."""
    import nncf

    nncf.set_log_level(logging.ERROR)
    rest, layers = _outside(model)
    kept = [{"first": layers[0], "last": layers[-1]}[end] for end in in_float]
    with contextlib.redirect_stdout(io.StringIO()):  # of its progress bars
        return nncf.quantize(
            model.clone(),
            nncf.Dataset(batches),
            subset_size=len(batches),
            preset=nncf.QuantizationPreset.MIXED,
            ignored_scope=nncf.IgnoredScope(names=[*rest, *kept], validate=False),
        )


def rescaled(model: Any, factor: float) -> Any:
    """The model with its logits times a number, by which the temperature changes. In place.

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
    """What a model says of images: its first output, (B, K)."""
    import openvino

    return np.asarray(openvino.compile_model(model, "CPU")([images])[0], np.float64)
