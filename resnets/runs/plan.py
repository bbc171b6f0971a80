"""How long a training takes on many GPUs: a model of computing, reading and exchanging gradients.

Constants are published figures; docs/how-to/plan.md lists them, and what MLPerf measured instead.
A step is what one device computes, what the devices of a node cost each other, the starts of
kernels, and what of the exchange of gradients the backward pass does not hide.
"""

import functools
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import ceil, log2
from typing import TYPE_CHECKING, Any, Literal, Self

from resnets.errors import UsageError
from resnets.networks.catalog import CATALOG, nearest

if TYPE_CHECKING:
    from resnets.networks.architecture import Architecture

Precision = Literal["bf16", "fp16", "fp32"]


@dataclass(frozen=True)
class _GPU:
    """A kind of GPU, by its data sheet.

    Attributes:
        memory: bytes.
        tensor: operations per second of dense products in bf16 and fp16 (V100: fp16).
        single: the same for float32 (TF32 where there is one).
        memory_bandwidth: bytes per second.
        link: bytes per second to the other GPUs of its node, one way (NVLink).
        network: bytes per second to other nodes, one way: its share of a DGX's network cards.
    """

    memory: float
    tensor: float
    single: float
    memory_bandwidth: float
    link: float
    network: float


_GPUS = {  # data sheets of the SXM modules; network cards of DGX-1, DGX A100 and DGX H100/H200
    "v100": _GPU(32e9, 125e12, 15.7e12, 0.9e12, 150e9, 6.25e9),
    "a100": _GPU(80e9, 312e12, 156e12, 2.039e12, 300e9, 25e9),
    "h100": _GPU(80e9, 989e12, 495e12, 3.35e12, 450e9, 50e9),
    "h200": _GPU(141e9, 989e12, 495e12, 4.8e12, 450e9, 50e9),
}
# NVIDIA's DeepLearningExamples, PyTorch ResNet-50 v1.5, DGX A100 80GB, 224 pixels, images/s
_ONE_A100: dict[Precision, float] = {"bf16": 2470, "fp16": 2470, "fp32": 938}
_EIGHT_A100 = 16_621  # in mixed precision
_RESNET50 = 4_089_184_256  # multiply-adds of an image
_EACH_OTHER = (8 * _ONE_A100["bf16"] / _EIGHT_A100 - 1) / 7  # a node's further GPU costs so much
_START = 3.8e-6  # seconds of a short kernel in a stream (NVIDIA, Getting Started with CUDA Graphs)
_LATENCY = 5e-6  # seconds of a message
_BUCKET = 25 * 2**20  # bytes of gradients that DistributedDataParallel sends at once
_PASSES = 3  # forward, and backward for inputs and for weights
_BACKWARD = 2 / 3  # of the time of a step
_NUMBER = 4  # bytes of a weight, its gradient and its momentum
_CONVERSION = 16  # bytes that pass the memory: float32 -> bf16, divided; and back (torch's hook)
_ACCUMULATED = 4  # batches whose gradients are exchanged once, to show what that brings
_RESERVED = 2 * 2**30  # bytes: CUDA's context, workspaces of cuDNN, buffers of NCCL
_HOUR = 3600  # seconds
_MOST_OF_ANYTHING = 1e15
_USABLE = 0.95  # of the memory, as it is fragmented
_LARGEST_BATCH, _MOST, _LEAST = 4096, 256, 32  # by default: of a step; most, least of a device


@dataclass(frozen=True)
class Machines:
    """Nodes with GPUs of one kind.

    Attributes:
        nodes: how many.
        gpus: of each node.
        kind: of the GPUs, a key of `_GPUS`.
        bandwidth: Gbit/s of a node's network, one way; None: as of a DGX with these GPUs.
    """

    nodes: int
    gpus: int
    kind: str
    bandwidth: float | None = None

    @classmethod
    def parse(cls, gpus: str, nodes: int, bandwidth: float | None = None) -> Self:
        """Machines by words such as 8xh100.

        Raises:
            UsageError: they are none.

        >>> Machines.parse("8xh100", 16).devices
        128
        """
        match = re.fullmatch(r"(\d{1,4})x(\w+)", gpus.lower())
        if match is None or match[2] not in _GPUS or int(match[1]) < 1:
            raise UsageError(
                f"--gpus {gpus}: expected NUMBERxKIND of each node, such as 8xh100; kinds are "
                f"{', '.join(_GPUS)} (for others, take one of them and give --rate)"
            )
        if nodes < 1:
            raise UsageError(f"--nodes {nodes}: it must be at least 1")
        _check_numbers({"bandwidth": bandwidth})
        return cls(nodes, int(match[1]), match[2], bandwidth)

    @property
    def devices(self) -> int:
        """All GPUs."""
        return self.nodes * self.gpus

    @property
    def network(self) -> float:
        """Bytes per second that a GPU sends to other nodes, while all GPUs of its node send."""
        if self.bandwidth is None:
            return _GPUS[self.kind].network
        return self.bandwidth * 1e9 / 8 / self.gpus


@dataclass(frozen=True)
class Costs:
    """What a network costs.

    Attributes:
        parameters: numbers that it learns.
        multiply_adds: of an image.
        activation_bytes: kept of an image for the backward pass, in float32.
        layers: modules that start kernels.
        norms: batch norms among them.
        norm_channels: of all of these together.
    """

    parameters: int
    multiply_adds: int
    activation_bytes: int
    layers: int
    norms: int = 0
    norm_channels: int = 0


@functools.cache
def costs_of(network: str, size: int | None = None) -> Costs:
    """The costs of a network of the catalog.

    Args:
        network: its name.
        size: height and width of the images, in pixels; None: the network's own.

    Raises:
        UsageError: there is none of that name, or the images are too small.
    """
    import torch
    from torch.nn.modules.batchnorm import _BatchNorm

    from resnets.networks import build
    from resnets.networks.profile import profile

    if network not in CATALOG:
        raise UsageError(f"no network {network!r}{nearest(network, CATALOG)}")
    architecture: Architecture = CATALOG[network].architecture
    measured = profile(architecture, CATALOG[network].size if size is None else size)
    with torch.device("meta"):
        modules = list(build(architecture).modules())
    layers = sum(not list(module.children()) for module in modules)
    channels = [module.num_features for module in modules if isinstance(module, _BatchNorm)]
    of_images = (measured.parameters, measured.multiply_adds, measured.activation_bytes)
    return Costs(*of_images, layers, len(channels), sum(channels))


@dataclass(frozen=True)
class Exchange:
    """What a training takes if devices exchange gradients and statistics in this way.

    Attributes:
        way: in words, with the flag.
        exchanging: seconds of a step that devices wait for each other's numbers.
        step: seconds of a step.
        images_per_second: of all devices together.
        communication_share: of the time, that devices wait for each other's numbers.
    """

    way: str
    exchanging: float
    step: float
    images_per_second: float
    communication_share: float


@dataclass(frozen=True)
class Plan:
    """What a training takes; seconds are those of a step.

    Attributes:
        steps: weight updates.
        batch_size: images of a step, over all devices.
        images_per_second: of all devices together.
        hours: of training alone: no validation, no start.
        hours_by_bandwidth: the same, if memory is what holds the GPUs up.
        cost: in the currency of the price; None without one.
        communication_share: of the time, that devices wait for gradients.
        input_share: of the time, that devices wait for images.
        node_reads: images per second that each node must read and decode.
        computing, waiting, starting, exchanging: seconds of a step.
        memory: bytes of a device.
        largest_batch: images of a device that fit into its memory.
        exchanges: what other ways of exchanging bring; none for one device.
    """

    steps: int
    batch_size: int
    images_per_second: float
    hours: float
    hours_by_bandwidth: float
    cost: float | None
    communication_share: float
    input_share: float
    node_reads: float
    computing: float
    waiting: float
    starting: float
    exchanging: float
    memory: float
    largest_batch: int
    exchanges: tuple[Exchange, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """For JSON: plain values only."""
        return asdict(self)


@dataclass(frozen=True)
class Training:
    """A training to plan.

    Attributes:
        images: of an epoch.
        epochs: how many.
        batch_size: images of a step, over all devices; None: see `_usual_batch`.
        precision: bf16, fp16 or fp32.
        rate: images per second of one device, measured; None: by its data sheet.
        reading: images per second that a node can read and decode; None: as many as needed.
        price: of a GPU for an hour; None: not known.
    """

    images: int
    epochs: float = 90
    batch_size: int | None = None
    precision: Precision = "bf16"
    rate: float | None = None
    reading: float | None = None
    price: float | None = None


def _usual_batch(devices: int) -> int:
    """Images of a step if nobody says how many.

    256 of a device as long as a step has at most 4,096, and at least 32 of a device: larger
    batches need more epochs (MLPerf's reference points: 35 at 3,264, 45 at 13,056, 56 at 32,768).

    >>> _usual_batch(1), _usual_batch(64), _usual_batch(512)
    (256, 4096, 16384)
    """
    return devices * min(_MOST, max(_LEAST, _LARGEST_BATCH // devices))


def plan(costs: Costs, machines: Machines, training: Training) -> Plan:
    """What a training takes.

    Raises:
        UsageError: a number is not allowed, or a batch does not fit.
    """
    batch_size = training.batch_size
    if batch_size is None:
        batch_size = _usual_batch(machines.devices)
    _check(training, batch_size, machines)
    each, kind = ceil(batch_size / machines.devices), _GPUS[machines.kind]
    state = 3 * _NUMBER * costs.parameters + _RESERVED
    kept = costs.activation_bytes * (1 if training.precision == "fp32" else 0.5)
    largest = max(0, int((_USABLE * kind.memory - state) / kept))
    if each > largest:
        raise UsageError(_does_not_fit(training, batch_size, machines.devices, largest))
    rate = training.rate or _rate(costs, kind, training.precision)

    def seconds(rate: float) -> tuple[float, float, float, float]:
        computing = each / rate
        waiting = computing * _EACH_OTHER * (machines.gpus - 1)
        starting = _PASSES * costs.layers * _START
        return computing, waiting, starting, _exposed(costs, machines, computing)

    parts = seconds(rate)
    slowest = _by_bandwidth(rate, kind) if training.rate is None else rate
    reads = batch_size / machines.nodes  # images of a step
    least = reads / training.reading if training.reading else 0.0
    step = max(sum(parts), least)
    steps = max(1, int(training.epochs * ceil(training.images / batch_size)))
    hours = steps * step / _HOUR
    return Plan(
        steps,
        batch_size,
        batch_size / step,
        hours,
        steps * max(sum(seconds(slowest)), least) / _HOUR,
        None if training.price is None else hours * machines.devices * training.price,
        parts[3] / step,
        1 - sum(parts) / step,
        reads / step,
        *parts,
        state + each * kept,
        largest,
        _ways(costs, machines, parts, batch_size, least),
    )


def _check(training: Training, batch_size: int, machines: Machines) -> None:
    """Refuse numbers that no training has.

    Raises:
        UsageError: there is one.
    """
    _check_numbers(
        {
            "images": training.images,
            "epochs": training.epochs,
            "rate": training.rate,
            "reading": training.reading,
            "price": training.price,
        }
    )
    if batch_size < machines.devices:
        raise UsageError(
            f"--batch-size {batch_size}: {machines.devices:,} devices need at least an image each"
        )
    if training.images < batch_size:
        raise UsageError(_no_step(training, batch_size, machines.devices))


def _no_step(training: Training, batch_size: int, devices: int) -> str:
    """What to say of fewer images than a step has."""
    few = f"--images {training.images}: fewer than the {batch_size:,} of a step"
    if training.images < devices:
        return f"{few}, and than the {devices:,} GPUs, which need one each; take fewer GPUs"
    return f"{few}; give --batch-size {training.images // devices * devices} or less"


def _check_numbers(values: Mapping[str, float | None]) -> None:
    """Refuse what is no positive number, or so large that sums of it are none.

    Raises:
        UsageError: it names the flag.
    """
    for name, value in values.items():
        if value is not None and not 0 < value <= _MOST_OF_ANYTHING:
            raise UsageError(
                f"--{name} {value:g}: it must be more than 0, and at most {_MOST_OF_ANYTHING:g}"
            )


def _does_not_fit(training: Training, batch_size: int, devices: int, largest: int) -> str:
    """Why a step does not fit into the memory of its devices, and what to change.

    Args:
        training: that is planned.
        batch_size: images of a step.
        devices: that share them.
        largest: images that fit into a device.
    """
    if not largest:
        return "not a single image fits into the memory of a device: give a smaller --size"
    each = f"{ceil(batch_size / devices):,} images of a device, and {largest:,} fit into its memory"
    if training.batch_size is None:
        usual = f"a step of {batch_size:,} images, as usual, has {each}"
        return f"{usual}; give --batch-size {largest * devices}, or a smaller --size"
    return (
        f"--batch-size {batch_size}: {each}; take a smaller one (or train with --accumulate), or a "
        "smaller --size"
    )


def _rate(costs: Costs, kind: _GPU, precision: Precision) -> float:
    """Images per second of one device, at the share of its peak that an A100 reaches."""

    def peak(gpu: _GPU) -> float:
        return gpu.single if precision == "fp32" else gpu.tensor

    scale = peak(kind) / peak(_GPUS["a100"])
    return _ONE_A100[precision] * scale * _RESNET50 / costs.multiply_adds


def _by_bandwidth(rate: float, kind: _GPU) -> float:
    """The rate if a device is faster than an A100 only as far as its memory is."""
    faster = kind.tensor / _GPUS["a100"].tensor
    return rate * min(1.0, kind.memory_bandwidth / _GPUS["a100"].memory_bandwidth / faster)


def _ways(
    costs: Costs,
    machines: Machines,
    parts: tuple[float, float, float, float],
    batch_size: int,
    least: float,
) -> tuple[Exchange, ...]:
    """What other ways of exchanging bring, of which the first is the usual one.

    Args:
        costs: of the network.
        machines: that train it.
        parts: seconds of a step: computing, waiting, starting, exchanging.
        batch_size: images of a step.
        least: seconds of a step, for reading its images.
    """
    if machines.devices == 1:
        return ()
    computing, *others, usual = parts
    in_bf16 = _exposed(costs, machines, computing, _NUMBER / 2)
    in_bf16 += _CONVERSION * costs.parameters / _GPUS[machines.kind].memory_bandwidth
    rows = (  # way, batches of a step, seconds of exchanging
        ("float32, overlapped", 1, usual),
        ("--gradient-exchange bf16", 1, in_bf16),
        ("no overlap", 1, _exposed(costs, machines, 0.0)),
        (f"{_ACCUMULATED} x batch, --accumulate {_ACCUMULATED}", _ACCUMULATED, usual),
        ("--sync-batch-norm", 1, usual + _synchronising(costs, machines)),
    )

    def row(way: str, batches: int, exchanging: float) -> Exchange:
        step = max(batches * (computing + sum(others)) + exchanging, batches * least)
        return Exchange(way, exchanging, step, batches * batch_size / step, exchanging / step)

    return tuple(row(*each) for each in rows)


def _exposed(costs: Costs, machines: Machines, computing: float, number: float = _NUMBER) -> float:
    """Seconds of a step that devices wait for gradients.

    Gradients are summed within a node, then between nodes, a share by each device; buckets go out
    while the backward pass computes, all but the last one (PyTorch Distributed, arXiv:2006.15704,
    section 3.2.3). A ring sends 2 (n - 1) / n of the bytes (Patarasuk and Yuan, J. Parallel
    Distrib. Comput. 69, 2009). With --accumulate only the last piece exchanges (section 3.2.4).

    Args:
        costs: of the network.
        machines: that train it.
        computing: seconds of forward and backward passes, of which the latter hide an exchange.
        number: bytes of a gradient while it is sent; buckets are measured before.
    """
    size, kind = number * costs.parameters, _GPUS[machines.kind]
    buckets = ceil(_NUMBER * costs.parameters / _BUCKET)
    gpus, nodes = machines.gpus, machines.nodes
    inside = 2 * (gpus - 1) / gpus * size / kind.link
    between = 2 * (nodes - 1) / nodes * size / gpus / machines.network
    total = inside + between + 2 * buckets * _hops(machines) * _LATENCY
    hidden = _BACKWARD * computing * (1 - 1 / buckets)
    return max(total / buckets, total - hidden)


def _synchronising(costs: Costs, machines: Machines) -> float:
    """Seconds of a step that devices wait for the statistics of batch norms of all of them.

    Nothing hides them, since each layer needs those of the one before. As torch does it
    (torch/nn/modules/_functions.py): forward, each device gets mean, deviation and count of every
    other one; backward, two sums for each channel are summed over all, which is two passes.
    """
    kind, devices = _GPUS[machines.kind], machines.devices
    bandwidth = machines.network if machines.nodes > 1 else kind.link
    gathered = (devices - 1) * (2 * costs.norm_channels + costs.norms)
    summed = 2 * (devices - 1) / devices * 2 * costs.norm_channels
    messages = 3 * costs.norms * _hops(machines)
    return messages * _LATENCY + _NUMBER * (gathered + summed) / bandwidth


def _hops(machines: Machines) -> int:
    """Messages one after the other until a number of each device has reached all."""
    return ceil(log2(machines.gpus)) + ceil(log2(machines.nodes))
