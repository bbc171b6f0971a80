"""Images a second for training: shards beside a folder, here and 50 ms away, and other loaders.

    python benchmarks/loading.py PHOTOS [--workers 2] [--others-python others/bin/python]

PHOTOS is a folder of class folders of JPEG files, or of splits of these; with `--copies 10` it
counts as if it held each of them ten times, since an epoch of few photos is mostly its beginning
(a far place has its first answer only after a round trip). `resnets shard` copies them byte by
byte, so all loaders decode the same bytes to random crops of 224 x 224 pixels, in
batches, with the same number of worker processes. They take turns, in another order each round; a
ratio is of images/s in the same round. Each is warm: its workers run, and it has read an epoch.

- folder, shards: this package, from files and from local shards;
- shards 50 ms away: from `others/late_server.py` on this machine, which answers 50 ms late;
  "cached" with a cache on the local disk, which holds all of them after the first epoch;
- torch: a Dataset of files like ImageFolder, and DataLoader; webdataset: the same tar files as
  ours, shuffled within 1,000 images; litdata: in an environment of its own (`pip install litdata
  torch pillow`), its own format. Their crops are those of `others/plain_crops.py`, by Pillow.

Pillow decodes whole images, and this package only as much as a crop needs, so the ratio to the
others is that of whole loaders; that of shards to the folder is of reading alone.
"""

import argparse
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import webdataset
from others.plain_crops import SIZE, crop
from torch.utils.data import DataLoader, Dataset

from resnets import cli
from resnets.data.augmentation.augmentation import Augmentation
from resnets.data.batches import TrainingBatches
from resnets.data.labelled import LabelledImages, joined
from resnets.data.sources.opening import read_source
from resnets.data.sources.shards import read_shards
from resnets.images import Preprocessing
from resnets.machine import machine

OTHERS = Path(__file__).parent / "others"
DELAY = 0.05  # seconds of the server before each answer
CACHE = 1 << 30  # bytes; more than the photos have
PREPROCESSING = Preprocessing(SIZE, SIZE, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
Loader = Callable[[int], tuple[int, float]]  # epochs -> images and seconds


def ours(images: LabelledImages, options: argparse.Namespace) -> Loader:
    """Batches of this package for training."""
    augmentation = Augmentation(smallest_crop=0.08, flip="random")
    batches = TrainingBatches(
        images,
        PREPROCESSING,
        augmentation,
        batch_size=options.batch_size,
        workers=options.workers,
        memory_limit=0,
    )
    epochs = iter(range(1_000_000))

    def epoch() -> Iterator[torch.Tensor]:
        return (batch.images for batch in batches.epoch(next(epochs)))

    return timed(epoch)


def timed(epoch: Callable[[], Iterator[torch.Tensor]]) -> Loader:
    """Count the images of epochs, and their seconds."""

    def run(epochs: int) -> tuple[int, float]:
        start = time.perf_counter()
        images = sum(len(batch) for _ in range(epochs) for batch in epoch())
        return images, time.perf_counter() - start

    return run


class Files(Dataset[torch.Tensor]):
    """Files as an ImageFolder reads them."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        return crop(self.paths[index].read_bytes())


def jpegs(photos: Path) -> list[Path]:
    """The JPEG files below a folder."""
    return sorted(path for path in photos.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))


def torchs(photos: Path, options: argparse.Namespace) -> Loader:
    """The DataLoader of torch."""
    loader = DataLoader(
        Files(jpegs(photos)),
        options.batch_size,
        shuffle=True,
        num_workers=options.workers,
        persistent_workers=options.workers > 0,
    )
    return timed(lambda: iter(loader))


def image_of(sample: dict[str, Any]) -> tuple[torch.Tensor]:
    return (crop(sample["jpg"]),)


def webdatasets(shards: Path, options: argparse.Namespace) -> Loader:
    """The pipeline of webdataset, whose workers read whole shards."""
    files = sorted(map(str, shards.glob("*.tar")))
    data = webdataset.WebDataset(files, shardshuffle=100, empty_check=False).shuffle(1000)
    data = data.map(image_of).batched(options.batch_size)
    loader = webdataset.WebLoader(
        data, batch_size=None, num_workers=options.workers, persistent_workers=options.workers > 0
    )
    return timed(lambda: (images for (images,) in loader))


@contextmanager
def process(*command: str) -> Iterator[subprocess.Popen[str]]:
    """A program that prints a line when it is ready, and ends with its input."""
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as running:
        try:
            yield running
        finally:
            running.terminate()  # workers of this process hold its input open, too


def next_line(running: "subprocess.Popen[str]") -> str:
    assert running.stdout is not None
    return running.stdout.readline().strip()


def litdatas(running: "subprocess.Popen[str]") -> Loader:
    """The loader of litdata in its own process."""

    def run(epochs: int) -> tuple[int, float]:
        assert running.stdin is not None
        running.stdin.write(f"{epochs}\n")
        running.stdin.flush()
        images, seconds = next_line(running).split()
        return int(images), float(seconds)

    return run


def whole(source: str, cache_bytes: int = 0) -> LabelledImages:
    """All images of a folder, or of shards."""
    remote = "://" in source
    content = read_shards(source, cache_bytes) if remote else read_source(source)
    return joined(list(content.images.values()))


def copied(photos: Path, folder: Path, copies: int) -> None:
    """A folder with each photo several times, under names of its own."""
    for path in jpegs(photos):
        new = folder / path.parent.relative_to(photos)
        new.mkdir(parents=True, exist_ok=True)
        for number in range(copies):
            shutil.copy(path, new / f"{number}_{path.name}")


def loaders(options: argparse.Namespace, folder: Path, exits: ExitStack) -> dict[str, Loader]:
    """All of them, by name; what they need is made in a new folder."""
    photos, shards = folder / "photos", folder / "shards"
    copied(options.photos, photos, options.copies)
    flags = ("--size", "10000", "--shard-mb", "8")  # several shards for each worker
    if cli.main(["shard", str(photos), "--output", str(shards), *flags]):
        sys.exit("the shards were not written")
    server = (sys.executable, str(OTHERS / "late_server.py"), str(shards))
    away = next_line(exits.enter_context(process(*server, "--delay", str(DELAY))))
    by_name = {
        "folder": ours(whole(str(photos)), options),
        "shards": ours(whole(str(shards)), options),
        "shards 50 ms away": ours(whole(away), options),
        "shards 50 ms away, cached": ours(whole(away, CACHE), options),
        "torch": torchs(photos, options),
        "webdataset": webdatasets(shards, options),
    }
    if options.others_python:
        program = str(OTHERS / "litdata_loader.py")
        settings = ("--workers", str(options.workers), "--batch-size", str(options.batch_size))
        command = (options.others_python, program, str(photos), str(folder / "litdata"), *settings)
        running = exits.enter_context(process(*command))
        while (line := next_line(running)) != "ready":
            if not line and running.poll() is not None:
                sys.exit("litdata did not start")
        by_name["litdata"] = litdatas(running)
    return by_name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("photos", type=Path, help="a folder of class folders of JPEG files")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--epochs", type=int, default=5, help="of each turn")
    parser.add_argument("--copies", type=int, default=1, help="of each photo")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--others-python", help="Python of the environment with litdata")
    parser.add_argument("--json-file", type=Path, help="where to write all figures")
    options = parser.parse_args()
    torch.set_num_threads(1)
    random.seed(0)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as exits:
        every = loaders(options, Path(folder), exits)
        for name, loader in every.items():
            print(f"{name} ...", file=sys.stderr)
            loader(1)
        speeds: dict[str, list[float]] = {name: [] for name in every}
        for number in range(options.rounds):
            for name in np.roll(list(every), number).tolist():
                images, seconds = every[name](options.epochs)
                speeds[name].append(images / seconds)
                print(f"round {number + 1}: {name} {images / seconds:,.0f}", file=sys.stderr)
    report(speeds, options)


def report(speeds: dict[str, list[float]], options: argparse.Namespace) -> None:
    """Print the medians and ratios, and write all figures."""
    entries = []
    for name, values in speeds.items():
        ratios = [one / other for one, other in zip(values, speeds["folder"], strict=True)]
        print(f"{name:28} {statistics.median(values):8,.0f} images/s", end="")
        print(f"   {statistics.median(ratios):5.2f} of the folder's")
        entries.append({"name": name, "images_per_second": values, "ratios": ratios})
    if options.json_file:
        packages = {name: version(name) for name in ("torch", "webdataset", "pillow")}
        settings = {
            name: getattr(options, name)
            for name in ("rounds", "epochs", "copies", "batch_size", "workers")
        }
        about = {"machine": machine(), "packages": packages, "delay": DELAY} | settings
        text = json.dumps(about | {"loaders": entries}, indent=2)
        options.json_file.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
