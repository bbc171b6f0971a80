"""CIFAR-10 as two folders of images: five classes for a first network, and five to transfer it to.

    python benchmarks/cifar10_halves.py ../shared/data/cifar10 FOLDER

Writes FOLDER/first and FOLDER/second, each with the images of the training files in train/CLASS
and those of the test file in test/CLASS, as they stand in the parquet files. Either has vehicles
and animals. The network of results/quick-resnet20-16px-five-classes was trained on FOLDER/first;
`benchmarks/transfer.py FOLDER/second --start model.safetensors --size 16` transfers it.
"""

from pathlib import Path

import tyro
from pyarrow import parquet

CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
FIRST = ("airplane", "truck", "bird", "dog", "horse")


def write(data: tyro.conf.Positional[Path], folder: tyro.conf.Positional[Path]) -> None:
    """Write both folders.

    Args:
        data: folder of CIFAR-10's parquet files, as the Hugging Face hub has them.
        folder: to write to.
    """
    for split in ("train", "test"):
        for file in sorted(data.glob(f"{split}-*.parquet")):
            rows = parquet.read_table(file, columns=["img", "label"]).to_pylist()
            for number, row in enumerate(rows):
                name = CLASSES[row["label"]]
                place = folder / ("first" if name in FIRST else "second") / split / name
                place.mkdir(parents=True, exist_ok=True)
                (place / f"{file.name[:11]}-{number:05}.png").write_bytes(row["img"]["bytes"])


if __name__ == "__main__":
    tyro.cli(write)
