"""What files may say: one reader of dataclasses, from TOML and from JSON, for all of them."""

import json
import math
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resnets import fields
from resnets.data.membership import Generation, TrainedOn
from resnets.errors import ContentError, RenamedWarning, UsageError
from resnets.evaluation.calibration import Calibration
from resnets.evaluation.familiarity import Familiarity
from resnets.evaluation.proportion import Proportion
from resnets.fields import Between, from_table, from_toml, short, to_toml
from resnets.images import Preprocessing
from resnets.networks.architecture import Architecture
from resnets.runs.job import Job


@dataclass(frozen=True)
class Point:
    x: float
    y: Annotated[float, Between(0, 1)] = 0.5


@dataclass(frozen=True)
class Shape:
    kind: Literal["round", "square"]
    corners: tuple[Point, ...] = ()
    centre: Point | None = None
    sides: Annotated[int, Between(1)] | None = None
    notes: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind == "round" and self.corners:
            raise UsageError("a round shape has no corners")


@pytest.mark.parametrize(
    ("read", "key"), [(TrainedOn.from_dict, "kind"), (Familiarity.from_dict, "score")]
)
@pytest.mark.parametrize("value", ["of a later version", None, 7])
def test_what_only_a_later_version_knows_is_refused_with_the_way_out(
    read: Callable[[dict[str, object]], object], key: str, value: object
) -> None:
    with pytest.raises(ContentError, match=rf"\.{key} is .*pip install --upgrade"):
        read({key: value})


points = st.builds(Point, st.floats(-1e9, 1e9), st.floats(0, 1))
shapes = st.builds(
    Shape,
    st.just("square"),
    st.lists(points, max_size=3).map(tuple),
    st.none() | points,
    st.none() | st.integers(1, 9),
    st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3),
)


@given(shapes)
def test_what_json_holds_of_a_dataclass_is_read_as_the_same(shape: Shape) -> None:
    assert from_table(Shape, json.loads(json.dumps(asdict(shape)))) == shape


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "kind must be given"),
        ([], r"shape is \[\]; it must be a table"),
        ({"kind": "oval"}, "shape.kind is 'oval'; it must be one of round, square"),
        ({"kind": "round", "colour": 1}, "shape.colour: no such setting; the nearest is shape.co"),
        ({"kind": "round", "corners": [{"x": 1}]}, "shape: a round shape has no corners"),
        ({"kind": "square", "corners": [{"x": 1}, {}]}, r"shape.corners\[1\].x must be given"),
        ({"kind": "square", "corners": 3}, "shape.corners is 3; it must be a tuple"),
        ({"kind": "square", "centre": 3}, "shape.centre is 3; it must be a table"),
        ({"kind": "square", "centre": {"x": 1, "y": 2}}, "shape.centre.y is 2; .* from 0 to 1"),
        ({"kind": "square", "sides": True}, "shape.sides is True"),
        ({"kind": "square", "sides": 1.0}, "shape.sides is 1.0"),
        ({"kind": "square", "notes": {"a": 1}}, "shape.notes is .*it must be a table"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place_its_value_and_what_would(
    table: Any, message: str
) -> None:
    with pytest.raises(ContentError, match=message):
        from_table(Shape, table, "shape.")


NUMBERS = (math.nan, math.inf, -math.inf, 10**5000, -(2**63), True, "1", None, [1], {"x": 1})


@pytest.mark.parametrize("number", NUMBERS, ids=range(len(NUMBERS)))
def test_what_is_no_finite_number_of_reasonable_size_is_none(number: Any) -> None:
    with pytest.raises(ContentError, match=r"x is|far too large|must be"):
        from_table(Point, {"x": number})


def test_a_value_is_shown_shortly_whatever_it_is() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for value in (deep, 10**5000, [10**5000], "x" * 10**6, {"a": deep}):
        assert len(short(value)) <= 80


def test_a_key_of_an_earlier_version_is_taken_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fields._RENAMED, "Point.across", "x")
    with pytest.warns(RenamedWarning, match=r"^point\.across is called point\.x now$"):
        assert from_table(Point, {"across": 2.0}, "point.") == Point(2.0)
    with pytest.raises(ContentError, match="no such setting"), warnings.catch_warnings():
        from_table(Shape, {"kind": "round", "across": 1})


@given(points)
def test_toml_is_read_as_it_was_written(point: Point) -> None:
    assert from_toml(Point, to_toml(point)) == point


# The readers of the package, each with a value that it wrote.

KNOWN: dict[str, tuple[Callable[[Any], object], dict[str, Any]]] = {
    "architecture": (
        Architecture.from_dict,
        Architecture("residual", (1, 1), width=4).to_dict(),
    ),
    "preprocessing": (
        Preprocessing.from_dict,
        Preprocessing(8, 8, (0.5,), (0.2,)).to_dict(),
    ),
    "calibration": (
        Calibration.from_dict,
        Calibration(1.5, 0.7, 0.02, False, Proportion(1, 9), 10, 0.1, 0.1).to_dict(),
    ),
    "trained_on": (
        TrainedOn.from_dict,
        TrainedOn((Generation("digits", 3, 2, unknown="left out"),)).to_dict(),
    ),
    "config": (lambda table: from_table(Job, table), {"data": "digits", "max_error": 0.02}),
}
FREE_TEXTS = ("data", "images", "withheld")
STRANGE = (math.nan, math.inf, 10**400, [[[]]], {"a": {"b": {}}}, "x" * 10**5)


@pytest.mark.parametrize("reader", KNOWN)
def test_every_reader_takes_its_own_and_refuses_strange_values_and_keys(reader: str) -> None:
    read, table = KNOWN[reader]
    read(table)
    with pytest.raises(ContentError, match="no such setting"):
        read(table | {"later": 1})
    for key in table:
        for value in STRANGE:
            if isinstance(value, str) and key in FREE_TEXTS:
                continue
            with pytest.raises(ContentError):
                read(table | {key: value})
    for value in (3, [1], "text"):
        with pytest.raises(ContentError, match=r"table|does not know"):
            read(value)
