"""Seconds of a training step in several processes, by the way in which they exchange gradients.

    python benchmarks/exchange.py [--networks resnet18 resnet50] [--processes 2 4] [--rounds 3]

The processes are on this machine and talk over its loopback address (gloo), so what is seen is what
an exchange costs processors and memory; what a network between machines adds, `resnets plan`
estimates. Images are few and small, so that a step is little more than its exchange. The ways take
turns, in another order each round; each begins with steps that are not timed. Seconds are the
first process's. Bytes are what passed the loopback interface while a way was timed, for a process
and a step (Linux only): what else uses the interface meanwhile is counted too.

torch's synchronised batch norms need GPUs. Here each norm exchanges as much as they do, at the same
moments, and normalises as ever.
"""

import argparse
import copy
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from resnets.json_text import to_json
from resnets.machine import machine
from resnets.networks import build
from resnets.networks.catalog import select
from resnets.training.parallel import distribute, gradient_exchange, processes
from resnets.training.recipe import Recipe

CPU = torch.device("cpu")
WARM_UP = 2  # steps: after the first, torch sorts gradients into buckets anew


@dataclass(frozen=True)
class Way:
    """A way of exchanging gradients.

    Attributes:
        recipe: says how they are exchanged.
        pieces: for each piece of a batch, whether an exchange follows.
        sends_statistics: whether those of batch norms are sent before each step.
        synchronises: whether norms exchange statistics, as synchronised ones do.
    """

    recipe: Recipe = field(default_factory=Recipe)
    pieces: tuple[bool, ...] = (True,)
    sends_statistics: bool = False
    synchronises: bool = False


WAYS = {
    "no exchange": Way(pieces=(False,)),
    "float32, buckets of 25 MiB": Way(),
    "bf16": Way(Recipe(gradient_exchange="bf16")),
    "buckets of 1 MiB": Way(Recipe(bucket_mb=1)),
    "one bucket: no overlap": Way(Recipe(bucket_mb=1000)),
    "two pieces, exchanged once": Way(pieces=(False, True)),
    "two pieces, exchanged twice": Way(pieces=(True, True)),
    "statistics sent before each step": Way(sends_statistics=True),
    "synchronised batch norms": Way(synchronises=True),
}


def exchange_statistics(norm: nn.BatchNorm2d, _: Any, output: Tensor) -> None:
    """Exchange what `SyncBatchNorm` does: forward, and in the backward pass."""
    own = torch.zeros(2 * norm.num_features + 1)
    dist.all_gather([torch.empty_like(own) for _ in range(dist.get_world_size())], own)
    output.register_hook(lambda _: dist.all_reduce(own[:-1]))  # type: ignore[no-untyped-call]


def wrapped(network: nn.Module, way: Way) -> nn.Module:
    """A copy of a network that exchanges gradients in a way."""
    network = copy.deepcopy(network).train()
    for norm in network.modules() if way.synchronises else ():
        if isinstance(norm, nn.BatchNorm2d):
            norm.register_forward_hook(exchange_statistics)
    parallel = distribute(network, CPU, way.recipe)
    parallel.broadcast_buffers = way.sends_statistics
    return parallel


def sent() -> int:
    """Bytes that have passed the loopback interface; 0 where the system does not tell."""
    counters = Path("/proc/net/dev")
    if not counters.is_file():
        return 0
    lines = counters.read_text(encoding="ascii").splitlines()
    return sum(int(line.split()[9]) for line in lines if line.split()[0] == "lo:")


def measured(network: nn.Module, way: Way, images: Tensor, steps: int) -> dict[str, Any]:
    """Seconds of each step, and megabytes that each process sent in one."""
    parallel, labels = wrapped(network, way), torch.zeros(len(images), dtype=torch.int64)
    seconds = []
    for number in range(-WARM_UP, steps):
        dist.barrier()
        if number == 0:
            before = sent()
        began = time.perf_counter()
        for exchanges in way.pieces:
            with gradient_exchange(parallel, exchanges):
                cross_entropy(parallel(images), labels).backward()
        seconds.append(round(time.perf_counter() - began, 4))
        parallel.zero_grad()
    dist.barrier()
    each = (sent() - before) / dist.get_world_size() / steps
    return {"seconds": seconds[WARM_UP:], "megabytes": round(each / 1e6, 2)}


def rows(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """What this process, one of several, measures."""
    torch.set_num_threads(1)
    for name in options.networks:
        torch.manual_seed(0)
        network = build(select(name))
        images = torch.randn(options.batch_size, 3, options.size, options.size)
        for number in range(options.rounds):
            for way in np.roll(list(WAYS), number):
                figures = measured(network, WAYS[way], images, options.steps)
                about = {"network": name, "processes": dist.get_world_size(), "way": str(way)}
                yield about | figures


def started(number: int) -> list[dict[str, Any]]:
    """What several processes measure, started by torchrun."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.json"
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += [f"--nproc-per-node={number}", __file__, *sys.argv[1:], "--json-file", str(file)]
        subprocess.run(command, check=True)
        measurements: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))["rows"]
    return measurements


def show(measurements: list[dict[str, Any]]) -> None:
    """Print medians."""
    groups: dict[tuple[str, int, str], list[dict[str, Any]]] = {}
    for row in measurements:
        groups.setdefault((row["network"], row["processes"], row["way"]), []).append(row)
    for (network, number, way), same in groups.items():
        seconds = statistics.median(second for row in same for second in row["seconds"])
        megabytes = statistics.median(row["megabytes"] for row in same)
        print(f"{network} {number} {way:33} {1000 * seconds:7.0f} ms {megabytes:8.1f} MB")


def main() -> None:
    """Measure every way with each number of processes."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--networks", nargs="+", default=["resnet18", "resnet50"])
    parser.add_argument("--processes", nargs="+", type=int, default=[2, 4])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3, help="steps of a way in a round")
    parser.add_argument("--size", type=int, default=64, help="side of the images in pixels")
    parser.add_argument("--batch-size", type=int, default=2, help="images of a process")
    parser.add_argument("--json-file", type=Path, help="where to write all figures")
    options = parser.parse_args()
    if dist.is_torchelastic_launched():
        with processes(CPU) as process:
            measurements = list(rows(options))
        if process.rank:
            return
    else:
        measurements = [row for number in options.processes for row in started(number)]
        show(measurements)
    if options.json_file:
        sizes = {"size": options.size, "batch_size": options.batch_size}
        about = {"machine": machine() | {"torch": torch.__version__}} | sizes
        options.json_file.write_text(
            to_json(about | {"rows": measurements}) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
