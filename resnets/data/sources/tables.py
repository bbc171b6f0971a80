"""A table of image paths and labels: CSV, TSV, JSON lines, or whatever separates the columns."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from resnets.data.labelled import LabelledImages
from resnets.data.sources.folder_index import FolderIndex
from resnets.data.sources.names import has_image_ending, is_no_label, listed, split_of
from resnets.data.sources.table_columns import (
    LABEL_COLUMNS,
    MULTI_LABEL,
    PATH_COLUMNS,
    SPLIT_COLUMNS,
    Columns,
    find_columns,
    several_labels,
)
from resnets.data.splits import SourceContent
from resnets.data.storage import FileStorage
from resnets.errors import ContentError
from resnets.files.reading import open_input
from resnets.format import plural
from resnets.json_text import to_json

__all__ = [
    "LABEL_COLUMNS",
    "MULTI_LABEL",
    "PATH_COLUMNS",
    "SPLIT_COLUMNS",
    "TABLE_ENDINGS",
    "number_or_word",
    "read_metadata",
    "read_rows",
    "read_table",
]

TABLE_ENDINGS = frozenset({".csv", ".tsv", ".tab", ".jsonl"})

_METADATA = ("metadata.csv", "metadata.jsonl")  # of the Hugging Face hub's folders of images
_LARGEST = 1 << 30  # bytes
_SEPARATORS = "\t;,|"
_ENCODINGS = "UTF-8, UTF-16 or Windows-1252"

_Lines = list[tuple[int, list[str]]]  # the number of a line, and its cells


@dataclass(frozen=True)
class _Row:
    """One line of a table."""

    line: int
    path: str
    label: str
    split: str
    cells: Sequence[str] = ()


@dataclass(frozen=True)
class _Table:
    """What a table holds."""

    names: Sequence[str]  # of the columns; empty if it names none
    rows: Sequence[_Row]  # with a label
    unlabelled: Sequence[_Row]
    warnings: tuple[str, ...] = ()


def read_table(file: Path) -> SourceContent:
    """Read a table of path, label and, if it has that column, split.

    Paths are relative to the table's folder, or to one in it, and may lack their endings. The first
    line names the columns; without such a line they are path, label and split, in this order.
    Labels are words or numbers, the class names; or 1 in one of several columns, one a class.

    Raises:
        ContentError: a line that cannot be understood, by its number.
    """
    return _source_content(file, file.parent, _read(file))


def read_metadata(index: FolderIndex) -> SourceContent | None:
    """Read the hub's metadata.csv or metadata.jsonl of a folder, or of its folders of splits.

    Returns:
        None if there is none, or it has no labels (but captions, say).

    Raises:
        ContentError: a line that cannot be understood.
    """
    root = index.root
    folders = ["", *(name for name in index.folder("").folders if split_of(name))]
    places = {folder: {name for name, _ in index.folder(folder).no_images} for folder in folders}
    files = {
        place: root / place / name
        for place, names in places.items()
        for name in _METADATA
        if name in names
    }
    tables = []
    for place, file in files.items():
        try:
            table = _read(file)
        except ContentError:
            if _has_label_column(file):
                raise
            return None
        tables.append(table if not place else _moved(table, place, str(split_of(place))))
    if not tables:
        return None
    rows = [row for table in tables for row in table.rows]
    bare = [row for table in tables for row in table.unlabelled]
    warnings = tuple(text for table in tables for text in table.warnings)
    where = next(iter(files.values())) if len(files) == 1 else root
    return _source_content(where, root, _Table(tables[0].names, rows, bare, warnings))


def _moved(table: _Table, folder: str, split: str) -> _Table:
    """A table in the folder of a split, its paths from the folder above."""

    def moved(row: _Row) -> _Row:
        return replace(row, path=f"{folder}/{row.path}", split=split)

    return replace(
        table, rows=[*map(moved, table.rows)], unlabelled=[*map(moved, table.unlabelled)]
    )


def _has_label_column(file: Path) -> bool:
    """Whether a table of the hub has a column that is called as labels are."""
    lines, _ = _read_lines(file)
    return bool(lines) and any(name.lower() in LABEL_COLUMNS for name in lines[0][1])


def _source_content(file: Path, root: Path, table: _Table) -> SourceContent:
    """The labelled images of a table whose paths are relative to a folder."""
    rows, names = table.rows, table.names
    _refuse_repeated(file, [*rows, *table.unlabelled])
    if not rows:
        raise ContentError(
            f"{file}: none of its {plural(len(table.unlabelled), 'image')} has a label"
        )
    several = several_labels([row.label for row in rows])
    if several:
        line = next(row.line for row in rows if row.label == several)
        raise ContentError(f"{file}, line {line}: label {several!r}: {MULTI_LABEL}")
    class_names = sorted({row.label for row in rows}, key=number_or_word)
    number = {name: label for label, name in enumerate(class_names)}
    by_split = {
        split: sorted((row for row in rows if row.split == split), key=lambda row: row.path)
        for split in dict.fromkeys(row.split for row in rows)
    }
    images = {
        split: LabelledImages(
            FileStorage(root, [row.path for row in split_rows]),
            [number[row.label] for row in split_rows],
            class_names,
        )
        for split, split_rows in by_split.items()
    }
    warnings = table.warnings
    if table.unlabelled:
        first = table.unlabelled[0]
        count = plural(len(table.unlabelled), "image")
        warnings += (
            f"left out: {count} without a label, such as {first.path} (line {first.line})",
        )
    warnings += _about_fractions(rows)
    columns = {name: partial(_cells_of, by_split, place) for place, name in enumerate(names)}
    return SourceContent("table", images, warnings, columns=columns)


def _about_fractions(rows: Sequence[_Row]) -> tuple[str, ...]:
    """A warning where all labels are numbers that are not all whole: no classes, it seems."""
    try:
        broken = [row for row in rows if not float(row.label).is_integer()]
    except ValueError:  # a text
        return ()
    if not broken:
        return ()
    return (
        f"the labels are numbers, such as {broken[0].label} (line {broken[0].line}): each is taken "
        "for a class of its own, as no network here estimates a number",
    )


def _cells_of(rows: Mapping[str, Sequence[_Row]], place: int, split: str) -> list[str | None]:
    """The cells of one column in the rows of a split; None for missing cells."""
    return [row.cells[place] if place < len(row.cells) else None for row in rows[split]]


def number_or_word(label: str) -> tuple[int, str]:
    """A sort key: numbers by value, then texts by letter.

    >>> sorted(["b", "10", "9", "a"], key=number_or_word)
    ['9', '10', 'a', 'b']
    """
    return (len(label), label) if label.isdecimal() else (10**9, label)


def read_rows(file: Path) -> list[str]:
    """The paths in a table, relative to its folder."""
    table = _read(file)
    return [row.path for row in (*table.rows, *table.unlabelled)]


def _read(file: Path) -> _Table:
    """The names of a table's columns, if it has them, and its lines that are not empty."""
    lines, warnings = _read_lines(file)
    if not lines:
        raise ContentError(f"{file}: an empty table; it must have lines of path,label")
    number, first = lines[0]
    where = f"{file}, line {number}: {','.join(first)!r:.200}"
    columns = find_columns(file.parent, [cells for _, cells in lines], where)
    lines = lines[1:] if columns.names else lines
    if not lines:
        raise ContentError(f"{file}: an empty table; it must have lines of path,label")
    rows = [_row(file, number, cells, columns) for number, cells in lines]
    labelled = [row for row in rows if row.label]
    return _Table(columns.names, labelled, [row for row in rows if not row.label], warnings)


def _read_lines(file: Path) -> tuple[_Lines, tuple[str, ...]]:
    """The lines of a table that are not empty, those of JSON below one of names; and warnings."""
    try:
        with open_input(file, _LARGEST) as stream:
            text, encoding = _decoded(stream.read())
        lines = _json_lines(text) if file.suffix.lower() == ".jsonl" else _csv_lines(text)
    except (UnicodeError, csv.Error, ValueError, RecursionError) as error:
        if isinstance(error, ContentError):
            raise
        raise ContentError(f"{file}: not a table in {_ENCODINGS} ({error})") from None
    known = encoding == "UTF-8" or encoding == "UTF-16"
    warnings = () if known else (f"{file.name} is not in UTF-8; it is read as {encoding}",)
    return [(number, cells) for number, cells in lines if any(cells)], warnings


def _decoded(data: bytes) -> tuple[str, str]:
    """A text and the name of its encoding.

    Raises:
        UnicodeError: it is none.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16"), "UTF-16"
    if b"\0" in data[:200]:  # no byte-order mark: letters of Latin have a zero in one half
        big = data[:200:2].count(0) > data[1:200:2].count(0)
        return data.decode("utf-16-be" if big else "utf-16-le"), "UTF-16"
    try:
        return data.decode("utf-8-sig"), "UTF-8"
    except UnicodeDecodeError:
        return data.decode("cp1252"), "Windows-1252"


def _csv_lines(text: str) -> _Lines:
    """The lines of a table whose columns are separated."""
    separator = _delimiter(text.partition("\n")[0])
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    return [(reader.line_num, [cell.strip() for cell in line]) for line in reader]


def _delimiter(line: str) -> str:
    r"""What separates the columns: whichever of comma, tab, semicolon and bar is in it most.

    A blank does where the line begins with the name of an image and has none of these.

    >>> _delimiter("path\tlabel, or name"), _delimiter("a/1.png 3")
    ('\t', ' ')
    """
    if any(mark in line for mark in _SEPARATORS):
        return max(_SEPARATORS, key=line.count)
    return " " if has_image_ending(line.partition(" ")[0]) else ","


def _json_lines(text: str) -> _Lines:
    """The objects of JSON lines as rows below a line of their names.

    Raises:
        ValueError: a line is no object.
    """
    rows: list[tuple[int, Mapping[str, Any]]] = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            value = json.loads(line)
            if not isinstance(value, dict):
                raise ValueError(f"line {number} is no object of JSON")
            rows.append((number, value))
    names = [*dict.fromkeys(name for _, row in rows for name in row)]
    return [(0, names), *((number, [_cell(row.get(n)) for n in names]) for number, row in rows)]


def _cell(value: Any) -> str:
    """A value of JSON as a cell: texts and numbers as they are, the rest in brackets.

    Null is empty, and so is NaN, as Python's libraries write a missing value.
    """
    if value is None or value != value:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return value.strip() if isinstance(value, str) else to_json(value)


def _row(file: Path, line: int, cells: Sequence[str], columns: Columns) -> _Row:
    """Read one line."""
    most = max(columns.path, columns.split or 0, *columns.label)
    if len(cells) <= most or not cells[columns.path]:
        raise ContentError(f"{file}, line {line}: {','.join(cells)!r} is not {columns.wanted}")
    try:
        label, split = columns.label_of(cells), columns.split_of(cells)
    except ContentError as error:
        raise ContentError(f"{file}, line {line}: {error}") from None
    label = "" if is_no_label(label) else label
    return _Row(line, columns.paths(cells[columns.path]), label, split, cells)


def _refuse_repeated(file: Path, rows: Sequence[_Row]) -> None:
    """An image that is listed twice would be in two splits, or have two labels."""
    seen: dict[str, _Row] = {}
    for row in rows:
        before = seen.setdefault(row.path, row)
        if before is not row:
            lines = listed([str(before.line), str(row.line)]).replace("'", "")
            why = "" if before.label == row.label else f", with two labels ({MULTI_LABEL})"
            raise ContentError(f"{file}, lines {lines}: {row.path} is listed twice{why}; keep one")
