"""Seconds that `resnets train DATA --from resnet18 --freeze all` takes, from its start to its end.

    python benchmarks/frozen.py [DATA] [--rounds 3] [--json-file results/frozen.json]

Each round begins with empty caches and runs the command three times, each in a process of its own:
from nothing (the weights are downloaded), with the weights in the cache, and with the features of
the images in the cache, too. The hub is a server on this machine (tests/hub_server.py), so the
download takes no time worth mentioning; its weights are those of a fresh network, as others cost
the same. DATA is the folder of ants and bees in ../shared, where none is given.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from safetensors.torch import save

from resnets.data.sources.opening import open_source
from resnets.machine import machine
from resnets.networks import build
from resnets.pretrained.table import Published, find_recommended

ROOT = Path(__file__).resolve().parents[1]
ANTS_AND_BEES = ROOT.parent / "shared" / "data" / "hymenoptera"
WAYS = ("from nothing", "with weights in the cache", "with features there too")


@dataclass(frozen=True)
class Trial:
    """What to measure.

    Attributes:
        data: a folder of photos in classes.
        network: whose recommended weights to start from.
        rounds: how often each way is measured.
        json_file: where to write all figures.
    """

    data: tyro.conf.Positional[Path] = ANTS_AND_BEES
    network: str = "resnet18"
    rounds: int = 3
    json_file: Path | None = None


def files_on_hub(row: Published) -> dict[str, bytes]:
    """The repository of published weights, as timm writes it, with those of a fresh network."""
    torch.manual_seed(0)
    config = {
        "architecture": row.network,
        "num_classes": row.classes,
        "pretrained_cfg": {
            "input_size": [3, row.train_size, row.train_size],
            "test_input_size": [3, row.size, row.size],
            "crop_pct": row.size / row.resize,
            "crop_mode": row.crop_mode,
            "interpolation": row.interpolation,
            "mean": row.mean,
            "std": row.std,
            "num_classes": row.classes,
            "license": row.licence,
        },
    }
    weights = build(row.network, num_classes=row.classes).state_dict()
    return {"config.json": json.dumps(config).encode(), "model.safetensors": save(weights)}


def measured(trial: Trial, environment: dict[str, str], folder: Path) -> Iterator[dict[str, Any]]:
    """A row for each way: wall-clock and CPU seconds, and the load of the machine before.

    Args:
        trial: what to measure.
        environment: variables by which the hub and the caches are found.
        folder: an empty one, for the caches and the runs.
    """
    words = [sys.executable, "-m", "resnets", "train", str(trial.data.resolve())]
    words += ["--from", trial.network, "--freeze", "all"]
    for number, way in enumerate(WAYS):
        if number == 1:
            shutil.rmtree(Path(environment["RESNETS_CACHE"]) / "features")
        load, began = os.getloadavg()[0], time.perf_counter()
        before = os.times()
        run = [*words, "--output", str(folder / f"run-{number}")]
        done = subprocess.run(run, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(run)}\n{done.stdout}{done.stderr}")
        after = os.times()
        cpu = after.children_user + after.children_system
        cpu -= before.children_user + before.children_system
        yield {
            "way": way,
            "seconds": round(time.perf_counter() - began, 1),
            "cpu_seconds": round(cpu, 1),
            "load_before": round(load, 1),
        }


def variables(hub_environment: dict[str, str], folder: Path) -> dict[str, str]:
    """The environment of a user with empty caches, and as many threads as there are cores."""
    left_out = ("OMP_NUM_THREADS", "TRANSFORMERS_OFFLINE", "HF_TOKEN")
    others = {name: value for name, value in os.environ.items() if name not in left_out}
    others["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), others.get("PYTHONPATH"))))
    return others | hub_environment | {"RESNETS_CACHE": str(folder / "own")}


def main(trial: Trial) -> None:
    """Measure each way in each round, then print the medians."""
    sys.path.append(str(ROOT))
    from tests.hub_server import HubServer

    row = find_recommended(trial.network)
    if row is None:
        raise SystemExit(f"{trial.network}: no weights are recommended for this network")
    images = open_source(str(trial.data)).content.images
    runs: list[dict[str, Any]] = []
    with HubServer() as hub:
        hub.add(row.id, files_on_hub(row))
        for _ in range(trial.rounds):
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                environment = variables(hub.environment(folder / "hub"), folder)
                for run in measured(trial, environment, folder):
                    print(json.dumps(run), flush=True)
                    runs.append(run)
    for way in WAYS:
        seconds = [run["seconds"] for run in runs if run["way"] == way]
        print(f"{way}: {statistics.median(seconds):.1f} s (n = {len(seconds)})")
    if trial.json_file:
        results = {
            "machine": machine() | {"torch": torch.__version__},
            "data": trial.data.name,
            "images": sum(map(len, images.values())),
            "weights": row.id,
            "size": row.size,
            "runs": runs,
        }
        trial.json_file.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(tyro.cli(Trial))
