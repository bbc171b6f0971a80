"""How fast one device trains a network: images per second of steps on images that are there.

Nothing is read or decoded, and no gradients are exchanged: it is the part of a training that
`resnets plan` takes as its rate.
"""

import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn.functional import cross_entropy

from resnets import shipped
from resnets.errors import UsageError
from resnets.networks import build
from resnets.networks.catalog import CATALOG, nearest
from resnets.training.devices import choose_device

_WARM_UP = 2  # steps


@dataclass(frozen=True)
class TrainingSpeed:
    """What was measured at one batch size.

    Attributes:
        network: its name.
        device: on which it was trained.
        size: height and width of the images.
        batch_size: images of a step.
        images_per_second: at the median step.
        steps: how many were measured.
        precision: of the arithmetic.
    """

    network: str
    device: str
    size: int
    batch_size: int
    images_per_second: float
    steps: int
    precision: Literal["bf16", "fp32"]


def measure_training(
    network: str,
    *,
    size: int | None,
    batch_sizes: Sequence[int],
    seconds: float,
    precision: Literal["bf16", "fp32"] = "bf16",
    limit: float = math.inf,
) -> list[TrainingSpeed]:
    """Train a network on random pixels, on a GPU if there is one.

    Args:
        network: its name in the catalog, or that of a network of the package.
        size: height and width of the images, in pixels; None: the network's own.
        batch_sizes: images of a step.
        seconds: for each batch size; at least one step is measured.
        precision: of the arithmetic where there is a GPU; a CPU computes in float32.
        limit: seconds; larger batches that would not be done by then are left out.

    Raises:
        UsageError: there is no such network, or a number is not allowed.
    """
    catalogued = network.partition("_")[0] if network in shipped.names() else network
    if catalogued not in CATALOG:
        raise UsageError(f"no network {network!r}{nearest(network, CATALOG)}")
    size = CATALOG[catalogued].size if size is None else size
    if min(batch_sizes, default=0) < 1 or size < 1:
        raise UsageError(f"batch sizes {list(batch_sizes)}, size {size}: each must be at least 1")
    device = choose_device("auto")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    actual = precision if device.type != "cpu" else "fp32"
    speeds: list[TrainingSpeed] = []
    end = time.monotonic() + limit
    for batch_size in sorted(set(batch_sizes)):
        step = batch_size / speeds[-1].images_per_second if speeds else 0.0
        if speeds and time.monotonic() + max((_WARM_UP + 1) * step, seconds) > end:
            break
        times = _steps(catalogued, size, batch_size, seconds, actual == "bf16", device)
        rate = batch_size / statistics.median(times)
        speeds.append(TrainingSpeed(network, name, size, batch_size, rate, len(times), actual))
    return speeds


def _steps(
    network: str, size: int, batch_size: int, seconds: float, in_bf16: bool, device: torch.device
) -> list[float]:
    """Seconds of each step."""
    architecture = CATALOG[network].architecture
    trained = build(architecture).to(device).train()
    trained = trained.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(trained.parameters(), lr=0.01, momentum=0.9)
    images = torch.randn(batch_size, architecture.in_channels, size, size, device=device)
    images = images.to(memory_format=torch.channels_last)
    labels = torch.arange(batch_size, device=device) % architecture.num_classes
    on_gpu = device.type != "cpu"
    times: list[float] = []
    began = time.perf_counter()
    while len(times) <= _WARM_UP or time.perf_counter() - began < seconds:
        start = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=in_bf16):
            loss = cross_entropy(trained(images), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if on_gpu:
            getattr(torch, device.type).synchronize()
        times.append(time.perf_counter() - start)
    return times[_WARM_UP:]
