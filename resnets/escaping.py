"""Names made safe: in a terminal, which obeys some characters, in a spreadsheet, as a file's."""

import csv
import io
import os
import shlex
import sys
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext, suppress
from typing import Any, TextIO

_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # how a cell begins that spreadsheets compute
# Control and format characters, surrogates, private use, not assigned, line and paragraph ends.
_OBEYED = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_CONTROL = frozenset({"Cc", "Cs", "Zl", "Zp"})  # without those that some languages write with

_LONGEST = 200  # bytes of a file name that is made of another; most file systems take 255
_FORBIDDEN = frozenset('<>:"/\\|?*')  # in names on Windows; these name devices there:
_RESERVED = {
    *("CON", "PRN", "AUX", "NUL"),
    *(f"{port}{n}" for port in ("COM", "LPT") for n in range(10)),
}


def escaped(text: str, keep: str = "") -> str:
    r"""Text that is safe in a terminal: characters that it would obey are written as escapes.

    Args:
        text: names of files and classes, or messages that contain some.
        keep: characters that are left as they are, "\n" for a text of several lines.

    >>> print(escaped("cat\x1b[31m\n\u202egpj.exe"))
    cat\x1b[31m\n\u202egpj.exe
    >>> escaped("caf\udce9.png")  # a byte that is not UTF-8, as Python names it in a path
    'caf\\xe9.png'
    """
    if text.isprintable():  # nearly always
        return text
    return "".join(c if c in keep else _shown(c, _OBEYED) for c in text)


def _shown(character: str, categories: Collection[str]) -> str:
    if unicodedata.category(character) not in categories:
        return character
    if "\udc80" <= character <= "\udcff":
        return os.fsencode(character).decode("ascii", "backslashreplace")
    return character.encode("unicode_escape").decode()


def _guarded(cell: Any) -> Any:
    """A cell that no spreadsheet computes: text like a formula gets an apostrophe before it.

    >>> _guarded("=1+1"), _guarded("cat"), _guarded(-1.5)
    ("'=1+1", 'cat', -1.5)
    """
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell


def write_csv(
    stream: TextIO,
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    header: bool = True,
) -> None:
    """Write a table as CSV; texts that look like formulas are guarded.

    A row is one line: control characters and line breaks in names are written as escapes, in a
    terminal also what it would obey besides. JSON and parquet hold such names as they are.

    Args:
        stream: where to; with newline="" if it is a file.
        rows: values by column; a missing column is empty, and other keys are ignored.
        columns: in their order.
        header: whether their names come first.
    """
    names = [dict(zip(columns, columns, strict=True))] if header else []
    for row in (*names, *rows):
        line = _csv_line([_in_one_line(_guarded(row.get(column))) for column in columns])
        stream.write((escaped(line) if stream.isatty() else line) + "\n")


def _in_one_line(cell: Any) -> Any:
    """A cell without control characters: programs that read lines take a row for one."""
    if not isinstance(cell, str) or cell.isprintable():
        return cell
    return "".join(_shown(character, _CONTROL) for character in cell)


def _csv_line(cells: Sequence[Any]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerow(cells)  # else a lone \r is not quoted
    return text.getvalue().removesuffix("\r\n")


def safe_name(text: str, otherwise: str = "image") -> str:
    r"""The name of a file or folder that any system allows, made of another name.

    Args:
        text: the name, without an ending.
        otherwise: where nothing is left of it.

    >>> [safe_name(name) for name in ("cat", "a\nb?", "con", ".", "x. ", "and/or")]
    ['cat', 'a_b_', '_con', 'image', 'x', 'and_or']
    """
    stem = "".join(c if c.isprintable() and c not in _FORBIDDEN else "_" for c in text)
    stem = stem.encode(errors="replace")[:_LONGEST].decode(errors="ignore").rstrip(". ")
    return f"_{stem}" if stem.partition(".")[0].upper() in _RESERVED else stem or otherwise


def without_name(message: str, name: str) -> str:
    r"""What a message says of a file, for a row of a table that names the file already.

    >>> without_name("a\\nb.png: it is empty", "a\nb.png"), without_name("unsure", "b.png")
    ('it is empty', 'unsure')
    """
    return message.removeprefix(f"{escaped(name)}: ").removeprefix(f"{name}: ")


def shell_line(*words: object) -> str:
    """A command as a shell takes it, for hints with paths: these may have spaces.

    >>> shell_line("resnets", "train", "--resume", "my run")
    "resnets train --resume 'my run'"
    """
    return shlex.join(map(str, words))


def say(line: object = "", *, file: TextIO | None = None, flush: bool = False) -> None:
    """Print one line; what a terminal would obey, line breaks too, is written as an escape."""
    _print(escaped(str(line)), file, flush)


def say_text(text: object, *, file: TextIO | None = None, flush: bool = False) -> None:
    """Print a text of several lines; names in it that may hold line breaks must be escaped."""
    _print(escaped(str(text), keep="\n"), file, flush)


def _print(text: str, file: TextIO | None, flush: bool) -> None:
    """Print a text. A notice for which standard error has no room ends no command."""
    with suppress(OSError) if file is not None and file is sys.stderr else nullcontext():
        print(text, file=file or sys.stdout, flush=flush)
