"""How fast one device trains a network: images per second of steps on images that are there.

Nothing is read or decoded, and no gradients are exchanged: it is the part of a training that
`resnets plan` takes as its rate.
"""

import math
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn.functional import cross_entropy

from resnets import shipped
from resnets.deployment.bench.figures import check_numbers
from resnets.errors import ContentError, UsageError
from resnets.format import plural
from resnets.networks import build
from resnets.networks.catalog import CATALOG, nearest
from resnets.training.devices import choose_device, is_out_of_memory

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
) -> Iterator[TrainingSpeed]:
    """Train a network on random pixels, on a GPU if there is one.

    Args:
        network: its name in the catalog, or that of a network of the package.
        size: height and width of the images, in pixels; None: the network's own.
        batch_sizes: images of a step.
        seconds: for each batch size; at least one step is measured.
        precision: of the arithmetic where there is a GPU; a CPU computes in float32.
        limit: seconds; larger batches that would not be done by then are left out.

    Yields:
        The speed at each batch size, the smallest first.

    Raises:
        UsageError: there is no such network, or a number is not allowed.
        ContentError: memory is full; the speeds of smaller batches came before.
    """
    catalogued = network.partition("_")[0] if network in shipped.names() else network
    if catalogued not in CATALOG:
        raise UsageError(f"no network {network!r}{nearest(network, CATALOG)}")
    size = CATALOG[catalogued].size if size is None else size
    check_numbers(batch_sizes, seconds)
    if size < 1:
        raise UsageError(f"--size {size}: it must be at least 1")
    device = choose_device("auto")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    actual = precision if device.type != "cpu" else "fp32"
    rate = 0.0
    end = time.monotonic() + limit
    for batch_size in sorted(set(batch_sizes)):
        step = batch_size / rate if rate else 0.0
        if rate and time.monotonic() + max((_WARM_UP + 1) * step, seconds) > end:
            break
        try:
            times = _steps(catalogued, size, batch_size, seconds, actual == "bf16", device)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise ContentError(
                f"the memory of {name} is full, with {plural(batch_size, 'image')} a step of "
                f"{network} at {size} pixels: give smaller --batch-sizes or a smaller --size"
            ) from error
        rate = batch_size / statistics.median(times)
        yield TrainingSpeed(network, name, size, batch_size, rate, len(times), actual)


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
