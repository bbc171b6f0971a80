"""Quantisation of an ONNX graph to int8.

Only the network itself is changed, from its first convolution to its classifier: the preprocessing
before it and the softmax after it stay in float32.

ONNX Runtime's static quantisation (Jacob et al. 2018, arXiv:1712.05877): the activations get one
scale per tensor, from the smallest and largest values on real images; the weights get one scale per
output channel. The graph keeps its float operators, each between QuantizeLinear and
DequantizeLinear nodes, so that any runtime for ONNX can read it.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from resnets.deployment.export.warnings import suppress_warnings
from resnets.deployment.exported.reading import LARGEST
from resnets.errors import ContentError, UsageError, require
from resnets.evaluation.logits import Floats
from resnets.files.reading import read_input
from resnets.files.writing import write_atomically
from resnets.format import plural

_T = TypeVar("_T")
Batch = NDArray[np.uint8]  # (B, H, W, C)

_ENDS: tuple[tuple[str, ...], ...] = ((), ("first",), ("last",), ("first", "last"))
_MAX_REMAINING = 0.8  # share of the distortion that may remain if a layer stays in float32
_SHARE_HELD_OUT = 0.25  # of the calibration images, to measure the distortion
_WITH_WEIGHTS = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True)
class Choice:
    """The layers that stayed in float32, and the measurements that decided it.

    Attributes:
        in_float: those of "first" and "last" that stayed.
        distortion: mean Kullback-Leibler divergence, in nats, from the probabilities in float32, on
            images that were held out of the calibration, by the layers in float32.
        batches: number of batches, from the first on, from which the scales were computed.
    """

    in_float: tuple[str, ...]
    distortion: dict[tuple[str, ...], float]
    batches: int


def to_int8(content: bytes, batches: Sequence[Batch]) -> tuple[bytes, Choice]:
    """Quantise a graph, with its first and last layer in float32 where that pays off.

    Args:
        content: the bytes of an ONNX file whose first input takes images (B, H, W, C) of uint8
            and whose first output is probabilities (B, K).
        batches: real images for the calibration; at least 2 batches.

    Raises:
        MissingExtra: onnx or onnxruntime is not installed.
        UsageError: there are fewer than two batches.
        ContentError: the graph has no convolution.
    """
    require("onnx", "onnx")
    require("onnxruntime", "onnx")
    return quantise_best(content, batches, quantise_graph, _probabilities)


def quantise_best(
    model: _T,
    batches: Sequence[Batch],
    quantise: Callable[[_T, Sequence[Batch], Sequence[str]], _T],
    predict: Callable[[_T, Batch], Floats],
) -> tuple[_T, Choice]:
    """Quantise a model with each choice of layers in float32, and keep the one that pays off.

    Args:
        model: in float32.
        batches: the last quarter of them is held out of the calibration and measures the
            distortion.
        quantise: makes the model in int8, from images and the layers that stay in float32.
        predict: the probabilities (B, K) of a model for images.

    Raises:
        UsageError: there are fewer than two batches.
    """
    if len(batches) < 2:
        raise UsageError(
            f"{plural(len(batches), 'batch')} for the calibration; at least 2 are needed"
        )
    number = max(1, round(len(batches) * _SHARE_HELD_OUT))
    calibration, held_out = batches[:-number], batches[-number:]
    reference = np.concatenate([predict(model, batch) for batch in held_out])
    models: dict[tuple[str, ...], _T] = {}
    distortion = {}
    for ends in _ENDS:
        models[ends] = quantise(model, calibration, ends)
        rounded = np.concatenate([predict(models[ends], batch) for batch in held_out])
        distortion[ends] = _divergence(reference, rounded)
    best = _best_layers(distortion)
    return models[best], Choice(best, distortion, len(calibration))


def _best_layers(distortion: dict[tuple[str, ...], float]) -> tuple[str, ...]:
    """The layers to keep in float32: each must remove a fifth of the distortion.

    >>> _best_layers({(): 1.0, ("first",): 0.9, ("last",): 0.7, ("first", "last"): 0.65})
    ('last',)
    """
    chosen: tuple[str, ...] = ()
    for ends in _ENDS:
        if distortion[ends] < distortion[chosen] * _MAX_REMAINING ** (len(ends) - len(chosen)):
            chosen = ends
    return chosen


def _divergence(reference: Floats, rounded: Floats) -> float:
    """Mean Kullback-Leibler divergence in nats. (N, K), (N, K)."""
    tiny = 1e-12
    return float((reference * np.log((reference + tiny) / (rounded + tiny))).sum(axis=1).mean())


def with_node_names(model: Any) -> Any:
    """The model with a name on every node, which the quantiser needs."""
    for number, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{number}"
    return model


def network_nodes(graph: Any) -> list[Any]:
    """The nodes of the network itself: from the first convolution on, up to the classifier.

    Raises:
        ContentError: the graph has no convolution.
    """
    reached: set[str] = set()
    nodes: list[Any] = []
    for node in graph.node:  # in ONNX, a node comes after those whose outputs it reads
        if reached & set(node.input) or (not nodes and node.op_type == "Conv"):
            reached |= set(node.output)
            nodes.append(node)
    if not nodes:
        raise ContentError("the graph has no convolution; it is no network of this project")
    last = max(index for index, node in enumerate(nodes) if node.op_type in _WITH_WEIGHTS)
    return nodes[: last + 1]


def quantise_graph(content: bytes, batches: Sequence[Batch], in_float: Sequence[str]) -> bytes:
    """The graph with its network in int8, except for the layers in `in_float`.

    All 8 bits are used, although processors without VNNI add two products in 16 bits, which could
    overflow: with 7 bits, which exclude that, ResNet-20 differs from float32 on twice as many
    images.
    """
    import onnx
    from onnxruntime import quantization

    model = with_node_names(onnx.load_from_string(content))
    nodes = network_nodes(model.graph)
    layers = [node.name for node in nodes if node.op_type in _WITH_WEIGHTS]
    excluded = {{"first": layers[0], "last": layers[-1]}[end] for end in in_float}
    with tempfile.TemporaryDirectory() as folder, suppress_warnings(""):
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
            nodes_to_quantize=[node.name for node in nodes if node.name not in excluded],
        )
        return read_input(target, LARGEST)


def rescale_logits(model: Any, factor: float) -> Any:
    """Multiply the logits of a model by a number, which changes the temperature. In place.

    Args:
        model: an onnx.ModelProto whose first output is a softmax.
        factor: above 0.
    """
    import onnx

    graph, name = model.graph, "temperature_factor"
    index = [node.output[0] for node in graph.node].index(graph.output[0].name)
    softmax = graph.node[index]
    logits, scaled = softmax.input[0], f"{softmax.input[0]}_rescaled"
    graph.initializer.append(onnx.numpy_helper.from_array(np.array(factor, np.float32), name))
    softmax.input[0] = scaled
    graph.node.insert(index, onnx.helper.make_node("Mul", [logits, name], [scaled], name=name))
    return model


class _Reader:
    """Passes batches to the calibration, one after the other."""

    def __init__(self, name: str, batches: Sequence[Batch]) -> None:
        """name: of the graph's input."""
        self.name = name
        self.batches = iter(batches)

    def get_next(self) -> dict[str, Batch] | None:
        """The next batch by the input's name; None after the last."""
        batch = next(self.batches, None)
        return None if batch is None else {self.name: batch}


def _probabilities(content: bytes, images: Batch) -> Floats:
    """The first output of a graph, (B, K)."""
    onnxruntime = require("onnxruntime", "onnx")
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (probabilities,) = session.run(
        [session.get_outputs()[0].name], {session.get_inputs()[0].name: images}
    )
    return np.asarray(probabilities, np.float64)
