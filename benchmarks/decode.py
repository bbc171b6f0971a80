"""JPEG bytes to a random resized crop of 224 x 224, on one core: this package against Pillow.

    python benchmarks/decode.py [FOLDER] [--rounds 9]

The baseline decodes a whole photo with Pillow, crops it and resizes the crop (bilinear), in a fresh
Python process. The other methods get the same bytes and boxes, in a process set up like this
package's workers. The methods take turns every 20 photos, in another order each round. A photo's
time is its median over the rounds; images/s and ratio are from the sums over the photos, and the
range is over the rounds. "differs by" is the mean absolute difference to the baseline's pixels,
of 255: mean and median over the photos.
"""

import argparse
import io
import json
import platform
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from resnets.images import Pixels, decode_crop, jpeg, vectorised
from resnets.machine import machine, settle_memory

SIZE = 224
BLOCK = 20  # photos per turn: in training, no other method evicts the code from the cache
Box = tuple[int, int, int, int]
Way = Callable[[bytes, Box], Pixels]


def pillow(data: bytes, box: Box) -> Pixels:
    """The baseline."""
    top, left, height, width = box
    image = Image.open(io.BytesIO(data)).convert("RGB")
    crop = image.crop((left, top, left + width, top + height))
    return np.asarray(crop.resize((SIZE, SIZE), Image.Resampling.BILINEAR))


def ours(data: bytes, box: Box) -> Pixels:
    return decode_crop(data, lambda *_: box, SIZE, resample=vectorised.square)


def without_torch(data: bytes, box: Box) -> Pixels:
    return decode_crop(data, lambda *_: box, SIZE)


def without_simplejpeg(data: bytes, box: Box) -> Pixels:
    with patch.object(jpeg, "simplejpeg", lambda: None):
        return ours(data, box)


def draft_only(data: bytes, box: Box) -> Pixels:
    with patch.object(jpeg, "simplejpeg", lambda: None):
        return without_torch(data, box)


WAYS: dict[str, Way] = {
    "Pillow: decode, crop, resize": pillow,
    "decode_crop, torch's resizing": ours,
    "decode_crop, Pillow's resizing": without_torch,
    "no simplejpeg, torch's resizing": without_simplejpeg,
    "no simplejpeg, Pillow's resizing": draft_only,
}


def random_box(height: int, width: int, random: np.random.Generator) -> Box:
    """8 to 100 % of the area, aspect ratio 3/4 to 4/3: the usual random resized crop."""
    for _ in range(10):
        area = height * width * random.uniform(0.08, 1)
        shape = (4 / 3) ** random.uniform(-1, 1)
        tall, wide = round((area / shape) ** 0.5), round((area * shape) ** 0.5)
        if 1 <= tall <= height and 1 <= wide <= width:
            top, left = random.integers(height - tall + 1), random.integers(width - wide + 1)
            return int(top), int(left), tall, wide
    side = min(height, width)
    return (height - side) // 2, (width - side) // 2, side, side


def set_up(as_worker: bool) -> None:
    """Set up a process for decoding; as_worker: keep freed memory, like this package's workers."""
    torch.set_num_threads(1)
    if as_worker:
        settle_memory()


def timed(name: str, photos: list[bytes], boxes: list[Box]) -> list[float]:
    """Seconds of a method for each photo."""
    seconds = []
    for photo, box in zip(photos, boxes, strict=True):
        start = time.perf_counter()
        WAYS[name](photo, box)
        seconds.append(time.perf_counter() - start)
    return seconds


def one_round(
    pools: dict[str, ProcessPoolExecutor], photos: list[bytes], boxes: list[Box], shift: int
) -> NDArray[np.float64]:
    """Seconds of each method for each photo, (methods, photos)."""
    seconds = np.empty((len(WAYS), len(photos)))
    names = list(WAYS)
    for first in range(0, len(photos), BLOCK):
        part = slice(first, first + BLOCK)
        for row in np.roll(np.arange(len(names)), shift):
            job = pools[names[row]].submit(timed, names[row], photos[part], boxes[part])
            seconds[row, part] = job.result()
    return seconds


def difference(photos: list[bytes], boxes: list[Box], way: Way) -> tuple[float, float]:
    """Mean and median, over photos, of a method's mean absolute difference to the baseline."""
    per_photo = [
        float(np.abs(way(photo, box).astype(int) - pillow(photo, box)).mean())
        for photo, box in zip(photos, boxes, strict=True)
    ]
    return statistics.mean(per_photo), statistics.median(per_photo)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    default = Path(__file__).resolve().parents[2] / "shared" / "photos"
    parser.add_argument("folder", type=Path, nargs="?", default=default, help="JPEG photos")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json-file", type=Path, help="where to write all figures")
    options = parser.parse_args()
    torch.set_num_threads(1)
    paths = sorted(path for path in options.folder.iterdir() if path.suffix.lower()[:3] == ".jp")
    if not paths:
        raise SystemExit(f"{options.folder}: no JPEG files")
    photos = [path.read_bytes() for path in paths]
    shapes = [Image.open(io.BytesIO(photo)).size[::-1] for photo in photos]
    random = np.random.default_rng(0)
    boxes = [random_box(*shape, random) for shape in shapes]
    differences = {name: difference(photos, boxes, way) for name, way in WAYS.items()}
    context = get_context("spawn")
    with (
        ProcessPoolExecutor(1, context, initializer=set_up, initargs=(False,)) as baseline,
        ProcessPoolExecutor(1, context, initializer=set_up, initargs=(True,)) as worker,
    ):
        pools = {name: baseline if way is pillow else worker for name, way in WAYS.items()}
        one_round(pools, photos[:BLOCK], boxes[:BLOCK], 0)  # imports, first allocations
        rounds = np.stack(
            [one_round(pools, photos, boxes, shift) for shift in range(options.rounds)]
        )
    typical = np.median(rounds, axis=0).sum(1)
    totals = rounds.sum(2)
    ratios = totals[:, :1] / totals

    library = jpeg.simplejpeg()
    print(
        f"{len(photos)} photos, {options.rounds} rounds, one core; {platform.machine()}, ", end=""
    )
    print(f"Pillow {Image.__version__}, torch {torch.__version__}, ", end="")
    print(f"simplejpeg {library.__version__ if library else 'missing'}")
    print(f"{'':34}{'images/s':>9}{'ratio':>7}{'(range)':>14}{'differs by':>12}{'median':>8}")
    for row, name in enumerate(WAYS):
        spread = f"({ratios[:, row].min():.2f}-{ratios[:, row].max():.2f})"
        mean, middle = differences[name]
        print(
            f"{name:34}{len(photos) / typical[row]:9.0f}{typical[0] / typical[row]:7.2f}"
            f"{spread:>14}{mean:12.3f}{middle:8.3f}"
        )
    if options.json_file:
        ways = [
            {
                "name": name,
                "images_per_second": len(photos) / typical[row],
                "ratio": typical[0] / typical[row],
                "ratios": ratios[:, row].round(3).tolist(),
                "mean_difference": differences[name][0],
            }
            for row, name in enumerate(WAYS)
        ]
        results = {"machine": machine(), "photos": len(photos), "rounds": options.rounds}
        options.json_file.write_text(
            json.dumps(results | {"ways": ways}, indent=2) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
