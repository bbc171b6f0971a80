"""An ONNX graph in whole numbers of 8 bits.

Only the network itself is changed, from its first convolution to its classifier: what prepares the
images before it and makes probabilities after it stays in float32.

In 8 bits, as ONNX Runtime's static quantisation does it (Jacob et al. 2018, arXiv:1712.05877): the
activations get one scale a tensor, from the least and greatest values that real images cause; the
weights get one scale an output channel. The graph keeps its float operators, each between
QuantizeLinear and DequantizeLinear nodes, so that any runtime for ONNX can read it.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from resnets.deployment.export.warnings import quietly
from resnets.deployment.exported.reading import LARGEST
from resnets.errors import ContentError, UsageError, require
from resnets.evaluation.logits import Floats
from resnets.files import read_input, write_atomically

_T = TypeVar("_T")
Batch = NDArray[np.uint8]  # (B, H, W, C)

_ENDS: tuple[tuple[str, ...], ...] = ((), ("first",), ("last",), ("first", "last"))
_WORTH = 0.8  # a layer stays in float32 if that leaves less than this share of the distortion
_SHARE_HELD_OUT = 0.25  # of the calibration images: on them the distortion is measured
_LEARNT = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True)
class Choice:
    """Which layers stayed in float32, and what that was chosen by.

    Attributes:
        in_float: of "first" and "last" those that did.
        distortion: mean Kullback-Leibler divergence, in nats, from the probabilities in float32, on
            images that were held out of the calibration, by what stays in float32.
        batches: how many of the batches, the first of them, the scales were taken from.
    """

    in_float: tuple[str, ...]
    distortion: dict[tuple[str, ...], float]
    batches: int


def to_int8(content: bytes, batches: Sequence[Batch]) -> tuple[bytes, Choice]:
    """Quantise a graph, with its first and last layer in float32 where that pays.

    Args:
        content: the bytes of an ONNX file whose first input takes images (B, H, W, C) of uint8
            and whose first output is probabilities (B, K).
        batches: real images to calibrate with; at least 2 batches.

    Raises:
        MissingExtra: onnx or onnxruntime is not installed.
        UsageError: there are fewer than two batches.
        ContentError: the graph has no convolution.
    """
    require("onnx", "onnx")
    require("onnxruntime", "onnx")
    return choose(content, batches, quantised, _probabilities)


def choose(
    model: _T,
    batches: Sequence[Batch],
    quantise: Callable[[_T, Sequence[Batch], Sequence[str]], _T],
    ask: Callable[[_T, Batch], Floats],
) -> tuple[_T, Choice]:
    """Quantise a model with each choice of layers in float32, and keep the one that pays.

    Args:
        model: in float32.
        batches: the last quarter of them is held out of the calibration and measures the
            distortion.
        quantise: makes the model in 8 bits, from images and the ends that stay in float32.
        ask: the probabilities (B, K) that a model gives for images.

    Raises:
        UsageError: there are fewer than two batches.
    """
    if len(batches) < 2:
        raise UsageError(f"{len(batches)} batches to calibrate with; at least 2 are needed")
    number = max(1, round(len(batches) * _SHARE_HELD_OUT))
    calibration, held_out = batches[:-number], batches[-number:]
    wished = np.concatenate([ask(model, batch) for batch in held_out])
    made: dict[tuple[str, ...], _T] = {}
    distortion = {}
    for ends in _ENDS:
        made[ends] = quantise(model, calibration, ends)
        given = np.concatenate([ask(made[ends], batch) for batch in held_out])
        distortion[ends] = _divergence(wished, given)
    chosen = _worthwhile(distortion)
    return made[chosen], Choice(chosen, distortion, len(calibration))


def _worthwhile(distortion: dict[tuple[str, ...], float]) -> tuple[str, ...]:
    """The layers to keep in float32: each must take away a fifth of the distortion.

    >>> _worthwhile({(): 1.0, ("first",): 0.9, ("last",): 0.7, ("first", "last"): 0.65})
    ('last',)
    """
    chosen: tuple[str, ...] = ()
    for ends in _ENDS:
        if distortion[ends] < distortion[chosen] * _WORTH ** (len(ends) - len(chosen)):
            chosen = ends
    return chosen


def _divergence(wished: Floats, given: Floats) -> float:
    """Mean Kullback-Leibler divergence in nats. (N, K), (N, K)."""
    tiny = 1e-12
    return float((wished * np.log((wished + tiny) / (given + tiny))).sum(axis=1).mean())


def named(model: Any) -> Any:
    """The model with a name on every node, as the quantiser asks for."""
    for number, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{number}"
    return model


def network_nodes(graph: Any) -> list[Any]:
    """The nodes of the network itself: from the first convolution on, up to the classifier.

    Raises:
        ContentError: the graph has no convolution.
    """
    reached: set[str] = set()
    found: list[Any] = []
    for node in graph.node:  # the format demands that a node comes after those that it reads from
        if reached & set(node.input) or (not found and node.op_type == "Conv"):
            reached |= set(node.output)
            found.append(node)
    if not found:
        raise ContentError("the graph has no convolution; it is no network of this project")
    last = max(place for place, node in enumerate(found) if node.op_type in _LEARNT)
    return found[: last + 1]


def quantised(content: bytes, batches: Sequence[Batch], in_float: Sequence[str]) -> bytes:
    """The graph with its network in 8 bits but for the layers named.

    Full 8 bits, although processors without VNNI add two products in 16 bits, which could overflow:
    with the 7 bits that exclude it ResNet-20 strays from float32 on twice as many images.
    """
    import onnx
    from onnxruntime import quantization

    model = named(onnx.load_from_string(content))
    nodes = network_nodes(model.graph)
    learnt = [node.name for node in nodes if node.op_type in _LEARNT]
    kept = {{"first": learnt[0], "last": learnt[-1]}[end] for end in in_float}
    with tempfile.TemporaryDirectory() as folder, quietly(""):
        source, target = Path(folder, "float.onnx"), Path(folder, "int8.onnx")
        quantization.quant_utils.add_pre_process_metadata(model)  # batch norms are folded
        write_atomically(source, model.SerializeToString())
        quantization.quantize_static(
            source,
            target,
            _Reader(model.graph.input[0].name, batches),
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_quantize=[node.name for node in nodes if node.name not in kept],
        )
        return read_input(target, LARGEST)


def rescaled(model: Any, factor: float) -> Any:
    """The model with its logits times a number, by which the temperature changes. In place.

    Args:
        model: an onnx.ModelProto whose first output is a softmax.
        factor: above 0.
    """
    import onnx

    graph, name = model.graph, "temperature_factor"
    place = [node.output[0] for node in graph.node].index(graph.output[0].name)
    softmax = graph.node[place]
    logits, scaled = softmax.input[0], f"{softmax.input[0]}_rescaled"
    graph.initializer.append(onnx.numpy_helper.from_array(np.array(factor, np.float32), name))
    softmax.input[0] = scaled
    graph.node.insert(place, onnx.helper.make_node("Mul", [logits, name], [scaled], name=name))
    return model


class _Reader:
    """Hands batches to the calibration, one after the other."""

    def __init__(self, name: str, batches: Sequence[Batch]) -> None:
        """Of the input called `name`."""
        self.name = name
        self.waiting = iter(batches)

    def get_next(self) -> dict[str, Batch] | None:
        """The next batch by the input's name; None after the last."""
        batch = next(self.waiting, None)
        return None if batch is None else {self.name: batch}


def _probabilities(content: bytes, images: Batch) -> Floats:
    """What a graph says of images: its first output, (B, K)."""
    onnxruntime = require("onnxruntime", "onnx")
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (found,) = session.run([session.get_outputs()[0].name], {session.get_inputs()[0].name: images})
    return np.asarray(found, np.float64)
