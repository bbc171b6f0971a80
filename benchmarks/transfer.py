"""From a trained network: the recipe transfer, the classifier alone, and training from scratch.

    python benchmarks/transfer.py DATA --name NAME --start resnet20_cifar10 --size 32 [--seeds 3]

Trains on DATA from each seed in several ways, on the same images, and adds the scores to a file;
what is there already is not done again. With --per-class, the training images are that many of
each class, drawn by the seed, --measured others of each class validate and as many test, and the
rest is left out. --changes are settings of the recipe transfer to try. Settings are chosen by the
validation images. `python results/figures.py` makes the table of docs/benchmarks.md of
results/transfer.json: means, and how far each way is from transfer, paired over the seeds.
"""

import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from sklearn.datasets import load_digits

import resnets

RESULTS = Path(__file__).resolve().parent.parent / "results" / "transfer.json"
_KEY = ("data", "from", "network", "size", "per_class", "way", "changes", "seed")
_LAST = 10**6  # epochs between validations: only after the last, as the last weights are kept


@dataclass(frozen=True)
class Trial:
    """What to train.

    Attributes:
        data: digits, or a folder with the folders train and val of class folders; with per_class,
            of train and perhaps test, or train-*.parquet: test images are drawn from train where
            there is no test.
        name: of the data in the results.
        start: the network to start from.
        network: to train from scratch, the same as that of start.
        size: side of the images in pixels.
        per_class: training images of a class; 0: all that there are.
        measured: validation images of a class, and test images, where per_class is set.
        seeds: runs of each way, with seeds from 0.
        ways: transfer, frozen (--freeze all), quick (that recipe from the start network), scratch.
        changes: of the recipe transfer, as a JSON object.
        json_file: to add the results to.
    """

    data: tyro.conf.Positional[str]
    name: str
    start: str = "resnet20_cifar10"
    network: str = "resnet20"
    size: int = 32
    per_class: int = 0
    measured: int = 50
    seeds: int = 3
    ways: str = "transfer,frozen,scratch"
    changes: str = "{}"
    json_file: Path = RESULTS


def settings(trial: Trial, way: str) -> dict[str, Any]:
    """The keywords of `resnets.train` for a way to train."""
    return {
        "transfer": {"start": trial.start, "recipe": "transfer"} | json.loads(trial.changes),
        "frozen": {"start": trial.start, "freeze": "all"},
        "quick": {"start": trial.start, "recipe": "quick"},
        "scratch": {"network": trial.network, "recipe": "quick"},
    }[way]


def data_of(trial: Trial, seed: int, folder: Path) -> str:
    """The data, or a folder with a subset of it: images of each class for training and scores."""
    if not trial.per_class:
        return trial.data
    wanted = {"train": trial.per_class, "val": trial.measured, "test": trial.measured}
    chosen, tests = folder / "data", Path(trial.data, "test").resolve()
    for name, images in _by_class(trial.data, folder / "all").items():
        order = _shuffled(images, seed)
        if tests.exists():
            order = order[: trial.per_class + trial.measured]
            order += _shuffled(sorted((tests / name).iterdir()), seed)
        for split, count in wanted.items():
            (chosen / split / name).mkdir(parents=True)
            for image in order[:count]:
                (chosen / split / name / image.name).symlink_to(image)
            order = order[count:]
    return str(chosen)


def _shuffled(images: list[Path], seed: int) -> list[Path]:
    return [images[place] for place in np.random.default_rng(seed).permutation(len(images))]


def _by_class(data: str, scratch: Path) -> dict[str, list[Path]]:
    """The files of each class; of what has no such files, written as these first."""
    folder = (Path(data) / "train").resolve()
    if data == "digits":
        folder = _digits(scratch)
    elif tables := sorted(Path(data).glob("train-*.parquet")):
        folder = _from_parquet(tables, scratch)
    return {each.name: sorted(each.iterdir()) for each in sorted(folder.iterdir())}


def _digits(folder: Path) -> Path:
    """Digits as images of 8 pixels."""
    from PIL import Image

    digits = load_digits()
    for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        (folder / str(label)).mkdir(exist_ok=True, parents=True)
        grey = Image.fromarray((pixels * 255 / 16).astype(np.uint8))
        grey.save(folder / str(label) / f"{number:04}.png")
    return folder


def _from_parquet(tables: list[Path], folder: Path) -> Path:
    """The files in tables with the columns image and label."""
    from pyarrow import parquet

    number = 0
    for table in tables:
        for batch in parquet.ParquetFile(table).iter_batches(256, columns=["image", "label"]):
            for row in batch.to_pylist():
                (folder / str(row["label"])).mkdir(exist_ok=True, parents=True)
                image = folder / str(row["label"]) / f"{number:06}.jpg"
                image.write_bytes(row["image"]["bytes"])
                number += 1
    return folder


def score(trial: Trial, way: str, seed: int) -> dict[str, Any]:
    """Train once. Returns the row of the results."""
    began = time.monotonic()
    options = {"image_size": trial.size, "resize": trial.size, "seed": seed, "max_error": 0.5}
    options |= {"report": False, "output": False, "progress": False}
    if way != "frozen":
        options["validation_every"] = _LAST
    with tempfile.TemporaryDirectory() as folder:
        data = data_of(trial, seed, Path(folder).resolve())
        run = resnets.train(data, **(options | settings(trial, way)))
    recipe, metrics = run.description.recipe, run.description.metrics
    scores = {name: metrics[name]["top1"] for name in ("validation", "test")}
    return {
        **{"data": trial.name, "from": "" if way == "scratch" else trial.start},
        **{"network": trial.network, "size": trial.size, "per_class": trial.per_class, "way": way},
        "changes": json.loads(trial.changes) if way == "transfer" else {},
        "seed": seed,
        **{name: [top1["count"], top1["total"]] for name, top1 in scores.items()},
        "loss": round(metrics["validation"]["loss"], 4),
        **{"images": sum(run.description.data["counts"]["train"].values())},
        **{name: recipe[name] for name in ("epochs", "batch_size", "learning_rate")},
        "seconds": round(time.monotonic() - began, 1),
    }


def read(file: Path) -> list[dict[str, Any]]:
    """The rows of the results."""
    return json.loads(file.read_text("utf-8"))["runs"] if file.exists() else []  # type: ignore


def key(row: dict[str, Any]) -> str:
    """What a run was asked for."""
    return json.dumps([row[name] for name in _KEY], sort_keys=True)


def main(trial: Trial) -> None:
    """Train each way from each seed, and keep each score at once."""
    for seed in range(trial.seeds):
        for way in trial.ways.split(","):
            start = "" if way == "scratch" else trial.start
            changes = json.loads(trial.changes) if way == "transfer" else {}
            wanted = [trial.name, start, trial.network, trial.size, trial.per_class]
            wanted += [way, changes, seed]
            rows = read(trial.json_file)
            if key(dict(zip(_KEY, wanted, strict=True))) in map(key, rows):
                continue
            rows.append(score(trial, way, seed))
            text = ",\n ".join(json.dumps(each) for each in rows)
            trial.json_file.write_text(f'{{"runs": [\n {text}\n]}}\n', "utf-8")
            print(json.dumps(rows[-1]), flush=True)


if __name__ == "__main__":
    main(tyro.cli(Trial))
