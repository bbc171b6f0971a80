"""Numbers for people have one home, `resnets.format`: no other module has a format of its own.

A count alone may be `{count:,}` anywhere: that is Python's own and leaves no choice. Percentages,
sizes, durations, rates, numbers in thousands and counts with a unit are functions of `format`.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "resnets"
HOME = "format.py"
# what follows a number: a unit, or the total of a fraction
UNIT = re.compile(r" ?%| (ms|s|min|h|d|bytes?|[KMGT]i?B|[kMG]|\w+/s)\b")
FACTORS = {60, 100, 1000, 1024, 3600, 86400, 10**6, 10**9, 2**20, 2**30}
SHIFTS = {10, 20, 30}
OF_STR_FORMAT = re.compile(r"\{\w*:[^}]*(%|,[^}])[^}]*\}")  # "{:.1%}".format(share)
ALLOWED = {  # values that programs read, axes of charts: why
    "commands/bench.py": "columns of a table, whose titles name the unit",
    "commands/list.py": "percent in JSON, as published tables have them",
    "deployment/bench/figures.py": "milliseconds on an axis",
    "deployment/export/int8.py": "points in the record of a file, and on the command line",
    "evaluation/report/curves.py": "percent on an axis",
    "evaluation/report/verdict.py": "mistakes in 1,000 images, a whole number",
    "machine.py": "GiB in a run's record",
    "pretrained/opening.py": "a published figure, just as it was published",
    "runs/reproduction.py": "errors in percent, as the papers' tables have them",
}
IN_TEMPLATE = re.compile(r"\|\s*(format|round|filesizeformat)\b|\.format\(|\b100 \*|\* 100\b")
STYLE = re.compile(r'style="[^"]*"')
FOR_PROGRAMS = "serving/"  # answers and metrics of a server, which other programs read
MODULES = sorted(
    name
    for path in PACKAGE.rglob("*.py")
    if not (name := path.relative_to(PACKAGE).as_posix()).startswith(FOR_PROGRAMS)
)
TEMPLATES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.jinja"))


def own_formats(source: str) -> Iterator[tuple[int, str]]:
    """The line and the text of each number that a module formats or converts by itself."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            yield from ((node.lineno, text) for text in _in_text(node))
        elif isinstance(node, ast.BinOp) and _converts(node):
            yield node.lineno, ast.unparse(node)
        elif isinstance(node, ast.Constant) and OF_STR_FORMAT.search(str(node.value)):
            yield node.lineno, str(node.value)


def _in_text(text: ast.JoinedStr) -> Iterator[str]:
    """The numbers in an f-string that are formatted otherwise than as a plain count."""
    following = [*text.values[1:], None]
    for part, after in zip(text.values, following, strict=True):
        if not isinstance(part, ast.FormattedValue):
            continue
        spec = "" if part.format_spec is None else ast.unparse(part.format_spec)[2:-1]
        rest = str(after.value) if isinstance(after, ast.Constant) else ""
        is_number = bool(spec) or not isinstance(part.value, ast.Call)  # calls are of `format`
        percent_or_rounded = "%" in spec or ("," in spec and spec != ",")
        if percent_or_rounded or (is_number and UNIT.match(rest)) or (spec == "," and rest == "/"):
            yield f"{{{ast.unparse(part.value)}:{spec}}}{rest[:8]}"


def _converts(node: ast.BinOp) -> bool:
    """Whether a number is brought to another unit."""
    sides = [side.value for side in (node.left, node.right) if isinstance(side, ast.Constant)]
    if isinstance(node.op, ast.RShift):
        return bool(SHIFTS.intersection(sides)) and not isinstance(node.left, ast.Constant)
    if isinstance(node.op, ast.Div | ast.FloorDiv | ast.Mod):
        sides = [ast.unparse(node.right)]
        return bool({*map(str, FACTORS), "1e3", "1e6", "1e9", "2 ** 20", "2 ** 30"} & set(sides))
    return isinstance(node.op, ast.Mult) and len(sides) == 1 and sides[0] in (100, 1000)


@pytest.mark.parametrize("name", sorted({*MODULES} - {*ALLOWED, HOME}))
def test_a_module_formats_no_number_by_itself(name: str) -> None:
    findings = list(own_formats((PACKAGE / name).read_text(encoding="utf-8")))
    assert not findings, f"{name}: use resnets.format for {findings}"


@pytest.mark.parametrize("name", sorted(ALLOWED))
def test_what_is_allowed_is_still_needed(name: str) -> None:
    assert any(own_formats((PACKAGE / name).read_text(encoding="utf-8")))


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_formats_no_number_by_itself(name: str) -> None:
    lines = (PACKAGE / name).read_text(encoding="utf-8").splitlines()
    findings = [line.strip() for line in lines if IN_TEMPLATE.search(STYLE.sub("", line))]
    assert not findings, f"{name}: use the filters of resnets.format for {findings}"


@pytest.mark.parametrize(
    "line",
    [
        "f'{share:.1%}'",
        "f'{100 * share:.1f} %'",
        "f'{right:,}/{total:,}'",
        "f'{weights:,.0f}'",
        "f'{size} bytes'",
        "f'{size:,} bytes'",
        "f'{size >> 20} MiB'",
        "f'{size / 2**20:.1f} MiB'",
        "f'{seconds:.1f} s'",
        "minutes = seconds // 60",
        "'{:.1%}'.format(share)",
        "f'{rate:.0f} images/s'",
    ],
)
def test_formats_of_every_kind_are_found(line: str) -> None:
    assert list(own_formats(line))


@pytest.mark.parametrize(
    "line",
    [
        "f'{count:,} more'",
        "f'{loss:.3f}'",
        "f'{percent_interval(low, high)} %'",
        "f'{noun}s'",
        "1 << 30",
        "2**20 * 3",
        "f'{name[:60]} and so on'",
    ],
)
def test_what_is_no_such_format_is_left_alone(line: str) -> None:
    assert not list(own_formats(line))
