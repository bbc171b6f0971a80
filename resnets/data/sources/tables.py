"""A table of image paths and labels: CSV, TSV, or whatever separates the columns."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from resnets.data.labelled import LabelledImages
from resnets.data.sources.names import SPLITS, listed, split_of
from resnets.data.splits import Parts
from resnets.data.storage import FileStorage
from resnets.errors import ContentError
from resnets.files import open_input

TABLE_ENDINGS = frozenset({".csv", ".tsv", ".tab"})

MULTI_LABEL = "multi-label data (several labels an image) is not classified here"
_LARGEST = 1 << 30  # bytes

PATH_COLUMNS = ("path", "file", "filename", "file_name", "filepath", "image", "image_path")
LABEL_COLUMNS = ("label", "class", "class_name", "category", "target")
SPLIT_COLUMNS = ("split", "subset", "partition", "set")


@dataclass(frozen=True)
class _Row:
    """One line of a table."""

    line: int
    path: str
    label: str
    split: str
    cells: Sequence[str] = ()


def read_table(file: Path) -> Parts:
    """Read a table of path, label and, if it has that column, split.

    Paths are relative to the table's folder. The first line names the columns; without such a line
    they are path, label and split, in this order. Labels are words or numbers: the class names.

    Raises:
        ContentError: a line that cannot be understood, by its number.
    """
    names, rows = read_rows(file)
    _refuse_repeated(file, rows)
    class_names = sorted({row.label for row in rows}, key=number_or_word)
    number = {name: label for label, name in enumerate(class_names)}
    by_split = {
        split: sorted((row for row in rows if row.split == split), key=lambda row: row.path)
        for split in dict.fromkeys(row.split for row in rows)
    }
    images = {
        split: LabelledImages(
            FileStorage(file.parent, [row.path for row in own]),
            [number[row.label] for row in own],
            class_names,
        )
        for split, own in by_split.items()
    }
    columns = {name: partial(_cells_of, by_split, place) for place, name in enumerate(names)}
    return Parts("table", images, columns=columns)


def _cells_of(rows: Mapping[str, Sequence[_Row]], place: int, split: str) -> list[str | None]:
    """The cells of one column, in the rows of a split; None for those that are missing."""
    return [row.cells[place] if place < len(row.cells) else None for row in rows[split]]


def number_or_word(label: str) -> tuple[int, str]:
    """Sorts numbers by value, then words by letter.

    >>> sorted(["b", "10", "9", "a"], key=number_or_word)
    ['9', '10', 'a', 'b']
    """
    return (len(label), label) if label.isdecimal() else (10**9, label)


def read_rows(file: Path) -> tuple[Sequence[str], list[_Row]]:
    """The names of a table's columns, if they have any, and its lines that are not empty."""
    try:
        with io.TextIOWrapper(open_input(file, _LARGEST), "utf-8-sig", newline="") as text:
            first = text.readline()
            text.seek(0)
            reader = csv.reader(text, delimiter=_delimiter(first), strict=True)
            lines = [(reader.line_num, [cell.strip() for cell in line]) for line in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ContentError(f"{file}: not a table in UTF-8 ({error})") from None
    lines = [(number, cells) for number, cells in lines if any(cells)]
    columns = _header(lines[0][1]) if lines else None
    names = lines[0][1] if columns else []
    lines = lines[1:] if columns else lines
    if not lines:
        raise ContentError(f"{file}: an empty table; it takes lines of path,label")
    columns = columns or (0, 1, 2 if len(lines[0][1]) > 2 else None)
    return names, [_row(file, number, cells, columns) for number, cells in lines]


def _delimiter(line: str) -> str:
    r"""What separates the columns: whichever of comma, tab and semicolon is in the line most.

    >>> _delimiter("path\tlabel, or name")
    '\t'
    """
    return max("\t;,", key=line.count) if any(c in line for c in "\t;,") else ","


def _header(cells: Sequence[str]) -> tuple[int, int, int | None] | None:
    """Which columns hold path, label and split, or None if the line names no columns.

    >>> _header(["label", "Path"]), _header(["cats/1.png", "cat"])
    ((1, 0, None), None)
    """
    words = [cell.lower() for cell in cells]

    def find(known: Sequence[str]) -> int | None:
        return next((words.index(word) for word in known if word in words), None)

    path, label = find(PATH_COLUMNS), find(LABEL_COLUMNS)
    return None if path is None or label is None else (path, label, find(SPLIT_COLUMNS))


def _row(file: Path, line: int, cells: Sequence[str], columns: tuple[int, int, int | None]) -> _Row:
    """Read one line."""
    path, label, split = columns
    if len(cells) <= max(path, label, split or 0) or not cells[path] or not cells[label]:
        wanted = "path,label" if split is None else "path,label,split"
        raise ContentError(f"{file}, line {line}: {','.join(cells)!r} is not {wanted}")
    if split is None:
        return _Row(line, cells[path], cells[label], "all", cells)
    meant = split_of(cells[split])
    if meant is None:
        raise ContentError(
            f"{file}, line {line}: split {cells[split]!r} is none of {', '.join(SPLITS)}"
        )
    return _Row(line, cells[path], cells[label], meant, cells)


def _refuse_repeated(file: Path, rows: Sequence[_Row]) -> None:
    """An image that is listed twice would be in two splits, or have two labels."""
    seen: dict[str, _Row] = {}
    for each in rows:
        before = seen.setdefault(each.path, each)
        if before is not each:
            lines = listed([str(before.line), str(each.line)]).replace("'", "")
            raise ContentError(f"{file}, lines {lines}: {each.path} is listed twice; keep one")
