"""Memory and computation of a graph, inferred from shapes before a runtime opens it.

A file of a few kilobytes can ask for gigabytes: by a fill, a range, a padding, or the product of a
column and a row. So the shapes of all tensors are inferred for one image, operator by operator, and
the values held at once and the multiply-adds are counted. Integers that become shapes are tracked,
too.

Shapes are tuples of sizes; the operators are those of ONNX (github.com/onnx/onnx, Operators.md).
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, prod
from typing import Any

from resnets.errors import ContentError

_MAX_VALUES = 1 << 27  # held at once; resnet200 at 224 pixels holds 2**22
_MAX_MULTIPLY_ADDS = 1 << 42  # of one image; resnetrs200 has 2**34
_MAX_AXES = 8
_MAX_TRACKED = 64  # values of a tensor that are tracked
INT32, INT64 = _WHOLE = 6, 7  # the types' numbers in onnx.proto
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Tensor:
    """The known properties of a tensor.

    Attributes:
        shape: its sizes.
        values: its integers in order; None where they are not tracked.
        constant: whether it does not depend on the images; runtimes keep such tensors.
    """

    shape: Shape
    values: tuple[int, ...] | None = None
    constant: bool = False


@dataclass(frozen=True)
class Step:
    """An operator with the names of its tensors; "" stands for an optional input left out."""

    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)

    def integers(self, name: str, default: Sequence[int]) -> list[int]:
        """An option that is a list of integers."""
        return [int(value) for value in self.options.get(name, default)]

    def integer(self, name: str, default: int) -> int:
        """An option that is an integer."""
        return int(self.options.get(name, default))


_Inputs = list["Tensor | None"]
_Rule = Callable[[Step, Any], "Tensor | list[Tensor]"]


def refuse_costly(steps: Sequence[Step], known: Mapping[str, Tensor]) -> int:
    """Refuse a graph that needs more memory or computation than any network of this package.

    Returns:
        The most values that depend on the image and are held at once. A batch holds as many for
        each of its images.

    Args:
        steps: in an order in which each comes after those whose outputs it reads.
        known: the graph's inputs and weights by name.

    Raises:
        ContentError: it does, or its shapes do not fit each other; names the operator.
    """
    tensors = dict(known)
    uses = Counter(name for step in steps for name in step.inputs)
    constants = values = most = multiply_adds = 0
    for step in steps:
        outputs = _infer_outputs(step, tensors)
        constants += sum(prod(tensor.shape) for tensor in outputs if tensor.constant)
        values += sum(prod(tensor.shape) for tensor in outputs if not tensor.constant)
        most = max(most, values)
        multiply_adds += _multiply_adds(step, tensors, outputs)
        held = constants + values
        if held > _MAX_VALUES or multiply_adds > _MAX_MULTIPLY_ADDS:
            raise ContentError(
                f"with the operator {_describe(step)} the graph needs more than any network "
                f"({held:,} values at once, {multiply_adds:,} multiply-adds)"
            )
        tensors |= zip(step.outputs, outputs, strict=True)
        for name in filter(None, step.inputs):
            uses[name] -= 1
            if uses[name] == 0 and name not in known and not tensors[name].constant:
                values -= prod(tensors[name].shape)
    return most


def _describe(step: Step) -> str:
    """An operator and its outputs, for a message."""
    return f"{step.operator} ({', '.join(step.outputs)[:60]})"


def _infer_outputs(step: Step, tensors: Mapping[str, Tensor]) -> list[Tensor]:
    """The outputs of a step.

    Raises:
        ContentError: an input is missing, an output exists already, or the shapes do not fit.
    """
    missing = [name for name in step.inputs if name and name not in tensors]
    if missing:
        raise ContentError(
            f"{_describe(step)} reads {missing[0][:60]!r}, which no operator computes"
        )
    if any(name in tensors for name in step.outputs):
        raise ContentError(f"{_describe(step)} has an output that exists already")
    inputs: _Inputs = [tensors[name] if name else None for name in step.inputs]
    try:
        result = RULES[step.operator](step, inputs)
        outputs = result if isinstance(result, list) else [result]
        if len(outputs) != len(step.outputs) or not all(map(_is_valid, outputs)):
            raise ValueError
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        raise ContentError(f"the shapes around {_describe(step)} do not fit") from None
    constant = all(tensor is None or tensor.constant for tensor in inputs)
    return [Tensor(tensor.shape, _tracked(tensor.values), constant) for tensor in outputs]


def _is_valid(tensor: Tensor) -> bool:
    """Whether a tensor can have such sizes."""
    return len(tensor.shape) <= _MAX_AXES and min(tensor.shape, default=0) >= 0


def _tracked(values: tuple[int, ...] | None) -> tuple[int, ...] | None:
    """The values, if they are few and fit into 32 bits; otherwise they are not tracked."""
    if values is None or len(values) > _MAX_TRACKED or any(abs(v) >> 31 for v in values):
        return None
    return values


def _multiply_adds(step: Step, tensors: Mapping[str, Tensor], outputs: Sequence[Tensor]) -> int:
    """Multiply-adds of a step; an operator without products counts one per value."""
    size = sum(prod(tensor.shape) for tensor in outputs)
    if step.operator in ("Conv", "Conv in groups"):
        return size * prod(tensors[step.inputs[1]].shape[1:])
    if step.operator in ("MatMul", "MatMul transposed", "Gemm"):
        return size * max(tensors[step.inputs[0]].shape, default=1)
    if step.operator in ("AveragePool", "MaxPool", "MaxPool with indices"):
        return size * prod(step.integers("kernel_shape", [1]))
    return size


def _identity(_: Step, inputs: Any) -> Tensor:
    """The first input unchanged."""
    return Tensor(inputs[0].shape, inputs[0].values)


def _other_values(_: Step, inputs: Any) -> Tensor:
    """The shape of the first input, with other values."""
    return Tensor(inputs[0].shape)


def _broadcast(*shapes: Shape) -> Shape:
    """The shape of an elementwise result (NumPy's broadcasting)."""
    rank = max(map(len, shapes))
    padded = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    sizes_out = []
    for sizes in zip(*padded, strict=True):
        larger = {size for size in sizes if size != 1}
        if len(larger) > 1:
            raise ValueError
        sizes_out.append(larger.pop() if larger else 1)
    return tuple(sizes_out)


def _cast(step: Step, inputs: Any) -> Tensor:
    """Cast: integers stay tracked if they are cast to int32 or int64."""
    values = inputs[0].values if step.options.get("to") in _WHOLE else None
    return Tensor(inputs[0].shape, values)


def _elementwise(work: Callable[..., int] | None) -> _Rule:
    """An elementwise operator; tracked where `work` is a function of integers."""

    def rule(_: Step, inputs: Any) -> Tensor:
        shape = _broadcast(*(tensor.shape for tensor in inputs))
        rows = [tensor.values for tensor in inputs]
        if work is None or None in rows or prod(shape) > _MAX_TRACKED:
            return Tensor(shape)
        size = prod(shape)
        if any(len(row) not in (1, size) for row in rows):
            return Tensor(shape)
        columns = [row * size if len(row) == 1 else row for row in rows]
        return Tensor(shape, tuple(work(*operands) for operands in zip(*columns, strict=True)))

    return rule


def _divide_towards_zero(left: int, right: int) -> int:
    """Integer division that rounds towards zero, as in C."""
    quotient = abs(left) // abs(right)
    return quotient if (left < 0) == (right < 0) else -quotient


def _shape_of(step: Step, inputs: Any) -> Tensor:
    """Shape: the sizes as values."""
    shape = inputs[0].shape[slice(step.options.get("start"), step.options.get("end"))]
    return Tensor((len(shape),), shape)


def _axes_of(step: Step, inputs: Any, rank: int) -> list[int]:
    """Axes from the second input or an option, as non-negative numbers."""
    numbers = inputs[1].values if len(inputs) > 1 and inputs[1] else step.options.get("axes")
    axes = list(range(rank)) if numbers is None else [int(axis) % rank for axis in numbers]
    if numbers is not None and any(not -rank <= axis < rank for axis in numbers):
        raise ValueError
    return axes


def _squeeze(step: Step, inputs: Any) -> Tensor:
    """Squeeze: removes axes of size 1."""
    shape = inputs[0].shape
    axes = _axes_of(step, inputs, len(shape))
    if any(shape[axis] != 1 for axis in axes):
        raise ValueError
    rest = tuple(size for axis, size in enumerate(shape) if axis not in axes)
    return Tensor(rest, inputs[0].values)


def _unsqueeze(step: Step, inputs: Any) -> Tensor:
    """Unsqueeze: adds axes of size 1."""
    shape = list(inputs[0].shape)
    axes = inputs[1].values if len(inputs) > 1 else step.options["axes"]
    for axis in sorted(_axes_of(step, inputs, len(shape) + len(axes))):
        shape.insert(axis, 1)
    return Tensor(tuple(shape), inputs[0].values)


def _concat(step: Step, inputs: Any) -> Tensor:
    """Concat: joins tensors along an axis."""
    shape = list(inputs[0].shape)
    axis = step.integer("axis", 0) % len(shape)
    for other in inputs[1:]:
        if other.shape[:axis] + other.shape[axis + 1 :] != tuple(shape[:axis] + shape[axis + 1 :]):
            raise ValueError
    shape[axis] = sum(tensor.shape[axis] for tensor in inputs)
    rows = [tensor.values for tensor in inputs]
    values = tuple(v for row in rows for v in row) if len(shape) == 1 and None not in rows else None
    return Tensor(tuple(shape), values)


def _range(_: Step, inputs: Any) -> Tensor:
    """Range: integers from start to end."""
    start, end, step = (tensor.values[0] for tensor in inputs)
    count = max(0, -(-(end - start) // step))
    values = tuple(range(start, end, step)) if count <= _MAX_TRACKED else None
    return Tensor((count,), values)


def _reshape(step: Step, inputs: Any) -> Tensor:
    """Reshape: 0 keeps a size, -1 is computed from the others."""
    shape, target = inputs[0].shape, list(inputs[1].values)
    if not step.integer("allowzero", 0):
        target = [shape[axis] if size == 0 else size for axis, size in enumerate(target)]
    if target.count(-1) > 1 or min(target, default=1) < -1:
        raise ValueError
    rest = prod(size for size in target if size != -1)
    if -1 in target:
        target[target.index(-1)] = prod(shape) // rest
    if prod(target) != prod(shape):
        raise ValueError
    return Tensor(tuple(target), inputs[0].values)


def _transpose(step: Step, inputs: Any) -> Tensor:
    """Transpose: permutes the axes."""
    shape = inputs[0].shape
    order = step.integers("perm", range(len(shape))[::-1])
    if sorted(order) != list(range(len(shape))):
        raise ValueError
    return Tensor(tuple(shape[axis] for axis in order))


def _window_sizes(step: Step, shape: Shape, kernel: Sequence[int]) -> Shape:
    """Sizes after a sliding window over all axes but the first two."""
    axes = len(shape) - 2
    strides, dilations = (step.integers(n, [1] * axes) for n in ("strides", "dilations"))
    pads = step.integers("pads", [0] * 2 * axes)
    if not len(kernel) == len(strides) == len(dilations) == axes or len(pads) != 2 * axes:
        raise ValueError
    if min(*kernel, *strides, *dilations) < 1 or min(pads) < 0:
        raise ValueError
    rounding = ceil if step.integer("ceil_mode", 0) else int
    sizes = []
    for axis, size in enumerate(shape[2:]):
        extent = dilations[axis] * (kernel[axis] - 1) + 1
        room = size + pads[axis] + pads[axis + axes] - extent
        if room < 0:
            raise ValueError
        sizes.append(rounding(room / strides[axis]) + 1)
    return tuple(sizes)


def _convolution(step: Step, inputs: Any) -> Tensor:
    """Conv: (N, C, H, W) with weights (M, C / groups, h, w)."""
    images, weights = inputs[0].shape, inputs[1].shape
    if images[1] != weights[1] * step.integer("group", 1):
        raise ValueError
    return Tensor((images[0], weights[0], *_window_sizes(step, images, weights[2:])))


def _pooling(step: Step, inputs: Any) -> Tensor:
    """AveragePool, MaxPool."""
    shape = inputs[0].shape
    return Tensor((*shape[:2], *_window_sizes(step, shape, step.integers("kernel_shape", []))))


def _pooling_with_indices(step: Step, inputs: Any) -> list[Tensor]:
    """OpenVINO's MaxPool: the largest values and their indices."""
    return [_pooling(step, inputs)] * 2


def _global_pooling(_: Step, inputs: Any) -> Tensor:
    """GlobalAveragePool: one value per channel."""
    shape = inputs[0].shape
    return Tensor((*shape[:2], *(1 for _ in shape[2:])))


def _flatten(step: Step, inputs: Any) -> Tensor:
    """Flatten: reshapes to a matrix."""
    shape, axis = inputs[0].shape, step.integer("axis", 1)
    return Tensor((prod(shape[:axis]), prod(shape[axis:])))


def _gather(step: Step, inputs: Any) -> Tensor:
    """Gather: selects indices along an axis."""
    values, indices = inputs[0], inputs[1]
    axis = step.integer("axis", 0) % len(values.shape)
    shape = values.shape[:axis] + indices.shape + values.shape[axis + 1 :]
    if values.values is None or indices.values is None or len(values.shape) != 1:
        return Tensor(shape)
    return Tensor(shape, tuple(values.values[index] for index in indices.values))


def _matmul(_: Step, inputs: Any) -> Tensor:
    """MatMul: multiplies matrices, broadcast over the leading axes."""
    left, right = inputs[0].shape, inputs[1].shape
    if min(len(left), len(right)) < 2 or left[-1] != right[-2]:
        raise ValueError
    return Tensor((*_broadcast(left[:-2], right[:-2]), left[-2], right[-1]))


def _gemm(step: Step, inputs: Any) -> Tensor:
    """Gemm: the product of two matrices, optionally transposed, plus a term."""
    left, right = (
        tensor.shape[::-1] if step.integer(name, 0) else tensor.shape
        for tensor, name in zip(inputs, ("transA", "transB"), strict=False)
    )
    if len(left) != 2 or len(right) != 2 or left[1] != right[0]:
        raise ValueError
    shape = left[0], right[1]
    if len(inputs) > 2 and _broadcast(shape, inputs[2].shape) != shape:
        raise ValueError
    return Tensor(shape)


def _reduce(step: Step, inputs: Any) -> Tensor:
    """ReduceSum and similar: reduce some axes."""
    shape = inputs[0].shape
    axes = _axes_of(step, inputs, len(shape))
    if step.integer("keepdims", 1):
        return Tensor(tuple(1 if axis in axes else size for axis, size in enumerate(shape)))
    return Tensor(tuple(size for axis, size in enumerate(shape) if axis not in axes))


def _pad(_: Step, inputs: Any) -> Tensor:
    """Pad: adds values at both ends of each axis."""
    shape, pads = inputs[0].shape, inputs[1].values
    if len(pads) != 2 * len(shape) or min(pads) < 0 or (len(inputs) > 3 and inputs[3]):
        raise ValueError
    ends = zip(pads[: len(shape)], pads[len(shape) :], strict=True)
    return Tensor(tuple(size + sum(end) for size, end in zip(shape, ends, strict=True)))


def _pad_at_ends(_: Step, inputs: Any) -> Tensor:
    """OpenVINO's Pad: two inputs for the beginnings and ends."""
    shape, before, after = inputs[0].shape, inputs[1].values, inputs[2].values
    if len(before) != len(shape) or min(*before, *after) < 0:
        raise ValueError
    ends = zip(shape, before, after, strict=True)
    return Tensor(tuple(map(sum, ends)))


def _broadcast_to(_: Step, inputs: Any) -> Tensor:
    """OpenVINO's Broadcast: repeats values along axes of size 1."""
    shape, values = _broadcast(inputs[0].shape, inputs[1].values), inputs[0].values
    repeated = values is not None and len(values) == 1 and prod(shape) <= _MAX_TRACKED
    return Tensor(shape, values * prod(shape) if repeated else None)


def _slice(_: Step, inputs: Any) -> Tensor:
    """OpenVINO's Slice of a vector: start, end and step."""
    start, end, step = (tensor.values[0] for tensor in inputs[1:4])
    (size,) = inputs[0].shape
    if (len(inputs) > 4 and inputs[4].values != (0,)) or len(inputs[1].values) != 1:
        raise ValueError
    indices = range(size)[start:end:step]
    values = inputs[0].values
    return Tensor((len(indices),), None if values is None else values[start:end:step])


def _divide_down(left: int, right: int) -> int:
    """Integer division that rounds down, as in Python."""
    return left // right


def _transpose_by_input(_: Step, inputs: Any) -> Tensor:
    """OpenVINO's Transpose: the order is an input."""
    shape, order = inputs[0].shape, inputs[1].values
    if sorted(order) != list(range(len(shape))):
        raise ValueError
    return Tensor(tuple(shape[axis] for axis in order))


def _gather_on_axis(step: Step, inputs: Any) -> Tensor:
    """OpenVINO's Gather: the axis is an input."""
    (axis,) = inputs[2].values
    return _gather(Step("Gather", step.inputs, step.outputs, {"axis": axis}), inputs)


def _matmul_transposed(step: Step, inputs: Any) -> Tensor:
    """OpenVINO's MatMul: each side may be transposed by an option."""
    sides = [
        Tensor((*tensor.shape[:-2], *tensor.shape[-2:][::-1])) if step.integer(name, 0) else tensor
        for tensor, name in zip(inputs, ("transA", "transB"), strict=True)
    ]
    return _matmul(step, sides)


def _group_convolution(step: Step, inputs: Any) -> Tensor:
    """OpenVINO's GroupConvolution: weights (groups, M, C, h, w)."""
    images, weights = inputs[0].shape, inputs[1].shape
    if images[1] != weights[0] * weights[2]:
        raise ValueError
    return Tensor((images[0], weights[0] * weights[1], *_window_sizes(step, images, weights[3:])))


def _split(_: Step, inputs: Any) -> list[Tensor]:
    """OpenVINO's VariadicSplit: splits an axis into parts of these lengths."""
    shape, axis, lengths = inputs[0].shape, inputs[1].values[0], inputs[2].values
    axis %= len(shape)
    rest = shape[axis] - sum(length for length in lengths if length != -1)
    lengths = tuple(rest if length == -1 else length for length in lengths)
    if min(lengths) < 0 or sum(lengths) != shape[axis]:
        raise ValueError
    values = inputs[0].values if len(shape) == 1 else None
    parts, start = [], 0
    for length in lengths:
        part = None if values is None else values[start : start + length]
        parts.append(Tensor((*shape[:axis], length, *shape[axis + 1 :]), part))
        start += length
    return parts


def _constant_of_shape(_: Step, inputs: Any) -> Tensor:
    """ConstantOfShape: one value repeated."""
    return Tensor(tuple(inputs[0].values))


def _constant(step: Step, _: Any) -> Tensor:
    """Constant: the value from its options."""
    ((name, value),) = step.options.items()
    if isinstance(value, Tensor):
        return value
    if name == "value_ints":
        return Tensor((len(value),), tuple(value))
    return Tensor((), (value,) if name == "value_int" else None)


RULES: dict[str, _Rule] = {
    "Cast": _cast,
    "Identity": _identity,
    **dict.fromkeys(
        (
            *("Abs", "BatchNormalization", "Clip", "DequantizeLinear", "Exp", "Floor"),
            *("InstanceNormalization", "Log", "LogSoftmax", "Neg", "QuantizeLinear"),
            *("Reciprocal", "Relu", "Sigmoid", "Softmax", "Sqrt"),
        ),
        _other_values,
    ),
    "Add": _elementwise(lambda left, right: left + right),
    "Sub": _elementwise(lambda left, right: left - right),
    "Mul": _elementwise(lambda left, right: left * right),
    "Div": _elementwise(_divide_towards_zero),
    "Min": _elementwise(min),
    "Max": _elementwise(max),
    "Pow": _elementwise(None),
    "Shape": _shape_of,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Concat": _concat,
    "Range": _range,
    "Reshape": _reshape,
    "Transpose": _transpose,
    "Conv": _convolution,
    **dict.fromkeys(("AveragePool", "MaxPool"), _pooling),
    "GlobalAveragePool": _global_pooling,
    "Flatten": _flatten,
    "Gather": _gather,
    "MatMul": _matmul,
    "Gemm": _gemm,
    **dict.fromkeys(
        ("ReduceL2", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum"),
        _reduce,
    ),
    "Pad": _pad,
    "MaxPool with indices": _pooling_with_indices,
    "Pad at ends": _pad_at_ends,
    "Broadcast": _broadcast_to,
    "Slice": _slice,
    "Floor divide": _elementwise(_divide_down),
    "Transpose by input": _transpose_by_input,
    "Gather on axis": _gather_on_axis,
    "MatMul transposed": _matmul_transposed,
    "Conv in groups": _group_convolution,
    "Split": _split,
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
}
