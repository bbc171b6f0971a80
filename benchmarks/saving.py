"""Seconds that a checkpoint costs a training: written while it waits, or beside it.

    python benchmarks/saving.py [resnet18 resnet50] [--rounds 5] [--json-file results/saving.json]

Some steps are taken without a checkpoint, and with one after the first step: by a training that
waits until it is written and read back; by a thread that does all this with a copy of the state; by
a thread that gets the state's bytes and does the rest, as this package has it; and by
`torch.distributed.checkpoint.async_save`, which does not read back. The ways take turns, in
another order each round. The call is what the next step waits for; the whole is by how much the
steps take longer, since a thread takes time from them as well. Steps compute with all cores, or
leave one to the thread, as a training on a GPU does; images are few and small, as steps on a GPU
are short.

The parts of a checkpoint are timed besides: the copy of the state, its bytes, their digest, and
both of what is read back.
"""

import argparse
import copy
import hashlib
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict_saver import async_save
from torch.nn.functional import cross_entropy

from resnets.json_text import to_json
from resnets.machine import cores, machine
from resnets.networks import build
from resnets.networks.catalog import select
from resnets.runs.checkpoint import Checkpoints, serialised

SIDE, BATCH = 64, 2
LONGER = 2.5  # times the time of a checkpoint: so long are the steps within which it is written
State = dict[str, Any]
Step = Callable[[], None]
Save = Callable[[], Future[Any] | None]  # what is still to be waited for


def seconds(work: Callable[[], object], rounds: int) -> float:
    """Median time of some rounds."""
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return round(statistics.median(times), 4)


def training(name: str) -> tuple[State, Step]:
    """A state with momentum, as large as that of a run, and a step that changes it."""
    network = build(select(name))
    optimizer = torch.optim.SGD(network.parameters(), 0.01, momentum=0.9)
    images, labels = torch.randn(BATCH, 3, SIDE, SIDE), torch.zeros(BATCH, dtype=torch.int64)

    def step() -> None:
        cross_entropy(network(images), labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    step()
    return {"network": network.state_dict(), "optimizer": optimizer.state_dict()}, step


def ways(state: State, folder: Path, pool: ThreadPoolExecutor) -> dict[str, Save]:
    """How a checkpoint is written."""
    checkpoints = Checkpoints(folder)

    def beside() -> Future[Any]:
        return pool.submit(checkpoints.save, copy.deepcopy(state), 0)

    def bytes_beside() -> Future[Any]:
        return pool.submit(checkpoints.write, serialised(state), 0)

    def by_torch() -> Future[Any]:
        pending = async_save(state, checkpoint_id=tempfile.mkdtemp(dir=folder))
        assert isinstance(pending, Future)
        return pending

    return {
        "none": lambda: None,
        "waiting": lambda: checkpoints.save(state, 0) and None,
        "a thread": beside,
        "a thread that gets the bytes": bytes_beside,
        "async_save": by_torch,
    }


def timed(step: Step, save: Save, steps: int) -> tuple[float, float]:
    """Seconds of the call that saves, and of all steps with it."""
    began = time.perf_counter()
    step()
    called = time.perf_counter()
    pending = save()
    call = time.perf_counter() - called
    for _ in range(steps - 1):
        step()
    whole = time.perf_counter() - began
    if pending is not None:
        pending.result()
    return round(call, 4), round(whole, 4)


def compared(name: str, threads: int, rounds: int, folder: Path) -> dict[str, Any]:
    """Each way of saving the state of a network, while steps compute with so many threads."""
    torch.set_num_threads(threads)
    state, step = training(name)
    with ThreadPoolExecutor(1) as pool:
        every = ways(state, folder, pool)
        each, save = seconds(step, 5), seconds(every["waiting"], 3)
        steps = max(3, round(LONGER * save / each))
        figures: dict[str, list[tuple[float, float]]] = {way: [] for way in every}
        for number in range(rounds):
            for way in np.roll(list(every), number):
                figures[way].append(timed(step, every[way], steps))
    about = {"network": name, "threads": threads, "seconds_of_a_step": each, "steps": steps}
    by_way = {
        way: dict(zip(("call", "whole"), zip(*times, strict=True), strict=True))
        for way, times in figures.items()
    }
    return about | {"ways": by_way}


def parts(name: str, rounds: int, folder: Path) -> dict[str, Any]:
    """The parts of a checkpoint of a network."""
    state, _ = training(name)
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content, path = buffer.getbuffer(), Checkpoints(folder).save(state, 0)
    work: dict[str, Callable[[], object]] = {
        "copy": lambda: copy.deepcopy(state),
        "serialised": lambda: torch.save(state, io.BytesIO()),
        "digest": lambda: hashlib.sha256(content),
        "read_again": lambda: hashlib.sha256(path.read_bytes()),
    }
    figures = {f"seconds_{part}": seconds(each, rounds) for part, each in work.items()}
    return {"network": name, "megabytes": round(len(content) / 1e6, 1)} | figures


def main() -> None:
    """Measure and print, a line of JSON each."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("networks", nargs="*", default=["resnet18", "resnet50"])
    parser.add_argument("--rounds", type=int, default=5)
    usual = sorted({max(1, cores() - 1), cores()})
    parser.add_argument("--threads", nargs="+", type=int, default=usual, help="of steps")
    parser.add_argument("--json-file", type=Path, help="where to write all figures")
    options = parser.parse_args()
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    results: dict[str, Any] = {"machine": machine() | {"torch": torch.__version__}}
    results |= {"side": SIDE, "batch_size": BATCH, "parts": [], "compared": []}
    before = torch.get_num_threads()
    try:
        for name in options.networks:
            with tempfile.TemporaryDirectory() as folder:
                results["parts"].append(parts(name, options.rounds, Path(folder) / "parts"))
                print(to_json(results["parts"][-1]), flush=True)
                for threads in options.threads:
                    place = Path(folder) / str(threads)
                    place.mkdir()
                    row = compared(name, threads, options.rounds, place)
                    results["compared"].append(row)
                    print(to_json(row), flush=True)
    finally:
        dist.destroy_process_group()
        torch.set_num_threads(before)
    if options.json_file:
        options.json_file.write_text(to_json(results) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
