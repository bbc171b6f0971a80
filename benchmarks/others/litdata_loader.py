"""Images a second of litdata's StreamingDataLoader, for `benchmarks/loading.py`.

    python litdata_loader.py PHOTOS FOLDER --workers 2 --batch-size 64

Writes the photos into a new FOLDER in litdata's format (the bytes as they are). For each line of
its input, a number of epochs, it prints the images and the seconds that these took.
"""

import argparse
import sys
import time
from pathlib import Path

import litdata
from plain_crops import crop


def encoded(path: str) -> dict[str, bytes]:
    return {"image": Path(path).read_bytes()}


class Photos(litdata.StreamingDataset):
    def __getitem__(self, index):
        return crop(super().__getitem__(index)["image"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=64)
    options = parser.parse_args()
    paths = sorted(str(path) for path in options.photos.rglob("*.[jJ][pP]*[gG]"))
    folder = str(options.folder)
    litdata.optimize(encoded, paths, folder, num_workers=1, chunk_bytes="64MB")
    loader = litdata.StreamingDataLoader(
        Photos(folder, shuffle=True),
        batch_size=options.batch_size,
        num_workers=options.workers,
        persistent_workers=options.workers > 0,
    )
    print("ready", flush=True)
    for line in sys.stdin:
        start, images = time.perf_counter(), 0
        for _ in range(int(line)):
            images += sum(len(batch) for batch in loader)
        print(images, time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    main()
