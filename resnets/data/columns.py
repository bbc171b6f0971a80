"""Which columns of a table of the Hugging Face hub hold images and labels, and what labels mean."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from resnets.data.labelled import LabelledImages
from resnets.data.names import listed
from resnets.data.storage import Storage
from resnets.data.tables import number_or_word
from resnets.errors import ContentError

IMAGES = ("image", "img")
LABELS = ("label", "labels", "fine_label", "class")  # the first of these that there is


@dataclass(frozen=True)
class Columns:
    """The columns that matter.

    Attributes:
        image: the name of the column of encoded images.
        label: the name of the column of labels.
        class_names: by label, or empty if the labels' values are the names.
    """

    image: str
    label: str
    class_names: tuple[str, ...]


def choose_columns(schema: Any, features: Mapping[str, Any], where: str) -> Columns:
    """Find the columns by the hub's description of them, else by type and name.

    Args:
        schema: the pyarrow.Schema.
        features: the hub's description, such as {"img": {"_type": "Image"}, ...}.
        where: what to call the table in an error.

    Raises:
        ContentError: there is no column of images or of labels.
    """
    images = [name for name in schema.names if features.get(name, {}).get("_type") == "Image"]
    images = images or [name for name in IMAGES if name in schema.names]
    images = [name for name in images if holds_bytes(schema.field(name).type)]
    classes = {
        name: tuple(map(str, features[name].get("names") or ()))
        for name in schema.names
        if features.get(name, {}).get("_type") == "ClassLabel"
    }
    labels = [name for name in LABELS if name in schema.names] + list(classes)
    for found, what in ((images, "encoded images (bytes)"), (labels, "labels")):
        if not found:
            raise ContentError(f"{where}: no column of {what}; it has {listed(schema.names, 9)}")
    refuse_composite(schema.field(labels[0]).type, labels[0], where)
    return Columns(images[0], labels[0], classes.get(labels[0], ()))


def refuse_composite(kind: Any, name: str, where: str) -> None:
    """Refuse labels that are lists, structs or bytes.

    Raises:
        ContentError: it says what a label must be.
    """
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    several = pa.types.is_nested(kind) or pa.types.is_map(kind)
    if several or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        hint = ": images of several labels each are not classified here" if several else ""
        raise ContentError(
            f"{where}: the column {name!r} holds labels of the type {str(kind)[:60]}{hint}; a "
            "label must be one whole number or one text an image"
        )


def holds_bytes(kind: Any) -> bool:
    """Whether a column's type is bytes, or a struct of bytes and path."""
    if pa.types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and holds_bytes(kind.field(index).type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def encoded_images(column: Any) -> Any:
    """The bytes of a column of images, as a ChunkedArray of binary."""
    if pa.types.is_struct(column.type):
        return pa.chunked_array(
            [pc.struct_field(chunk, "bytes") for chunk in column.chunks],
            type=column.type.field("bytes").type,
        )
    return column


def labelled_splits(
    columns: Columns, storages: Mapping[str, Storage], values: Mapping[str, Any], where: str
) -> tuple[dict[str, LabelledImages], tuple[str, ...]]:
    """Join each split's images and labels.

    Args:
        columns: with the names of the classes, if the labels are numbers of those.
        storages: the images of each split.
        values: the labels of each split, a ChunkedArray of integers or strings.
        where: what to call the table in an error.

    Returns:
        The splits, and warnings. A split without any label is left out.

    Raises:
        ContentError: a label is missing or means no class.
    """
    class_names = columns.class_names or names_of(values.values())
    images = {}
    warnings = []
    for split, column in values.items():
        if len(column) != len(storages[split]):
            raise ContentError(
                f"{where}: {len(storages[split])} images, but {len(column)} labels in {split}"
            )
        labels = numbers(column, columns.class_names, class_names)
        if len(labels) and (labels == -1).all():  # how the hub publishes tests without answers
            warnings.append(f"the {split} split is left out: none of its images has a label")
            continue
        for index in np.flatnonzero((labels < 0) | (labels >= len(class_names)))[:1]:
            raise ContentError(
                f"{where}: the label of {storages[split].name(int(index))} is "
                f"{column[int(index)].as_py()}, not in 0..{len(class_names) - 1}"
            )
        images[split] = LabelledImages(storages[split], labels, class_names)
    if not images:
        raise ContentError(f"{where}: none of the images has a label")
    return images, tuple(warnings)


def names_of(columns: Any) -> tuple[str, ...]:
    """The values of columns as class names, numbers in their order."""
    found = {value for column in columns for value in pc.unique(column).to_pylist()}
    return tuple(sorted((str(v) for v in found - {None, -1}), key=number_or_word))


def numbers(column: Any, declared: Sequence[str], class_names: Sequence[str]) -> NDArray[np.int64]:
    """Labels (N,) as numbers of classes; -1 where there is none."""
    if declared and pa.types.is_integer(column.type):
        return np.asarray(pc.fill_null(column, -1).cast(pa.int64()).to_numpy())
    number = {name: label for label, name in enumerate(class_names)}
    return np.array([number.get(str(v), -1) for v in column.to_pylist()], dtype=np.int64)
