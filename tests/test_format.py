"""Laws of the numbers that people read."""

import ast
import re
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resnets.errors import UsageError
from resnets.format import (
    byte_size,
    duration,
    milliseconds,
    parse_duration,
    percent,
    percent_interval,
    plural,
    points,
    significant,
)

PACKAGE = Path(__file__).parents[1] / "resnets"
SOURCES = sorted({*PACKAGE.rglob("*.py")} - {PACKAGE / "format.py"})
shares = st.floats(0, 1)
digits = st.integers(0, 3)
seconds = st.floats(0, 1e8)
totals = st.integers(1, 10**7)
UNITS = {"s": 60, "min": 60, "h": 24}  # how many make the next larger one


def read(text: str) -> float:
    """A percentage as a number, what is below or above the last digit half a digit off."""
    mark, number = re.fullmatch(r"([<>] )?([\d.]+) %", text).groups()  # type: ignore[union-attr]
    half = 0.5 * 10 ** -len(number.partition(".")[2])
    return float(number) + {"< ": -half, "> ": half, None: 0.0}[mark]


@given(shares, shares, digits)
def test_more_is_never_shown_as_less(a: float, b: float, places: int) -> None:
    low, high = sorted((a, b))
    assert read(percent(low, places)) <= read(percent(high, places))


@given(totals, st.data(), digits)
def test_some_is_never_shown_as_none_nor_most_as_all(
    total: int, data: st.DataObject, places: int
) -> None:
    some = data.draw(st.integers(0, total))
    text = percent(some / total, places)
    assert (float(text[:-2]) == 0 if text[0] not in "<>" else False) == (some == 0)
    assert (float(text[:-2]) == 100 if text[0] not in "<>" else False) == (some == total)


@given(shares, digits)
def test_a_percentage_is_within_half_of_its_last_digit(share: float, places: int) -> None:
    assert abs(read(percent(share, places)) - 100 * share) <= 0.5000001 * 10**-places


def test_what_is_not_known_is_a_dash() -> None:
    assert percent(None) == percent(float("nan")) == significant(None) == "–"


@given(shares, shares)
def test_an_interval_is_two_numbers_in_order(a: float, b: float) -> None:
    low, high = map(float, percent_interval(*sorted((a, b))).split(" to "))
    assert low <= high


@pytest.mark.parametrize("share", [-1e-9, -0.0, 0.0])
def test_zero_has_no_sign(share: float) -> None:
    assert points(share) == "0.00"
    assert percent(share, 2) == "0.00 %"


@given(seconds, seconds)
def test_longer_is_never_shown_as_shorter(a: float, b: float) -> None:
    low, high = (parse_duration(f"{duration(each)} 1 s") for each in sorted((a, b)))
    assert low <= high


@given(seconds)
def test_a_duration_never_holds_as_many_as_make_the_next_larger_unit(length: float) -> None:
    parts = [each.split() for each in re.findall(r"[\d.,]+ [a-z]+", duration(length))]
    assert 1 <= len(parts) <= 2
    for number, unit in parts:
        assert float(number.replace(",", "")) < UNITS.get(unit, float("inf"))


@given(seconds)
def test_a_duration_is_off_by_at_most_half_of_its_smaller_unit(length: float) -> None:
    known = parse_duration(f"{duration(length)} 1 s") - 1
    unit = 0.1 if length < 9.95 else 1 if length < 3600 else 60 if length < 86400 else 3600
    assert abs(known - length) <= 0.5000001 * unit


@given(st.integers(1, 10**7))
def test_a_duration_that_is_shown_reads_back_as_it_is_shown(length: int) -> None:
    """A budget's, for one: it is typed, kept and shown."""
    text = duration(length)
    assert duration(parse_duration(text)) == text
    assert parse_duration(f"{length}s") == length
    if length < 3600:
        assert parse_duration(text) == length


@pytest.mark.parametrize(
    "text", ["", "5", "m", "1x", "1h30", "1m2", "-3s", "1e9s", "0s", "0 min", "1,5h", "١s"]
)
def test_what_is_no_duration_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(UsageError, match=r"20m|above 0"):
        parse_duration(text)


@given(st.integers(0, 2**60), st.integers(0, 2**60))
def test_larger_files_are_never_shown_as_smaller_ones(a: int, b: int) -> None:
    low, high = (bytes_of(byte_size(each)) for each in sorted((a, b)))
    assert low <= high


@given(st.integers(0, 2**49))
def test_a_size_never_holds_as_many_as_make_the_next_larger_unit(number: int) -> None:
    assert float(byte_size(number).split()[0].replace(",", "")) < 1024


@pytest.mark.parametrize("power", range(1, 5))
def test_a_size_on_the_edge_of_a_unit_is_in_the_larger_one(power: int) -> None:
    for number in (1024**power, 1024**power - 1 if power > 1 else 1024):
        assert byte_size(number).startswith("1.0 ")


def bytes_of(text: str) -> float:
    number, unit = text.split()
    powers = {"byte": 0, "bytes": 0, "KiB": 1, "MiB": 2, "GiB": 3, "TiB": 4, "PiB": 5}
    return float(number.replace(",", "")) * 1024.0 ** powers[unit]


@given(st.integers(0, 10**12))
def test_only_one_thing_is_in_the_singular(number: int) -> None:
    text = plural(number, "image")
    assert text.endswith(" image") == (number == 1)
    assert int(text.split()[0].replace(",", "")) == number


def test_three_digits_that_count_whatever_the_scale() -> None:
    texts = [significant(1.234 * 10**power) for power in range(-3, 5)]
    known = ["0.00123", "0.0123", "0.123", "1.23", "12.3", "123", "1,234", "12,340"]
    assert texts == known
    assert all(float(a.replace(",", "")) < float(b.replace(",", "")) for a, b in pairwise(texts))


def test_a_latency_is_in_milliseconds() -> None:
    assert milliseconds(1.5) == "1,500.00 ms"


UNIT = re.compile(r"^ ?(%|[KMG]i?B\b|min\b|ms\b)")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nobody_else_rounds_a_number_and_gives_it_such_a_unit(path: Path) -> None:
    """Neither {share:.1%} nor {size / 2**20:.1f} MiB."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        parts = node.values if isinstance(node, ast.JoinedStr) else []
        for part, after in pairwise([*parts, ast.Constant("")]):
            if isinstance(part, ast.FormattedValue) and part.format_spec is not None:
                spec = ast.unparse(part.format_spec)
                text = after.value if isinstance(after, ast.Constant) else ""
                assert "%" not in spec, ast.unparse(node)
                assert not UNIT.match(str(text)), ast.unparse(node)
