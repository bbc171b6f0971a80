"""Prediction by Ray beside plain processes: the same images, network and cores.

    python benchmarks/ray_predict.py --json-file results/ray_predict.json [--rounds 5]

Three commands predict IMAGES photos with the network that comes with the package, each from
nothing: one process with one thread; as many processes as cores, of which each predicts parts
(`--part`, as a loop in a shell has it); and `--on ray` with as many workers. Each computes with one
thread. Seconds are of the whole command, Ray's start included; `merge` is not timed. The commands
take turns, in another order each round; the file is written after each, and a run that was ended
goes on where it stopped.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from resnets.machine import cores, machine

WAYS = ("one process", "processes", "ray")
SIDE = 256  # pixels of a photo


def draw(folder: Path, images: int) -> None:
    """Photos under many names; ten files hold them."""
    folder.mkdir()
    for number in range(images):
        path = folder / f"{number:06}.jpg"
        if number < 10:
            small = np.random.default_rng(number).integers(0, 256, (16, 16, 3), np.uint8)
            Image.fromarray(small).resize((SIDE, SIDE)).save(path, quality=90)
        else:
            path.hardlink_to(folder / f"{number % 10:06}.jpg")


def commands(way: str, photos: Path, output: Path, processes: int) -> list[list[str]]:
    """What runs at the same time for a way."""
    predict = [sys.executable, "-m", "resnets", "predict", str(photos), "--threads", "1"]
    predict += ["--engine", "onnxruntime"]
    if way == "one process":
        return [[*predict, "--parquet", str(output) + ".parquet"]]
    if way == "ray":
        return [[*predict, "--on", "ray", "--workers", str(processes), "--output", str(output)]]
    parts = [f"{number}/{processes}" for number in range(1, processes + 1)]
    return [[*predict, "--part", part, "--output", str(output)] for part in parts]


def seconds(lines: Sequence[Sequence[str]]) -> float:
    """Seconds until all commands have ended.

    Raises:
        SystemExit: one failed.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    start = time.perf_counter()
    running = [
        subprocess.Popen(line, env=environment, stderr=subprocess.PIPE, text=True) for line in lines
    ]
    errors = [process.communicate()[1] for process in running]
    for process, error in zip(running, errors, strict=True):
        if process.returncode:
            raise SystemExit(error)
    return time.perf_counter() - start


def row(way: str, images: int, values: Sequence[float]) -> str:
    """A way's figures in a line."""
    median = statistics.median(values)
    return f"{way:12} {median:7.1f} s, {images / median:8.0f} images/s (n = {len(values)})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=cores())
    parser.add_argument("--json-file", type=Path, required=True, help="where all figures go")
    options = parser.parse_args()
    setting = {"images": options.images, "side": SIDE, "processes": options.processes}
    record = {"machine": machine(), **setting, "seconds": {way: [] for way in WAYS}}
    if options.json_file.exists():
        record = json.loads(options.json_file.read_text(encoding="utf-8"))
        if {name: record[name] for name in setting} != setting:
            raise SystemExit(f"{options.json_file}: of other settings; name another file")
    with tempfile.TemporaryDirectory() as folder:
        photos = Path(folder) / "photos"
        draw(photos, options.images)
        for number in range(options.rounds):
            for way in np.roll(WAYS, number).tolist():
                if len(record["seconds"][way]) > number:
                    continue
                output = Path(folder) / f"{way} {number}"
                taken = seconds(commands(way, photos, output, options.processes))
                record["seconds"][way].append(taken)
                text = json.dumps(record, indent=2) + "\n"
                options.json_file.write_text(text, encoding="utf-8")
    for way, values in record["seconds"].items():
        print(row(way, options.images, values))


if __name__ == "__main__":
    main()
