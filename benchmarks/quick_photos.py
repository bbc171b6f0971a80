"""Settings of the recipe quick for photos, compared on a part of the training images of a data set.

    python benchmarks/quick_photos.py DATA [--settings before,crop60 --seeds 3]
    python benchmarks/quick_photos.py DATA --full --settings before

DATA is a folder with two parquet files, as of Imagenette at 128 pixels. Images of the training file
are drawn by the seed: some are trained on for five epochs, others measure the network. With --full
the network is trained on all of them at 128 pixels, and measured once by the validation file, which
is not opened otherwise. Each run adds a line to a file; what is there already is not done again.
The setting before is what quick was until it was chosen by this comparison.
`python results/figures.py` makes the table of docs/benchmarks.md of results/quick_photos.json.
"""

import json
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from pyarrow import parquet

import resnets

RESULTS = Path(__file__).resolve().parent.parent / "results" / "quick_photos.json"
_FIXED = {
    **{"epochs": 5, "validation": 0, "precision": "bf16"},
    **{"report": False, "output": False, "progress": False},
}

_BEFORE = {"smallest_crop": 0.35, "batch_size": 64}  # --full: 128
_SMALL_BATCHES = {"network": "resnet18d", "batch_size": 32}

SETTINGS: dict[str, dict[str, Any]] = {  # what is changed of quick as it was before
    "before": {},
    "batch 32": {"batch_size": 32},
    "crop50": {"smallest_crop": 0.5},
    "crop60": {"smallest_crop": 0.6},
    "smoothing": {"label_smoothing": 0.1},
    "grow": {"progressive_resizing_scale": 0.67},
    "trained at 7/8": {"training_size": 0.875},  # times the side
    "zero init": {"zero_init": True},
    "resnet18d": {"network": "resnet18d"},
    "18d + batch 32": _SMALL_BATCHES,
    "18d + batch 32 + crop60": _SMALL_BATCHES | {"smallest_crop": 0.6},
    "18d + batch 32 + crop80": _SMALL_BATCHES | {"smallest_crop": 0.8},
    "18d + batch 64 + crop60": _SMALL_BATCHES | {"batch_size": 64, "smallest_crop": 0.6},
    "rate x2": {"learning_rate": 0.028},
    "rate / 2": {"learning_rate": 0.007},
    "sgd": {"optimizer": "sgd"},
    "float32": {"precision": "float32"},
}


@dataclass(frozen=True)
class Trial:
    """What to train.

    Attributes:
        data: a folder with the files train-*.parquet and validation-*.parquet.
        full: train on all images of the training file, and measure the validation file.
        settings: names in SETTINGS, separated by commas.
        seeds: runs of each setting, with seeds from 0.
        network: to train, where a setting names no other.
        training: images to train on, without --full.
        measured: other images of the training file, by which the network is measured.
        size: side of the images in pixels, without --full.
        json_file: to add the results to.
    """

    data: tyro.conf.Positional[Path]
    full: bool = False
    settings: str = ",".join(SETTINGS)
    seeds: int = 1
    network: str = "resnet18"
    training: int = 1500
    measured: int = 1000
    size: int = 64
    json_file: Path = RESULTS


def write_folders(trial: Trial, seed: int, folder: Path) -> None:
    """Write the images for a run as files: train/CLASS and test/CLASS."""
    rows = _rows(trial.data, "train")
    if trial.full:
        parts = {"train": rows, "test": _rows(trial.data, "validation")}
    else:
        order = np.random.default_rng(seed).permutation(len(rows))
        drawn = [rows[place] for place in order[: trial.training + trial.measured]]
        parts = {"train": drawn[: trial.training], "test": drawn[trial.training :]}
    for split, images in parts.items():
        for number, row in enumerate(images):
            file = folder / split / str(row["label"]) / f"{number:05}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(row["image"]["bytes"])


def _rows(data: Path, split: str) -> list[dict[str, Any]]:
    (file,) = data.glob(f"{split}-*.parquet")
    return parquet.read_table(file).to_pylist()


def score(trial: Trial, setting: str, seed: int) -> dict[str, Any]:
    """Train once. Returns what was measured."""
    size = 128 if trial.full else trial.size
    settings = _FIXED | _BEFORE | ({"batch_size": 128} if trial.full else {})
    settings |= {"network": trial.network, "image_size": size, "resize": size, "seed": seed}
    settings |= SETTINGS[setting]
    if "training_size" in settings:
        settings["training_size"] = round(settings["training_size"] * size)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        write_folders(trial, seed, Path(folder))
        began, cpu = time.monotonic(), time.process_time()
        run = resnets.train(folder, recipe="quick", **settings)
        seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    metrics, recipe = run.description.metrics["test"], run.description.recipe
    return {
        "network": recipe["network"],
        **{"images": sum(run.description.data["counts"]["train"].values()), "size": size},
        "measured": [metrics["top1"]["count"], metrics["top1"]["total"]],
        "loss": round(metrics["loss"], 4),
        **{name: recipe[name] for name in ("optimizer", "learning_rate", "training_size")},
        "images_per_second": round(run.history.images_per_second or 0, 1),
        **{
            "seconds": round(seconds, 1),
            "cpu_seconds": round(cpu, 1),
            "load_before": round(load, 1),
        },
    }


def read(file: Path) -> list[dict[str, Any]]:
    """The rows of the results."""
    return json.loads(file.read_text("utf-8"))["runs"] if file.exists() else []  # type: ignore


def main(trial: Trial) -> None:
    """Train with each setting from each seed, and keep each score at once."""
    for seed in range(trial.seeds):
        for name in trial.settings.split(","):
            asked = {"full": trial.full, "setting": name, "changes": SETTINGS[name], "seed": seed}
            if not trial.full:
                asked |= {"images": trial.training, "size": trial.size}
            if any(asked.items() <= row.items() for row in read(trial.json_file)):
                continue
            row = asked | score(trial, name, seed)
            rows = [*read(trial.json_file), row]  # again, for another process may have added one
            text = ",\n ".join(json.dumps(each) for each in rows)
            trial.json_file.write_text(f'{{"runs": [\n {text}\n]}}\n', "utf-8")
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main(tyro.cli(Trial))
