"""Tables: ruled at a terminal, plain columns in a pipe or file."""

import sys
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from resnets.escaping import escaped, say

Cell = str | int


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Cell]], title: str = "") -> None:
    """Print ``rows`` under the names of their ``columns``; columns of numbers stand right.

    Args:
        columns: what stands above each column.
        rows: as many cells each as there are columns; text and whole numbers.
        title: a line above the table.
    """
    texts = [[escaped(_cell_text(cell)) for cell in row] for row in rows]
    columns = [escaped(column) for column in columns]
    right = [_is_number(column) for column in zip(*texts, strict=True)]
    if sys.stdout.isatty():
        table = Table(
            box=box.SIMPLE_HEAD,
            title=Text(escaped(title)) if title else None,
            title_justify="left",
            pad_edge=False,
        )
        for number, (name, is_right) in enumerate(zip(columns, right, strict=True), start=1):
            last = number == len(columns)  # the one that may wrap where the terminal is narrow
            table.add_column(Text(name), justify="right" if is_right else "left", no_wrap=not last)
        for row in texts:
            table.add_row(*map(Text, row))  # a text is not markup, whatever is in it
        Console().print(table)
        return
    if title:
        say(title)
    for line in _plain_lines([list(columns), *texts], right):
        say(line)


def _plain_lines(rows: Sequence[Sequence[str]], right: Sequence[bool]) -> list[str]:
    """Rows as lines of aligned columns, two spaces apart.

    >>> _plain_lines([["name", "n"], ["a", "10"]], [False, True])
    ['name   n', 'a     10']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(row, widths, right, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def _cell_text(cell: Cell) -> str:
    """Whole numbers with commas, text as it is.

    >>> _cell_text(25557032)
    '25,557,032'
    """
    return f"{cell:,}" if isinstance(cell, int) else cell


def _is_number(cells: Sequence[str]) -> bool:
    return all(not cell or cell.lstrip("<> ")[:1].isdigit() or cell in "–·" for cell in cells)
