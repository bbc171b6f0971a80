"""What a graph of tensors would allocate and compute, found from shapes before any runtime sees it.

A file of a few kilobytes can ask for gigabytes: by a fill, a range, a padding, or the product of a
column and a row. So its operators are followed in order with the shapes of one image, and what they
hold at once and multiply is added up. Numbers that become shapes are followed too.

Shapes are tuples of sizes; the operators are those of ONNX (github.com/onnx/onnx, Operators.md).
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, prod
from typing import Any

from resnets.errors import ContentError

_MOST_HELD = 1 << 27  # values at once; resnet200 at 224 pixels holds 2**22
_MOST_PRODUCTS = 1 << 42  # multiply-adds of one image; resnetrs200 has 2**34
_MOST_AXES = 8
_MOST_FOLLOWED = 64  # values of a tensor that are followed
INT32, INT64 = _WHOLE = 6, 7  # the types' numbers in onnx.proto
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Tensor:
    """What is known of a tensor.

    Attributes:
        shape: its sizes.
        values: its whole numbers, one after another; None where they are not followed.
        constant: whether it does not depend on the images; runtimes compute and keep such.
    """

    shape: Shape
    values: tuple[int, ...] | None = None
    constant: bool = False


@dataclass(frozen=True)
class Step:
    """An operator with what it reads, by name; "" where an optional input is left out."""

    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)

    def integers(self, name: str, default: Sequence[int]) -> list[int]:
        """An option of several whole numbers."""
        return [int(value) for value in self.options.get(name, default)]

    def integer(self, name: str, default: int) -> int:
        """An option of one whole number."""
        return int(self.options.get(name, default))


_Inputs = list["Tensor | None"]
_Rule = Callable[[Step, Any], "Tensor | list[Tensor]"]


def refuse_costly(steps: Sequence[Step], known: Mapping[str, Tensor]) -> None:
    """Refuse a graph that holds or computes more than any network of this package.

    Args:
        steps: in an order in which each comes after those that it reads from.
        known: the graph's inputs and weights by name.

    Raises:
        ContentError: it does, or its shapes do not fit each other; the operator is named.
    """
    tensors = dict(known)
    uses = Counter(name for step in steps for name in step.inputs)
    held = products = 0
    for step in steps:
        made = _followed(step, tensors)
        held += sum(prod(tensor.shape) for tensor in made)
        products += _multiplied(step, tensors, made)
        if held > _MOST_HELD or products > _MOST_PRODUCTS:
            raise ContentError(
                f"the operator {_named(step)} would take the graph beyond what networks need "
                f"({held:,} values at once, {products:,} multiply-adds)"
            )
        tensors |= zip(step.outputs, made, strict=True)
        for name in filter(None, step.inputs):
            uses[name] -= 1
            if uses[name] == 0 and name not in known and not tensors[name].constant:
                held -= prod(tensors[name].shape)


def _named(step: Step) -> str:
    """An operator and what it makes, for a message."""
    return f"{step.operator} ({', '.join(step.outputs)[:60]})"


def _followed(step: Step, tensors: Mapping[str, Tensor]) -> list[Tensor]:
    """What a step makes.

    Raises:
        ContentError: it reads what nothing makes, or the shapes do not fit.
    """
    missing = [name for name in step.inputs if name and name not in tensors]
    if missing:
        raise ContentError(f"{_named(step)} reads {missing[0][:60]!r}, which nothing makes")
    if any(name in tensors for name in step.outputs):
        raise ContentError(f"{_named(step)} makes what is there already")
    inputs: _Inputs = [tensors[name] if name else None for name in step.inputs]
    try:
        found = RULES[step.operator](step, inputs)
        made = found if isinstance(found, list) else [found]
        if len(made) != len(step.outputs) or not all(map(_sound, made)):
            raise ValueError
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        raise ContentError(f"the shapes around {_named(step)} do not fit") from None
    constant = all(tensor is None or tensor.constant for tensor in inputs)
    return [Tensor(tensor.shape, _few(tensor.values), constant) for tensor in made]


def _sound(tensor: Tensor) -> bool:
    """Whether the sizes are ones that a tensor can have."""
    return len(tensor.shape) <= _MOST_AXES and min(tensor.shape, default=0) >= 0


def _few(values: tuple[int, ...] | None) -> tuple[int, ...] | None:
    """Values that are worth following, as long as no runtime's numbers overflow."""
    if values is None or len(values) > _MOST_FOLLOWED or any(abs(v) >> 31 for v in values):
        return None
    return values


def _multiplied(step: Step, tensors: Mapping[str, Tensor], made: Sequence[Tensor]) -> int:
    """Multiply-adds of a step; of others than products, one a value."""
    size = sum(prod(tensor.shape) for tensor in made)
    if step.operator in ("Conv", "Conv in groups"):
        return size * prod(tensors[step.inputs[1]].shape[1:])
    if step.operator in ("MatMul", "MatMul turned", "Gemm"):
        return size * max(tensors[step.inputs[0]].shape, default=1)
    if step.operator in ("AveragePool", "MaxPool", "MaxPool with places"):
        return size * prod(step.integers("kernel_shape", [1]))
    return size


def _same(_: Step, inputs: Any) -> Tensor:
    """As the first input."""
    return Tensor(inputs[0].shape, inputs[0].values)


def _values_only(_: Step, inputs: Any) -> Tensor:
    """The shape of the first input; its values become others."""
    return Tensor(inputs[0].shape)


def _broadcast(*shapes: Shape) -> Shape:
    """The shape of a calculation value by value (NumPy's broadcasting)."""
    rank = max(map(len, shapes))
    padded = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    found = []
    for sizes in zip(*padded, strict=True):
        larger = {size for size in sizes if size != 1}
        if len(larger) > 1:
            raise ValueError
        found.append(larger.pop() if larger else 1)
    return tuple(found)


def _cast(step: Step, inputs: Any) -> Tensor:
    """Cast: whole numbers are followed as long as they stay such, in 32 bits or 64."""
    kept = inputs[0].values if step.options.get("to") in _WHOLE else None
    return Tensor(inputs[0].shape, kept)


def _value_by_value(work: Callable[..., int] | None) -> _Rule:
    """A calculation value by value, followed where it is of whole numbers."""

    def rule(_: Step, inputs: Any) -> Tensor:
        shape = _broadcast(*(tensor.shape for tensor in inputs))
        rows = [tensor.values for tensor in inputs]
        if work is None or None in rows or prod(shape) > _MOST_FOLLOWED:
            return Tensor(shape)
        size = prod(shape)
        if any(len(row) not in (1, size) for row in rows):
            return Tensor(shape)
        full = [row * size if len(row) == 1 else row for row in rows]
        return Tensor(shape, tuple(work(*each) for each in zip(*full, strict=True)))

    return rule


def _divided(left: int, right: int) -> int:
    """Whole numbers divided towards zero, as C does."""
    quotient = abs(left) // abs(right)
    return quotient if (left < 0) == (right < 0) else -quotient


def _shape_of(step: Step, inputs: Any) -> Tensor:
    """Shape: the sizes as numbers."""
    shape = inputs[0].shape[slice(step.options.get("start"), step.options.get("end"))]
    return Tensor((len(shape),), shape)


def _axes_of(step: Step, inputs: Any, rank: int) -> list[int]:
    """Axes from the second input or an option, counted from the first."""
    given = inputs[1].values if len(inputs) > 1 and inputs[1] else step.options.get("axes")
    axes = list(range(rank)) if given is None else [int(axis) % rank for axis in given]
    if given is not None and any(not -rank <= axis < rank for axis in given):
        raise ValueError
    return axes


def _squeeze(step: Step, inputs: Any) -> Tensor:
    """Squeeze: without axes of size 1."""
    shape = inputs[0].shape
    axes = _axes_of(step, inputs, len(shape))
    if any(shape[axis] != 1 for axis in axes):
        raise ValueError
    rest = tuple(size for axis, size in enumerate(shape) if axis not in axes)
    return Tensor(rest, inputs[0].values)


def _unsqueeze(step: Step, inputs: Any) -> Tensor:
    """Unsqueeze: with new axes of size 1."""
    shape = list(inputs[0].shape)
    given = inputs[1].values if len(inputs) > 1 else step.options["axes"]
    for axis in sorted(_axes_of(step, inputs, len(shape) + len(given))):
        shape.insert(axis, 1)
    return Tensor(tuple(shape), inputs[0].values)


def _concat(step: Step, inputs: Any) -> Tensor:
    """Concat: along an axis."""
    shape = list(inputs[0].shape)
    axis = step.integer("axis", 0) % len(shape)
    for other in inputs[1:]:
        if other.shape[:axis] + other.shape[axis + 1 :] != tuple(shape[:axis] + shape[axis + 1 :]):
            raise ValueError
    shape[axis] = sum(tensor.shape[axis] for tensor in inputs)
    rows = [tensor.values for tensor in inputs]
    values = tuple(v for row in rows for v in row) if len(shape) == 1 and None not in rows else None
    return Tensor(tuple(shape), values)


def _numbers_in_a_row(_: Step, inputs: Any) -> Tensor:
    """Range: from, to and step."""
    start, end, step = (tensor.values[0] for tensor in inputs)
    count = max(0, -(-(end - start) // step))
    values = tuple(range(start, end, step)) if count <= _MOST_FOLLOWED else None
    return Tensor((count,), values)


def _reshape(step: Step, inputs: Any) -> Tensor:
    """Reshape: 0 keeps a size, -1 is what is left."""
    old, wanted = inputs[0].shape, list(inputs[1].values)
    if not step.integer("allowzero", 0):
        wanted = [old[axis] if size == 0 else size for axis, size in enumerate(wanted)]
    if wanted.count(-1) > 1 or min(wanted, default=1) < -1:
        raise ValueError
    rest = prod(size for size in wanted if size != -1)
    if -1 in wanted:
        wanted[wanted.index(-1)] = prod(old) // rest
    if prod(wanted) != prod(old):
        raise ValueError
    return Tensor(tuple(wanted), inputs[0].values)


def _transpose(step: Step, inputs: Any) -> Tensor:
    """Transpose."""
    shape = inputs[0].shape
    order = step.integers("perm", range(len(shape))[::-1])
    if sorted(order) != list(range(len(shape))):
        raise ValueError
    return Tensor(tuple(shape[axis] for axis in order))


def _slid(step: Step, shape: Shape, kernel: Sequence[int]) -> Shape:
    """Sizes after a window was slid over the axes behind the first two."""
    axes = len(shape) - 2
    strides, dilations = (step.integers(n, [1] * axes) for n in ("strides", "dilations"))
    pads = step.integers("pads", [0] * 2 * axes)
    if not len(kernel) == len(strides) == len(dilations) == axes or len(pads) != 2 * axes:
        raise ValueError
    if min(*kernel, *strides, *dilations) < 1 or min(pads) < 0:
        raise ValueError
    rounded = ceil if step.integer("ceil_mode", 0) else int
    found = []
    for axis, size in enumerate(shape[2:]):
        covered = dilations[axis] * (kernel[axis] - 1) + 1
        left = size + pads[axis] + pads[axis + axes] - covered
        if left < 0:
            raise ValueError
        found.append(rounded(left / strides[axis]) + 1)
    return tuple(found)


def _convolution(step: Step, inputs: Any) -> Tensor:
    """Conv: (N, C, H, W) with weights (M, C / groups, h, w)."""
    images, weights = inputs[0].shape, inputs[1].shape
    if images[1] != weights[1] * step.integer("group", 1):
        raise ValueError
    return Tensor((images[0], weights[0], *_slid(step, images, weights[2:])))


def _pooling(step: Step, inputs: Any) -> Tensor:
    """AveragePool, MaxPool."""
    shape = inputs[0].shape
    return Tensor((*shape[:2], *_slid(step, shape, step.integers("kernel_shape", []))))


def _pooling_with_places(step: Step, inputs: Any) -> list[Tensor]:
    """OpenVINO's MaxPool: the greatest values, and where they were."""
    return [_pooling(step, inputs)] * 2


def _global_pooling(_: Step, inputs: Any) -> Tensor:
    """GlobalAveragePool: one value a channel."""
    shape = inputs[0].shape
    return Tensor((*shape[:2], *(1 for _ in shape[2:])))


def _flatten(step: Step, inputs: Any) -> Tensor:
    """Flatten: to a matrix."""
    shape, axis = inputs[0].shape, step.integer("axis", 1)
    return Tensor((prod(shape[:axis]), prod(shape[axis:])))


def _gather(step: Step, inputs: Any) -> Tensor:
    """Gather: some places along an axis."""
    values, places = inputs[0], inputs[1]
    axis = step.integer("axis", 0) % len(values.shape)
    shape = values.shape[:axis] + places.shape + values.shape[axis + 1 :]
    if values.values is None or places.values is None or len(values.shape) != 1:
        return Tensor(shape)
    return Tensor(shape, tuple(values.values[place] for place in places.values))


def _product(_: Step, inputs: Any) -> Tensor:
    """MatMul: of matrices, broadcast over the axes before."""
    left, right = inputs[0].shape, inputs[1].shape
    if min(len(left), len(right)) < 2 or left[-1] != right[-2]:
        raise ValueError
    return Tensor((*_broadcast(left[:-2], right[:-2]), left[-2], right[-1]))


def _gemm(step: Step, inputs: Any) -> Tensor:
    """Gemm: of two matrices, each as it is or transposed, and a term."""
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


def _reduced(step: Step, inputs: Any) -> Tensor:
    """ReduceSum and its like: over some axes."""
    shape = inputs[0].shape
    axes = _axes_of(step, inputs, len(shape))
    if step.integer("keepdims", 1):
        return Tensor(tuple(1 if axis in axes else size for axis, size in enumerate(shape)))
    return Tensor(tuple(size for axis, size in enumerate(shape) if axis not in axes))


def _padded(_: Step, inputs: Any) -> Tensor:
    """Pad: more at either end of each axis."""
    shape, pads = inputs[0].shape, inputs[1].values
    if len(pads) != 2 * len(shape) or min(pads) < 0 or (len(inputs) > 3 and inputs[3]):
        raise ValueError
    ends = zip(pads[: len(shape)], pads[len(shape) :], strict=True)
    return Tensor(tuple(size + sum(end) for size, end in zip(shape, ends, strict=True)))


def _padded_by_ends(_: Step, inputs: Any) -> Tensor:
    """OpenVINO's Pad: the beginnings and the ends apart."""
    shape, before, after = inputs[0].shape, inputs[1].values, inputs[2].values
    if len(before) != len(shape) or min(*before, *after) < 0:
        raise ValueError
    ends = zip(shape, before, after, strict=True)
    return Tensor(tuple(map(sum, ends)))


def _enlarged(_: Step, inputs: Any) -> Tensor:
    """OpenVINO's Broadcast: repeated along axes of size 1."""
    shape, values = _broadcast(inputs[0].shape, inputs[1].values), inputs[0].values
    repeated = values is not None and len(values) == 1 and prod(shape) <= _MOST_FOLLOWED
    return Tensor(shape, values * prod(shape) if repeated else None)


def _sliced(_: Step, inputs: Any) -> Tensor:
    """OpenVINO's Slice of numbers in a row: from, to and step."""
    start, end, step = (tensor.values[0] for tensor in inputs[1:4])
    (size,) = inputs[0].shape
    if (len(inputs) > 4 and inputs[4].values != (0,)) or len(inputs[1].values) != 1:
        raise ValueError
    places = range(size)[start:end:step]
    values = inputs[0].values
    return Tensor((len(places),), None if values is None else values[start:end:step])


def _divided_down(left: int, right: int) -> int:
    """Whole numbers divided downwards, as Python does."""
    return left // right


def _reordered(_: Step, inputs: Any) -> Tensor:
    """OpenVINO's Transpose: the order is an input."""
    shape, order = inputs[0].shape, inputs[1].values
    if sorted(order) != list(range(len(shape))):
        raise ValueError
    return Tensor(tuple(shape[axis] for axis in order))


def _gathered(step: Step, inputs: Any) -> Tensor:
    """OpenVINO's Gather: the axis is an input."""
    (axis,) = inputs[2].values
    return _gather(Step("Gather", step.inputs, step.outputs, {"axis": axis}), inputs)


def _turned_product(step: Step, inputs: Any) -> Tensor:
    """OpenVINO's MatMul: either side transposed if its option says so."""
    sides = [
        Tensor((*tensor.shape[:-2], *tensor.shape[-2:][::-1])) if step.integer(name, 0) else tensor
        for tensor, name in zip(inputs, ("transA", "transB"), strict=True)
    ]
    return _product(step, sides)


def _convolution_in_groups(step: Step, inputs: Any) -> Tensor:
    """OpenVINO's GroupConvolution: weights (groups, M, C, h, w)."""
    images, weights = inputs[0].shape, inputs[1].shape
    if images[1] != weights[0] * weights[2]:
        raise ValueError
    return Tensor((images[0], weights[0] * weights[1], *_slid(step, images, weights[3:])))


def _split(_: Step, inputs: Any) -> list[Tensor]:
    """OpenVINO's VariadicSplit: parts of the given lengths along an axis."""
    shape, axis, lengths = inputs[0].shape, inputs[1].values[0], inputs[2].values
    axis %= len(shape)
    rest = shape[axis] - sum(length for length in lengths if length != -1)
    lengths = tuple(rest if length == -1 else length for length in lengths)
    if min(lengths) < 0 or sum(lengths) != shape[axis]:
        raise ValueError
    values = inputs[0].values if len(shape) == 1 else None
    found, start = [], 0
    for length in lengths:
        part = None if values is None else values[start : start + length]
        found.append(Tensor((*shape[:axis], length, *shape[axis + 1 :]), part))
        start += length
    return found


def _filled(_: Step, inputs: Any) -> Tensor:
    """ConstantOfShape: one value everywhere."""
    return Tensor(tuple(inputs[0].values))


def _constant(step: Step, _: Any) -> Tensor:
    """Constant: the value in its options."""
    ((name, value),) = step.options.items()
    if isinstance(value, Tensor):
        return value
    if name == "value_ints":
        return Tensor((len(value),), tuple(value))
    return Tensor((), (value,) if name == "value_int" else None)


RULES: dict[str, _Rule] = {
    "Cast": _cast,
    "Identity": _same,
    **dict.fromkeys(
        (
            *("Abs", "BatchNormalization", "Clip", "DequantizeLinear", "Exp", "Floor"),
            *("InstanceNormalization", "Log", "LogSoftmax", "Neg", "QuantizeLinear"),
            *("Reciprocal", "Relu", "Sigmoid", "Softmax", "Sqrt"),
        ),
        _values_only,
    ),
    "Add": _value_by_value(lambda left, right: left + right),
    "Sub": _value_by_value(lambda left, right: left - right),
    "Mul": _value_by_value(lambda left, right: left * right),
    "Div": _value_by_value(_divided),
    "Min": _value_by_value(min),
    "Max": _value_by_value(max),
    "Pow": _value_by_value(None),
    "Shape": _shape_of,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Concat": _concat,
    "Range": _numbers_in_a_row,
    "Reshape": _reshape,
    "Transpose": _transpose,
    "Conv": _convolution,
    **dict.fromkeys(("AveragePool", "MaxPool"), _pooling),
    "GlobalAveragePool": _global_pooling,
    "Flatten": _flatten,
    "Gather": _gather,
    "MatMul": _product,
    "Gemm": _gemm,
    **dict.fromkeys(
        ("ReduceL2", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum"),
        _reduced,
    ),
    "Pad": _padded,
    "MaxPool with places": _pooling_with_places,
    "Pad by ends": _padded_by_ends,
    "Broadcast": _enlarged,
    "Slice": _sliced,
    "Divide down": _value_by_value(_divided_down),
    "Transpose to order": _reordered,
    "Gather along": _gathered,
    "MatMul turned": _turned_product,
    "Conv in groups": _convolution_in_groups,
    "Split": _split,
    "Constant": _constant,
    "ConstantOfShape": _filled,
}
