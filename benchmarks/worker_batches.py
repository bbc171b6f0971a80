"""Cost of batches from worker processes for the main process: by a pipe or by shared memory.

    python benchmarks/worker_batches.py [--rounds 15] [--batch-size 128] [--workers 2]

Workers copy images of 224 x 224 pixels, which is cheap, so the transfer to the main process is what
counts: pickled through a pipe; through slots of shared memory, as in this package; and by PyTorch's
DataLoader, with one batch per worker. The main process touches every page of a batch. The methods
take turns, in another order each round. Milliseconds are of the main process, per batch: its CPU
time, and the time until it has the batch.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from resnets.data.augmentation.draws import Draws
from resnets.data.labelled import LabelledImages
from resnets.data.processes import process_context
from resnets.data.storage import PixelStorage
from resnets.data.streaming import Reader, Slots, Workers
from resnets.images import Preprocessing
from resnets.machine import machine

SIDE, IMAGES = 224, 256
BATCHES = 12  # per round
WARM_UP = 2  # batches at its start that are not timed
Way = Callable[[Iterable[Draws]], Iterator[Tensor]]


class Batches(Dataset[Tensor]):
    """A dataset for DataLoader, each item of which is a batch."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader

    def __getitem__(self, draws: Draws) -> Tensor:
        return torch.from_numpy(self.reader.read(draws))


def ways(reader: Reader, workers: int) -> dict[str, Way]:
    with patch.object(Slots, "of", lambda *_: Slots(torch.empty((0, 0), dtype=torch.uint8))):
        piped = Workers(reader, workers)
        piped.start(1)

    dataset = Batches(reader)

    def loaded(plan: Iterable[Draws]) -> Iterator[Tensor]:
        yield from DataLoader(
            dataset,
            batch_size=None,
            sampler=list(plan),  # type: ignore[arg-type]
            num_workers=workers,
            multiprocessing_context=process_context("resnets.data.streaming", dataset),
            generator=torch.Generator(),
        )

    shared = Workers(reader, workers)
    return {"pipe": piped.batches, "shared memory": shared.batches, "DataLoader": loaded}


def measured(way: Way, plan: list[Draws]) -> tuple[float, float]:
    """Milliseconds for a batch: of the main process's computing, and in all."""
    batches = way(plan)
    for number, pixels in enumerate(batches):
        if number == WARM_UP:
            computing, start = time.process_time(), time.perf_counter()
        int(pixels[:, ::6, 0, 0].sum())  # a row of every page
    seconds = time.process_time() - computing, time.perf_counter() - start
    first, second = (1000 * each / (len(plan) - WARM_UP - 1) for each in seconds)
    return first, second


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json-file", type=Path, help="where to write all figures")
    options = parser.parse_args()
    torch.set_num_threads(1)
    pixels = np.random.default_rng(0).integers(0, 256, (IMAGES, SIDE, SIDE, 3), np.uint8)
    images = LabelledImages(PixelStorage(pixels, str), np.zeros(IMAGES), ["a"])
    reader = Reader.of(images, Preprocessing(SIDE, SIDE, (0.5,) * 3, (0.2,) * 3))
    samples = np.arange(options.batch_size) % IMAGES
    plan = [Draws(0, 0, IMAGES, samples) for _ in range(BATCHES)]
    every = ways(reader, options.workers)
    for way in every.values():
        measured(way, plan)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in every}
    for number in range(options.rounds):
        for name in np.roll(list(every), number):
            times[name].append(measured(every[name], plan))
    rows = []
    for name, values in times.items():
        computing, waiting = zip(*values, strict=True)
        rows.append({"name": name, "computing": computing, "waiting": waiting})
        print(
            f"{name:14} {statistics.median(computing):6.1f} ms computed, "
            f"{statistics.median(waiting):6.1f} ms a batch"
        )
    if options.json_file:
        sizes = {"batch_size": options.batch_size, "side": SIDE, "workers": options.workers}
        text = json.dumps({"machine": machine()} | sizes | {"ways": rows}, indent=2)
        options.json_file.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
