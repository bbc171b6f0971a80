"""Training speed of networks on this machine's CPU in images per second.

The methods are measured in turns, each in a process of its own, round after round:

- the plain loop (plain_loop.py), as in tutorials;
- this project's trainer, with the same network, batch size, optimizer and augmentation;
- the convolutions alone (convolutions.py): an upper bound for a trainer with torch's
  convolutions.

The speed of a method is the batch size divided by the median time of a step. The output is the
median over the rounds, of the speeds and of their ratio in each round. If other processes use the
machine, these vary; the range of the ratios shows how much. "Undisturbed" is the ratio of the
fastest tenth of each method's steps, over all rounds.

    python benchmarks/training.py --data FOLDER_OF_CIFAR10 --json training.json
"""

import json
import os
import platform
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from convolutions import PARTS, Bound, bound
from numpy.typing import NDArray
from plain_loop import DEVIATION, MEAN, plain_epoch

from resnets.data.batches import TrainingBatches
from resnets.data.labelled import LabelledImages
from resnets.data.sources.opening import open_data
from resnets.data.storage import PixelStorage
from resnets.files.outputs import writable
from resnets.files.writing import write_atomically
from resnets.images import Preprocessing
from resnets.machine import machine as known_machine
from resnets.machine import settle_memory, settle_threads
from resnets.networks import build
from resnets.runs.job import starting_recipe
from resnets.runs.prepare import on_device
from resnets.training.optimisation import make_loss
from resnets.training.recipe import Recipe
from resnets.training.trainer import Step, Trainer

CLASSES, SIDE, CIFAR10 = 10, 32, 50_000  # pixels a side; training images
UNDISTURBED = 0.1  # share of the steps that are fastest
WARM_UP = 5  # steps in which memory is allocated and oneDNN chooses its kernels


@dataclass(frozen=True)
class Task:
    """The work of each method.

    Attributes:
        network: name of the network.
        images: (N, 32, 32, 3) uint8, enough for all steps.
        labels: (N,).
        batch_size: images per step.
        steps: number of timed steps, after those to warm up.
        recipe: of this project's trainer: a name, or a TOML file.
    """

    network: str
    images: np.ndarray
    labels: np.ndarray
    batch_size: int
    steps: int
    recipe: str = "paper"


def plain_loop(task: Task) -> NDArray[np.float64]:
    """Seconds of the steps of the plain loop."""
    network = build(task.network, num_classes=CLASSES).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    training = plain_epoch(network, optimizer, task.images, task.labels, task.batch_size)
    return seconds_of_steps(training, task.steps)


def trainer(task: Task) -> NDArray[np.float64]:
    """Seconds of the steps of this project's trainer; `paper` is the recipe of the plain loop.

    Sorted; with progressive resizing, each is the mean over the epochs of a run.
    """
    settle_memory()
    settle_threads()
    recipe = replace(
        starting_recipe(task.recipe, task.network).resolved(SIDE), batch_size=task.batch_size
    )
    per_epoch = CIFAR10 // task.batch_size
    epochs = range(recipe.total_steps(per_epoch) // per_epoch or 1)
    sides = Counter(recipe.size_in(epoch, per_epoch) or SIDE for epoch in epochs)
    weighted = [number * at_side(side, task, recipe) for side, number in sides.items()]
    return np.sum(weighted, axis=0) / len(epochs)


def at_side(side: int, task: Task, recipe: Recipe) -> NDArray[np.float64]:
    """Seconds of the steps, sorted, for images of a side in pixels."""
    recipe = replace(recipe, progressive_resizing_scale=side / SIDE, progressive_resizing_until=1.0)
    names = [str(label) for label in range(CLASSES)]
    batches = TrainingBatches(
        LabelledImages(PixelStorage(task.images, str), task.labels, names),
        Preprocessing(SIDE, SIDE, MEAN, DEVIATION),
        recipe.augmentation,
        batch_size=task.batch_size,
        workers=0,
    )
    network = on_device(build(task.network, num_classes=CLASSES), recipe, torch.device("cpu"))
    loss = make_loss(recipe, task.labels, CLASSES)
    records = Trainer(network, recipe, batches, loss).run()
    return seconds_of_steps((r for r in records if isinstance(r, Step)), task.steps)


def seconds_of_steps(training: Iterator[Any], steps: int) -> NDArray[np.float64]:
    """Seconds of `steps` steps, after those to warm up, sorted."""
    clock = [time.perf_counter() for _ in islice(training, WARM_UP + steps)]
    return np.sort(np.diff(clock[WARM_UP - 1 :]))


def convolutions(task: Task) -> Bound:
    """Time of the convolutions of a step, set up as in the trainer."""
    settle_memory()
    settle_threads()
    return bound(build(task.network, num_classes=CLASSES), task.batch_size, task.steps)


def alone(method: Any, task: Task) -> Any:
    """The result of a method in a process of its own."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(method, task).result()


def compare(task: Task, rounds: int) -> dict[str, Any]:
    """Measure the methods in turns, every second round in reverse order."""
    methods: list[Any] = [plain_loop, trainer, convolutions]
    seconds: dict[str, list[Any]] = {method.__name__: [] for method in methods}
    for number in range(rounds):
        for method in methods[:: (1, -1)[number % 2]]:
            seconds[method.__name__].append(alone(method, task))
    steps = {name: np.array(seconds[name]) for name in ("plain_loop", "trainer")}
    plain, ours = (np.median(values, axis=1) for values in steps.values())
    fast = {name: np.quantile(values, UNDISTURBED) for name, values in steps.items()}
    best = min(seconds["convolutions"], key=lambda values: values.seconds)
    speeds = {"plain_loop": task.batch_size / plain, "trainer": task.batch_size / ours}
    return {
        "images_per_second": {name: float(np.median(all_)) for name, all_ in speeds.items()}
        | {"convolutions": task.batch_size / best.seconds},
        "ratio": float(np.median(plain / ours)),
        "ratios": (plain / ours).round(3).tolist(),
        "undisturbed_ratio": float(fast["plain_loop"] / fast["trainer"]),
        "rounds": {name: all_.round(1).tolist() for name, all_ in speeds.items()},
        "convolutions": {
            part: {"milliseconds": 1e3 * share, "gigaflops": rate / 1e9}
            for part, share, rate in zip(PARTS, best.shares, best.rates, strict=True)
        },
    }


def some_images(data: Path | None, count: int) -> tuple[str, np.ndarray, np.ndarray]:
    """Description, images (N, 32, 32, 3) uint8 and labels (N,): real images if there are any."""
    if data is None:
        random = np.random.default_rng(0)
        images = random.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        return "random images", images, random.integers(0, CLASSES, count)
    available = open_data(data).train
    chosen = available.subset(range(min(count, len(available))))
    return "CIFAR-10", np.stack([chosen.image(i) for i in range(len(chosen))]), chosen.labels


def machine() -> dict[str, Any]:
    """The machine that is measured on."""
    return known_machine() | {
        "load_before": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def show(name: str, result: dict[str, Any]) -> None:
    speeds = result["images_per_second"]
    print(
        f"{name:12} plain loop {speeds['plain_loop']:5.0f}   trainer {speeds['trainer']:5.0f}   "
        f"ratio {result['ratio']:.2f}   convolutions alone {speeds['convolutions']:5.0f}"
    )
    low, high = min(result["ratios"]), max(result["ratios"])
    undisturbed = result["undisturbed_ratio"]
    print(f"{'':12} ratio {low:.2f} to {high:.2f}, undisturbed {undisturbed:.2f}")
    for part, values in result["convolutions"].items():
        print(
            f"{'':12} {part:16} {values['milliseconds']:6.1f} ms {values['gigaflops']:5.0f} GFLOP/s"
        )


def main(
    networks: tuple[str, ...] = ("resnet14", "resnet20"),
    data: Path | None = None,
    batch_size: int = 128,
    rounds: int = 5,
    steps: int = 20,
    recipe: str = "paper",
    json_file: Path | None = None,
) -> None:
    """Measure how fast networks train.

    Args:
        networks: names of networks for small images.
        data: images of 32x32 pixels; random ones if there are none.
        batch_size: images per step.
        rounds: number of turns of each method.
        steps: number of timed steps in each turn.
        recipe: of this project's trainer: a name, or a TOML file such as a run's config.toml.
        json_file: where to write all figures.
    """
    if json_file:
        writable(json_file)
    count = batch_size * (WARM_UP + steps + 1)
    source, images, labels = some_images(data, count)
    results: dict[str, Any] = {"machine": machine(), "images": source, "batch_size": batch_size}
    print(", ".join(f"{name} {value}" for name, value in results["machine"].items()))
    print(f"{source}, batch {batch_size}, {rounds} rounds of {steps} steps; images per second:")
    results |= {"recipe": recipe, "networks": {}}
    for name in networks:
        result = compare(Task(name, images, labels, batch_size, steps, recipe), rounds)
        results["networks"][name] = result
        show(name, result)
    if json_file:
        write_atomically(json_file, json.dumps(results, indent=2).encode() + b"\n")


if __name__ == "__main__":
    tyro.cli(main)
