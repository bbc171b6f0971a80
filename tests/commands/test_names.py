"""Names of files and classes are a stranger's text: shown, and never obeyed."""

import ast
import csv
import io
import json
import unicodedata
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from resnets import cli
from resnets.commands.tables import print_table
from resnets.escaping import escaped
from resnets.evaluation.report.folder import file_name

ESCAPE, OVERRIDE = "\x1b]0;owned\a\x1b[31mred", "\u202egnp"
NAMES = ("=1+1", f"cat{ESCAPE}", "two\nlines", f"dog{OVERRIDE}", "[bold]", "x" * 120)
OBEYED = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
COMMANDS = Path(cli.__file__).parent / "commands"


def assert_harmless(text: str) -> None:
    obeyed = {c for c in text if c != "\n" and unicodedata.category(c) in OBEYED}
    assert not obeyed, text


@pytest.fixture
def folder(tmp_path: Path, draw_noise: Callable[..., None]) -> Path:
    """A folder of classes and images with such names."""
    for seed, name in enumerate(NAMES):
        for number in range(2):
            draw_noise(tmp_path / "data" / name / f"{number}{name}.png", seed=10 * seed + number)
    return tmp_path / "data"


@pytest.fixture
def model(untrained: Callable[..., Path]) -> str:
    return str(untrained(tuple(sorted(NAMES))))


@pytest.mark.parametrize("command", ["doctor", "evaluate", "predict", "compare", "explain"])
def test_no_table_and_no_message_is_obeyed_by_a_terminal(
    command: str,
    folder: Path,
    model: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if command == "explain":
        pytest.importorskip("captum", reason="needs the extra 'explain'")
    monkeypatch.chdir(folder.parent)
    (folder / NAMES[1] / f"broken{ESCAPE}\n.png").write_bytes(b"no image")
    words = {
        "doctor": [str(folder)],
        "evaluate": [model, str(folder), "--split", "all", "--skip-unreadable"],
        "predict": [model, str(folder), "--top", "3"],
        "compare": [model, model, str(folder), "--split", "all", "--skip-unreadable"],
        "explain": [model, str(folder)],
    }
    assert cli.main([command, *words[command]]) in (0, 1)
    shown = capsys.readouterr()
    assert_harmless(shown.out + shown.err)
    assert "\\x1b" in shown.out
    if command == "explain":
        overlays = [path for path in Path("explained").iterdir() if "contact" not in path.name]
        assert len(overlays) == 2 * len(NAMES)


def test_errors_about_such_names_are_one_harmless_line(
    folder: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / NAMES[2] / "broken\n\x1b.png").write_bytes(b"no image")
    assert cli.main(["evaluate", model, str(folder), "--split", "all"]) == 1
    assert cli.main(["predict", model, f"nothing{ESCAPE}\n"]) == 2
    text = capsys.readouterr().err
    assert_harmless(text)
    assert len(text.splitlines()) == 2


def test_a_traceback_and_a_warning_are_harmless_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = tmp_path / "code.pth"  # a pickle that asks for a function
    with zipfile.ZipFile(code, "w") as file:
        file.writestr("code/data.pkl", b"\x80\x02" + f"cos{ESCAPE}\nsystem\n)R.".encode())
        file.writestr("code/version", b"3\n")
    for words in (["inspect", str(code)], ["predict", f"nothing{ESCAPE}.png"]):
        assert cli.main([*words, "--debug"]) in (1, 2)
        text = capsys.readouterr().err
        assert "Traceback" in text
        assert "\\x1b" in text
        assert_harmless(text)
    warned = warnings.formatwarning(f"a library says {ESCAPE}", UserWarning, "file.py", 1)
    assert_harmless(warned)


def test_what_a_decoder_says_of_an_image_is_harmless(
    tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    pixels = f"P3 2 2 255\n1 2 3 {ESCAPE}{OVERRIDE} 4 5 6 7 8 9 10 11 12\n"
    (images / "a.ppm").write_text(pixels, encoding="utf-8")  # Pillow repeats what is no number
    (images / "b.ppm").write_text(f"P6\n{ESCAPE} 2 255\n", encoding="utf-8")
    for form in ([], ["--json"], ["--csv"]):
        assert cli.main(["predict", model, str(images), *form]) == 1
        shown = capsys.readouterr()
        assert_harmless(shown.out.replace("\r", "") + shown.err)
        assert "owned" in shown.out
        if form == ["--json"]:
            for row in json.loads(shown.out):
                assert_harmless(row["error"])


def test_csv_guards_texts_and_leaves_names_and_numbers(
    folder: Path, model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder / "=1+1")
    Path("-1.png").write_bytes(Path("0=1+1.png").read_bytes())
    assert cli.main(["predict", model, ".", "--csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert {row["image"] for row in rows} == {"0=1+1.png", "1=1+1.png", "'-1.png"}
    assert all(float(row["probability"]) >= 0 for row in rows)
    assert cli.main(["predict", model, ".", "--json"]) == 0
    assert "-1.png" in {row["image"] for row in json.loads(capsys.readouterr().out)}
    assert cli.main(["evaluate", model, str(folder), "--split", "all", "--csv"]) == 0
    names = [row["name"] for row in csv.DictReader(io.StringIO(capsys.readouterr().out))]
    assert "'=1+1" in names
    in_one_line = {"two\nlines": "two\\nlines", NAMES[1]: escaped(NAMES[1])}
    assert set(names) == {"'=1+1", *(in_one_line.get(name, name) for name in NAMES[1:])}


def test_pictures_of_any_image_have_names_that_any_system_takes() -> None:
    images = [f"a/{name}.png" for name in NAMES] + ["con.png", "nul\0.png", "é" * 300, "a/...", ""]
    taken: set[str] = set()
    names = [file_name(image, taken) for image in images]
    assert len({name.casefold() for name in names}) == len(images)
    for name in names:
        assert len(name.encode()) <= 255
        assert name.isprintable()
        assert not set(name) & set('<>:"/\\|?*')
        assert name.split(".")[0].upper() not in ("CON", "NUL", "")


def test_brackets_in_a_name_are_no_markup_at_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    print_table(("[/x]", "n"), [("[bold]cat[/nothing]", 1)], title="[/title]")
    shown = capsys.readouterr().out
    for text in ("[bold]cat[/nothing]", "[/title]"):
        assert text in shown


@pytest.mark.parametrize("path", sorted(COMMANDS.glob("*.py")), ids=lambda path: path.stem)
def test_commands_print_names_by_the_function_that_escapes_them(path: Path) -> None:
    """A plain print has a constant, JSON or a part of the module's own text."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if path.stem == "saying" or not isinstance(node, ast.Call):
            continue
        if getattr(node.func, "id", "") == "print" and node.args:
            shown = ast.unparse(node.args[0])
            harmless = isinstance(node.args[0], ast.Constant) or "json" in shown
            harmless |= shown.startswith(("build(entry.architecture)", "deployment_file("))  # files
            assert harmless, f"line {node.lineno}: {shown}"
