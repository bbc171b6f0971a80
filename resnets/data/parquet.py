"""Parquet files in the layout of the Hugging Face hub."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from resnets.data.labelled import LabelledImages
from resnets.data.names import split_of
from resnets.data.splits import Parts
from resnets.data.storage import ArrowStorage
from resnets.errors import ContentError


@dataclass(frozen=True)
class RowNames:
    """Names the rows of several files: file[row]."""

    files: tuple[str, ...]
    starts: tuple[int, ...]  # the first row of each file

    def __call__(self, index: int) -> str:
        file = int(np.searchsorted(self.starts, index, side="right")) - 1
        return f"{self.files[file]}[{index - self.starts[file]}]"


def read_parquet(path: Path) -> Parts:
    """Read a parquet file, or all below a folder; a file's name begins with its split.

    Raises:
        ContentError: a file is broken, or has no column of images or of labels.
    """
    files = [path] if path.is_file() else sorted(path.rglob("*.parquet"))
    by_split: dict[str, list[Path]] = {}
    for file in files:
        split = split_of(re.split(r"[-_.]", file.name)[0]) or split_of(file.parent.name) or "all"
        by_split.setdefault(split, []).append(file)
    return Parts("parquet", {split: read_files(paths) for split, paths in by_split.items()})


def read_files(files: Sequence[Path]) -> LabelledImages:
    """The rows of several files of one layout."""
    schema = pq.read_schema(files[0])
    image, label, class_names = columns(schema, files[0])
    tables = [pq.read_table(file, columns=[image, label]) for file in files]
    rows = [table.num_rows for table in tables]
    table = pa.concat_tables(tables)
    encoded = pa.chunked_array([chunk.field("bytes") for chunk in table[image].chunks])
    names = RowNames(tuple(f.name for f in files), tuple(np.cumsum([0, *rows[:-1]]).tolist()))
    labels = table[label].to_numpy()
    return LabelledImages(ArrowStorage(encoded, names), labels, class_names)


def columns(schema: Any, file: Path) -> tuple[str, str, list[str]]:
    """The names of the image and label columns, and those of the classes."""
    features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    kinds = features.get("info", {}).get("features", {})
    image = [name for name, kind in kinds.items() if kind.get("_type") == "Image"]
    label = [name for name, kind in kinds.items() if kind.get("_type") == "ClassLabel"]
    if not image or not label:
        raise ContentError(f"{file}: no column of images or of labels; it has {schema.names}")
    return image[0], label[0], list(kinds[label[0]]["names"])
