"""Decoding of small PNG files: this package's own decoder against Pillow.

    python benchmarks/small_png.py [FOLDER] [--rounds 15]

Photos are resized to squares and written as PNG. Both methods decode all of them, in turns, in
another order each round; `resnets.images.decode` is called in both cases. The time of a method is
its median over the rounds. Above `resnets.images.png.SMALL` pixels the package uses Pillow, so the
limit is raised for the measurement.
"""

import argparse
import io
import json
import statistics
import time
from pathlib import Path
from unittest.mock import patch

from PIL import Image

from resnets.images import decode, png
from resnets.machine import machine

SIDES = (28, 32, 64, 128, 224)
PIXELS = 2_000_000  # that a method decodes per turn, approximately


def squares(paths: list[Path], side: int) -> list[bytes]:
    """Each photo as a square PNG file of a side in pixels."""
    files = []
    for path in paths:
        file = io.BytesIO()
        Image.open(path).convert("RGB").resize((side, side)).save(file, "PNG")
        files.append(file.getvalue())
    return files


def microseconds(files: list[bytes], times: int, limit: int) -> float:
    """Microseconds per image, with the package's decoder for images of at most `limit` pixels."""
    with patch.object(png, "SMALL", limit):
        start = time.process_time()  # other processes may use the machine
        for _ in range(times):
            for data in files:
                decode(data)
        return (time.process_time() - start) / times / len(files) * 1e6


def measured(files: list[bytes], side: int, rounds: int) -> dict[str, float | list[float]]:
    """The medians of both methods, and the ratio of Pillow's time to ours in each round."""
    times = max(1, PIXELS // (side * side * len(files)))
    limits = {"short": side * side, "pillow": 0}
    durations: dict[str, list[float]] = {name: [] for name in limits}
    for limit in limits.values():  # warm-up
        microseconds(files, 1, limit)
    for number in range(rounds):
        for name in sorted(limits, reverse=number % 2 == 1):
            durations[name].append(microseconds(files, times, limits[name]))
    pairs = zip(durations["pillow"], durations["short"], strict=True)
    medians = {name: statistics.median(values) for name, values in durations.items()}
    return {"side": side, **medians, "ratios": [round(whole / own, 3) for whole, own in pairs]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    default = Path(__file__).resolve().parents[2] / "shared" / "photos"
    parser.add_argument("folder", type=Path, nargs="?", default=default, help="JPEG photos")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json-file", type=Path, help="where to write all figures")
    options = parser.parse_args()
    paths = sorted(path for path in options.folder.iterdir() if path.suffix.lower()[:3] == ".jp")
    if not paths:
        raise SystemExit(f"{options.folder}: no JPEG files")
    rows = [measured(squares(paths[:40], side), side, options.rounds) for side in SIDES]
    for row in rows:
        print("{side:4} pixels: {short:7.1f} us, Pillow {pillow:7.1f} us".format(**row))
    if options.json_file:
        results = {"machine": machine(), "images": len(paths[:40]), "sizes": rows}
        options.json_file.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
