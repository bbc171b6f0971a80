import ast
import csv
import io
import unicodedata
from pathlib import Path

import pytest

import resnets
from resnets.escaping import _guarded, escaped, write_csv


def test_what_a_terminal_would_obey_is_written_out() -> None:
    obeyed = "\x1b[2J\a\b\r\n\t\x7f\x9b31m\u202e\u2066\u200f\u2028\ufeff\U000e0001"
    shown = escaped(f"a{obeyed}z")
    assert shown.isprintable()
    assert shown.startswith("a\\x1b[2J\\x07")
    assert "\\u202e\\u2066\\u200f" in shown


@pytest.mark.soak
def test_every_character_of_unicode_is_shown_or_written_out() -> None:
    categories = {
        unicodedata.category(character)
        for number in range(0x110000)
        for character in escaped(chr(number))
    }
    assert not categories & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


@pytest.mark.parametrize(
    "name", ["Löwe", "日本 　語", "قطة", "cat\N{NO-BREAK SPACE}1", "🐈", "a\\n"]
)
def test_letters_of_any_script_stay(name: str) -> None:
    assert escaped(name) == name


def test_lines_of_a_text_can_be_kept() -> None:
    assert escaped("a\nb\x1b", keep="\n") == "a\nb\\x1b"


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_no_text_of_a_csv_is_a_formula(text: str) -> None:
    stream = io.StringIO(newline="")
    write_csv(stream, [{text: text, "number": -1.5, "nothing": None}], [text, "number", "nothing"])
    header, row = csv.reader(io.StringIO(stream.getvalue(), newline=""))
    assert header[0] == row[0] == "'" + text.replace("\t", "\\t").replace("\r", "\\r")
    assert row[1:] == ["-1.5", ""]


@pytest.mark.parametrize("name", ["two\nlines", "a\x1b[31m", "a\u2028b", "a\x00", "caf\udce9"])
def test_a_row_of_a_csv_is_one_line_without_control_characters(name: str) -> None:
    stream = io.StringIO(newline="")
    write_csv(stream, [{"name": name}], ["name"])
    assert stream.getvalue() == f"name\n{escaped(name)}\n"
    assert len(stream.getvalue().splitlines()) == 2


@pytest.mark.parametrize("name", ["\u0645\u06cc\u200c\u062e", "👩\u200d🔬", 'a "b", c'])
def test_a_csv_keeps_what_languages_write_with(name: str) -> None:
    stream = io.StringIO(newline="")
    write_csv(stream, [{"name": name}], ["name"])
    assert list(csv.reader(io.StringIO(stream.getvalue(), newline="")))[1] == [name]


def test_other_cells_of_a_csv_stay_as_they_are() -> None:
    assert [_guarded(cell) for cell in ("cat", "", "a=b", 5, -2, None)] == [
        "cat",
        "",
        "a=b",
        5,
        -2,
        None,
    ]


def test_lines_that_the_code_breaks_are_printed_by_the_function_that_keeps_line_breaks() -> None:
    """`say` prints one line: a line break in its words would be shown as two characters."""
    broken = [
        f"{file.name}:{call.lineno}"
        for file in Path(resnets.__file__).parent.rglob("*.py")
        for call in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "say"
        for part in ast.walk(call)
        if isinstance(part, ast.Constant) and isinstance(part.value, str) and "\n" in part.value
    ]
    assert not broken
