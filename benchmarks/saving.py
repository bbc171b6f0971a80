"""Seconds that a checkpoint takes, by its parts, beside those of an image: for docs/decisions.md.

Training waits for all of it. A thread could take over what follows the copy of the state.
"""

import argparse
import copy
import hashlib
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from resnets.json_text import to_json
from resnets.networks import build
from resnets.networks.catalog import select
from resnets.runs.checkpoint import Checkpoints

ROUNDS, BATCH = 5, 8


def seconds(work: Callable[[], object]) -> float:
    """Median time of some rounds."""
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return round(statistics.median(times), 4)


def trained(network: torch.nn.Module) -> dict[str, Any]:
    """A state with momentum, as large as that of a run, and the seconds of a step of 224 pixels."""
    optimizer = torch.optim.SGD(network.parameters(), 0.01, momentum=0.9)
    images, labels = torch.randn(BATCH, 3, 224, 224), torch.zeros(BATCH, dtype=torch.int64)

    def step() -> None:
        cross_entropy(network(images), labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    each = seconds(step) / BATCH
    return {
        "state": {"network": network.state_dict(), "optimizer": optimizer.state_dict()},
        "image": each,
    }


def measured(name: str, folder: Path) -> dict[str, Any]:
    """The parts of a checkpoint of a network."""
    result = trained(build(select(name)))
    state, buffer = result["state"], io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getbuffer()
    checkpoints, numbers = Checkpoints(folder / name), iter(range(ROUNDS))
    return {
        "network": name,
        "megabytes": round(len(content) / 1e6, 1),
        "seconds_of_an_image": round(result["image"], 4),
        "seconds_whole": seconds(lambda: checkpoints.save(state, next(numbers))),
        "seconds_copy": seconds(lambda: copy.deepcopy(state)),
        "seconds_serialised": seconds(lambda: torch.save(state, io.BytesIO())),
        "seconds_digest": seconds(lambda: hashlib.sha256(content)),
        "seconds_read_again": seconds(lambda: hashlib.sha256(checkpoints.paths()[-1].read_bytes())),
    }


def main() -> None:
    """Measure and print, a line of JSON each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*", default=["resnet18", "resnet50"])
    for name in parser.parse_args().networks:
        with tempfile.TemporaryDirectory() as folder:
            print(to_json(measured(name, Path(folder))), flush=True)


if __name__ == "__main__":
    main()
