"""Predictions as a table: its columns, and the parquet files that hold it."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from resnets.evaluation.engine import Engine
from resnets.evaluation.predict import Prediction
from resnets.files.writing import replacing
from resnets.integrity import UNSTAMPED, stamp

if TYPE_CHECKING:
    import pyarrow as pa

_FEATURES = "features"  # the column of what the classifier gets, F numbers an image
ROWS = 4096  # of a row group: with 2,048 features, 32 MiB


def columns(top: int, sorts: bool = False) -> dict[str, type]:
    """The columns of every table of predictions, with the type of their values.

    They depend on how many classes are listed and on whether images are sorted, and on nothing
    else, so that the tables of several folders can be read as one.
    """
    kinds: dict[str, type] = {"image": str, "prediction": str, "probability": float, "status": str}
    for rank in range(1, top + 1):
        kinds |= {f"top{rank}": str, f"probability{rank}": float}
    kinds |= {"sorted_to": str} if sorts else {}
    return kinds | {"error": str}


def schema_of(top: int, sorts: bool = False, features: int = 0) -> "pa.Schema":
    """The schema of a parquet file of predictions.

    Args:
        top: how many classes are listed.
        sorts: whether the images are sorted.
        features: length of the fixed-size list of float32 in the last column; 0: no such column.
    """
    import pyarrow as pa

    types = {str: pa.string(), float: pa.float64()}
    fields = [pa.field(name, types[kind]) for name, kind in columns(top, sorts).items()]
    if features:
        fields.append(pa.field(_FEATURES, pa.list_(pa.float32(), features)))
    return pa.schema(fields)


def number_of_features(engine: Engine) -> int:
    """F of an engine, from a black image: a part may have no image that can be read."""
    preprocessing = engine.description.preprocessing
    side, channels = preprocessing.resize, preprocessing.channels
    return int(engine.features(np.zeros((1, side, side, channels), np.uint8)).shape[1])


def write_predictions(
    predictions: Iterable[Prediction],
    path: Path,
    schema: "pa.Schema",
    metadata: Mapping[str, str] | None = None,
) -> tuple[int, int]:
    """Write one row an image into a parquet file, which appears when it is whole.

    Rows are written as they come, so that memory does not grow with their number.

    Args:
        predictions: in their order.
        path: of the file; an older one is replaced.
        schema: as by `schema_of`.
        metadata: texts of the file's footer.

    Returns:
        The number of rows, and of those whose image cannot be read.
    """
    rows = unreadable = 0
    with replacing(path) as file:
        for table in write_tables(tables_of(predictions, schema), file, schema, metadata):
            rows += table.num_rows
            unreadable += table.num_rows - table["error"].null_count
    return rows, unreadable


def write_tables(
    tables: "Iterable[pa.Table]",
    file: IO[bytes],
    schema: "pa.Schema",
    metadata: Mapping[str, str] | None = None,
) -> "Iterator[pa.Table]":
    """Write tables into one parquet file, each when it is asked for, and pass them on.

    Args:
        tables: of rows.
        file: opened by `replacing`.
        schema: of the tables.
        metadata: texts of the file's footer; an `UNSTAMPED` one becomes the digest of the file.
    """
    import pyarrow.parquet as pq

    with pq.ParquetWriter(file, schema.with_metadata(dict(metadata or {}))) as writer:
        for table in tables:
            writer.write_table(table.replace_schema_metadata(None))
            yield table
    if UNSTAMPED in (metadata or {}).values():
        stamp(file)


def tables_of(predictions: Iterable[Prediction], schema: "pa.Schema") -> "Iterator[pa.Table]":
    """The rows as tables of at most `ROWS`."""
    import pyarrow as pa

    waiting = iter(predictions)
    while some := list(islice(waiting, ROWS)):
        rows = [prediction.row() for prediction in some]
        plain = [field for field in schema if field.name != _FEATURES]
        table = pa.Table.from_pylist(rows, pa.schema(plain))
        if len(plain) < len(schema):
            table = table.append_column(schema.field(_FEATURES), _features(some, schema))
        yield table


def _features(predictions: Iterable[Prediction], schema: "pa.Schema") -> "pa.Array":
    """The column of features; every element is null where the image cannot be read.

    A missing list could not be read by earlier versions of pyarrow: see docs/decisions.md.
    """
    import pyarrow as pa

    kind = schema.field(_FEATURES).type
    nothing = np.zeros(kind.list_size, np.float32)
    vectors = [prediction.features for prediction in predictions]
    missing = np.repeat([vector is None for vector in vectors], kind.list_size)
    values = np.concatenate([nothing if vector is None else vector for vector in vectors])
    return pa.FixedSizeListArray.from_arrays(pa.array(values, mask=missing), type=kind)
